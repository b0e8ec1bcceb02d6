#!/usr/bin/env bun
/**
 * The comparison: `bun run bench`. Flags, the order of the rounds, progress, exit code. It changes when a
 * flag or the order does.
 */
import { listFlags } from "../src/cli/flags-help.ts";
import { readFlags, seconds, text, UsageError, whole } from "../src/cli/flags.ts";
import { closeSync, openSync, readFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { join } from "node:path";
import { cases as allCases, QUICK, type Case } from "./comparison/cases.ts";
import { coresToPin, measure } from "./comparison/measure.ts";
import { page } from "./comparison/page.ts";
import { casesNamed, FORMAT, resultText, type Measurement, type Result } from "./comparison/result.ts";
import { MIN_ROUNDS } from "./statistics.ts";
import { table } from "./comparison/table.ts";
import { installed, parseServer, servers as allServers, type Server } from "./servers.ts";

/** All ratios are to the plainest program on node:net. */
const BASELINE = "node:net pipe, Bun";

/**
 * The compilers of both sides need time: after 0.3 s of warm-up instead of 0.7, node:net on Bun seemed to
 * need 25 µs per message and not 15 (50 x 64 B). A process that has served another load needs it again: Node,
 * 0.3 s into visits after "1 x 64 B", took 252 µs for each and not 150. So each measurement has a process of
 * its own.
 */
const FULL = { rounds: 7, seconds: 0.3, warmup: 0.8 };
const QUICKLY = { rounds: 3, seconds: 0.3, warmup: 0.6 };

/** Signals within this time are one. */
const TWICE_MS = 200;
/** As a shell has it for SIGINT. */
const EXIT_INTERRUPTED = 130;

const FLAGS = {
  quick: { help: "two cases and the start, 3 rounds: under a minute, no verdicts" },
  case: { kind: text("name"), multiple: true, help: "this case only; can be given several times" },
  server: {
    kind: text("name=command"),
    multiple: true,
    help: `one more server, "{port}" in its command; a name alone: of the servers below only this one, beside ${BASELINE}; can be given several times`,
  },
  rounds: {
    kind: whole({ min: 1, max: 99 }),
    help: `a verdict needs ${MIN_ROUNDS}`,
    otherwise: `${FULL.rounds}`,
  },
  seconds: {
    kind: seconds({ min: 0.05, max: 600 }),
    help: "each window",
    otherwise: `${FULL.seconds}`,
  },
  json: { kind: text("file"), help: "everything that was measured, raw: a measurement per line" },
  html: { kind: text("file"), help: "the report as one page with its charts" },
  help: { short: "h", help: "show this text" },
} as const;

const HELP = `Compares echo servers: what Ringback costs and gains against node:net, and against a bare Bun.listen handler.

Usage: bun run bench [options]

${listFlags(FLAGS)}

Cases: ${allCases.map((one) => one.name).join(", ")}
Servers: ${allServers.map((one) => one.name).join("; ")}

Each measurement is a fresh process of the server and one of the load generator, on a core of their own where
taskset(1) is there. Servers take turns, in rounds (A B C, then C B A). The full comparison takes under 10 minutes.

Try it:
  bun run bench --quick
  bun run bench --case "50 x 64 B" --server "mine=./my-server {port}"

The command of --server is the server's own, not one that starts it as a child (npm run, go run, a shell script without
exec): only the process that is started is watched.

Ctrl-C ends it early and prints what was measured; a second one ends it immediately. Exit code 1: a server could not be measured,
or sent a wrong byte, or it was interrupted. 2: a wrong flag.
`;

interface Settings {
  quick: boolean;
  cases: readonly Case[];
  servers: Server[];
  rounds: number;
  seconds: number;
  warmup: number;
  json: string | undefined;
  html: string | undefined;
}

/** What a flag's text is taken for. */
function asked<T>(flag: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw new UsageError(`${flag}: ${(error as Error).message}`, { cause: error });
  }
}

/** Report an unwritable file now, not in ten minutes. */
function checkWritable(flag: string, file: string | undefined): void {
  if (file !== undefined) asked(flag, () => closeSync(openSync(file, "a")));
}

