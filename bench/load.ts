#!/usr/bin/env bun
/**
 * The load generator: `bun run bench/load.ts --port P`. Flags, output, exit code; a process of its own, for any echo
 * server. It changes when a flag does.
 */
import { constants } from "node:os";
import { parseArgs, type ParseArgsConfig } from "node:util";
import { LoadError } from "./load/checked-stream.ts";
import { Connections } from "./load/connections.ts";
import { describe, resultOf } from "./load/result.ts";
import { Run, type Settings } from "./load/run.ts";
import { Visits } from "./load/visits.ts";
import { descriptorLimit, NoSuchProcess, OwnUsage, WatchedProcess } from "./system.ts";
import { flagsRefused, UsageError } from "./usage.ts";

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

interface NumberFlag {
  /** What stands for the value in the help text. */
  value: string;
  help: string;
  preset?: number;
  least: number;
  most: number;
  fraction?: true;
}

const NUMBERS = {
  port: { value: "number", help: "where the server listens; needed", least: 1, most: 65_535 },
  connections: { value: "number", help: "at the same time", preset: 50, least: 1, most: 20_000 },
  bytes: { value: "number", help: "size of a message", preset: 64, least: 1, most: 2 ** 24 },
  depth: { value: "number", help: "messages in flight on each", preset: 1, least: 1, most: 65_536 },
  seconds: { value: "time", help: "the window", preset: 5, least: 0.05, most: 3600, fraction: true },
  warmup: { value: "time", help: "before it, not counted", preset: 1, least: 0, most: 3600, fraction: true },
  rate: { value: "number", help: "open loop: messages a second over all", least: 1, most: 10_000_000 },
  pid: { value: "number", help: "the server's process: its CPU and memory", least: 1, most: 2 ** 31 - 1 },
} as const satisfies Record<string, NumberFlag>;

type NumberName = keyof typeof NUMBERS;

const SWITCHES = {
  churn: "visits: connect, one message, its echo, close",
  verify: "check every byte that comes back; this is the default",
  "no-verify": "only count what comes back",
  json: "the result as one JSON object",
  help: "",
} as const;

/** What the program itself has open; without connections it is a dozen. Bun calls a lack of them ECONNREFUSED. */
const OWN_DESCRIPTORS = 24;
/** So that the times of what is in flight stay below 128 MiB. */
const MOST_IN_FLIGHT = 2 ** 24;

function helpText(): string {
  const flags: [string, string, string][] = [["--host <address>", "of the server", "127.0.0.1"]];
  for (const [name, flag] of Object.entries<NumberFlag>(NUMBERS)) {
    const range = `${flag.least} to ${flag.most}`;
    flags.push([`--${name} <${flag.value}>`, `${flag.help} (${range})`, String(flag.preset ?? "")]);
  }
  for (const [name, help] of Object.entries(SWITCHES)) flags.push([`--${name}`, help, ""]);
  const width = (column: 0 | 1): number => Math.max(...flags.map((row) => row[column].length)) + 2;
  const lines = flags.map((row) => `  ${row[0].padEnd(width(0))}${row[1].padEnd(width(1))}${row[2]}`);
  return `Loads an echo server, checks every byte that comes back, and measures.

Usage: bun run bench/load.ts --port <number> [options]

Options:${"".padEnd(width(0) + width(1) - 6)}Default:
${lines.map((line) => line.trimEnd()).join("\n")}

Closed loop: each connection has --depth messages in flight, and an answer lets the next one go. Open loop, with
--rate: messages have their turn by a fixed schedule, and the latency counts from a message's turn, whether or not
the server had left room to send it. --churn: --connections visitors, and the latency is the whole visit's.

Messages (and the server's CPU time for each) are those answered inside the window; the latency is of those whose
start is inside it. Ctrl-C ends the run early and prints what was measured; a second one ends it at once.
Exit code 1: the run is void, and stderr says why: a wrong, missing or surplus byte, a connection refused or lost.
2: a wrong flag.

Try it:
  bun run src/server.ts --port 8101 &
  bun run bench/load.ts --port 8101 --pid $!
  bun run bench/load.ts --port 8101 --rate 5000
`;
}

type Command = { help: true } | { help: false; settings: Settings; pid: number | undefined; json: boolean };

