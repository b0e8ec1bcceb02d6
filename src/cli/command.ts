/** The server's command line: its flags and the options that follow from them. */
import type { EchoOptions } from "../echo/echo-server.ts";
import { REPLIES } from "../echo/reply.ts";
import { choice, readFlags, seconds, size, whole, type Kind } from "./flags.ts";

const DAY = 86_400;
const INT_MAX = 2 ** 31 - 1;
const bytes = size({ min: 1, max: 1024 ** 3 });

/** Refuses a name with spaces or control characters: no resolver knows it, and no message has to show it. */
const host: Kind<string> = {
  placeholder: "address",
  expected: "an address or a name",
  // The Unicode class takes 0.3 ms to compile: a start with a plain host does without it.
  read: (text) => (/^[!-~]{0,255}$/.test(text) || /^[^\s\p{C}]{0,255}$/u.test(text) ? text : undefined),
};

export const FLAGS = {
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

export interface ServerOptions extends EchoOptions {
  drainTimeout: number;
  stats: number;
}

/** The result of reading a command line. */
export type Command = { show: "help" | "version" } | { serve: ServerOptions };

/**
 * Reads the flags, and PORT where --port is absent.
 * @param program says how it was started, for errors
 * @throws UsageError
 */
export function readCommand(
  args: readonly string[],
  { PORT = "" }: { readonly PORT?: string | undefined } = {},
  program = (): string => "ringback",
): Command {
  // An empty variable is how a shell or a container writes an absent one.
  const port = PORT === "" ? undefined : { from: "PORT", text: PORT };
  const given = readFlags(FLAGS, args, { name: program, fallbacks: { port } });
  if (given.help) return { show: "help" };
  if (given.version) return { show: "version" };
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
