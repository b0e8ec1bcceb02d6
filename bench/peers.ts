#!/usr/bin/env bun
/**
 * Peers that stay: `bun run bench/peers.ts --port P --idle N`, or `--stalled N`. It prints "ready" when all
 * of them are there, and goes when its stdin ends. It changes when there is another kind of peer that stays.
 */
import { parseArgs } from "node:util";
import { SO_RCVBUF, SO_SNDBUF, SOL_SOCKET } from "../src/os/constants.ts";
import { setOption } from "../src/os/descriptor.ts";

const HELP = `Holds connections to an echo server, for looking at what they cost it.

Usage: bun run bench/peers.ts --port <number> (--idle <count> | --stalled <count>)

  --idle     peers that have sent one byte, read it back, and then stay silent
  --stalled  peers that send as much as is taken, and read nothing

It prints "ready", and stays until its stdin ends (Ctrl-D) or it is interrupted.
Exit code 1: a connection was refused or lost. 2: a wrong flag.
`;

const HOST = "127.0.0.1";
/** Connects at a time: every listener's queue holds at least as many. */
const AT_ONCE = 100;
/** Peers count as stalled when no byte has been taken from any of them for this long. */
const STALLED_MS = 300;
const PIECE = Buffer.alloc(65_536, "stalled ");

function fail(code: 1 | 2, why: string): never {
  process.stderr.write(`peers: ${why}\n`);
  process.exit(code);
}

function count(name: string, text: string | undefined, max: number): number {
  const value = Number(text);
  if (text !== undefined && Number.isInteger(value) && value >= 1 && value <= max) return value;
  fail(2, `--${name}: ${text === undefined ? "is required" : `${text} is not from 1 to ${max}`}`);
}

function read() {
  const text = { type: "string" } as const;
  try {
    const options = { port: text, idle: text, stalled: text, help: { type: "boolean" } } as const;
    return parseArgs({ options, strict: true }).values;
  } catch (error) {
    fail(2, (error as Error).message);
  }
}

/**
 * Bounds what the kernel keeps for a stalled peer: megabytes each otherwise, which take seconds to fill and
 * say nothing about the server.
 */
function narrow({ fd }: Bun.Socket & { readonly fd?: number }): void {
  for (const option of [SO_SNDBUF, SO_RCVBUF]) setOption(fd!, SOL_SOCKET, option, PIECE.length);
}

const sockets: Bun.Socket[] = [];
let movedAt = performance.now();

/** As much as is taken now; `drain` asks again. */
function push(socket: Bun.Socket): void {
  while (socket.write(PIECE) > 0) movedAt = performance.now();
}

async function connect(port: number, stalled: boolean): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const lost = (): void => {
    const error = new Error(`the connection was lost, of ${sockets.length} that there were`);
    reject(error);
    if (sockets.length > 0) fail(1, error.message);
  };
  const socket = await Bun.connect({
    hostname: HOST,
    port,
    socket: {
      open: (it) => {
        if (stalled) narrow(it);
        it.write("!");
      },
      data: (it) => {
        if (stalled) it.pause();
        resolve();
      },
      drain: (it) => {
        if (stalled) push(it);
      },
      close: lost,
      error: (_, error) => reject(error),
    },
  });
  await promise;
  sockets.push(socket);
}

async function connectAll(port: number, peers: number, stalled: boolean): Promise<void> {
  while (sockets.length < peers) {
    const some = Math.min(AT_ONCE, peers - sockets.length);
    await Promise.all(Array.from({ length: some }, () => connect(port, stalled)));
  }
  if (!stalled) return;
  for (const socket of sockets) push(socket);
  while (performance.now() - movedAt < STALLED_MS) await Bun.sleep(50);
}

const { port, idle, stalled, help } = read();
if (help) {
  process.stdout.write(HELP);
  process.exit(0);
}
if ((idle === undefined) === (stalled === undefined)) fail(2, "one of --idle and --stalled is needed");
const to = count("port", port, 65_535);
const peers = idle === undefined ? count("stalled", stalled, 60_000) : count("idle", idle, 60_000);
try {
  await connectAll(to, peers, stalled !== undefined);
} catch (error) {
  fail(1, `connection ${sockets.length + 1} of ${peers}: ${(error as Error).message}`);
}
process.stdout.write("ready\n");
for await (const _ of Bun.stdin.stream());
// A reset leaves nothing in TIME_WAIT, which would use up the ports of the next ten thousand.
for (const socket of sockets.splice(0)) socket.terminate();
process.exit(0);
