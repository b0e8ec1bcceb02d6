/**
 * A run: what is asked for, the window, what counts, and what voids it. It changes when what counts does.
 *
 * What counts. The window begins after the warm-up and lasts as long as asked for. `messages` are those whose
 * last byte came back inside it, whenever they were sent: they make the throughput and the CPU time of a
 * message, and belong to the same span of time as the CPU time does. The latency is of those whose start lies
 * inside it, whenever they were answered, so that the slow ones at its end are not left out. A start is, in
 * the closed loop, when a message was first given to the kernel; in the open loop when its turn was, whether
 * or not it could be sent then; of a visit, when it began to connect. An answer is there when its last byte
 * is.
 */
import { Histogram } from "../histogram.ts";
import type { Pacing } from "../system.ts";
import { CheckedStream, LoadError, type Writable } from "./checked-stream.ts";

/** The monotonic clock, in nanoseconds. */
export const clock = Bun.nanoseconds;
export const SECOND = 1e9;

/** Seconds that a connect may take. */
export const CONNECT_DEADLINE = 10;
/** Seconds to wait for the answers that are missing at the window's end. */
export const GRACE = 5;

export interface Settings {
  host: string;
  port: number;
  connections: number;
  bytes: number;
  /** Messages in flight on each connection. */
  depth: number;
  seconds: number;
  warmup: number;
  /** Messages per second over all connections, for the open loop; undefined for the closed one. */
  rate: number | undefined;
  churn: boolean;
  verify: boolean;
}

/** Told at the two ends of the window, to take note of what is used between them. */
export interface Window {
  begins(): void;
  ends(): void;
}

/** What the open loop measures beside latency. */
export interface Schedule {
  pacing: Pacing;
  /** Messages whose turn was in the window. */
  due: number;
  /** Of these, how many waited at its end for room on their connection. */
  backlog: number;
  /** Of these, how many were given up after the grace. */
  unsent: number;
  /** By how much messages were sent late although their connection had room: the generator's own fault. */
  lateness: Histogram;
}

export interface Measured {
  /** Length of the window. */
  seconds: number;
  /** Messages (or visits) whose last byte came back inside the window. */
  messages: number;
  /** Of messages whose (intended) start is inside the window, whenever they were answered. */
  latency: Histogram;
  schedule: Schedule | undefined;
  interrupted: boolean;
}

/** What a run's streams share. */
export class Run {
  readonly settings: Settings;
  readonly interrupt: AbortSignal;
  readonly latency = new Histogram();
  /** The window, by the clock. */
  from = Infinity;
  to = Infinity;
  answered = 0;
  /** When the present part of the run ends, and what ends it. */
  #alarm = Infinity;
  #ring = (): void => undefined;
  readonly #failure = Promise.withResolvers<never>();

  constructor(settings: Settings, interrupt: AbortSignal) {
    this.settings = settings;
    this.interrupt = interrupt;
    // It may fail between two awaits.
    this.#failure.promise.catch(() => undefined);
  }

  fail(why: string): void {
    this.#failure.reject(new LoadError(why));
  }

  orFailure<T>(promise: Promise<T>): Promise<T> {
    return Promise.race([promise, this.#failure.promise]);
  }

  /** A message has been answered. */
  answer(start: number, now: number): void {
    this.answered++;
    if (start >= this.from && start < this.to) this.latency.record(now - start);
    if (now >= this.#alarm) this.#ring();
  }

  /** From the first connection to the last byte. */
  async measure(load: Load, window: Window): Promise<Measured> {
    await this.orFailure(load.open());
    load.start();
    await this.#pass(this.settings.warmup);
    if (this.interrupt.aborted) throw new LoadError("interrupted during the warm-up: nothing was measured");
    window.begins();
    const before = this.answered;
    this.from = clock();
    await this.#pass(this.settings.seconds);
    this.to = clock();
    const messages = this.answered - before;
    window.ends();
    const interrupted = this.interrupt.aborted;
    const schedule = await load.finish();
    const seconds = (this.to - this.from) / SECOND;
    return { seconds, messages, latency: this.latency, schedule, interrupted };
  }

  /**
   * Lets so many seconds go by, or fewer when the user interrupts. Answers look at the clock as well: Bun's
   * timers wait for as long as all of its 1,024 places for events are full, which with 2,000 busy connections
   * was a second.
   */
  async #pass(seconds: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    if (this.interrupt.aborted) return;
    this.#alarm = clock() + seconds * SECOND;
    this.#ring = resolve;
    const timer = setTimeout(resolve, seconds * 1000);
    this.interrupt.addEventListener("abort", () => resolve(), { once: true });
    await this.orFailure(promise);
    this.#alarm = Infinity;
    clearTimeout(timer);
  }

  /**
   * Waits until a condition holds, or for so many seconds. It is looked at every 2 ms, after the window only.
   */
  async until(condition: () => boolean, seconds: number): Promise<boolean> {
    const deadline = clock() + seconds * SECOND;
    while (!condition()) {
      if (clock() >= deadline) return false;
      await this.orFailure(Bun.sleep(2));
    }
    return true;
  }
}

/** A way to load a server. */
export interface Load {
  /** Ends when all is ready to begin. */
  open(): Promise<void>;
  start(): void;
  /** Begins nothing new, and ends when all that is owed has come. */
  finish(): Promise<Schedule | undefined>;
}

export abstract class RunStream<S extends Writable> extends CheckedStream<S> {
  readonly run: Run;

  constructor(run: Run, name: string, index: number) {
    super(`${name} ${index}`, index, run.settings.verify);
    this.run = run;
  }

  fail(why: string): void {
    this.run.fail(`${this.name}: ${why}`);
  }
}

export function connectFailure({ host, port }: Settings, error: unknown): string {
  const code = errorCode(error as Error);
  const advice: Record<string, string> = {
    ECONNREFUSED: ": no server listens there; start it first",
    EADDRNOTAVAIL: ": no free local port is left; visit less often, or wait a minute",
  };
  return `connect to ${host}:${port}: ${code}${advice[code] ?? ""}`;
}

export const ended = (stream: { sent: number; received: number }, how: string): string =>
  `${how} by the server in mid-run, after ${stream.received} of ${stream.sent} bytes came back`;

/** Of a socket's error. */
export const errorCode = (error: Error): string => (error as NodeJS.ErrnoException).code ?? error.message;
