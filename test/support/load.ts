/**
 * What the tests of the load generator share: servers that echo, or do worse, and the program as a user
 * starts it.
 */
import { expect } from "bun:test";
import type { LoadResult } from "../../bench/load/result.ts";

const PROGRAM = `${import.meta.dir}/../../bench/load.ts`;

/** One peer of a server that echoes, or that does worse. */
export interface Peer {
  /** Its place in the order of arrival. */
  readonly index: number;
  readonly socket: Bun.Socket<Peer>;
  /** Bytes that came before this chunk. */
  received: number;
  readonly waiting: Buffer[];
}

const servers: (() => void)[] = [];
/** For afterEach. */
export function stopServers(): void {
  for (const stop of servers.splice(0)) stop();
}

/** Some run beside several tests. */
export const children: Bun.Subprocess[] = [];
/** For afterAll. */
export async function killLoads(): Promise<void> {
  for (const child of children) child.kill("SIGKILL");
  await Promise.all(children.map(({ exited }) => exited));
}

/**
 * Sends all of it, in order, as the peer takes it; until then reads nothing more, as a server with bounded
 * memory does.
 */
export function reply(peer: Peer, bytes?: Buffer): void {
  if (bytes !== undefined) peer.waiting.push(bytes);
  for (let first = peer.waiting.shift(); first !== undefined; first = peer.waiting.shift()) {
    const sent = peer.socket.write(first);
    if (sent < 0) return;
    if (sent === first.length) continue;
    peer.waiting.unshift(first.subarray(sent));
    peer.socket.pause();
    return;
  }
  peer.socket.resume();
}

export interface Behaviour {
  open?(peer: Peer): void;
  /** What is done with a chunk; by default it is sent back. */
  data?(peer: Peer, chunk: Buffer): void;
  end?(peer: Peer): void;
}

/** A server in this process. It has as many peers as have ever come. */
export function serve({ open, data = reply, end = ({ socket }) => void socket.end() }: Behaviour = {}) {
  const peers: Peer[] = [];
  const listener = Bun.listen<Peer>({
    hostname: "127.0.0.1",
    port: 0,
    allowHalfOpen: true,
    socket: {
      open(socket) {
        socket.data = { index: peers.length, socket, received: 0, waiting: [] };
        peers.push(socket.data);
        open?.(socket.data);
      },
      data(socket, chunk) {
        data(socket.data, chunk);
        socket.data.received += chunk.length;
      },
      drain: (socket) => reply(socket.data),
      end: (socket) => end(socket.data),
      error: (_, error) => {
        throw error;
      },
    },
  });
  const stop = (): void => listener.stop(true);
  return { port: listener.port, peers, stop };
}

/** A server for one test. */
export function server(behaviour?: Behaviour) {
  const one = serve(behaviour);
  servers.push(one.stop);
  return one;
}

export interface Finished {
  code: number | null;
  stdout: string;
  stderr: string;
}

export function spawn(args: readonly (string | number)[]) {
  const child = Bun.spawn([process.execPath, "run", PROGRAM, ...args.map(String)], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  children.push(child);
  return child;
}

export async function finished(child: ReturnType<typeof spawn>): Promise<Finished> {
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { code: child.exitCode, stdout, stderr };
}

/** Runs the generator as a user does, in a short window; what is given comes last, and wins. */
export const load = (port: number, ...args: (string | number)[]): Promise<Finished> =>
  finished(spawn(["--port", port, "--connections", 4, "--seconds", 0.2, "--warmup", 0.05, ...args]));

export async function measured(port: number, ...args: (string | number)[]): Promise<LoadResult> {
  const { code, stdout, stderr } = await load(port, "--json", ...args);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return JSON.parse(stdout) as LoadResult;
}

/** The first message of peer 0 for peer 1, and the other way round, once both are there. */
export function swapping(): Behaviour {
  const held: [Peer, Buffer][] = [];
  return {
    data(peer, chunk) {
      if (peer.index > 1 || peer.received < 640 || held.length === 2) return reply(peer, chunk);
      held.push([peer, chunk]);
      if (held.length < 2) return;
      const [[one, bytes], [other, otherBytes]] = held as [[Peer, Buffer], [Peer, Buffer]];
      reply(one, otherBytes);
      reply(other, bytes);
    },
  };
}
