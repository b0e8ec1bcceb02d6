/** What must hold after every fault: the server serves, and what it used is released. */
import { expect } from "bun:test";
import { join } from "node:path";
import { exchange, pattern, until } from "./peers.ts";
import { cpuSeconds, descriptors, resident, ROOT, type Program } from "./program.ts";

const MIB = 1 << 20;
const WHOLE = pattern(MIB, 77);

interface Served {
  readonly pid: number;
  readonly port: number;
}

/** A megabyte comes back whole. */
export async function serves(port: number, host?: string): Promise<void> {
  expect((await exchange(port, WHOLE, host)).equals(WHOLE)).toBe(true);
}

/** The share of a core that a process uses, of all threads. */
export async function cpuShare(pid: number, ms: number): Promise<number> {
  const [before, began] = [cpuSeconds(pid), performance.now()];
  await Bun.sleep(ms);
  return (1000 * (cpuSeconds(pid) - before)) / (performance.now() - began);
}

/**
 * One that has nothing to do wakes up now and then, and a look at the test's own process takes some of this,
 * too.
 */
const NEXT_TO_NOTHING = 0.02;
const LOOK_MS = 80;
const LOOKS = 3;

/**
 * Waits until the process uses next to no CPU at some looks in a row: one that spins now and then never comes
 * to rest.
 */
export async function idle(pid: number): Promise<void> {
  let [share, quiet] = [0, 0];
  for (let looks = 0; looks < 100 && quiet < LOOKS; looks++) {
    share = await cpuShare(pid, LOOK_MS);
    quiet = share <= NEXT_TO_NOTHING ? quiet + 1 : 0;
  }
  if (quiet < LOOKS)
    throw new Error(`the server does not come to rest: ${(100 * share).toFixed(1)}% of a core`);
}

/** What it does all the time it does in a fault and after it as well, with half as much CPU again at most. */
export async function asBusyAs(pid: number, before: number): Promise<void> {
  const most = 1.5 * before + NEXT_TO_NOTHING;
  let share = Infinity;
  // What the fault has left to collect may take a moment.
  for (let tries = 0; tries < 3 && share > most; tries++) share = await cpuShare(pid, 500);
  expect(share).toBeLessThanOrEqual(most);
}

/** Resident memory, when this process has collected its own garbage if it is the one that is asked for. */
function memory(pid: number): number {
  if (pid === process.pid) Bun.gc(true);
  return resident(pid);
}

/** As few as are open in a moment: the last connection may be closed a little later. */
async function leastDescriptors(pid: number): Promise<number> {
  let least = descriptors(pid);
  for (let looks = 0; looks < 5; looks++) {
    await Bun.sleep(5);
    least = Math.min(least, descriptors(pid));
  }
  return least;
}

/**
 * Warms the server up and notes what it uses.
 * @param check what shows that it serves; by default an echo
 * @param busy the share of a core that it uses all the time, having something to do
 * @returns a check that it serves, and that descriptors, CPU and memory (but for `grown` bytes) are back
 */
export async function steady(
  { pid, port }: Served,
  { check = () => serves(port), busy = undefined as number | undefined } = {},
): Promise<(grown?: number) => Promise<void>> {
  for (let i = 0; i < 10; i++) await check();
  const before = { descriptors: await leastDescriptors(pid), memory: memory(pid) };
  return async (grown = 32 * MIB) => {
    await check();
    await until(() => descriptors(pid) <= before.descriptors, "the descriptors are back");
    if (busy === undefined) await idle(pid);
    else await asBusyAs(pid, busy);
    expect(memory(pid) - before.memory).toBeLessThan(grown);
  };
}

/** What a program is launched with that thrice() can look into. */
export const collecting = join(ROOT, "test/support/collecting.ts");

/** Resident memory and the heap's bytes when all garbage is collected. */
async function collected(program: Program): Promise<{ memory: number; heap: number }> {
  const said = program.stdout.length;
  program.signal("SIGUSR2");
  let heap: string | undefined;
  await until(
    () => (heap = /^heap (\d+)\n/m.exec(program.stdout.slice(said))?.[1]) !== undefined,
    "it collects its garbage",
  );
  return { memory: resident(program.pid), heap: Number(heap) };
}

/** A heap without garbage differs by 10 KB from time to time. */
const HEAP = 64 << 10;

/**
 * Does it three times to a program that is collecting. The first time makes room, the second time fills it;
 * from then on, in the third, the heap stays, and memory grows by at most this many bytes: the runtime's own
 * comes in large pieces.
 */
export async function thrice(program: Program, bytes: number, fault: () => Promise<void>): Promise<void> {
  let before = { memory: 0, heap: 0 };
  for (let round = 1; round <= 3; round++) {
    await fault();
    if (round === 2) before = await collected(program);
  }
  const after = await collected(program);
  expect(after.heap - before.heap).toBeLessThan(HEAP);
  expect(after.memory - before.memory).toBeLessThan(bytes);
}