/** Those of the table, or of them only who is named and the baseline; and those that are given. */
function serversNamed(texts: readonly string[]): Server[] {
  const given = texts.filter((text) => text.includes("=")).map(parseServer);
  const chosen = texts.filter((text) => !text.includes("="));
  const all = [...allServers, ...given].map((one) => one.name);
  const twice = all.find((name, i) => all.indexOf(name) !== i);
  if (twice !== undefined) throw new Error(`there are two servers of the name ${twice}`);
  const unknown = chosen.find((name) => !allServers.some((one) => one.name === name));
  if (unknown !== undefined) {
    const names = allServers.map((one) => one.name).join("; ");
    throw new Error(`there is no server ${JSON.stringify(unknown)}; there are: ${names}`);
  }
  const wanted = ({ name }: Server): boolean =>
    chosen.length === 0 || name === BASELINE || chosen.includes(name);
  return [...allServers.filter(wanted), ...given];
}

/** @returns undefined for --help @throws UsageError */
export function readCommand(args: string[]): Settings | undefined {
  const given = readFlags(FLAGS, args, { name: () => "bun run bench" });
  const { help, quick, json, html } = given;
  if (help) return undefined;
  const preset = quick ? QUICKLY : FULL;
  const { rounds = preset.rounds, seconds = preset.seconds } = given;
  const servers = asked("--server", () => serversNamed(given.server));
  const named = given.case.length > 0 ? given.case : quick ? QUICK : undefined;
  const cases = named === undefined ? allCases : asked("--case", () => casesNamed(named));
  // The smallest of all comparisons is to see that it works.
  const warmup = seconds < preset.seconds ? seconds : preset.warmup;
  checkWritable("--json", json);
  checkWritable("--html", html);
  return { quick, cases, servers, rounds, seconds, warmup, json, html };
}

/** A program's output, trimmed; null if the program is missing or fails. */
function output(...command: string[]): string | null {
  if (Bun.which(command[0]!) === null) return null;
  const { stdout, exitCode } = Bun.spawnSync(command, { stderr: "ignore", cwd: import.meta.dir });
  return exitCode === 0 ? stdout.toString().trim() : null;
}

function commit(): string | null {
  const hash = output("git", "rev-parse", "HEAD");
  return hash === null ? null : hash + (output("git", "status", "--porcelain") === "" ? "" : "+");
}

