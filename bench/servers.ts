/**
 * The servers that are compared, and how one is started and stopped. It changes when there is another server
 * to compare, or another way to know that one is ready.
 */
import { realpathSync } from "node:fs";
import { join } from "node:path";
import { listeningPorts } from "./system.ts";

export interface Server {
  readonly name: string;
  /** Any of its words may contain `{port}`. */
  readonly command: readonly string[];
  /** What must be installed besides Bun. */
  readonly needs?: "node";
  /** One sentence. */
  readonly about: string;
}

export interface Running {
  readonly name: string;
  readonly pid: number;
  readonly port: number;
  /** Milliseconds from the start of its program to the first byte that came back. */
  readonly firstEchoMs: number;
  /** How it has ended, with the last lines of its stderr; undefined while it runs. */
  ended(): string | undefined;
  /** SIGTERM, and SIGKILL when it is still there 2 seconds later. */
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

const HOST = "127.0.0.1";

const onBun = (file: string, ...args: string[]): string[] => [
  process.execPath,
  "run",
  join(import.meta.dir, file),
  ...args,
];
const onNode = (file: string, ...args: string[]): string[] => ["node", join(import.meta.dir, file), ...args];

export const servers: readonly Server[] = [
  {
    name: "ringback",
    command: onBun("../src/server.ts", "--host", HOST, "--port", "{port}"),
    about: "The echo server of this repository, with its defaults.",
  },
  {
    name: "ringback recv/sendall",
    command: onBun("baselines/recv-sendall.ts", "{port}"),
    about: "The tutorial's loop of recv and sendall, awaited, on this repository's library.",
  },
  {
    name: "Bun.listen",
    command: onBun("baselines/bun-listen.ts", "{port}"),
    about: "A bare handler that keeps what a short write leaves, and nothing more.",
  },
  {
    name: "node:net pipe, Bun",
    command: onBun("baselines/node-net-pipe.mjs", "{port}"),
    about: "socket.pipe(socket) on node:net, on Bun.",
  },
  {
    name: "node:net write, Bun",
    command: onBun("baselines/node-net-write.mjs", "{port}"),
    about: "Write, pause and resume by hand on node:net, on Bun.",
  },
  {
    name: "node:net pipe, Node",
    command: onNode("baselines/node-net-pipe.mjs", "{port}"),
    needs: "node",
    about: "socket.pipe(socket) on node:net, on Node.",
  },
  {
    name: "node:net write, Node",
    command: onNode("baselines/node-net-write.mjs", "{port}"),
    needs: "node",
    about: "Write, pause and resume by hand on node:net, on Node.",
  },
];

/** Whether the server's runtime is installed. Bun under the name of `node` does not count. */
export function installed(server: Server): boolean {
  if (server.needs === undefined) return true;
  const found = Bun.which(server.needs);
  return found !== null && realpathSync(found) !== realpathSync(process.execPath);
}

/**
 * A server from `name=command with {port}`; quotes in the command as in a shell.
 * @throws Error that names the mistake in the text
 */
export function parseServer(text: string): Server {
  const refuse = (why: string): never => {
    throw new Error(`a server is written name='command with {port}'; ${JSON.stringify(text)} ${why}`);
  };
  const equals = text.indexOf("=");
  if (equals < 0) refuse("has no =");
  const name = text.slice(0, equals).trim();
  if (name === "") refuse("has no name before the =");
  const written = text.slice(equals + 1).trim();
  return { name, command: parseCommand(written, refuse), about: `Given as: ${written}` };
}

/**
 * The words of a command that contains `{port}`.
 * @param refuse is called with the mistake in the text
 */
export function parseCommand(written: string, refuse: (why: string) => never): string[] {
  const command = splitWords(written, refuse);
  if (command[0] === undefined || command[0] === "") refuse("has no command");
  if (!command.some((word) => word.includes("{port}"))) refuse("does not say where the {port} goes");
  return command;
}

/**
 * A run of plain characters, a backslash and what it protects, or one quoted part; words are runs of these.
 */
const PART = /(\s+)|'([^']*)'|"((?:[^"\\]|\\.)*)"|\\(.)|([^\s'"\\]+)/gsy;

