/** The signals that stop a program: the first one gracefully, a later one immediately. */
import { isIgnored } from "../os/process.ts";

export type StopSignal = "SIGTERM" | "SIGINT" | "SIGHUP";

const SIGNALS: readonly StopSignal[] = ["SIGTERM", "SIGINT", "SIGHUP"];

/**
 * A signal within this time of the first one is the same request: supervisors signal a whole process group,
 * and `bun run` passes the signal on.
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
    // A signal may have waited while the process was busy or suspended. The second timer gives it a turn of
    // the event loop, in which it still counts as the same request.
    setTimeout(() => void setTimeout(() => void (later = true), TURN_MS).unref(), SAME_MS - TURN_MS).unref();
  };
  // Asked before process.on() changes it.
  for (const signal of SIGNALS.filter((one) => !isIgnored(one))) process.on(signal, onSignal);
}
