/**
 * The loops and visits; servers that do wrong, each caught; and servers that do nothing, at which nothing
 * hangs.
 */
import { afterAll, afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { Histogram } from "../../bench/histogram.ts";
import {
  type Behaviour,
  children,
  type Finished,
  killLoads,
  load,
  measured,
  type Peer,
  reply,
  serve,
  server,
  stopServers,
  swapping,
} from "../support/load.ts";

afterEach(stopServers);
afterAll(killLoads);
setDefaultTimeout(30_000);

/** Runs that wait for a deadline begin here, beside the other tests, and are checked in the last ones. */
const silent = serve({ data: () => undefined });
const unclosing = serve({ end: () => undefined });
const slow = {
  silent: load(silent.port),
  silentVisits: load(silent.port, "--churn"),
  unclosingVisits: load(unclosing.port, "--churn"),
  stopped: connectToStopped(),
};

/** A stopped server's kernel takes 512 connections, and drops the SYN of every further one. */
async function connectToStopped(): Promise<Finished> {
  const program = `console.log(Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } }).port)`;
  const child = Bun.spawn([process.execPath, "-e", program], { stdout: "pipe" });
  children.push(child);
  const { value } = await child.stdout.getReader().read();
  child.kill("SIGSTOP");
  return await load(Number(new TextDecoder().decode(value)), "--connections", 600);
}

describe("the closed loop", () => {
  test("measures, and its figures fit each other and what the server has seen", async () => {
    const { port, peers } = server();
    const result = await measured(port, "--bytes", 100, "--depth", 3);
    const { messages, seconds, latency, histogram } = result;
    expect(result.settings).toEqual({
      ...{ host: "127.0.0.1", port, connections: 4, bytes: 100, depth: 3, seconds: 0.2, warmup: 0.05 },
      ...{ rate: null, churn: false, verify: true, pid: null },
    });
    expect(result).toMatchObject({ mode: "closed", interrupted: false, schedule: null, server: null });
    expect(seconds).toBeGreaterThanOrEqual(0.2);
    expect(messages).toBeGreaterThan(100);
    expect(result.messagesPerSecond).toBeCloseTo(messages / seconds, 3);
    expect(result.bytesPerSecond).toBeCloseTo((messages * 100) / seconds, 1);
    // What began in the window and what ended in it differ by what was in flight at its two ends.
    expect(Math.abs(latency.count - messages)).toBeLessThanOrEqual(4 * 3);
    const again = Histogram.fromJSON(histogram);
    expect(again.count).toBe(latency.count);
    expect(again.percentile(99) / 1000).toBeCloseTo(latency.p99, 3);
    const { min, p50, p90, p99, p999, max, mean } = latency;
    const rising = [0, min, p50, p90, p99, p999, max];
    expect(rising).toEqual(rising.toSorted((a, b) => a - b));
    // Little's law: as many are in flight as were asked for.
    expect((result.messagesPerSecond * mean) / 1e6).toBeWithin(12 * 0.7, 12 * 1.3);
    const served = peers.reduce((sum, { received }) => sum + received, 0);
    expect(peers.length).toBe(4);
    expect(served % 100).toBe(0);
    expect(served / 100).toBeGreaterThan(messages);
  });

  test("prints a table without --json", async () => {
    const { code, stdout, stderr } = await load(server().port, "--pid", process.pid);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    for (const row of [
      /^load +closed loop, 4 connections, 1 in flight on each$/m,
      /^ +64 bytes per message, every byte verified$/m,
      /^messages +[\d,]+ +[\d,]+\/s +[\d.]+ MB\/s each way$/m,
      /^latency, µs +p50 [\d.,]+ +p90 .* p99 .* p99\.9 .* max .* mean [\d.,]+ +\(of [\d,]+\)$/m,
      /^server +used \d+% of a core.* µs of CPU for each .* resident, at most [\d.]+ MB$/m,
      /^generator +/m,
    ]) {
      expect(stdout).toMatch(row);
    }
  });

  test("more in flight than the kernel takes does not lock up", async () => {
    const result = await measured(server().port, "--connections", 2, "--bytes", 3_000_000, "--depth", 9);
    expect(result.latency.count).toBeGreaterThan(0);
  });

  test("messages of one byte, many in flight", async () => {
    const result = await measured(server().port, "--bytes", 1, "--depth", 1000);
    expect(result.messages).toBeGreaterThan(1000);
  });

  test("--pid gives the CPU time and the memory of that process", async () => {
    const before = process.cpuUsage();
    const { server: usage, messages, seconds } = await measured(server().port, "--pid", process.pid);
    const { user, system } = process.cpuUsage(before);
    expect(usage!.cpuSeconds).toBeWithin(0.01, (user + system) / 1e6 + 0.02);
    expect(usage!.cpuShare).toBeCloseTo(usage!.cpuSeconds / seconds, 3);
    expect(usage!.cpuMicrosPerMessage).toBeCloseTo((usage!.cpuSeconds / messages) * 1e6, 3);
    expect(usage!.rssEnd).toBeGreaterThan(10e6);
    expect(usage!.rssPeak).toBeGreaterThanOrEqual(usage!.rssEnd);
    expect(usage!.pid).toBe(process.pid);
  });
});

/** Echoes, but keeps everything back for 500 ms, once, 300 ms after the first byte. */
function stallingServer() {
  let began: number | undefined;
  let stalled: Peer[] | undefined;
  let over = false;
  return server({
    data(peer, chunk) {
      began ??= performance.now();
      if (!over && stalled === undefined && performance.now() - began > 300) {
        stalled = [];
        setTimeout(() => {
          over = true;
          for (const one of stalled!) reply(one);
        }, 500);
      }
      if (stalled === undefined || over) return reply(peer, chunk);
      peer.waiting.push(chunk);
      stalled.push(peer);
    },
  });
}

describe("the open loop", () => {
  test("keeps its schedule", async () => {
    const result = await measured(server().port, "--rate", 1000, "--seconds", 0.5);
    const { schedule, messages, latency, seconds } = result;
    expect(result.mode).toBe("open");
    // A timer is up to a millisecond late, which the latency would contain.
    expect(schedule!.pacing).toBe(process.platform === "linux" ? "ppoll" : "timer");
    expect(schedule!.due).toBeWithin(1000 * seconds - 1.01, 1000 * seconds + 1.01);
    expect(latency.count).toBe(schedule!.due);
    expect(Math.abs(messages - schedule!.due)).toBeLessThan(50);
    expect(schedule!.unsent).toBe(0);
    expect(schedule!.lateness.count).toBe(schedule!.due);
    // On a machine that is busy with something else too: the latency has all the lateness in it.
    expect(latency.mean).toBeGreaterThan(schedule!.lateness.mean);
    expect(schedule!.lateness.p50).toBeLessThan(5000);
  });

  test("sees a stall of 500 ms at its full length; the closed loop hides it", async () => {
    const [open, closed] = await Promise.all([
      measured(stallingServer().port, "--rate", 400, "--seconds", 1.5),
      measured(stallingServer().port, "--seconds", 1.5),
    ]);
    // A third of all messages had their turn during the stall, and waited for its end.
    expect(open.latency.p999).toBeWithin(400e3, 700e3);
    expect(open.latency.p90).toBeWithin(200e3, 600e3);
    expect(open.latency.count).toBe(open.schedule!.due);
    // Each of the four connections had one message in it, of thousands: only the maximum knows.
    expect(closed.latency.count).toBeGreaterThan(4000);
    expect(closed.latency.p999).toBeLessThan(100e3);
    expect(closed.latency.max).toBeGreaterThan(400e3);
    // The wait was the server's, and is not held against the generator.
    expect(open.schedule!.lateness.p99).toBeLessThan(100e3);
  });

  test("a stall at the window's end shows as well, as what waited is sent still", async () => {
    const result = await measured(stallingServer().port, "--rate", 400, "--seconds", 0.5);
    expect(result.schedule!.backlog).toBeGreaterThan(50);
    expect(result.schedule!.unsent).toBe(0);
    expect(result.latency.count).toBe(result.schedule!.due);
    expect(result.latency.p999).toBeGreaterThan(300e3);
    expect(result.messages).toBeLessThan(result.latency.count);
  });
});

describe("visits", () => {
  test("each visit is a connection of its own with one message, counted when it has ended", async () => {
    const { port, peers } = server();
    const result = await measured(port, "--churn", "--bytes", 1000);
    expect(result.mode).toBe("churn");
    expect(result.messages).toBeGreaterThan(20);
    expect(peers.length).toBeGreaterThan(result.messages);
    for (const { received } of peers) expect(received).toBe(1000);
    expect(Math.abs(result.latency.count - result.messages)).toBeLessThanOrEqual(4);
  });
});

function altered(chunk: Buffer, at: number): Buffer {
  const copy = Buffer.from(chunk);
  copy[at]! ^= 1;
  return copy;
}

/** What happens to the chunk that has a certain byte of a peer's stream in it. */
const once =
  (offset: number, wrong: (peer: Peer, chunk: Buffer, at: number) => void, only = 2) =>
  (peer: Peer, chunk: Buffer): void => {
    const at = offset - peer.received;
    if (peer.index === only && at >= 0 && at < chunk.length) wrong(peer, chunk, at);
    else reply(peer, chunk);
  };

describe("a server that does wrong voids the run:", () => {
  const without = (chunk: Buffer, from: number, to: number): Buffer =>
    Buffer.concat([chunk.subarray(0, from), chunk.subarray(to)]);
  const MESSAGE = 64;

  /** Two messages that come in one chunk change places. */
  const reordering = once(1000, (peer, chunk) => {
    reply(peer, Buffer.concat([chunk.subarray(MESSAGE), chunk.subarray(0, MESSAGE)]));
  });

  const WRONG: [what: string, Behaviour, says: RegExp, ...args: (string | number)[]][] = [
    [
      "it alters one byte",
      { data: once(6405, (peer, chunk, at) => reply(peer, altered(chunk, at))) },
      /connection \d: wrong byte at offset 6405 of its stream: expected 0x.., got 0x..\n/,
    ],
    [
      "it drops one byte of many",
      { data: once(6405, (peer, chunk, at) => reply(peer, without(chunk, at, at + 1))) },
      /connection \d: wrong byte at offset 6405 .*\(what is at 6406: 1 bytes are left out\)/,
      ...["--depth", 4],
    ],
    [
      "it drops a message of many",
      { data: once(6400, (peer, chunk) => reply(peer, chunk.subarray(MESSAGE))) },
      /connection \d: wrong byte at offset \d+ .*: 64 bytes are left out\)/,
      ...["--depth", 4],
    ],
    [
      "it repeats a message",
      { data: once(6400, (peer, chunk) => reply(peer, Buffer.concat([chunk, chunk]))) },
      /connection \d: surplus bytes: 128 came at offset 6400 of its stream, and 64 were due/,
    ],
    [
      "it repeats a message in place of the next",
      {
        data: (peer, chunk) => {
          const kept = peer.waiting as Buffer[] & { last?: Buffer };
          reply(peer, peer.index === 2 && peer.received === 6400 ? kept.last : chunk);
          kept.last = chunk;
        },
      },
      /connection \d: wrong byte at offset 6400 .*\(what was at 6336, 64 bytes before\)/,
    ],
    ["it changes the order of two messages", { data: reordering }, /wrong byte at offset \d+/, "--depth", 4],
    [
      "it swaps two connections' bytes",
      swapping(),
      /connection \d: wrong byte at offset \d+ .*\(what connection \d has at \d+\)/,
    ],
    [
      "it adds a byte",
      { data: once(6400, (peer, chunk) => reply(peer, Buffer.concat([chunk, Buffer.from("x")]))) },
      /connection \d: (surplus bytes: 65 came|wrong byte at offset 64\d\d )/,
    ],
    [
      "it greets",
      { open: (peer) => reply(peer, Buffer.from("Welcome\n")) },
      /connection \d: (surplus bytes: 8 came at offset 0 of its stream, and 0 were due|wrong byte at offset 0)/,
    ],
    [
      "it says something behind the client's FIN",
      {
        end(peer) {
          if (peer.index === 1) reply(peer, Buffer.from("bye"));
          peer.socket.end();
        },
      },
      /connection \d: surplus bytes: 3 came at offset \d+ of its stream, and 0 were due/,
    ],
    [
      "it closes early",
      { data: once(640, ({ socket }) => void socket.end()) },
      /connection \d: (ended \(FIN\)|reset \(ECONNRESET\)) by the server in mid-run, after 640 of 704 bytes came back/,
    ],
    [
      "it resets a connection",
      { data: once(640, ({ socket }) => void socket.terminate()) },
      /connection \d: (reset \(ECONNRESET\)|closed) by the server/,
    ],
  ];
  for (const [what, behaviour, says, ...args] of WRONG) {
    test(what, async () => {
      const { code, stdout, stderr } = await load(server(behaviour).port, ...args);
      expect(stderr).toMatch(says);
      expect(stderr).toMatch(/^load: [^\n]+\n$/);
      expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    });
  }

  test("--no-verify does not look at the bytes, but counts them", async () => {
    const wrong = once(6405, (peer, chunk, at) => reply(peer, altered(chunk, at)));
    expect((await measured(server({ data: wrong }).port, "--no-verify")).settings.verify).toBe(false);
    const both = await load(server().port, "--verify", "--no-verify");
    expect(both.stderr).toContain("--verify: cannot be used with --no-verify");
    expect(both.code).toBe(2);
    expect((await measured(server().port, "--verify")).settings.verify).toBe(true);
    const adding = once(6400, (peer, chunk) => reply(peer, Buffer.concat([chunk, chunk])));
    const { code, stderr } = await load(server({ data: adding }).port, "--no-verify");
    expect(stderr).toContain("surplus bytes: 128 came at offset 6400");
    expect(code).toBe(1);
  });

  test("nobody listens", async () => {
    const { port, stop } = serve();
    stop();
    for (const churn of [[], ["--churn"]]) {
      const { code, stdout, stderr } = await load(port, ...churn);
      expect(stderr).toBe(
        `load: connect to 127.0.0.1:${port}: ECONNREFUSED: no server listens there; start it first\n`,
      );
      expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    }
  });
});

