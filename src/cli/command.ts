/** The server's command line: its flags, its help, and the options that follow from them. */
import type { EchoOptions } from "../echo/echo-server.ts";
import { REPLIES } from "../echo/reply.ts";
import { choice, listFlags, listRows, readFlags, seconds, size, whole, type Kind } from "./flags.ts";
import { statsMeanings } from "./report.ts";
import { version } from "../../package.json";

const DAY = 86_400;
const INT_MAX = 2 ** 31 - 1;
const bytes = size({ min: 1, max: 1024 ** 3 });

/** A name that no resolver could know is refused here, so that no message has to show it raw. */
const host: Kind<string> = {
  placeholder: "address",
  expected: "an address or a name",
  read: (text) => (/^[^\s\p{C}]{0,255}$/u.test(text) ? text : undefined),
};

const FLAGS = {
  host: { kind: host, help: 'interface to listen on; "" is every interface', preset: "127.0.0.1" },
  port: {
    short: "p",
    kind: whole({ min: 0, max: 65_535 }),
    help: "port to listen on; 0 picks a free one",
    preset: "8101",
  },
  reply: {
    kind: choice(REPLIES),
    help: 'send the bytes back as they are, or "OK..." before each recv',
    preset: "raw",
  },
  "recv-size": {
    kind: bytes,
    help: "maximum bytes per recv",
    otherwise: "all there is; tutorial: 1024",
  },
  ring: { kind: bytes, help: "bytes held for a peer that does not read", preset: "64k" },
  "receive-buffer": {
    kind: bytes,
    help: "SO_RCVBUF of every connection",
    otherwise: "tuned by the kernel",
  },
  backlog: {
    kind: whole({ min: 0, max: INT_MAX, unit: "connections" }),
    help: "connections that the kernel keeps waiting",
    otherwise: "512",
  },
  "max-connections": {
    kind: whole({ min: 1, max: INT_MAX, unit: "connections" }),
    help: "reset connections beyond this number",
    otherwise: "by the descriptor limit",
  },
  keepalive: {
    kind: whole({ min: 0, max: 32_767, unit: "seconds", placeholder: "seconds" }),
    help: "probe a peer after N seconds of silence; 0: never",
    preset: "60",
  },
  "idle-timeout": {
    kind: seconds({ min: 0, max: 365 * DAY }),
    help: "close a peer that moves no byte for N seconds; 0: never",
    preset: "0",
  },
  "drain-timeout": {
    kind: seconds({ min: 0, max: DAY }),
    help: "how long a stop waits for peers",
    preset: "10",
  },
  stats: {
    kind: seconds({ min: 0, max: DAY }),
    help: "print statistics every N seconds; 0: never",
    preset: "0",
  },
  help: { short: "h", help: "show this text" },
  version: { short: "V", help: "show the version" },
} as const;

function helpText(program: string): string {
  return `An echo server that never loses a byte: it sends back whatever a peer sends.

Usage: ${program} [options]

Options:
${listFlags(FLAGS)}

A size is a number of bytes; 64k, 64KB and 64KiB are all 65536. Times may be fractional: 0.5.
Without --port, PORT of the environment counts (one from a .env file does not).

SIGTERM, SIGINT or SIGHUP stops it: it serves what peers have sent, waits for them, exits with 0.
SIGTERM or SIGINT more than a second later ends it at once. A signal that is ignored when it starts
(nohup) stays ignored. Exit code 1: it could not start. 2: a wrong flag.

Statistics, a row at each interval of --stats, on stderr; the last line has the totals in bytes:
${listRows(statsMeanings())}

Try it:
  ${program}
  echo hello | nc -N 127.0.0.1 8101
`;
}

export interface ServerOptions extends EchoOptions {
  drainTimeout: number;
  stats: number;
}

/** What the command line asks for. */
export type Command = { show: string } | { serve: ServerOptions };

/**
 * Reads the flags, and PORT where --port is absent.
 * @param program how it was started, for the help and for errors
 * @throws UsageError
 */
export function readCommand(
  args: readonly string[],
  { PORT = "" }: { readonly PORT?: string | undefined } = {},
  program = "ringback",
): Command {
  // An empty variable is how a shell or a container writes an absent one.
  const port = PORT === "" ? undefined : { from: "PORT", text: PORT };
  const given = readFlags(FLAGS, args, { name: program, fallbacks: { port } });
  if (given.help) return { show: helpText(program) };
  if (given.version) return { show: `ringback ${version}\n` };
  const serve: ServerOptions = {
    host: given.host,
    port: given.port,
    reply: given.reply,
    ring: given.ring,
    keepalive: given.keepalive,
    idleTimeout: given["idle-timeout"],
    drainTimeout: given["drain-timeout"],
    stats: given.stats,
  };
  const optional = {
    recvSize: given["recv-size"],
    receiveBuffer: given["receive-buffer"],
    backlog: given.backlog,
    maxConnections: given["max-connections"],
  };
  for (const [key, value] of Object.entries(optional)) {
    if (value !== undefined) serve[key as keyof typeof optional] = value;
  }
  return { serve };
}
