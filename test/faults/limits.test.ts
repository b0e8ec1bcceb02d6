/** More connections than there is room for. */
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { collecting, idle, serves, steady, thrice } from "../support/faults.ts";
import { exchange, until } from "../support/peers.ts";
import { descriptors, killAll, launch } from "../support/program.ts";
import { connected, hasRaw, rawPeer, type RawPeer } from "../support/raw-peer.ts";

setDefaultTimeout(30_000);
// Each test has a program of its own, and waits for it: they run side by side, but for the one that weighs
// memory.
afterAll(killAll);

/** Lets peers come, and reports which are served and which refused: none waits without an answer. */
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

test
  .skipIf(!hasRaw)
  .concurrent("the server reaches the descriptor limit and recovers, again and again", async () => {
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

test.skipIf(!hasRaw)(
  "15,000 peers that connect and leave immediately, by FIN or reset, leave nothing behind",
  async () => {
    const program = await launch([], { preload: collecting });
    const after = await steady(program);
    // In the heap 13 bytes a connection, in all 600.
    await thrice(program, 5_000 * 600, async () => {
      for (let i = 0; i < 5_000; i++) {
        const one = rawPeer(program.port);
        if (i % 2 === 0) one.reset();
        else one.close();
        // The kernel's queue is 512 long; that one comes through means that all before it were accepted.
        if (i % 250 === 249)
          expect((await exchange(program.port, Buffer.from("among them"))).length).toBe(10);
      }
    });
    await after(24 << 20);
    program.signal("SIGTERM");
    const { code, stderr } = await program.finished;
    expect(code).toBe(0);
    expect(stderr).toMatch(/^150\d\d connections/);
  },
);

test
  .skipIf(!hasRaw)
  .concurrent(
    "a burst beyond the kernel's queue that is gone before accept leaves nothing behind",
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

test
  .skipIf(!hasRaw || Bun.which("prlimit") === null)
  .concurrent(
    "while the descriptor limit is below what is open, connections are served; later ones wait until it rises",
    async () => {
      const program = await launch();
      const limit = (soft: string): void => {
        const words = ["prlimit", "--pid", String(program.pid), `--nofile=${soft}:`];
        expect(Bun.spawnSync(words).stderr.toString()).toBe("");
      };
      const [, soft] = /^Max open files +(\d+)/m.exec(await Bun.file(`/proc/${program.pid}/limits`).text())!;
      const after = await steady(program);
      const before = descriptors(program.pid);
      for (let round = 0; round < 3; round++) {
        const standing = await Promise.all(Array.from({ length: 50 }, () => connected(program.port)));
        await until(() => descriptors(program.pid) === before + 50, "they are accepted");
        limit(String(before + 20));
        // The kernel makes the connections, which wait to be accepted.
        const waiting = await Promise.all(Array.from({ length: 20 }, () => connected(program.port)));
        for (const one of waiting) one.send(Buffer.from("wait"));
        for (const one of standing) one.send(Buffer.from("still"));
        for (const one of standing) await until(() => one.recv()?.toString() === "still", "it is served");
        // Accepting pauses, instead of taking a core; the listener's copy is closed meanwhile.
        if (round === 0) await idle(program.pid);
        expect(descriptors(program.pid)).toBeLessThanOrEqual(before + 50);
        for (const one of standing) {
          one.finish();
          await one.rest();
          expect(one.ended).toBe("FIN");
        }
        limit(soft!);
        for (const one of standing) one.close();
        await Promise.all(
          waiting.map(async (one) => {
            one.finish();
            expect((await one.rest()).toString()).toBe("wait");
            expect(one.ended).toBe("FIN");
            one.close();
          }),
        );
        await serves(program.port);
        await until(() => descriptors(program.pid) <= before, "all places are free");
      }
      await after();
      program.signal("SIGTERM");
      const { code, stderr } = await program.finished;
      expect(code).toBe(0);
      // Ten to warm it up, 70 a round and an echo behind each, and one at the end: none was lost.
      // Whether it says that it could not accept depends on the moment.
      expect(stderr).toMatch(/^(accept .*EMFILE.*\n(.*\n)?)*224 connections, /);
    },
  );
