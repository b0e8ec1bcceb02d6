/** A clock that can be moved on, so that a test need not wait for ten seconds to pass. */
import { spyOn } from "bun:test";
import { PendingCall } from "../../src/socket/pending-call.ts";

const real = performance.now.bind(performance);
let ahead = 0;
let spy: { mockRestore(): void } | undefined;

/** Moves the clock on, and calls back whatever is due by then. */
export async function leap(ms: number): Promise<void> {
  // All deadlines share one timer. It is armed for this one, really; when it rings, it looks at the clock.
  const soon = new PendingCall<void>("leap").wait(1);
  ahead += ms;
  spy ??= spyOn(performance, "now").mockImplementation(() => real() + ahead);
  await soon.catch(() => undefined);
}

/** For afterEach: the clock is right again. */
export function backToNow(): void {
  spy?.mockRestore();
  spy = undefined;
  ahead = 0;
}