const quoted = (word: string): string =>
  /^[\w./=:-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;

function newResult(flags: Settings, servers: readonly Server[], args: readonly string[]): Result {
  const { version } = JSON.parse(readFileSync(join(import.meta.dir, "../package.json"), "utf8")) as {
    version: string;
  };
  const cores = coresToPin();
  const [cpu] = cpus();
  const notMeasured = flags.servers
    .filter((one) => !servers.includes(one))
    .map((one) => `${one.name}: ${one.needs} is not installed`);
  for (const one of allCases)
    if (!flags.cases.includes(one)) notMeasured.push(`the case ${one.name}: not asked for`);
  if (cores === null)
    notMeasured.push("server and generator on cores of their own: no taskset(1), or one core");
  return {
    format: FORMAT,
    date: new Date().toISOString(),
    commit: commit(),
    command: ["bun", "run", "bench", ...withoutFiles(args).map(quoted)].join(" "),
    versions: { ringback: version, bun: Bun.version, node: output("node", "--version") },
    machine: {
      cpu: cpu?.model ?? "unknown",
      cores: navigator.hardwareConcurrency,
      memoryBytes: totalmem(),
      kernel: `${process.platform} ${release()} ${process.arch}`,
      pinned: cores,
    },
    settings: { rounds: flags.rounds, seconds: flags.seconds, warmup: flags.warmup },
    baseline: BASELINE,
    servers: servers.map(({ name, about, command }) => ({ name, about, command: command.map(ownPath) })),
    cases: [...flags.cases],
    notMeasured,
    measurements: [],
  };
}

/** Where the result went is no matter of who does it again. */
const withoutFiles = (args: readonly string[]): string[] =>
  args.filter((word, i) => !/^--(json|html)(=|$)/.test(word) && !/^--(json|html)$/.test(args[i - 1] ?? ""));

/** The command as another user would write it: the repository may be elsewhere. */
function ownPath(word: string): string {
  if (word === process.execPath) return "bun";
  const root = join(import.meta.dir, "../");
  return word.startsWith(root) ? word.slice(root.length) : word;
}

interface Turn {
  round: number;
  one: Case;
  server: Server;
}

/** A B C, then C B A: what changes slowly on the machine meets all servers alike. */
export function turns(flags: Pick<Settings, "rounds" | "cases">, servers: readonly Server[]): Turn[] {
  const all: Turn[] = [];
  for (let round = 1; round <= flags.rounds; round++) {
    const order = round % 2 === 1 ? servers : servers.toReversed();
    // A start is measured with each of the other cases, and alone only when nothing else is asked for.
    const others = flags.cases.filter((one) => one.kind !== "start");
    for (const one of others.length > 0 ? others : flags.cases) {
      for (const server of order) all.push({ round, one, server });
    }
  }
  return all;
}

/** On a terminal one line that is written again and again; elsewhere a line for each round. */
class Progress {
  readonly #began = performance.now();
  readonly #all: number;
  readonly #terminal = process.stderr.isTTY;
  #round = 0;

  constructor(all: number) {
    this.#all = all;
  }

  show(done: number, { round, one, server }: Turn, rounds: number): void {
    const elapsed = (performance.now() - this.#began) / 1000;
    const left = done === 0 ? "" : `, ${clock((elapsed / done) * (this.#all - done))} left`;
    const where = `round ${round} of ${rounds}, ${clock(elapsed)}${left}`;
    if (this.#terminal) process.stderr.write(`\r\x1b[K${where}: ${one.name}, ${server.name}`);
    else if (round !== this.#round) process.stderr.write(`${where}\n`);
    this.#round = round;
  }

  clear(): void {
    if (this.#terminal) process.stderr.write("\r\x1b[K");
  }
}

const clock = (seconds: number): string =>
  `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

async function run(
  flags: Settings,
  result: Result,
  servers: readonly Server[],
  signal: AbortSignal,
): Promise<void> {
  const all = turns(flags, servers);
  const cores = result.machine.pinned;
  const progress = new Progress(all.length);
  const began = performance.now();
  for (const [done, turn] of all.entries()) {
    if (signal.aborted) break;
    progress.show(done, turn, flags.rounds);
    const { round, one, server } = turn;
    const at = Math.round(performance.now() - began) / 1000;
    const measured = await measure(server, one, flags, cores, signal);
    if (signal.aborted) break;
    const measurement: Measurement = { round, server: server.name, case: one.name, at, ...measured };
    result.measurements.push(measurement);
    if (measurement.error === undefined) continue;
    progress.clear();
    process.stderr.write(`bench: ${server.name}, ${one.name}, round ${round}: ${measurement.error}\n`);
  }
  progress.clear();
}

async function main(args: string[]): Promise<number> {
  const flags = readCommand(args);
  if (flags === undefined) {
    process.stdout.write(HELP);
    return 0;
  }
  const servers = flags.servers.filter(installed);
  const result = newResult(flags, servers, args);
  const interrupted = new AbortController();
  // The first ends the measuring, another one the program. Ctrl-C comes twice under `bun run bench`: to every
  // process of the terminal, and passed on by that one.
  const interrupt = (): void => {
    if (performance.now() - asked > TWICE_MS) process.exit(EXIT_INTERRUPTED);
    asked = Math.min(asked, performance.now());
    interrupted.abort();
  };
  let asked = Infinity;
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"] as const) process.on(name, interrupt);
  await run(flags, result, servers, interrupted.signal);
  if (interrupted.signal.aborted) {
    result.notMeasured.push("what was left when it was interrupted");
    process.stderr.write("bench: interrupted; what follows is of the measurements until then\n");
  }
  process.stdout.write(table(result));
  if (flags.json !== undefined) await Bun.write(flags.json, resultText(result));
  if (flags.html !== undefined) await Bun.write(flags.html, page(result));
  const failed = result.measurements.some((one) => one.error !== undefined);
  return failed || interrupted.signal.aborted ? 1 : 0;
}

if (import.meta.main) {
  try {
    process.exitCode = await main(Bun.argv.slice(2));
  } catch (error) {
    process.stderr.write(`bench: ${(error as Error).message}\n`);
    process.exitCode = error instanceof UsageError ? 2 : 1;
  }
}
