#!/usr/bin/env bun
/**
 * The program: `bun run src/server.ts`. Flags, start, signals, exit code. It changes when its user's view does:
 * a flag, a line of output, an exit code.
 */
import { writeSync } from "node:fs";
import { constants } from "node:os";
import { parseArgs, type ParseArgsConfig } from "node:util";
import { connectionLimit, EchoServer, type EchoOptions, type Figures } from "./echo/echo-server.ts";
import { REPLIES, type ReplyName } from "./echo/reply.ts";
import { OSError } from "./net/errors.ts";
import { canWrite, isTerminal } from "./net/libc.ts";
import { version } from "../package.json";

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

const GIB = 1024 ** 3;
const DAY = 86_400;

interface Flag {
  /** What stands for the value in the help text. */
  value: string;
  help: string;
  /** The default, as a user would write it, or in words where it is none. */
  preset: string;
  /** For numbers: the range, whether fractions are allowed, and what is counted. */
  range?: { least: number; most: number; of: string; fraction?: true };
}

const FLAGS = {
  host: { value: "address", help: 'interface to listen on; "" is every interface', preset: "127.0.0.1" },
  port: {
    value: "number",
    help: "0 picks a free one",
    preset: "8101",
    range: { least: 0, most: 65_535, of: "" },
  },
  reply: { value: "raw|tutorial", help: "what is sent back", preset: "raw" },
  "recv-size": {
    value: "bytes",
    help: "the largest slice that one recv gives",
    preset: "raw: the chunk as it came; tutorial: 1024",
    range: { least: 1, most: GIB, of: "bytes" },
  },
  ring: {
    value: "bytes",
    help: "what is held for a peer that does not read",
    preset: "65536",
    range: { least: 1, most: GIB, of: "bytes" },
  },
  "receive-buffer": {
    value: "bytes",
    help: "SO_RCVBUF of every connection",
    preset: "the kernel's own tuning",
    range: { least: 1, most: GIB, of: "bytes" },
  },
  backlog: {
    value: "number",
    help: "connections that the kernel keeps waiting",
    preset: "512",
    range: { least: 0, most: 2 ** 31 - 1, of: "connections" },
  },
  "max-connections": {
    value: "number",
    help: "what is over is refused with a reset",
    preset: "from the descriptor limit",
    range: { least: 1, most: 2 ** 31 - 1, of: "connections" },
  },
  "idle-timeout": {
    value: "seconds",
    help: "close a peer that moves no byte; 0 never",
    preset: "0",
    range: { least: 0, most: 365 * DAY, of: "seconds", fraction: true },
  },
  "drain-timeout": {
    value: "seconds",
    help: "how long a stop waits for peers",
    preset: "10",
    range: { least: 0, most: DAY, of: "seconds", fraction: true },
  },
  stats: {
    value: "seconds",
    help: "a line of figures at this interval; 0 never",
    preset: "0",
    range: { least: 0, most: DAY, of: "seconds", fraction: true },
  },
} as const satisfies Record<string, Flag>;

type FlagName = keyof typeof FLAGS;
const NAMES = Object.keys(FLAGS) as FlagName[];

function helpText(): string {
  const rows = NAMES.map((name): [string, string, string] => [
    `--${name} <${FLAGS[name].value}>`,
    FLAGS[name].help,
    FLAGS[name].preset,
  ]);
  const width = (column: 0 | 1): number => Math.max(...rows.map((row) => row[column].length)) + 2;
  const lines = rows.map((row) => `  ${row[0].padEnd(width(0))}${row[1].padEnd(width(1))}${row[2]}`);
  return `An echo server that loses no byte: whatever a peer sends comes back.

Usage: bun run src/server.ts [options]

Options:${"".padEnd(width(0) + width(1) - 6)}Default:
${lines.join("\n")}
  --help, --version

The environment's PORT and HOST are the defaults when the flags are absent. A time may have a fraction: 0.5.
SIGTERM or SIGINT stops it: it serves what peers have sent, waits for them and exits with 0; a second signal
ends it at once. Exit code 1: it could not start. 2: a wrong flag.

Try it:
  bun run src/server.ts
  echo hello | nc -N 127.0.0.1 8101
`;
}

/** What is wrong with the command line, in one line. What a terminal would act on, or not show, stands as its number. */
export class UsageError extends Error {
  constructor(message: string) {
    super(message.replace(/\p{C}/gu, (one) => `\\u{${one.codePointAt(0)!.toString(16)}}`));
  }
}

export interface ServerOptions extends EchoOptions {
  drainTimeout: number;
  stats: number;
}

/** What the command line asks for. */
export type Command = { show: string } | { serve: ServerOptions };

/**
 * Reads the flags, and PORT and HOST from the environment.
 * @throws UsageError
 */