function splitWords(text: string, refuse: (why: string) => never): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let end = 0;
  for (const [part, space, single, double, escaped, plain] of text.matchAll(PART)) {
    end += part.length;
    if (space === undefined) {
      word = (word ?? "") + (single ?? double?.replace(/\\(["\\$`])/g, "$1") ?? escaped ?? plain ?? "");
      continue;
    }
    if (word !== undefined) words.push(word);
    word = undefined;
  }
  if (end < text.length) {
    refuse(text[end] === "\\" ? "ends in a backslash" : `has a ${text[end]} that is not closed`);
  }
  return word === undefined ? words : [...words, word];
}

type Child = Bun.Subprocess<"ignore", "ignore", "pipe">;

const children = new Set<Child>();

// No server outlives this program, unless SIGKILL ends it. (The default of SIGINT, SIGTERM and SIGHUP ends it
// without this event: who wants them to stop the servers listens for them and exits.)
process.on("exit", () => {
  for (const child of children) signalAll(child, "SIGKILL");
});

/**
 * Starts a server on a free port and waits until it has sent a byte back.
 * @param deadlineMs how long that may take
 * @throws Error when it exits before, or does not answer in time, with the last lines of its stderr
 */
export async function start(server: Server, deadlineMs = 10_000): Promise<Running> {
  const port = freePort();
  const command = server.command.map((word) => word.replaceAll("{port}", String(port)));
  const began = performance.now();
  const child = spawn(server.name, command);
  const stderr = lastWords(child.stderr);
  const failure = await firstEcho(server.name, child, port, began, deadlineMs);
  if (failure !== undefined) {
    await stopChild(child);
    // A child of its own may still have its stderr open.
    await Promise.race([stderr.ended, Bun.sleep(500)]);
    const last = stderr.text() || "(nothing)";
    throw new Error(
      `${server.name}: ${failure}; the command was: ${command.join(" ")}
its stderr ends in:
${last}`,
    );
  }
  const firstEchoMs = performance.now() - began;
  const stop = (): Promise<void> => stopChild(child);
  return {
    ...{ name: server.name, pid: child.pid, port, firstEchoMs },
    ended() {
      const how = exitOf(child);
      return how && `${how}; its stderr ends in:\n${stderr.text() || "(nothing)"}`;
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

function spawn(name: string, command: string[]): Child {
  try {
    // Nobody reads its stdout: a pipe would fill up and stop it.
    const child = Bun.spawn(command, { stdin: "ignore", stdout: "ignore", stderr: "pipe", detached: true });
    children.add(child);
    void child.exited.then(() => {
      // Its children that are still running.
      signalAll(child, "SIGKILL");
      children.delete(child);
    });
    return child;
  } catch (error) {
    throw new Error(`${name}: cannot start ${command.join(" ")}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

function freePort(): number {
  const listener = Bun.listen({ hostname: HOST, port: 0, socket: { data() {} } });
  const { port } = listener;
  listener.stop(true);
  return port;
}

/** How it ended, if it has. */
function exitOf({ exitCode, signalCode }: Child): string | undefined {
  if (signalCode !== null) return `was ended by ${signalCode}`;
  return exitCode === null ? undefined : `exited with code ${exitCode}`;
}

async function stopChild(child: Child): Promise<void> {
  if (!children.has(child)) return;
  signalAll(child, "SIGTERM");
  const kill = setTimeout(() => signalAll(child, "SIGKILL"), 2_000);
  await child.exited;
  clearTimeout(kill);
}

/**
 * To a server and to whatever it has started: they are a process group of their own. Only while its number is
 * its own.
 */
function signalAll({ pid }: Child, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch (error) {
    // They have gone, or are about to (on macOS, EPERM for children that were not waited for).
    if (!["ESRCH", "EPERM"].includes((error as NodeJS.ErrnoException).code!)) throw error;
  }
}

const LAST_WORDS = 2_048;

/** Reads a stream to its end and keeps its last lines: an unread pipe would stop its writer. */
function lastWords(stream: ReadableStream<Uint8Array>): { ended: Promise<void>; text: () => string } {
  const decoder = new TextDecoder();
  let tail = "";
  const read = async (): Promise<void> => {
    for await (const bytes of stream) {
      tail = (tail + decoder.decode(bytes, { stream: true })).slice(-LAST_WORDS);
    }
  };
  return { ended: read(), text: () => tail.trimEnd().split("\n").slice(-10).join("\n") };
}

/** @returns why there was no echo; undefined when there was */
async function firstEcho(
  name: string,
  child: Child,
  port: number,
  began: number,
  deadlineMs: number,
): Promise<string | undefined> {
  let accepts = false;
  for (;;) {
    const exit = exitOf(child);
    if (exit !== undefined) return `${exit} before it answered`;
    const left = began + deadlineMs - performance.now();
    if (left <= 0) {
      const seen = accepts
        ? `port ${port} accepts, and no byte comes back`
        : `nothing accepts on port ${port}`;
      return `${seen}, for ${deadlineMs} ms`;
    }
    const outcome = await tryEcho(port, left);
    if (outcome === "echoed") return whoElse(name, child.pid, port);
    accepts ||= outcome === "no echo";
    await Bun.sleep(1);
  }
}

/**
 * Commands that start the server itself: asking takes long where tens of thousands of connections have just
 * closed.
 */
const direct = new Set<string>();

/** A server that is a child of what was started would be measured as one that needs nothing at all. */
function whoElse(name: string, pid: number, port: number): string | undefined {
  if (direct.has(name) || listeningPorts(pid)?.includes(port) !== false) {
    direct.add(name);
    return undefined;
  }
  return `the program that was started does not listen on port ${port} itself (a child of it may): its CPU time and memory would be meaningless; give the command of the server itself`;
}

/** Sends one byte and waits for its echo: until the connection ends, or the time is up. */
async function tryEcho(port: number, ms: number): Promise<"echoed" | "no echo" | "refused"> {
  const { promise, resolve } = Promise.withResolvers<"echoed" | "no echo">();
  const ended = (): void => resolve("no echo");
  const connecting = Bun.connect({
    hostname: HOST,
    port,
    socket: { data: () => resolve("echoed"), end: ended, close: ended, error: ended },
  });
  const socket = await connecting.catch(() => undefined);
  if (socket === undefined) return "refused";
  const late = setTimeout(ended, ms);
  try {
    // While no server listens, the kernel may choose the very port that is called, and connect the socket to
    // itself.
    if (socket.localPort === port) return "refused";
    socket.write("!");
    return await promise;
  } finally {
    clearTimeout(late);
    socket.end();
  }
}
