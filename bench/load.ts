#!/usr/bin/env bun
/**
 * The load generator: `bun run bench/load.ts --port P`. Flags, output, exit code; a process of its own, for
 * any echo server. It changes when a flag does.
 */
import { constants } from "node:os";
import { listFlags } from "../src/cli/flags-help.ts";
import { readFlags, seconds, UsageError, whole, type Kind } from "../src/cli/flags.ts";
import { LoadError } from "./load/checked-stream.ts";
import { Connections } from "./load/connections.ts";
import { describe, resultOf } from "./load/result.ts";
import { Run, type Settings } from "./load/run.ts";
import { Visits } from "./load/visits.ts";
import { descriptorLimit, NoSuchProcess, OwnUsage, WatchedProcess } from "./system.ts";

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

const host: Kind<string> = {
  placeholder: "address",
  expected: "an address or a name",
  read: (text) => (/^[^\s\p{C}]{1,255}$/u.test(text) ? text : undefined),
};

const FLAGS = {
  host: { kind: host, help: "of the server", preset: "127.0.0.1" },
  port: { kind: whole({ min: 1, max: 65_535 }), help: "where the server listens (required)" },
  connections: { kind: whole({ min: 1, max: 20_000 }), help: "at the same time", preset: "50" },
  bytes: { kind: whole({ min: 1, max: 2 ** 24 }), help: "size of a message", preset: "64" },
  depth: { kind: whole({ min: 1, max: 65_536 }), help: "messages in flight on each", preset: "1" },
  seconds: { kind: seconds({ min: 0.05, max: 3600 }), help: "the window", preset: "5" },
  warmup: { kind: seconds({ min: 0, max: 3600 }), help: "before the window, not counted", preset: "1" },
  rate: { kind: whole({ min: 1, max: 10_000_000 }), help: "open loop: messages per second over all" },
  pid: { kind: whole({ min: 1, max: 2 ** 31 - 1 }), help: "the server's process: its CPU and memory" },
  churn: { help: "visits: connect, one message, its echo, close" },
  verify: { help: "check every byte that comes back; this is the default" },
  "no-verify": { help: "only count what comes back" },
  json: { help: "the result as one JSON object" },
  help: { short: "h", help: "show this text" },
} as const;

/**
 * What the program itself has open; without connections it is a dozen. Bun calls a lack of them ECONNREFUSED.
 */
const OWN_DESCRIPTORS = 24;
/** So that the times of what is in flight stay below 128 MiB. */
const MAX_IN_FLIGHT = 2 ** 24;

const HELP = `Loads an echo server, checks every byte that comes back, and measures.

Usage: bun run bench/load.ts --port <number> [options]

Options:
${listFlags(FLAGS)}

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

type Command = { help: true } | { help: false; settings: Settings; pid: number | undefined; json: boolean };

/** @throws UsageError */
export function readCommand(args: readonly string[]): Command {
  const { help, port, pid, json, verify, ...given } = readFlags(FLAGS, args, {
    name: () => "bun run bench/load.ts",
  });
  if (help) return { help };
  if (port === undefined) throw new UsageError("--port: required");
  const { "no-verify": unverified, ...rest } = given;
  if (verify && unverified) throw new UsageError("--verify: cannot be used with --no-verify");
  const settings: Settings = { ...rest, port, verify: !unverified };
  refuseTogether(settings);
  return { help, settings, pid, json };
}

/** What is wrong with several flags together, or with a flag on this machine. */
function refuseTogether({ churn, rate, depth, connections }: Settings): void {
  if (churn && rate !== undefined) throw new UsageError(`--rate: ${rate} cannot be used with --churn`);
  if (churn && depth > 1)
    throw new UsageError(`--depth: ${depth} cannot be used with --churn, whose visits have one message`);
  const free = descriptorLimit() - OWN_DESCRIPTORS;
  if (connections > free)
    throw new UsageError(
      `--connections: ${connections} is more than the descriptor limit allows, ${free}; raise it with ulimit -n`,
    );
  if (connections * depth > MAX_IN_FLIGHT) {
    const max = Math.floor(MAX_IN_FLIGHT / connections);
    throw new UsageError(
      `--depth: ${depth} is not from 1 to ${max}, the range with ${connections} connections`,
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
  if (command.help) return await print(HELP);
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
