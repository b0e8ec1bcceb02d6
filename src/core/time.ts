/** An engine's clock and timers. It changes when a rule needs another kind of call. */

export interface Timer {
  /** Calls back no more. Can be called twice, and from the callback itself. */
  cancel(): void;
}

export interface Time {
  /** Milliseconds since some moment in the past, with a fraction. Never goes back. */
  now(): number;
  /**
   * Calls back once, `ms` milliseconds from now or a little later.
   * @param ms 0 to 2^31 - 1
   * @param keepsAlive whether the process has to live until then
   */
  after(ms: number, callback: () => void, keepsAlive: boolean): Timer;
  /** Calls back every `ms` milliseconds, and keeps the process alive. */
  every(ms: number, callback: () => void): Timer;
  /**
   * Calls back once, in a later turn of the event loop: after the events that the kernel has for this one.
   */
  nextTurn(callback: () => void): void;
}
