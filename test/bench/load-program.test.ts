/**
 * The load generator as a program: its flags, its signals, its exit codes, and its verdict on whose limit it
 * was.
 */
import { readCommand } from "../../bench/load.ts";
import { afterAll, afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { Histogram } from "../../bench/histogram.ts";
import { type LoadResult, resultOf } from "../../bench/load/result.ts";
import { OwnUsage, secondsOf } from "../../bench/system.ts";
import { finished, killLoads, load, server, spawn, stopServers } from "../support/load.ts";
import { until } from "../support/peers.ts";

afterEach(stopServers);
afterAll(killLoads);
setDefaultTimeout(30_000);

describe("the command line", () => {
  const WRONG: [args: (string | number)[], says: RegExp][] = [
    [["--connections", 5], /^--port: required/],
    [["--port", 0], /^--port: "0" is not a whole number from 1 to 65535$/],
    [["--port", 65_536], /^--port: "65536" .* from 1 to 65535$/],
    [["--port", 1, "--connections", 0], /^--connections: "0" .* from 1 to 20000$/],
    [["--port", 1, "--connections", 20_001], /^--connections: "20001" /],
    [["--port", 1, "--bytes", "64k"], /^--bytes: "64k" .* from 1 to 16777216$/],
    [["--port", 1, "--depth", "1.5"], /^--depth: "1.5" .* from 1 to 65536$/],
    [["--port", 1, "--seconds", 0], /^--seconds: "0" is not a number of seconds from 0.05 to 3600$/],
    [["--port", 1, "--warmup", "1e9"], /^--warmup: "1e9" .* from 0 to 3600$/],
    [["--port", 1, "--rate", 0], /^--rate: "0" .* from 1 to 10000000$/],
    [["--port", 1, "--pid", "me"], /^--pid: "me" .* from 1 to 2147483647$/],
    [["--port", 1, "--host", "a b"], /^--host: "a b" is not an address or a name$/],
    [["--port", 1, "--churn", "--rate", 5], /^--rate: 5 cannot be used with --churn/],
    [["--port", 1, "--churn", "--depth", 2], /^--depth: 2 cannot be used with --churn/],
    [
      ["--port", 1, "--connections", 500, "--depth", 33_555],
      /^--depth: 33555 is not from 1 to 33554, .* 500 con/,
    ],
    [["--port", 1, "--burst"], /^Unknown option '--burst'; try ".* --help"$/],
    [["--port", 1, "5"], /^Unexpected argument '5'; try ".* --help"$/],
  ];
  for (const [args, says] of WRONG) {
    test(`${args.join(" ")} is refused: the flag, its value, its range`, () => {
      expect(() => readCommand(args.map(String))).toThrow(says);
    });
  }

  test("a wrong one is one line on stderr, and exit code 2", async () => {
    const { code, stdout, stderr } = await finished(spawn(["--port", 0]));
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toBe('load: --port: "0" is not a whole number from 1 to 65535\n');
  });

  test("more connections than descriptors are refused", async () => {
    const command = `ulimit -n 100 && exec "$0" run bench/load.ts --port 1 --connections 90`;
    const child = Bun.spawn(["sh", "-c", command, process.execPath], {
      stderr: "pipe",
      cwd: `${import.meta.dir}/../..`,
    });
    const [stderr] = await Promise.all([child.stderr.text(), child.exited]);
    expect(stderr).toBe(
      "load: --connections: 90 is more than the descriptor limit allows, 76; raise it with ulimit -n\n",
    );
    expect(child.exitCode).toBe(2);
  });

  test("--help lists every flag, and has an example", async () => {
    const { code, stdout, stderr } = await finished(spawn(["--help"]));
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    for (const flag of "host port connections bytes depth seconds warmup rate pid churn verify no-verify json help".split(
      " ",
    ))
      expect(stdout).toContain(` --${flag}`);
    expect(stdout).toContain("bun run bench/load.ts --port 8101");
  });

  test("a process that is not there is said before anything is sent", async () => {
    const gone = Bun.spawn([process.execPath, "--version"], { stdout: "ignore" });
    await gone.exited;
    const { port, peers } = server();
    const { code, stderr } = await load(port, "--pid", gone.pid);
    expect({ code, stderr, peers: peers.length }).toEqual({
      code: 1,
      stderr: `load: --pid: there is no process ${gone.pid}, or it has ended\n`,
      peers: 0,
    });
  });

  test("Ctrl-C ends the window, and prints what was measured", async () => {
    const { port, peers } = server();
    const child = spawn(["--port", port, "--seconds", 60, "--warmup", 0, "--connections", 2, "--json"]);
    const running = finished(child);
    await until(() => peers.length === 2 && peers[0]!.received > 64_000, "it is under way");
    child.kill("SIGINT");
    const { code, stdout, stderr } = await running;
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const result = JSON.parse(stdout) as LoadResult;
    expect(result.interrupted).toBe(true);
    expect(result.seconds).toBeLessThan(30);
    expect(result.messages).toBeGreaterThan(500);
  });

  test("Ctrl-C in the warm-up says that nothing was measured", async () => {
    const { port, peers } = server();
    const child = spawn(["--port", port, "--warmup", 60]);
    const running = finished(child);
    await until(() => peers.some(({ received }) => received > 0), "it is under way");
    child.kill("SIGINT");
    const { code, stdout, stderr } = await running;
    expect(stderr).toBe("load: interrupted during the warm-up: nothing was measured\n");
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
  });

  test("a stdout that nobody reads is one line on stderr", async () => {
    const child = spawn(["--port", server().port, "--seconds", 0.1, "--warmup", 0, "--json"]);
    await child.stdout.cancel();
    const [stderr] = await Promise.all([child.stderr.text(), child.exited]);
    expect(stderr).toBe("load: stdout cannot be written (EPIPE)\n");
    expect(child.exitCode).toBe(1);
  });
});

describe("whose limit it was", () => {
  /** A result of such shares of a core, and such p99s of latency and lateness in microseconds. */
  function judged(
    own: number,
    server?: number,
    open?: [latency: number, lateness: number],
    main?: number[],
    serverMain: number | null = null,
  ) {
    const usage = new OwnUsage();
    usage.cpuSeconds = own;
    [usage.mainSeconds, usage.waitSeconds] = [main?.[0] ?? null, main?.[1] ?? null];
    const [latency, lateness] = [new Histogram(), new Histogram()];
    latency.record((open?.[0] ?? 50) * 1000);
    lateness.record((open?.[1] ?? 0) * 1000);
    const settings = {
      ...{ host: "", port: 1, connections: 1, bytes: 1, depth: 1, seconds: 1, warmup: 0 },
      ...{ rate: open && 1, churn: false, verify: true },
    };
    const schedule = open && { pacing: "timer" as const, due: 1, backlog: 0, unsent: 0, lateness };
    const measured = { seconds: 1, messages: 1, latency, schedule, interrupted: false };
    const times = { mainSeconds: serverMain, waitSeconds: serverMain && 0 };
    const watched = { pid: 1, source: "stat" as const, ...times, rssEnd: 0, rssPeak: 0 };
    return resultOf(
      settings,
      measured,
      usage,
      server === undefined ? undefined : { ...watched, cpuSeconds: server },
    ).generator;
  }

  test("in the closed loop, the generator's when it is busy and the server is not, or not known to be", () => {
    expect(judged(0.8)).toMatchObject({ limited: false, reason: null });
    expect(judged(0.8, 0.2).limited).toBe(false);
    expect(judged(0.95, 0.97).limited).toBe(false);
    expect(judged(0.95, 0.5).reason).toBe(
      "the generator used 95% of a core, and the server used 50% of a core",
    );
    expect(judged(0.95).reason).toContain("only known with --pid");
  });

  test("where it is known, by what its main thread did and waited for, and not by its other threads", () => {
    // Compilers on the same core: the main thread waits for work that the CPU time already contains.
    expect(judged(0.85, 0.2, undefined, [0.6, 0.2]).limited).toBe(false);
    expect(judged(0.5, 0.2, undefined, [0.45, 0.5]).reason).toBe(
      "the generator used 50% of a core, its main thread running or waiting for one for 95%, and the server used 20% of a core",
    );
  });

  test("a server that works on other threads than its main one is as busy as these are", () => {
    expect(judged(0.95, 0.97, undefined, undefined, 0.02).limited).toBe(false);
    expect(judged(0.95, 0.5, undefined, undefined, 0.02).limited).toBe(true);
  });

  test("in the open loop, the generator's when it is busy or mostly late", () => {
    expect(judged(0.5, 0.5, [500, 90]).limited).toBe(false);
    expect(judged(0.95, 0.97, [500, 90]).reason).toContain("cannot be trusted to keep the schedule");
    expect(judged(0.5, 0.5, [500, 300]).reason).toContain("300 µs late (p99)");
    // What it takes to be woken is no fault.
    expect(judged(0.1, 0.1, [120, 90]).limited).toBe(false);
  });
});

test("what ps calls time is read, of Linux and of macOS", () => {
  expect(["00:00:07", "01:02:03", "2-01:00:00", "0:00.25", "62:03.5"].map(secondsOf)).toEqual([
    7, 3723, 176_400, 0.25, 3723.5,
  ]);
});
