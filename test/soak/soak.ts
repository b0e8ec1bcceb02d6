#!/usr/bin/env bun
/**
 * The soak: `bun run soak --minutes N`. Flags, the order of a run, progress, exit code. It changes when a
 * flag or the order does.
 */
import { closeSync, openSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { parseCommand } from "../../bench/servers.ts";
import { listFlags } from "../../src/cli/flags-help.ts";
import { decimal, readFlags, text, UsageError, whole } from "../../src/cli/flags.ts";
import { clock } from "./graph.ts";
import type { Order, Told } from "./peers.ts";
import { Served } from "./served.ts";
import { emptyLedger, type Ledger } from "./session.ts";
import { CPU_AT_REST } from "./trend.ts";
import { checks, graphs, lines, megabytes, type Sample, type Seen } from "./verdict.ts";

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

const MIN_MINUTES = 0.05;
const MAX_MINUTES = 7 * 24 * 60;
const MAX_SEED = 2 ** 32 - 1;

/** Samples a second, and how many a short run has at least. */
const SAMPLE_S = 1;
const SAMPLES = 60;
const LEAST_SAMPLE_S = 0.1;
/**
 * How long, in milliseconds, the peers' process may take to answer, all peers to leave, and descriptors to be
 * closed.
 */
const ANSWER_MS = 10_000;
const LEAVE_MS = 45_000;
const CLOSE_MS = 5_000;
/** The number of descriptors is stable when it was the same at this many polls. */
const SAME_LOOKS = 10;
const LOOK_MS = 20;
/**
 * How long, in seconds, it is watched when all peers have left: of a short run a part. In pieces, of which
 * the quietest counts.
 */
const REST_S = 10;
const LEAST_REST_S = 1;
const REST_PIECES = 5;
/** How long the peers are back before the server is stopped under their load. */
const BACK_MS = 1_500;
const WIDTH = 72;
const TOGETHER_MS = 200;

const FLAGS = {
  minutes: {
    kind: decimal({ min: MIN_MINUTES, max: MAX_MINUTES, unit: "minutes" }),
    help: "how long",
    // So that ten minutes are judged: the least in which a slow leak shows.
    preset: "15",
  },
  seed: { kind: whole({ min: 0, max: MAX_SEED }), help: "decides what the peers do", otherwise: "random" },
  command: {
    kind: text("command"),
    help: 'another server, "{port}" in its command',
    otherwise: "bun run src/server.ts",
  },
  json: { kind: text("file"), help: "everything that was seen" },
  help: { short: "h", help: "show this text" },
} as const;

const HELP = `Soaks an echo server: mixed peers check every byte for as long as you say, while its memory, descriptors and
CPU time are watched. Then it is stopped under load.

Usage: bun run soak [options]

${listFlags(FLAGS)}

The first fifth, at least a minute (half of a short run), is warm-up. After it, the soak fails if one of these surely
rises (Theil-Sen's slope, the lower end of its interval above 0) by more than this in the whole run: memory by 5 MB (24 MB
under 4 minutes, 10 MB under 10), descriptors by 4 (16 under 4 minutes), CPU time per message by 25%. It also fails if
memory or descriptors are clearly higher by as much in the last tenth than in the first; if descriptors stay open when
all peers have left; or if ${REST_S} s later (a tenth in short runs) memory is more than 16 MB (32 MB) above the warm-up's, or
more than ${100 * CPU_AT_REST}% of a core is used. Stopped by SIGTERM under load, our server must exit with 0 within 11 s, with totals
that match the peers'. Another server only has to end.

Ctrl-C ends it early, with the verdict so far; a second one ends it immediately.
Exit code 1: a wrong byte, a peer that waits 30 s for nothing, a silent one that is ended before 29 s or not within
35 s, a rise, a crash, a wrong end. 2: a wrong flag. A "?" marks what the run was too short to tell.

Try it:
  bun run soak --minutes 3
  bun run soak --minutes 1 --command "bun run bench/baselines/bun-listen.ts {port}"
`;

/** What ends a soak before its time: it is in the verdict. */
class Failure extends Error {}

interface Settings {
  seconds: number;
  seed: number;
  command: string[] | undefined;
  json: string | undefined;
}

/** @returns undefined for --help */
export function readCommand(args: readonly string[]): Settings | undefined {
  const given = readFlags(FLAGS, args, { name: () => "bun run soak" });
  if (given.help) return undefined;
  const { command, json, seed = crypto.getRandomValues(new Uint32Array(1))[0]! } = given;
  const refuse = (why: string): never => {
    throw new UsageError(`--command: ${JSON.stringify(command)} ${why}`);
  };
  const settings: Settings = {
    seconds: 60 * given.minutes,
    seed,
    command: command === undefined ? undefined : parseCommand(command.trim(), refuse),
    json,
  };
  // A file that cannot be written is better reported now than in an hour.
  if (json !== undefined) {
    try {
      closeSync(openSync(json, "a"));
    } catch (error) {
      throw new UsageError(`--json: ${(error as Error).message}`);
    }
  }
  return settings;
}

/** The peers' process: orders, and its answers. */
class Peers {
  ledger: Ledger = emptyLedger();
  /** Rejects with the first failure; never resolves. */
  readonly failure: Promise<never>;
  readonly #child: Bun.Subprocess;
  readonly #waiting = new Map<Order, () => void>();
  #gone = false;

  constructor(served: Served, seed: number) {
    const { promise, reject } = Promise.withResolvers<never>();
    this.failure = promise;
    promise.catch(() => undefined);
    const program = join(import.meta.dir, "peers.ts");
    const words = [served.port, seed, served.own, served.pid].map(String);
    this.#child = Bun.spawn([process.execPath, "run", program, ...words], {
      ...{ stdin: "ignore", stdout: "inherit", stderr: "inherit" },
      ipc: (message: Told) => {
        this.ledger = message.ledger;
        if (message.to === "failure") reject(new Failure(message.failure));
        else this.#waiting.get(message.to)?.();
      },
    });
    void this.#child.exited.then((code) => {
      if (!this.#gone) reject(new Failure(`the peers' own process ended with code ${code}`));
    });
  }

  /** @returns when the process has answered @throws Failure */
  async tell(order: Order, ms = ANSWER_MS): Promise<void> {
    this.#child.send(order);
    await this.answer(order, ms);
  }

  async answer(order: Order, ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.set(order, resolve);
    const late = setTimeout(
      () => resolve(Promise.reject(new Failure(`the peers: no answer to ${order} after ${ms / 1000} s`))),
      ms,
    );
    await Promise.race([promise, this.failure]);
    clearTimeout(late);
  }

  kill(): void {
    this.#gone = true;
    this.#child.kill("SIGKILL");
  }
}

