/**
 * One measurement: a server, freshly started, and one case. It changes when the way to measure one does.
 */
import { join } from "node:path";
import type { LoadResult } from "../load/result.ts";
import { start, type Running, type Server } from "../servers.ts";
import { residentBytes } from "../system.ts";
import type { Case, LoadCase, MemoryCase } from "./cases.ts";
import type { Measurement } from "./result.ts";

export interface Cores {
  server: number;
  load: number;
}

/** In seconds: the window, and what comes before it and is not counted. */
export interface Timing {
  seconds: number;
  warmup: number;
}

/** How much longer than its own time a program may take before it is given up. */
const PATIENCE_MS = 30_000;

const here = (file: string): string => join(import.meta.dir, "..", file);

/** taskset(1) becomes the program, so that its process is the one that was started. */
export const pinnedTo = (core: number | undefined, command: readonly string[]): string[] =>
  core === undefined ? [...command] : ["taskset", "-c", String(core), ...command];

/**
 * The cores to pin to, of those that this process may use: the first and the last, which are not two threads
 * of one core where there are more than two.
 * @returns null on one core, or without taskset(1)
 */
export function coresToPin(): Cores | null {
  if (Bun.which("taskset") === null) return null;
  // "pid 42's current affinity list: 0-2,7"
  const affinity = Bun.spawnSync(["taskset", "-cp", String(process.pid)]).stdout.toString();
  const cores = affinity.slice(affinity.lastIndexOf(":") + 1).match(/\d+/g) ?? [];
  return cores.length >= 2 ? { server: Number(cores[0]), load: Number(cores.at(-1)) } : null;
}

/**
 * The output of a child that was spawned for one measurement; it is killed at a timeout or an abort.
 */
async function output(command: string[], ms: number, signal: AbortSignal): Promise<string> {
  const child = Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "pipe", timeout: ms, signal });
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (child.exitCode === 0) return stdout;
  if (child.exitCode === null && !signal.aborted)
    throw new Error(`the load generator was ended by ${child.signalCode}, as when it takes ${ms / 1000} s`);
  throw new Error(stderr.trim() || `the load generator exited with ${child.exitCode} and no message`);
}

async function load(
  server: Running,
  one: LoadCase,
  { seconds, warmup }: Timing,
  core: number | undefined,
  signal: AbortSignal,
) {
  const flags: Record<string, number> = {
    port: server.port,
    pid: server.pid,
    connections: one.connections,
    bytes: one.bytes,
    seconds,
    warmup,
  };
  if (one.kind !== "churn") flags["depth"] = one.depth;
  if (one.rate !== undefined) flags["rate"] = one.rate;
  const words = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, String(value)]);
  if (one.kind === "churn") words.push("--churn");
  const command = pinnedTo(core, [process.execPath, "run", here("load.ts"), "--json", ...words]);
  const text = await output(command, (seconds + warmup) * 1000 + PATIENCE_MS, signal);
  const { histogram, ...load } = JSON.parse(text) as LoadResult;
  return load;
}

async function memory(server: Running, one: MemoryCase, core: number | undefined, signal: AbortSignal) {
  const flags = ["--port", String(server.port), `--${one.kind}`, String(one.connections)];
  const emptyBytes = residentBytes(server.pid);
  const command = pinnedTo(core, [process.execPath, "run", here("peers.ts"), ...flags]);
  const child = Bun.spawn(command, {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
    timeout: PATIENCE_MS,
    signal,
  });
  try {
    const { value } = await child.stdout.getReader().read();
    if (value === undefined) throw new Error((await child.stderr.text()).trim() || "the peers did not come");
    return { connections: one.connections, emptyBytes, fullBytes: residentBytes(server.pid) };
  } finally {
    child.stdin.end();
    await child.exited;
  }
}

/** A figure of a server; if the server has gone, the error shows its last words. */
async function orLastWords<T>(running: Running, figure: Promise<T>): Promise<T> {
  try {
    return await figure;
  } catch (error) {
    const ended = running.ended();
    if (ended === undefined) throw error;
    throw new Error(`the server ${ended}\n(${(error as Error).message})`, { cause: error });
  }
}

/**
 * Starts a server, measures it once and stops it. What goes wrong is in the measurement, as its error: the
 * other servers can still be compared.
 */
export async function measure(
  server: Server,
  one: Case,
  timing: Timing,
  cores: Cores | null,
  signal: AbortSignal,
): Promise<Pick<Measurement, "firstEchoMs" | "load" | "memory" | "error">> {
  let firstEchoMs: number | undefined;
  try {
    await using running = await start({ ...server, command: pinnedTo(cores?.server, server.command) });
    firstEchoMs = running.firstEchoMs;
    switch (one.kind) {
      case "start":
        return { firstEchoMs };
      case "idle":
      case "stalled":
        return { firstEchoMs, memory: await orLastWords(running, memory(running, one, cores?.load, signal)) };
      default:
        return {
          firstEchoMs,
          load: await orLastWords(running, load(running, one, timing, cores?.load, signal)),
        };
    }
  } catch (error) {
    const failure = { error: (error as Error).message };
    return firstEchoMs === undefined ? failure : { firstEchoMs, ...failure };
  }
}
