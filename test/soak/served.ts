/**
 * The server that is soaked: how it is started, what /proc says of it, and how it ends. It changes with the
 * server's command line or its last line.
 */
import { join } from "node:path";
import type { Figures } from "../../src/echo/echo-server.ts";
import { cpuSeconds, descriptors, resident } from "../support/program.ts";

const ROOT = join(import.meta.dir, "../..");
/** Its defaults, but for what bounds the chunks of many slow peers, and what ends those that say nothing. */
const OWN = ["run", "src/server.ts", "--port", "0", "--receive-buffer", "262144", "--idle-timeout", "30"];

const START_MS = 10_000;
/** How long a stop may take: the server's own --drain-timeout is 10 s. */
const STOP_MS = 20_000;
const LAST_WORDS = 4_096;

/** What is known of its process at one moment. */
export interface Reading {
  /** Resident memory, in bytes. */
  rss: number;
  descriptors: number;
  /** CPU seconds of all threads since its start. */
  cpu: number;
}

/** What our server says when it ends. */
export type Totals = Omit<Figures, "open" | "held">;

export interface End {
  code: number | null;
  signal: string | null;
  /** From the signal on; Infinity when it had to be killed. */
  seconds: number;
  totals: Totals | undefined;
}

export function parseTotals(text: string): Totals | undefined {
  const line =
    /^(\d+) connections?(?: \((?:(\d+) refused)?(?:, )?(?:(\d+) broken)?\))?, (\d+) bytes in, (\d+) bytes out, (\d+) bytes copied(?:, (\d+) bytes dropped)?$/m;
  // Where it does not fit into one line, it goes on in a second one.
  const found = line.exec(text.replaceAll("\n  ", " "));
  if (found === null) return undefined;
  const [connections, refused, broken, bytesIn, bytesOut, bytesCopied, bytesDropped] = found
    .slice(1)
    .map((digits) => Number(digits ?? 0)) as [number, number, number, number, number, number, number];
  return { connections, refused, broken, bytesIn, bytesOut, bytesCopied, bytesDropped };
}

type Child = Bun.Subprocess<"ignore", "pipe", "pipe">;

const children = new Set<Child>();
// Whichever way this program ends, no server outlives it.
process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
});

export class Served {
  readonly command: readonly string[];
  /** Whether it is the server of this repository, of which more is asked. */
  readonly own: boolean;
  readonly pid: number;
  port = 0;
  /** Settles when its process has ended and all that it said is read. */
  readonly ended: Promise<void>;

  readonly #child: Child;
  readonly #said = { stdout: "", stderr: "" };

  /**
   * Starts it and waits until it listens.
   * @param command another server's words, with {port}
   * @throws Error that says why it does not serve
   */
  static async start(command?: readonly string[]): Promise<Served> {
    const port = command === undefined ? 0 : freePort();
    const words = command?.map((word) => word.replaceAll("{port}", String(port)));
    const served = new Served(words ?? [process.execPath, ...OWN], command === undefined);
    await served.#listens(port);
    return served;
  }

  private constructor(command: readonly string[], own: boolean) {
    this.command = command;
    this.own = own;
    const env = { ...process.env, HOST: undefined, PORT: undefined };
    // Ctrl-C is not for the server: a process group of its own.
    const how = { env, detached: true, stdin: "ignore", stdout: "pipe", stderr: "pipe" } as const;
    this.#child = Bun.spawn([...command], { ...how, cwd: own ? ROOT : process.cwd() });
    children.add(this.#child);
    this.pid = this.#child.pid;
    this.ended = Promise.all([this.#hear("stdout"), this.#hear("stderr"), this.#child.exited]).then(() => {
      children.delete(this.#child);
    });
  }

  async #hear(name: "stdout" | "stderr"): Promise<void> {
    const decoder = new TextDecoder();
    for await (const bytes of this.#child[name]) {
      this.#said[name] = (this.#said[name] + decoder.decode(bytes, { stream: true })).slice(-LAST_WORDS);
    }
  }

  async #listens(port: number): Promise<void> {
    const deadline = performance.now() + START_MS;
    while (performance.now() < deadline && this.#child.exitCode === null && this.#child.signalCode === null) {
      this.port = port || Number(/^listening on \S+:(\d+)\n/m.exec(this.#said.stdout)?.[1] ?? 0);
      if (this.port !== 0 && (await accepts(this.port))) return;
      await Bun.sleep(10);
    }
    const why =
      this.#child.exitCode === null ? "does not listen" : `exited with code ${this.#child.exitCode}`;
    this.kill();
    await this.ended;
    throw new Error(`the server ${why}: ${this.command.join(" ")}\n${this.lastWords}`);
  }

  /** The last lines of its stderr. */
  get lastWords(): string {
    return this.#said.stderr.trimEnd().split("\n").slice(-12).join("\n");
  }

  /** How it ended, if it has. */
  get fate(): string | undefined {
    const { exitCode, signalCode } = this.#child;
    if (signalCode !== null) return `was ended by ${signalCode}`;
    return exitCode === null ? undefined : `exited with code ${exitCode}`;
  }

  /** @returns undefined when the process is gone */
  read(): Reading | undefined {
    if (this.fate !== undefined) return undefined;
    try {
      return { rss: resident(this.pid), descriptors: descriptors(this.pid), cpu: cpuSeconds(this.pid) };
    } catch {
      // It ended between two looks.
      return undefined;
    }
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  /** SIGTERM, and SIGKILL when that does not help. */
  async stop(): Promise<End> {
    const began = performance.now();
    this.#child.kill("SIGTERM");
    const late = setTimeout(() => this.kill(), STOP_MS);
    await this.ended;
    clearTimeout(late);
    const seconds = (performance.now() - began) / 1000;
    const { exitCode: code, signalCode } = this.#child;
    const signal = signalCode === null ? null : String(signalCode);
    const killed = signal === "SIGKILL";
    return { code, signal, seconds: killed ? Infinity : seconds, totals: parseTotals(this.#said.stderr) };
  }
}

function freePort(): number {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = listener;
  listener.stop(true);
  return port;
}

/**
 * Whether the server takes a connection, and sends a byte back on it. Then that connection is closed, at both
 * ends.
 */
async function accepts(port: number): Promise<boolean> {
  const echo = Promise.withResolvers<boolean>();
  const end = Promise.withResolvers<void>();
  const over = (): void => {
    echo.resolve(false);
    end.resolve();
  };
  try {
    const socket = await Bun.connect({
      ...{ hostname: "127.0.0.1", port, allowHalfOpen: true },
      socket: { data: () => echo.resolve(true), end: over, close: over, error: over },
    });
    // While nobody listens, the kernel may choose the very port that is called, and connect the socket to
    // itself.
    if (socket.localPort !== port) socket.write("!");
    else over();
    const late = setTimeout(over, START_MS);
    const echoed = await echo.promise;
    socket.shutdown();
    await end.promise;
    clearTimeout(late);
    socket.end();
    return echoed;
  } catch {
    return false;
  }
}