/** On a terminal one line that is written again and again; elsewhere a line a minute. */
class Progress {
  readonly #seconds: number;
  readonly #terminal = process.stdout.isTTY;
  #said = 0;

  constructor(seconds: number) {
    this.#seconds = seconds;
  }

  show(samples: readonly Sample[]): void {
    const now = samples.at(-1)!;
    const before = samples.findLast(({ at }) => at <= now.at - 1) ?? samples[0]!;
    if (!this.#terminal && now.at < this.#said + 60) return;
    if (!this.#terminal) this.#said += 60;
    const span = Math.max(now.at - before.at, 1e-9);
    const line = [
      `${clock(now.at)} of ${clock(this.#seconds)}`,
      `RSS ${megabytes(now.rss)}`,
      `descriptors ${now.descriptors}`,
      `CPU ${Math.round((100 * (now.cpu - before.cpu)) / span)}%`,
      `${Math.round((now.messages - before.messages) / span).toLocaleString("en-US")} messages/s`,
      `${megabytes((now.back - before.back) / span)}/s`,
    ].join("   ");
    process.stdout.write(this.#terminal ? `\r\x1b[K${line}` : `${line}\n`);
  }

  clear(): void {
    if (this.#terminal) process.stdout.write("\r\x1b[K");
  }
}

/** Samples while the peers are there, until the time is up or the user interrupts. */
async function watch(
  served: Served,
  peers: Peers,
  seconds: number,
  samples: Sample[],
  interrupt: AbortSignal,
): Promise<void> {
  const progress = new Progress(seconds);
  const period = Math.min(SAMPLE_S, Math.max(LEAST_SAMPLE_S, seconds / SAMPLES));
  const interrupted = new Promise<void>((resolve) => interrupt.addEventListener("abort", () => resolve()));
  const began = performance.now();
  try {
    for (let n = 1; n * period <= seconds && !interrupt.aborted; n++) {
      const wait = Math.max(0, began + n * period * 1000 - performance.now());
      await Promise.race([Bun.sleep(wait), peers.failure, served.ended, interrupted]);
      await peers.tell("report");
      const reading = served.read();
      if (reading === undefined) throw new Failure("gone");
      const { messages, back } = peers.ledger;
      samples.push({ at: (performance.now() - began) / 1000, ...reading, messages, back });
      progress.show(samples);
    }
  } finally {
    progress.clear();
  }
}

/**
 * The server's open descriptors, once they are as few as before or stable.
 */
async function openDescriptors(served: Served, before = 0): Promise<number> {
  const deadline = performance.now() + CLOSE_MS;
  for (;;) {
    const open = served.read()?.descriptors ?? 0;
    if (open <= before || performance.now() >= deadline) return open;
    await Bun.sleep(50);
  }
}

/** Its open descriptors, once they are stable. */
async function lastingDescriptors(served: Served): Promise<number> {
  let [open, same] = [0, 0];
  for (const deadline = performance.now() + CLOSE_MS; same < SAME_LOOKS && performance.now() < deadline;) {
    const now = served.read()?.descriptors ?? 0;
    same = now === open ? same + 1 : 0;
    open = now;
    await Bun.sleep(LOOK_MS);
  }
  return open;
}

/** All peers have left: what it uses nevertheless. @throws Failure when it is gone */
async function atRest(served: Served, seconds: number): Promise<Seen["rest"]> {
  let quietest = Infinity;
  let reading = served.read();
  let at = performance.now();
  for (let piece = 0; piece < REST_PIECES; piece++) {
    await Bun.sleep((1000 * seconds) / REST_PIECES);
    const [before, then] = [reading, at];
    [reading, at] = [served.read(), performance.now()];
    if (before === undefined || reading === undefined) throw new Failure("gone");
    quietest = Math.min(quietest, (1000 * (reading.cpu - before.cpu)) / (at - then));
  }
  return { seconds, rss: reading!.rss, cpu: quietest };
}

async function run(served: Served, settings: Settings, seen: Seen, interrupt: AbortSignal): Promise<void> {
  const before = await lastingDescriptors(served);
  const peers = new Peers(served, settings.seed);
  try {
    await peers.tell("start");
    await watch(served, peers, settings.seconds, seen.samples, interrupt);
    await peers.tell("leave", LEAVE_MS);
    seen.descriptors = { before, after: await openDescriptors(served, before) };
    const soaked = seen.samples.at(-1)?.at ?? 0;
    seen.rest = await atRest(served, Math.min(REST_S, Math.max(LEAST_REST_S, soaked / 10)));
    await peers.tell("start");
    await Promise.race([Bun.sleep(BACK_MS), peers.failure]);
    await peers.tell("stop");
    seen.atStop = { ...peers.ledger };
    const [end] = await Promise.all([served.stop(), peers.answer("leave", LEAVE_MS)]);
    seen.end = end;
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    // A crash explains what the peers saw: report it first.
    await Promise.race([served.ended, Bun.sleep(500)]);
    const { fate, lastWords } = served;
    seen.failure =
      fate === undefined ? error.message : `the server ${fate}; its last words:\n${lastWords || "(none)"}`;
  } finally {
    seen.ledger = peers.ledger;
    peers.kill();
    served.kill();
  }
}

/**
 * The first signal ends the window, the second the program. `bun run soak` passes on what the terminal has
 * sent to all: two that come together are one.
 */
function interruptible(): AbortSignal {
  const interrupt = new AbortController();
  let first = 0;
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => {
      first ||= performance.now();
      if (performance.now() - first > TOGETHER_MS) process.exit(128 + constants.signals[signal]);
      interrupt.abort();
    });
  }
  return interrupt.signal;
}

async function main(args: readonly string[]): Promise<number> {
  const settings = readCommand(args);
  if (settings === undefined) {
    process.stdout.write(HELP);
    return 0;
  }
  const interrupt = interruptible();
  const served = await Served.start(settings.command);
  process.stdout.write(
    `soak of ${clock(settings.seconds)}, seed ${settings.seed}: ${served.command.join(" ")}\n`,
  );
  const seen: Seen = {
    ...{ samples: [], failure: undefined, descriptors: undefined, end: undefined, atStop: undefined },
    ...{ rest: undefined, ledger: emptyLedger(), own: served.own },
  };
  const date = new Date().toISOString();
  await run(served, settings, seen, interrupt);
  const all = checks(seen);
  const passed = all.every((check) => check.passed !== false);
  const word = !passed
    ? "FAILED"
    : all.every((check) => check.passed)
      ? "passed"
      : "passed as far as it tells";
  if (settings.json !== undefined) {
    const { seconds, seed } = settings;
    const whole = {
      format: "ringback soak 1",
      date,
      command: served.command,
      seconds,
      seed,
      interrupted: interrupt.aborted,
    };
    await Bun.write(settings.json, `${JSON.stringify({ ...whole, passed, checks: all, ...seen })}\n`);
  }
  const early = interrupt.aborted ? ", ended early" : "";
  const soaked = clock(seen.samples.at(-1)?.at ?? 0);
  process.stdout.write(
    `${seen.samples.length > 0 ? `\n${graphs(seen.samples, WIDTH)}` : ""}\n${lines(all)}${word}: ${soaked}${early}, seed ${settings.seed}\n`,
  );
  return passed ? 0 : EXIT_FAILED;
}

if (import.meta.main) {
  try {
    process.exit(await main(process.argv.slice(2)));
  } catch (error) {
    const usage = error instanceof UsageError;
    process.stderr.write(`soak: ${(error as Error).message}\n`);
    process.exit(usage ? EXIT_USAGE : EXIT_FAILED);
  }
}
