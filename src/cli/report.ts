/** The program's messages: statistics, the totals at the end, a stop, a failed start. */
import type { EchoOptions, Figures } from "../echo/echo-server.ts";
import type { OSError } from "../os/errors.ts";
import type { StopSignal } from "./signals.ts";
import { plural } from "./text.ts";

/** The last line: exact figures of the whole run. */
export function totals(f: Figures): string {
  const ends = [f.refused && `${f.refused} refused`, f.broken && `${f.broken} broken`].filter(Boolean);
  const connections = plural(f.connections, "connection") + (ends.length > 0 ? ` (${ends.join(", ")})` : "");
  const dropped = f.bytesDropped > 0 ? `, ${f.bytesDropped} bytes dropped` : "";
  return `${connections}, ${f.bytesIn} bytes in, ${f.bytesOut} bytes out, ${f.bytesCopied} bytes copied${dropped}`;
}

const SCALES = [
  [1e18, " EB"],
  [1e15, " PB"],
  [1e12, " TB"],
  [1e9, " GB"],
  [1e6, " MB"],
  [1e3, " kB"],
] as const;

/** A number of bytes in at most 8 columns: "999.9 MB". */
export function bytesText(bytes: number): string {
  // Just below a unit, rounding would give "1000.0" of the smaller one.
  const [scale, unit] = SCALES.find(([one]) => bytes >= one * 0.99995) ?? [1, " B"];
  return scale === 1 ? `${Math.round(bytes)} B` : `${(bytes / scale).toFixed(1)}${unit}`;
}

/** Two moments of the server, and the seconds between them. */
interface Span {
  now: Figures;
  before: Figures;
  seconds: number;
}

interface Column {
  /** Its width in characters, separator included. */
  width: number;
  meaning: string;
  text: (span: Span) => string;
}

const rate = ({ now, before, seconds }: Span, key: "bytesIn" | "bytesOut"): string =>
  bytesText((now[key] - before[key]) / seconds);

/** A row fits into 100 columns. */
const COLUMNS: Record<string, Column> = {
  open: { width: 7, meaning: "connections that are open now", text: ({ now }) => `${now.open}` },
  connections: {
    width: 13,
    meaning: "connections accepted since the start, without those refused",
    text: ({ now }) => `${now.connections}`,
  },
  refused: {
    width: 9,
    meaning: "connections reset at once, because --max-connections were open",
    text: ({ now }) => `${now.refused}`,
  },
  broken: {
    width: 8,
    meaning: "connections that ended before every byte was sent back, or by a network fault",
    text: ({ now }) => `${now.broken}`,
  },
  in: {
    width: 9,
    meaning: "bytes received from peers since the start",
    text: ({ now }) => bytesText(now.bytesIn),
  },
  "in/s": {
    width: 9,
    meaning: "the same per second, since the row before",
    text: (span) => rate(span, "bytesIn"),
  },
  out: {
    width: 9,
    meaning: "bytes sent to peers since the start",
    text: ({ now }) => bytesText(now.bytesOut),
  },
  "out/s": {
    width: 9,
    meaning: "the same per second, since the row before",
    text: (span) => rate(span, "bytesOut"),
  },
  held: {
    width: 9,
    meaning: "bytes received and not yet sent back, because peers do not read them",
    text: ({ now }) => bytesText(now.held),
  },
  copied: {
    width: 9,
    meaning: "bytes copied to compose a reply; --reply raw copies none",
    text: ({ now }) => bytesText(now.bytesCopied),
  },
  dropped: {
    width: 9,
    meaning: "bytes received after our FIN (idle timeout, stop), which are not sent back",
    text: ({ now }) => bytesText(now.bytesDropped),
  },
};

/** The name and the meaning of each column of --stats. */
export const statsMeanings = (): [name: string, meaning: string][] =>
  Object.entries(COLUMNS).map(([name, { meaning }]) => [name, meaning]);

export const statsHeader = (): string =>
  Object.entries(COLUMNS)
    .map(([name, { width }]) => name.padStart(width))
    .join("");

export const statsRow = (span: Span): string =>
  Object.values(COLUMNS)
    .map(({ width, text }) => text(span).padStart(width))
    .join("");

/** Says what a stop waits for, how long, and what ends it now. */
export function stopping(signal: StopSignal, open: number, drainTimeout: number): string {
  const now = {
    SIGINT: "press Ctrl-C again to end now",
    SIGTERM: "a second SIGTERM ends it now",
    SIGHUP: "SIGTERM ends it now",
  };
  return `${signal}: finishing ${plural(open, "connection")}, at most ${drainTimeout} s; ${now[signal]}`;
}

/** Advice after a failed start, for the usual reasons. */
export function advice(error: OSError, { host, port }: EchoOptions): string {
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
