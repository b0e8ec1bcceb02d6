/**
 * A pending call: settled by its value, an error, its deadline or its signal, exactly once. It changes when
 * there is another way to stop waiting.
 *
 * All deadlines share one timer. It is armed for the earliest, and stays armed when that call has settled, so
 * that a recv that is answered at once costs no timer.
 */
import type { Timer } from "../core/time.ts";
import { engine } from "../engine/current.ts";
import { osError, safeString } from "../os/errors.ts";

interface Deadlined {
  /** By the engine's clock; Infinity once it does not matter. */
  deadline: number;
  expire(): void;
}

const waiting = new Set<Deadlined>();
let timer: Timer | undefined;
let armedFor = Infinity;

function watch(target: Deadlined): void {
  waiting.add(target);
  if (target.deadline < armedFor) arm(target.deadline);
}

function arm(when: number): void {
  timer?.cancel();
  armedFor = when;
  if (when === Infinity) return;
  const ms = Math.ceil(when - engine.time.now());
  // A timer of more than 24.8 days would fire at once. A call that waits has a socket, which keeps the
  // process alive.
  timer = engine.time.after(Math.min(Math.max(0, ms), 2 ** 31 - 1), sweep, false);
}

function sweep(): void {
  const now = engine.time.now();
  let next = Infinity;
  armedFor = Infinity;
  for (const target of waiting) {
    if (target.deadline <= now) {
      waiting.delete(target);
      target.expire();
    } else if (target.deadline === Infinity) waiting.delete(target);
    else next = Math.min(next, target.deadline);
  }
  if (next < armedFor) arm(next);
}

/** Calls back once, at a time that can be moved or cancelled. */
export class Alarm implements Deadlined {
  deadline = Infinity;
  readonly #callback: () => void;

  constructor(callback: () => void) {
    this.#callback = callback;
  }

  /** @param ms from now on */
  set(ms: number): void {
    this.deadline = engine.time.now() + ms;
    watch(this);
  }

  clear(): void {
    waiting.delete(this);
    this.deadline = Infinity;
  }

  expire(): void {
    this.deadline = Infinity;
    this.#callback();
  }
}

/** The error of an aborted call: the signal's reason, which is an AbortError by default. */
export function abortReason(signal: AbortSignal): Error {
  const { reason } = signal;
  return reason instanceof Error ? reason : new DOMException(safeString(reason), "AbortError");
}

/** One pending call. It can be used again when it is settled. */
export class PendingCall<T> implements Deadlined {
  deadline = Infinity;
  readonly #call: string;
  #resolve: ((value: T) => void) | null = null;
  #reject: ((error: unknown) => void) | null = null;
  #signal: AbortSignal | undefined;

  /** @param call the call's name, for its timeout error: "recv" */
  constructor(call: string) {
    this.#call = call;
  }

  get waiting(): boolean {
    return this.#resolve !== null;
  }

  /** Made once, so that waiting again allocates a promise and nothing else. */
  readonly #keep = (resolve: (value: T) => void, reject: (error: unknown) => void): void => {
    this.#resolve = resolve;
    this.#reject = reject;
  };

  /**
   * @param timeout milliseconds; null waits for ever
   * @param signal not aborted yet
   */
  wait(timeout: number | null, signal?: AbortSignal): Promise<T> {
    const promise = new Promise<T>(this.#keep);
    if (timeout !== null) {
      this.deadline = engine.time.now() + timeout;
      watch(this);
    }
    if (signal !== undefined) {
      this.#signal = signal;
      signal.addEventListener("abort", this);
    }
    return promise;
  }

  resolve(value: T): void {
    const resolve = this.#resolve;
    this.#settle();
    resolve?.(value);
  }

  reject(error: unknown): void {
    const reject = this.#reject;
    this.#settle();
    reject?.(error);
  }

  expire(): void {
    this.reject(osError({ code: "ETIMEDOUT", syscall: this.#call, reason: "timed out" }));
  }

  /** The signal's abort event. */
  handleEvent(): void {
    this.reject(abortReason(this.#signal!));
  }

  #settle(): void {
    this.#resolve = this.#reject = null;
    if (this.deadline !== Infinity) waiting.delete(this);
    this.deadline = Infinity;
    if (this.#signal === undefined) return;
    this.#signal.removeEventListener("abort", this);
    this.#signal = undefined;
  }
}

/** The value of a promise, or the error of the deadline or the signal, whichever comes first. */
export function withDeadline<T>(
  call: string,
  promise: Promise<T>,
  timeout: number | null,
  signal?: AbortSignal,
): Promise<T> {
  if (signal?.aborted) {
    // Nobody waits for its outcome.
    promise.catch(() => undefined);
    return Promise.reject(abortReason(signal));
  }
  if (timeout === null && signal === undefined) return promise;
  const waiter = new PendingCall<T>(call);
  const result = waiter.wait(timeout, signal);
  promise.then(
    (value) => waiter.resolve(value),
    (error: unknown) => waiter.reject(error),
  );
  return result;
}

/**
 * One turn of the event loop, in which the kernel's bytes are handed over: a loop that polls a socket which
 * does not wait would otherwise never see one.
 */
export const nextTurn = (): Promise<void> => new Promise((resolve) => engine.time.nextTurn(resolve));

export const sleep = (ms: number): Promise<void> =>
  new Promise((resolve) => engine.time.after(ms, resolve, true));
