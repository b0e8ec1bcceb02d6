import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { exchange, pattern, peer, stalled, until, type Peer } from "../support/peers.ts";
import { cpuSeconds, descriptors, hasProc, killAll, launch, resident } from "../support/program.ts";

afterEach(killAll);

// A machine that is busy with something else needs more than Bun's 5 seconds; a hang is one after 30 as well.
setDefaultTimeout(30_000);

const MIB = 1 << 20;

test.skipIf(!hasProc)(
  "beside stalled and bulk peers, the p99 of a small message stays under 5 ms, or what the machine allows",
  async () => {
    const program = await launch();
    const stuck = await Promise.all(Array.from({ length: 30 }, () => stalled(program.port)));
    const bulk = Bun.spawn([
      process.execPath,
      "run",
      "test/support/bulk-peers.ts",
      String(program.port),
      "4",
    ]);
    await until(() => descriptors(program.pid) > 34, "the bulk peers are there");
    // The machine may have other things to do than this test: a server without other peers shows how much, at
    // the same time, and of three windows the best counts. Each small peer is a process of its own, so that
    // no collector's pause here counts.
    const idle = await launch();
    const [p99, reference] = await Promise.all([program, idle].map(bestOfThree));
    bulk.kill();
    for (const { socket } of stuck) socket.destroy();
    expect(p99).toBeLessThan(Math.max(5, 3 * reference!));
  },
);

/** The p99 of a small peer's round trips, in milliseconds. */
async function bestOfThree({ port }: { port: number }): Promise<number> {
  const small = Bun.spawn([process.execPath, "run", "test/support/small-peer.ts", String(port)]);
  const p99s = JSON.parse(await small.stdout.text()) as number[];
  expect(p99s).toHaveLength(3);
  return Math.min(...p99s);
}

describe.skipIf(!hasProc)("what it costs", () => {
  test("at the descriptor limit the server resets newcomers, does not spin, and serves again when places are free", async () => {
    const program = await launch([], { shell: "ulimit -n 100" });
    const peers: Peer[] = [];
    const outcomes: Promise<string>[] = [];
    for (let i = 0; i < 150; i++) {
      await peer(program.port).then(
        (client) => {
          peers.push(client);
          outcomes.push(client.ended);
        },
        (error: NodeJS.ErrnoException) => outcomes.push(Promise.resolve(error.code!)),
      );
    }
    let refused = 0;
    for (const outcome of outcomes) void outcome.then((how) => (refused += Number(how !== "FIN")));
    await until(() => refused >= 80, "what is over the limit is refused");
    expect(refused).toBeLessThan(120);
    const before = cpuSeconds(program.pid);
    await Bun.sleep(1000);
    expect(cpuSeconds(program.pid) - before).toBeLessThan(0.05);
    for (const { socket } of peers) socket.destroy();
    await until(() => descriptors(program.pid) < 40, "the descriptors are back");
    expect((await exchange(program.port, Buffer.from("again"))).toString()).toBe("again");
  });

  test("2,000 idle connections cost at most 2.5 KB each", async () => {
    const program = await launch();
    // The first connections also warm the program up.
    for (let i = 0; i < 50; i++) await exchange(program.port, pattern(1000));
    await Bun.sleep(300);
    const before = resident(program.pid);
    const peers: Peer[] = [];
    while (peers.length < 2000) {
      peers.push(...(await Promise.all(Array.from({ length: 100 }, () => peer(program.port)))));
    }
    await until(() => descriptors(program.pid) >= 2000, "all are accepted");
    const grown = resident(program.pid) - before;
    for (const { socket } of peers) socket.destroy();
    expect(grown / 2000).toBeLessThan(2500);
  });

  test("300 stalled peers cost at most 200 KiB each with --receive-buffer 65536 --ring 65536", async () => {
    const program = await launch(["--receive-buffer", "65536", "--ring", "65536"]);
    for (let i = 0; i < 50; i++) await exchange(program.port, pattern(1000));
    await Bun.sleep(300);
    const before = resident(program.pid);
    const peers = await Promise.all(Array.from({ length: 300 }, () => stalled(program.port)));
    const grown = resident(program.pid) - before;
    for (const { socket } of peers) socket.destroy();
    expect(grown / 300).toBeLessThan(200 * 1024);
  });

  test("after 1,000 connections, a third of them reset in mid-stream, descriptors and memory are released", async () => {
    const program = await launch();
    const block = pattern(100_000);
    const visit = async (id: number): Promise<void> => {
      const client = await peer(program.port);
      if (id % 3 === 0) {
        client.socket.once("data", () => client.socket.resetAndDestroy());
        client.socket.write(block);
      } else if (id % 3 === 1) client.socket.end("ping");
      else client.socket.destroy();
      await client.ended;
      client.socket.destroy();
    };
    const rounds = async (n: number): Promise<void> => {
      for (let r = 0; r < n; r++) await Promise.all(Array.from({ length: 50 }, (_, i) => visit(i)));
    };
    const before = descriptors(program.pid);
    await rounds(10);
    await until(() => descriptors(program.pid) <= before, "the descriptors are back");
    const warm = resident(program.pid);
    await rounds(10);
    await until(() => descriptors(program.pid) <= before, "the descriptors are back again");
    expect(resident(program.pid) - warm).toBeLessThan(20 * MIB);
    program.signal("SIGTERM");
    expect((await program.finished).stderr).toStartWith("1000 connections");
  });
});