export function readCommand(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Command {
  const given = readFlags(args);
  if (given["help"] === true) return { show: helpText() };
  if (given["version"] === true) return { show: `ringback ${version}\n` };
  const source: Partial<Record<FlagName, [from: string, text: string]>> = {};
  // An empty variable is how a shell or a container writes an absent one.
  if (env["HOST"]) source.host = ["HOST", env["HOST"]];
  if (env["PORT"]) source.port = ["PORT", env["PORT"]];
  for (const name of NAMES) {
    const text = given[name];
    if (typeof text === "string") source[name] = [`--${name}`, text];
  }
  const number = (name: FlagName & keyof typeof FLAGS): number | undefined => {
    const { range }: Flag = FLAGS[name];
    const [from, text] = source[name] ?? ["", FLAGS[name].preset];
    return source[name] === undefined && !/^\d/.test(text) ? undefined : readNumber(from, text, range!);
  };
  const serve: ServerOptions = {
    host: readHost(...(source.host ?? ["--host", FLAGS.host.preset])),
    port: number("port")!,
    reply: readReply(source.reply?.[1] ?? FLAGS.reply.preset),
    ring: number("ring")!,
    idleTimeout: number("idle-timeout")!,
    drainTimeout: number("drain-timeout")!,
    stats: number("stats")!,
  };
  const optional = {
    recvSize: number("recv-size"),
    receiveBuffer: number("receive-buffer"),
    backlog: source.backlog && number("backlog"),
    maxConnections: number("max-connections"),
  };
  for (const [key, value] of Object.entries(optional)) {
    if (value !== undefined) serve[key as keyof typeof optional] = value;
  }
  return { serve };
}

function readFlags(args: readonly string[]): Record<string, string | boolean | undefined> {
  const options: NonNullable<ParseArgsConfig["options"]> = {
    help: { type: "boolean" },
    version: { type: "boolean" },
  };
  for (const name of NAMES) options[name] = { type: "string" };
  try {
    const { values } = parseArgs({ args: [...args], options, strict: true, allowPositionals: false });
    return values as Record<string, string | boolean | undefined>;
  } catch (error) {
    // Behind the first sentence, which may quote anything, parseArgs gives advice that is none here.
    const [what] = (error as Error).message.split(
      /(?<=')\. (?:To specify a positional|This command does not)|\n(?=Did you)/,
    );
    const [, flag, takesNone] = /^Option '(--[a-z-]+).*?(does not take)?(?: an)? argument/.exec(what!) ?? [];
    const wrong = takesNone
      ? `${flag}: it takes no value`
      : `${flag}: its value is missing, or looks like a flag`;
    throw new UsageError(`${flag === undefined ? what : wrong}; --help lists the flags`);
  }
}

function readNumber(from: string, text: string, range: NonNullable<Flag["range"]>): number {
  const form = range.fraction ? /^\d+(\.\d+)?$/ : /^\d+$/;
  const value = Number(text);
  if (form.test(text) && value >= range.least && value <= range.most) return value;
  const kind = range.fraction ? "a number" : "a whole number";
  const unit = range.of === "" ? "" : ` of ${range.of}`;
  throw new UsageError(
    `${from}: ${JSON.stringify(text)} is not ${kind}${unit} from ${range.least} to ${range.most}`,
  );
}

/** A name that no resolver could know is refused here, so that no message has to show it raw. */
function readHost(from: string, text: string): string {
  if (/^[^\s\p{C}]{0,255}$/u.test(text)) return text;
  const shown = JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text);
  throw new UsageError(`${from}: ${shown} is neither an address nor a name`);
}

function readReply(text: string): ReplyName {
  const reply = REPLIES.find((name) => name === text);
  if (reply !== undefined) return reply;
  throw new UsageError(`--reply: ${JSON.stringify(text)} is neither ${REPLIES.join(" nor ")}`);
}

/**
 * stderr, at once: what is said must be out before an exit. A log that cannot be written must not stop the service:
 * a line for which a pipe or a terminal has no room is left out.
 */
function say(line: string): void {
  if (!canWrite(2)) return;
  try {
    writeSync(2, `${line}\n`);
  } catch {
    // stderr is closed or its disk is full: there is no one left to tell.
  }
}

const plural = (count: number, word: string): string => `${count} ${word}${count === 1 ? "" : "s"}`;

function totalsLine(f: Figures): string {
  const ends = [f.refused && `${f.refused} refused`, f.broken && `${f.broken} broken`].filter(Boolean);
  const connections = plural(f.connections, "connection") + (ends.length > 0 ? ` (${ends.join(", ")})` : "");
  const dropped = f.bytesDropped > 0 ? `, ${f.bytesDropped} bytes dropped behind a FIN` : "";
  return `${connections}, ${f.bytesIn} bytes in, ${f.bytesOut} bytes out, ${f.bytesCopied} bytes copied${dropped}`;
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;

function statsLine(now: Figures, before: Figures, seconds: number): string {
  const rate = (key: "bytesIn" | "bytesOut"): string =>
    `${megabytes(now[key])} (${megabytes((now[key] - before[key]) / seconds)}/s)`;
  return [
    `open ${now.open}`,
    `connections ${now.connections}`,
    `refused ${now.refused}`,
    `broken ${now.broken}`,
    `in ${rate("bytesIn")}`,
    `out ${rate("bytesOut")}`,
    `held ${now.held} bytes`,
    `copied ${now.bytesCopied} bytes`,
    `dropped ${now.bytesDropped} bytes`,
  ].join("  ");
}

/** What to do about a start that failed, for the reasons that happen. */
function advice(error: OSError, { host, port }: ServerOptions): string {
  switch (error.code) {
    case "EADDRINUSE":
      return "; stop the program that listens there, or choose another --port (0 picks a free one)";
    case "EACCES":
      return `; port ${port} is reserved for privileged programs: choose a --port from 1024 on`;
    case "EADDRNOTAVAIL":
      return `; no interface of this machine has the address ${host}: choose another --host ("" is every interface)`;
    default:
      return error.syscall === "getaddrinfo"
        ? '; --host takes an address or a name of this machine, or ""'
        : "";
  }
}

function announce({ address, host, port }: EchoServer): void {
  try {
    writeSync(1, `listening on ${address}\n`);
  } catch (error) {
    // Who started it may have gone, or its disk is full. The peers are still there.
    say(`stdout cannot be written (${(error as NodeJS.ErrnoException).code}); listening on ${address}`);
  }
  if (!isTerminal(1)) return;
  const near = host === "::" || host === "0.0.0.0" ? "127.0.0.1" : host;
  say(`try it in another terminal: nc ${near} ${port}      Ctrl-C stops the server`);
}

/** A terminal's Ctrl-C comes twice under `bun run start`: to every process there, and passed on by that one. */
const ONE_CTRL_C_MS = 200;

/** The first signal stops gracefully, the second at once. */
function stopOnSignals(server: EchoServer, drainTimeout: number): void {
  const end = (code: number): never => {
    say(totalsLine(server.figures));
    process.exit(code);
  };
  let stopping = false;
  let interrupted = -Infinity;
  const onSignal = (signal: "SIGTERM" | "SIGINT"): void => {
    const since = performance.now() - interrupted;
    if (signal === "SIGINT") interrupted = performance.now();
    if (stopping && signal === "SIGINT" && since < ONE_CTRL_C_MS) return;
    if (stopping) end(128 + constants.signals[signal]);
    stopping = true;
    const { open } = server.figures;
    if (open > 0)
      say(`${signal}: stopping, ${plural(open, "connection")} to finish, at most ${drainTimeout} s`);
    void server.stop(drainTimeout).then(() => end(0));
  };
  process.on("SIGTERM", onSignal);
  process.on("SIGINT", onSignal);
}

function sayFigures(server: EchoServer, seconds: number): void {
  let before = server.figures;
  let then = performance.now();
  setInterval(() => {
    const [now, at] = [server.figures, performance.now()];
    say(statsLine(now, before, (at - then) / 1000));
    [before, then] = [now, at];
  }, seconds * 1000).unref();
}

async function serve(options: ServerOptions): Promise<void> {
  const { maxConnections, drainTimeout, stats } = options;
  const most = connectionLimit();
  // A limit that leaves none at all is no matter of this flag.
  if (maxConnections !== undefined && maxConnections > most && most > 0) {
    throw new UsageError(
      `--max-connections: ${maxConnections} is more than the descriptor limit allows, ${most}; raise it with ulimit -n`,
    );
  }
  const onDefect = (error: unknown): void =>
    say(`a connection was closed by a defect: ${Bun.inspect(error)}`);
  const server = await EchoServer.listen({ ...options, onDefect });
  stopOnSignals(server, drainTimeout);
  if (stats > 0) sayFigures(server, stats);
  announce(server);
}

async function main(): Promise<void> {
  const command = readCommand(process.argv.slice(2), process.env);
  if ("show" in command) {
    writeSync(1, command.show);
    return;
  }
  try {
    await serve(command.serve);
  } catch (error) {
    if (!(error instanceof OSError)) throw error;
    say(`ringback: ${error.message}${advice(error, command.serve)}`);
    process.exit(EXIT_FAILED);
  }
}

if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    // Without a code it is a defect, whose trace is wanted.
    const known = error instanceof UsageError || typeof (error as NodeJS.ErrnoException).code === "string";
    if (!known) throw error;
    say(`ringback: ${(error as Error).message}`);
    process.exit(error instanceof UsageError ? EXIT_USAGE : EXIT_FAILED);
  }
}
