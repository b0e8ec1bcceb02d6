/** Bun's event loop as a clock. It changes when Bun's timers do. */
import type { Time, Timer } from "../../core/time.ts";

export const bunTime: Time = {
  now: () => performance.now(),
  after(ms, callback, keepsAlive) {
    const timer = setTimeout(callback, ms);
    if (!keepsAlive) timer.unref();
    return { cancel: () => clearTimeout(timer) };
  },
  every(ms, callback): Timer {
    const timer = setInterval(callback, ms);
    return { cancel: () => clearInterval(timer) };
  },
  nextTurn(callback) {
    setImmediate(callback);
  },
};
