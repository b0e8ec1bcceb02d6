/**
 * The soak itself: with servers that are right and wrong. What it says of what it has seen:
 * soak/verdict.test.ts.
 */
import { afterAll, afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Crowd } from "./peers.ts";
import { readCommand } from "./soak.ts";
import { reply, serve, stopServers, server } from "../support/load.ts";
import { until } from "../support/peers.ts";
import { hasProc, ROOT } from "../support/program.ts";

setDefaultTimeout(60_000);

const directory = mkdtempSync(join(tmpdir(), "ringback-soak-"));
const children = new Set<Bun.Subprocess>();
afterEach(stopServers);
afterAll(async () => {
  // Killed, a soak would leave its server running; the second signal ends it at once.
  const running = [...children].filter(({ exitCode }) => exitCode === null);
  for (const child of running) child.kill("SIGTERM");
  if (running.length > 0) await Bun.sleep(300);
  for (const child of running) child.kill("SIGTERM");
  await Promise.all([...children].map(({ exited }) => exited));
  rmSync(directory, { recursive: true });
});

const spawn = (...args: string[]) => {
  const command = [process.execPath, "run", "test/soak/soak.ts", ...args];
  const child = Bun.spawn(command, { cwd: ROOT, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  children.add(child);
  return child;
};

async function soak(...args: string[]) {
  const child = spawn(...args);
  const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { stdout, stderr, code };
}

const wrong = (what: string, minutes: number) => {
  const command = `${process.execPath} run test/support/wrong-server.ts ${what} {port}`;
  return soak("--seed", "1", "--minutes", String(minutes), "--command", command);
};

/**
 * With Ctrl-C as soon as it listens to it, which is when it says its first line; twice, as `bun run soak`
 * passes it on.
 */
async function interrupted(...args: string[]) {
  const child = spawn(...args);
  let stdout = "";
  for await (const bytes of child.stdout) {
    if (stdout === "") for (let times = 2; times > 0; times--) child.kill("SIGINT");
    stdout += Buffer.from(bytes).toString();
  }
  return { stdout, code: await child.exited };
}

/**
 * They take seconds, and wait mostly: they run beside the other tests, four at a time, and are checked last.
 */
async function inTurn() {
  const file = (name: string): string => join(directory, name);
  const right = soak("--seed", "1", "--minutes", "0.06", "--json", file("soak.json"));
  const leaks = wrong("leaks", 0.06);
  const opens = wrong("opens", 0.05);
  const alters = right.then(() => wrong("alters", 0.1));
  const spins = opens.then(() => wrong("spins", 0.05));
  const crashes = leaks.then(() => wrong("crashes", 0.1));
  const early = interrupted("--seed", "3", "--minutes", "60", "--json", file("early.json"));
  return {
    right: await right,
    leaks: await leaks,
    opens: await opens,
    alters: await alters,
    spins: await spins,
    crashes: await crashes,
    early: await early,
  };
}
const soaks = hasProc ? inTurn() : undefined;
soaks?.catch(() => undefined);

describe("peers that wait in vain", () => {
  /** What a crowd says first of a server, with a patience of a second. */
  async function verdict(port: number, idle?: readonly [number, number]): Promise<string> {
    const { promise, resolve } = Promise.withResolvers<string>();
    const crowd = new Crowd(port, { patience: idle === undefined ? 1_000 : 4_000, idle, failed: resolve });
    crowd.start();
    try {
      return await promise;
    } finally {
      await crowd.close();
    }
  }

  test("for bytes are a hang", async () => {
    const { port } = server({
      data: (peer, chunk) => (peer.received < 500 ? reply(peer, chunk) : undefined),
    });
    expect(await verdict(port)).toMatch(/peer \d+: a hang: it waits for \d+ bytes since 1\.\d s/);
  });

  test("for the server's FIN are a hang", async () => {
    const { port } = server({ end: () => undefined });
    expect(await verdict(port)).toMatch(/a hang: it waits for the server's FIN since/);
  });

  test("a peer that is thrown out is reported immediately", async () => {
    const { port } = server({
      data: (peer, chunk) => (peer.received < 500 ? reply(peer, chunk) : void peer.socket.terminate()),
    });
    expect(await verdict(port)).toMatch(/reset \(ECONNRESET\) by the server|closed by the server/);
  });

  test("silent peers that are never ended are a hang; one that is ended too early is reported", async () => {
    // By its --idle-timeout a server would end them after a second.
    const idle = [900, 2_000] as const;
    expect(await verdict(server().port, idle)).toMatch(
      /(mute|parked) peer \d+: a hang: it moved nothing for 2 s, and is not ended/,
    );
    const hasty = server({
      open: (peer) => void setTimeout(() => peer.received === 0 && peer.socket.terminate(), 300),
    });
    expect(await verdict(hasty.port, idle)).toMatch(
      /mute peer \d+: reset \(ECONNRESET\) by the server when nothing had moved for 0\.\d s/,
    );
  });

  test("a crowd that leaves leaves nothing", async () => {
    const { port, peers, stop } = serve();
    const failures: string[] = [];
    const crowd = new Crowd(port, { failed: (why) => void failures.push(why) });
    crowd.start();
    await until(() => crowd.ledger.messages > 500, "it is under way");
    await crowd.leave();
    expect(crowd.sessions.size).toBe(0);
    expect(crowd.ledger.open).toBe(0);
    expect(failures).toEqual([]);
    const received = peers.reduce((sum, peer) => sum + peer.received, 0);
    expect(received).toBeWithin(crowd.ledger.back, crowd.ledger.sent + 1);
    await crowd.close();
    stop();
  });
});

describe.skipIf(!hasProc)("the program", () => {
  const WRONG: [args: string[], says: RegExp][] = [
    [["--minutes", "0"], /^--minutes: "0" is not a number of minutes from 0\.05 to 10080$/],
    [["--minutes", "1e3"], /^--minutes: "1e3" is not/],
    [["--seed", "1.5"], /^--seed: "1\.5" is not a whole number from 0 to 4294967295$/],
    [["--command", "nc -l"], /^--command: "nc -l" does not say where the \{port\} goes$/],
    [["--command", ""], /^--command: "" has no command$/],
    [["--json", "/nowhere/at/all"], /^--json: ENOENT/],
    [["--hours", "1"], /^Unknown option '--hours'/],
  ];
  for (const [args, says] of WRONG) {
    test(`${args.join(" ")} is refused by its name`, () => {
      expect(() => readCommand(args)).toThrow(says);
    });
  }

  test("a wrong flag is one line on stderr, and exit code 2", async () => {
    expect(await soak("--minutes", "x")).toEqual({
      code: 2,
      stdout: "",
      stderr: 'soak: --minutes: "x" is not a number of minutes from 0.05 to 10080\n',
    });
  });

  test("--help lists every flag; a command that does not serve is reported with its last words", async () => {
    const [help, dead] = await Promise.all([
      soak("--help"),
      soak("--command", "sh -c 'echo no room for {port} >&2; exit 5'"),
    ]);
    expect(help).toMatchObject({ code: 0, stderr: "" });
    for (const flag of ["minutes", "seed", "command", "json", "help"])
      expect(help.stdout).toContain(`--${flag}`);
    expect(dead.stderr).toMatch(/^soak: the server exited with code 5: sh -c .*\nno room for \d+\n$/);
    expect({ ...dead, stderr: "" }).toEqual({ code: 1, stdout: "", stderr: "" });
  });

  test("passes our server, and writes what was seen", async () => {
    const { code, stdout, stderr } = (await soaks!).right;
    expect(stderr).toBe("");
    expect(stdout).toMatch(/^passed: 0:03, seed 1$/m);
    expect(code).toBe(0);
    for (const name of ["bytes", "memory", "CPU", "descriptors", "rest", "stop", "totals"])
      expect(stdout).toMatch(new RegExp(`^ok +${name} `, "m"));
    expect(stdout).toContain("SIGTERM under load: exit 0 after");
    const whole = await Bun.file(join(directory, "soak.json")).json();
    expect(whole).toMatchObject({ format: "ringback soak 1", passed: true, seed: 1, interrupted: false });
    expect(whole.samples.length).toBeGreaterThan(20);
    expect(whole.ledger.messages).toBeGreaterThan(1000);
    expect(whole.ledger.open).toBe(0);
  });

  test("catches one that keeps what it received", async () => {
    const { code, stdout } = (await soaks!).leaks;
    expect(stdout).toMatch(/^FAIL memory +RSS \+/m);
    expect(stdout).toMatch(/^ok +bytes/m);
    expect(code).toBe(1);
  });

  test("catches one that alters a byte, and says which", async () => {
    const { code, stdout } = (await soaks!).alters;
    expect(stdout).toMatch(/^FAIL bytes +\w+ peer \d+: wrong byte at offset \d+ of its stream: expected 0x/m);
    expect(code).toBe(1);
  });

  test("catches one that crashes, and says its last words", async () => {
    const { code, stdout } = (await soaks!).crashes;
    expect(stdout).toMatch(/^FAIL bytes +the server exited with code 3; its last words:\n +out of luck$/m);
    expect(code).toBe(1);
  });

  test("catches one that closes no descriptor", async () => {
    const { code, stdout } = (await soaks!).opens;
    expect(stdout).toMatch(/^FAIL descriptors +\d+ before any peer, \d{2,} after all had left$/m);
    expect(code).toBe(1);
  });

  test("catches one that is busy when nobody is there", async () => {
    const { code, stdout } = (await soaks!).spins;
    expect(stdout).toMatch(/^FAIL rest +\d+\.\d% of a core 1\.0 s after all had left, fails above 2%;$/m);
    expect(code).toBe(1);
  });

  test("Ctrl-C ends it early, with the verdict on what was seen", async () => {
    const { code, stdout } = (await soaks!).early;
    expect(stdout).toMatch(/^passed as far as it tells: 0:0\d, ended early, seed 3$/m);
    expect(code).toBe(0);
    expect(await Bun.file(join(directory, "early.json")).json()).toMatchObject({
      interrupted: true,
      passed: true,
    });
  });
});
