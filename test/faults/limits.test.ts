/** More connections than there is room for, and more than anybody wants. */
import { afterEach, expect, setDefaultTimeout, test } from "bun:test";
import { idle, serves, steady } from "../support/faults.ts";
import { exchange, until } from "../support/peers.ts";
import { descriptors, killAll, launch } from "../support/program.ts";
import { connected, hasRaw, rawPeer, type RawPeer } from "../support/raw-peer.ts";

setDefaultTimeout(30_000);
afterEach(killAll);

/** Lets peers come, and tells who is served and who is refused: nobody waits without a word. */
async function come(port: number, count: number) {
  const [served, refused]: [RawPeer[], RawPeer[]] = [[], []];
  const asking = new Set(Array.from({ length: count }, () => rawPeer(port)));
  for (const one of asking) one.send(Buffer.from("?"));
  await until(() => {
    for (const one of asking) {
      const answer = one.recv()?.toString();
      if (answer === undefined && one.ended === undefined) continue;
      asking.delete(one);
      if (answer === "?") served.push(one);
      else refused.push(one);
    }
    return asking.size === 0;
  }, "everyone is served or refused");
  for (const one of refused) {
    expect(one.ended).toMatch(/^(ECONNRESET|EPIPE)$/);
    one.close();
  }
  return { served, refused: refused.length };
}

test.skipIf(!hasRaw)("the descriptor limit is reached and left, again and again", async () => {
  const program = await launch([], { shell: "ulimit -n 200" });
  const after = await steady(program);
  const before = descriptors(program.pid);
  let places = 0;
  for (let round = 0; round < 2; round++) {
    const { served, refused } = await come(program.port, 400);
    expect(served.length + refused).toBe(400);
    expect(served.length).toBeGreaterThan(100);
    // The same every time: none is lost on the way.
    places ||= served.length;
    expect(served.length).toBe(places);
    await idle(program.pid);
    for (const one of served.splice(0, 50)) {
      if (served.length % 2 === 0) one.reset();
      else one.close();
    }
    await until(() => descriptors(program.pid) === before + places - 50, "fifty places are free");
    const next = await come(program.port, 80);
    expect(next).toMatchObject({ served: { length: 50 }, refused: 30 });
    for (const one of [...served, ...next.served]) {
      one.send(Buffer.from("still"));
      one.finish();
      expect((await one.rest()).toString()).toBe("still");
      expect(one.ended).toBe("FIN");
      one.close();
    }
    await until(() => descriptors(program.pid) <= before, "all places are free");
  }
  await after();
  program.signal("SIGTERM");
  expect((await program.finished).stderr).toContain(` connections (${2 * (400 - places + 30)} refused`);
});

test.skipIf(!hasRaw)("10,000 that connect and close at once, by FIN and by reset", async () => {
  const program = await launch();
  const after = await steady(program);
  for (let i = 0; i < 10_000; i++) {
    const one = rawPeer(program.port);
    if (i % 2 === 0) one.reset();
    else one.close();
    // The kernel's queue is 512 long; that one comes through means that all before it were accepted.
    if (i % 250 === 249) expect((await exchange(program.port, Buffer.from("among them"))).length).toBe(10);
  }
  await after(24 << 20);
  program.signal("SIGTERM");
  const { code, stderr } = await program.finished;
  expect(code).toBe(0);
  expect(stderr).toMatch(/^100\d\d connections/);
});

test.skipIf(!hasRaw)(
  "more at one moment than the kernel's queue takes, all gone again before it is looked at",
  async () => {
    const program = await launch(["--backlog", "64"]);
    const after = await steady(program);
    program.signal("SIGSTOP");
    const peers = Array.from({ length: 500 }, () => rawPeer(program.port));
    const standing = peers.filter((one) => one.stands).length;
    expect(standing).toBeGreaterThanOrEqual(64);
    expect(standing).toBeLessThan(100);
    for (const [i, one] of peers.entries()) {
      if (i % 2 === 0) one.reset();
      else one.close();
    }
    program.signal("SIGCONT");
    await serves(program.port);
    const one = await connected(program.port);
    one.close();
    await after();
  },
);
