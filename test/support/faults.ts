/** What must hold after every fault: the server serves, and what it used is given back. */
import { expect } from "bun:test";
import { exchange, pattern, until } from "./peers.ts";
import { cpuSeconds, descriptors, resident } from "./program.ts";

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

/** Waits until the process uses next to no CPU: one that spins never comes to rest. */
export async function idle(pid: number): Promise<void> {
  let used = Infinity;
  for (let tries = 0; tries < 40 && used > 0.01; tries++) {
    const before = cpuSeconds(pid);
    await Bun.sleep(200);
    used = cpuSeconds(pid) - before;
  }
  if (used > 0.01) throw new Error(`the server does not come to rest: ${used.toFixed(3)} s of CPU in 0.2 s`);
}

/**
 * Warms the server up and notes what it uses.
 * @param check what shows that it serves; by default an echo
 * @param busy it has something to do all the time: its CPU is not looked at
 * @returns a check that it serves, and that descriptors, CPU and memory (but for `grown` bytes) are back
 */
export async function steady(
  { pid, port }: Served,
  { check = () => serves(port), busy = false } = {},
): Promise<(grown?: number) => Promise<void>> {
  for (let i = 0; i < 10; i++) await check();
  if (!busy) await idle(pid);
  const before = { descriptors: descriptors(pid), memory: resident(pid) };
  return async (grown = 32 * MIB) => {
    await check();
    await until(() => descriptors(pid) <= before.descriptors, "the descriptors are back");
    if (!busy) await idle(pid);
    expect(resident(pid) - before.memory).toBeLessThan(grown);
  };
}