describe("among visits:", () => {
  test("a wrong byte in one of them", async () => {
    const { port } = server({
      data: (peer, chunk) => reply(peer, peer.index === 9 ? altered(chunk, 3) : chunk),
    });
    const { code, stdout, stderr } = await load(port, "--churn");
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(
      /^load: visitor \d: wrong byte at offset \d+ of its stream: expected 0x.., got 0x..\n$/,
    );
  });

  test("the server sends half of the echo, and FIN", async () => {
    const { port } = server({
      data(peer, chunk) {
        reply(peer, chunk.subarray(0, 32));
        peer.socket.shutdown();
      },
    });
    const { code, stderr } = await load(port, "--churn");
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^load: visitor \d: ended \(FIN\) by the server in mid-run, after 32 of 64 bytes came/,
    );
  });

  test("the server closes before the echo", async () => {
    const { port } = server({ data: ({ socket }) => void socket.end() });
    const { code, stderr } = await load(port, "--churn");
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^load: visitor \d: (ended \(FIN\)|reset \(ECONNRESET\)) by the server .* 0 of 64 bytes/,
    );
  });
});

describe("nothing hangs:", () => {
  test("a server that never answers", async () => {
    const { code, stdout, stderr } = await slow.silent;
    expect(stderr).toMatch(
      /^load: missing bytes: 256 bytes of 4 connections have not come back 5 s after the end; the first is connection 0, at offset 0 of its stream\n$/,
    );
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    const visits = await slow.silentVisits;
    expect(visits.stderr).toMatch(
      /^load: missing: 4 visits .* visitor 0, waiting for the echo, with 64 bytes missing\n$/,
    );
    expect(visits.code).toBe(1);
    silent.stop();
  });

  test("a server that does not close after a visit", async () => {
    const { code, stderr } = await slow.unclosingVisits;
    expect(stderr).toMatch(
      /^load: missing: 4 visits .* waiting for the server's FIN, with 0 bytes missing\n$/,
    );
    expect(code).toBe(1);
    unclosing.stop();
  });

  test("a server that takes no more connections", async () => {
    const { code, stdout, stderr } = await slow.stopped;
    expect(stderr).toMatch(
      /^load: connect to 127\.0\.0\.1:\d+: 51\d of 600 connections are established after 10 s\n$/,
    );
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
  });
});
