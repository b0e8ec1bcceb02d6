/**
 * The process as the kernel and the C library know it: its real environment, and its signals. It changes when
 * we need to know more of it, or when Bun learns to say it.
 */
import { ptr } from "bun:ffi";
import { constants } from "node:os";
import { libc } from "./libc.ts";

/**
 * A variable that the process was started with (getenv(3)). `process.env` also has what Bun has read from a
 * .env file of the current folder, which may belong to anybody.
 * @returns undefined also where there is no C library
 */
export function startVariable(name: string): string | undefined {
  return libc?.getenv(Buffer.from(`${name}\0`))?.toString();
}

const SIG_IGN = 1n;
/** More than any struct sigaction, whose first field is the handler; zeros are no flags and no mask. */
const action = new BigUint64Array(32);

/** Whether the process ignores a signal (sigaction(2)); false where this cannot be asked. */
export function isIgnored(signal: NodeJS.Signals): boolean {
  return libc?.sigaction(constants.signals[signal], null, ptr(action)) === 0 && action[0] === SIG_IGN;
}

/**
 * Ignores a signal. `process.on` would handle it, which is different: a write that it interrupts would be
 * tried again, and interrupted again, for ever.
 */
export function ignore(signal: NodeJS.Signals): void {
  action.fill(0n);
  action[0] = SIG_IGN;
  libc?.sigaction(constants.signals[signal], ptr(action), null);
}
