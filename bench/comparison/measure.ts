/**
 * One measurement: a server and one case. It changes when the way to measure one does.
 */
import { join } from "node:path";
import type { LoadResult } from "../load/result.ts";
import { start, type Running, type Server } from "../servers.ts";
import { residentBytes } from "../system.ts";
import type { Case, LoadCase, MemoryCase, StartCase } from "./cases.ts";
import type { Measurement } from "./result.ts";

export interface Cores {
  server: number;
  load: number;
}

/** In seconds. */
export interface Timing {
  /** The window. */
  seconds: number;
  /** Before it: of a server's first load, and of each further one in the same round. */
  warmup: { first: number; next: number };
}

/** The servers that have had a load in this round, paused. */
export type Kept = Map<string, Running>;

/** How much longer than its own time a program may take before it is given up. */
const PATIENCE_MS = 30_000;

const here = (file: string): string => join(import.meta.dir, "..", file);

/** taskset(1) becomes the program, so that its process is the one that was started. */
export const pinnedTo = (core: number | undefined, command: readonly string[]): string[] =>
  core === undefined ? [...command] : ["taskset", "-c", String(core), ...command];

/**
 * The cores to pin to: the first and the last, which are not two threads of one core where there are more than two.
 * @returns null on one core, or without taskset(1)
 */
export function coresToPin(): Cores | null {
  const cores = navigator.hardwareConcurrency;
  return cores >= 2 && Bun.which("taskset") !== null ? { server: 0, load: cores - 1 } : null;
}

/** What a child that was spawned for one measurement says; it is killed when it takes too long, or at an abort. */
async function output(command: string[], ms: number, signal: AbortSignal): Promise<string> {
  const child = Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "pipe", timeout: ms, signal });
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (child.exitCode === 0) return stdout;
  const how = child.exitCode === null ? `was ended by ${child.signalCode}` : `exited with ${child.exitCode}`;
  throw new Error(`${stderr.trim() || "the program said nothing"} (it ${how})`);
}

async function load(
  server: Running,
  one: LoadCase,
  seconds: number,
  warmup: number,
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
  return JSON.parse(await output(command, (seconds + warmup) * 1000 + PATIENCE_MS, signal)) as LoadResult;
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

type Figures = Pick<Measurement, "firstEchoMs" | "load" | "memory">;

const started = (server: Server, cores: Cores | null): Promise<Running> =>
  start({ ...server, command: pinnedTo(cores?.server, server.command) });

/** A server that was started for a figure of its memory, or of its start alone: what else it did would show. */
async function fresh(
  server: Server,
  one: MemoryCase | StartCase,
  cores: Cores | null,
  signal: AbortSignal,
): Promise<Figures> {
  await using running = await started(server, cores);
  const { firstEchoMs } = running;
  return one.kind === "start"
    ? { firstEchoMs }
    : { firstEchoMs, memory: await memory(running, one, cores?.load, signal) };
}

/**
 * A server goes through all loads of a round, which leaves time for more rounds; the servers take turns at each load, so
 * that two that are compared are measured within seconds. Who waits is paused: a collector at its work would be seen in
 * the others' figures.
 */
async function loaded(
  server: Server,
  one: LoadCase,
  { seconds, warmup }: Timing,
  cores: Cores | null,
  kept: Kept,
  signal: AbortSignal,
): Promise<Figures> {
  const before = kept.get(server.name);
  before?.resume();
  const running = before ?? (await started(server, cores));
  const again = before !== undefined;
  try {
    const given = again ? warmup.next : warmup.first;
    const figures: Figures = { load: await load(running, one, seconds, given, cores?.load, signal) };
    running.pause();
    kept.set(server.name, running);
    return again ? figures : { firstEchoMs: running.firstEchoMs, ...figures };
  } catch (error) {
    // It may be gone, or owe something still: the next load is for a new one.
    kept.delete(server.name);
    await running.stop();
    throw error;
  }
}

/**
 * Measures a server once, and starts it where none is kept. What goes wrong is in the measurement, as its error: the
 * other servers can still be compared.
 */
export async function measure(
  server: Server,
  one: Case,
  timing: Timing,
  cores: Cores | null,
  kept: Kept,
  signal: AbortSignal,
): Promise<Figures & Pick<Measurement, "error">> {
  try {
    switch (one.kind) {
      case "idle":
      case "stalled":
      case "start":
        return await fresh(server, one, cores, signal);
      default:
        return await loaded(server, one, timing, cores, kept, signal);
    }
  } catch (error) {
    return { error: (error as Error).message };
  }
}
