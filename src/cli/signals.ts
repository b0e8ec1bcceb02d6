/**
 * The signals that stop a program: the first one gracefully, a later one at once.
 */
import { isIgnored } from "../os/process.ts";

export type StopSignal = "SIGTERM" | "SIGINT" | "SIGHUP";

const SIGNALS: readonly StopSignal[] = ["SIGTERM", "SIGINT", "SIGHUP"];

/**
 * Within this time of the first, a signal is the same request: a supervisor signals a whole group, and `bun
 * run` passes it on.
 */
const SAME_MS = 1_000;
/** Enough for one turn of the event loop. */
const TURN_MS = 20;

/**
 * Calls `first` for the first signal, and `again` for each SIGTERM or SIGINT that comes more than a second
 * later. SIGHUP, which a closed terminal sends, never hurries. A signal that was ignored when the program
 * started stays so (nohup, a background job of a script).
 */
export function onStopSignals(
  first: (signal: StopSignal) => void,
  again: (signal: StopSignal) => void,
): void {
  let stopping = false;
  let later = false;
  const onSignal = (signal: StopSignal): void => {
    if (later && signal !== "SIGHUP") again(signal);
    if (stopping) return;
    stopping = true;
    first(signal);
    // Of a signal that waited while the process was busy or suspended, nobody knows when it came. The second
    // timer gives it a turn of the event loop in which it is taken for what came in time.
    setTimeout(() => void setTimeout(() => void (later = true), TURN_MS).unref(), SAME_MS - TURN_MS).unref();
  };
  // Asked before process.on() changes it.
  for (const signal of SIGNALS.filter((one) => !isIgnored(one))) process.on(signal, onSignal);
}