/** @throws UsageError */
export function readCommand(args: readonly string[]): Command {
  const given = readFlags(args);
  if (given["help"] === true) return { help: true };
  const number = (name: NumberName): number | undefined => {
    const flag: NumberFlag = NUMBERS[name];
    const text = given[name];
    return typeof text === "string" ? readNumber(name, text, flag) : flag.preset;
  };
  const port = number("port");
  if (port === undefined) throw new UsageError("--port: it is needed; --help lists the flags");
  const settings: Settings = {
    host: readHost(given["host"] ?? "127.0.0.1"),
    port,
    connections: number("connections")!,
    bytes: number("bytes")!,
    depth: number("depth")!,
    seconds: number("seconds")!,
    warmup: number("warmup")!,
    rate: number("rate"),
    churn: given["churn"] === true,
    verify: given["no-verify"] !== true,
  };
  if (given["verify"] === true && !settings.verify)
    throw new UsageError("--verify: it does not go with --no-verify");
  refuseTogether(settings);
  return { help: false, settings, pid: number("pid"), json: given["json"] === true };
}

function readFlags(args: readonly string[]): Record<string, string | boolean | undefined> {
  const options: NonNullable<ParseArgsConfig["options"]> = { host: { type: "string" } };
  for (const name of Object.keys(NUMBERS)) options[name] = { type: "string" };
  for (const name of Object.keys(SWITCHES)) options[name] = { type: "boolean" };
  try {
    const { values } = parseArgs({ args: [...args], options, strict: true, allowPositionals: false });
    return values as Record<string, string | boolean | undefined>;
  } catch (error) {
    throw flagsRefused(error);
  }
}

function readNumber(name: string, text: string, { least, most, fraction }: NumberFlag): number {
  const form = fraction ? /^(\d+|\d*\.\d+)$/ : /^\d+$/;
  const value = Number(text);
  if (form.test(text) && value >= least && value <= most) return value;
  const kind = fraction ? "a number of seconds" : "a whole number";
  throw new UsageError(`--${name}: ${JSON.stringify(text)} is not ${kind} from ${least} to ${most}`);
}

function readHost(text: string | boolean): string {
  if (typeof text === "string" && /^[^\s\p{C}]{1,255}$/u.test(text)) return text;
  throw new UsageError(`--host: ${JSON.stringify(text)} is neither an address nor a name`);
}

/** What is wrong with several flags together, or with a flag on this machine. */
function refuseTogether({ churn, rate, depth, connections }: Settings): void {
  if (churn && rate !== undefined) throw new UsageError(`--rate: ${rate} does not go with --churn`);
  if (churn && depth > 1)
    throw new UsageError(`--depth: ${depth} does not go with --churn, whose visits have one message`);
  const free = descriptorLimit() - OWN_DESCRIPTORS;
  if (connections > free)
    throw new UsageError(
      `--connections: ${connections} is more than the descriptor limit allows, ${free}; raise it with ulimit -n`,
    );
  if (connections * depth > MOST_IN_FLIGHT) {
    const most = Math.floor(MOST_IN_FLIGHT / connections);
    throw new UsageError(
      `--depth: ${depth} is not from 1 to ${most}, the range with ${connections} connections`,
    );
  }
}

/** The first SIGINT ends the window, the second the program. */
function interruptible(): AbortSignal {
  const interrupt = new AbortController();
  process.on("SIGINT", () => {
    if (interrupt.signal.aborted) process.exit(128 + constants.signals.SIGINT);
    interrupt.abort();
  });
  return interrupt.signal;
}

async function main(): Promise<void> {
  const command = readCommand(process.argv.slice(2));
  if (command.help) return await print(helpText());
  const { settings, pid, json } = command;
  const watched = pid === undefined ? undefined : new WatchedProcess(pid);
  const own = new OwnUsage();
  const run = new Run(settings, interruptible());
  const measured = await run.measure(settings.churn ? new Visits(run) : new Connections(run), {
    begins() {
      watched?.begin();
      own.begin();
    },
    ends() {
      own.end();
      watched?.end();
    },
  });
  const result = resultOf(settings, measured, own, watched?.usage);
  await print(json ? `${JSON.stringify(result)}\n` : describe(result));
}

/** All of it, for a slow reader too. */
async function print(text: string): Promise<void> {
  try {
    await Bun.write(Bun.stdout, text);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new LoadError(`stdout cannot be written (${code})`);
  }
}

if (import.meta.main) {
  try {
    await main();
    process.exit(0);
  } catch (error) {
    const usage = error instanceof UsageError;
    // Anything else is a defect, whose trace is wanted.
    if (!usage && !(error instanceof LoadError) && !(error instanceof NoSuchProcess)) throw error;
    console.error(`load: ${error.message}`);
    process.exit(usage ? EXIT_USAGE : EXIT_FAILED);
  }
}
