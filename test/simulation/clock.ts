/**
 * The simulated clock: performance.now, timers and immediates, which happen when the world says so. It
 * changes when the code under test uses another way to wait.
 */
import { drainMicrotasks } from "bun:jsc";
import type { Trace } from "./trace.ts";

class FakeTimer {
  readonly run: () => void;
  due: number;
  /** For setInterval. */
  readonly period: number | undefined;

  constructor(run: () => void, due: number, period?: number) {
    this.run = run;
    this.due = due;
    this.period = period;
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }
}

export class Clock {
  now = 0;
  /** CPU time that the process has used, in milliseconds: none, unless the world says that it was busy. */
  cpu = 0;
  /** Told after each immediate, when its microtasks have run. */
  happened: () => void = () => undefined;
  readonly #trace: Trace;
  readonly #timers: FakeTimer[] = [];
  #immediates: (() => void)[] = [];
  /** On a fake engine, the rules have no other time than its own, and no sockets: Bun's are a defect. */
  seam = false;

  constructor(trace: Trace) {
    this.#trace = trace;
  }

  /** A global of Bun's is used. @throws Fault where it must not be */
  pastSeam(what: string): this {
    if (this.seam) this.#trace.fail(`past the seam of the engine: ${what}`);
    return this;
  }

  /** How many timers and immediates wait. */
  get armed(): number {
    return this.#timers.length + this.#immediates.length;
  }

  get immediates(): number {
    return this.#immediates.length;
  }

  /** When the next timer is due; Infinity without one. */
  get next(): number {
    let next = Infinity;
    for (const { due } of this.#timers) if (due < next) next = due;
    return next;
  }

  set(run: () => void, ms = 0, period?: number): FakeTimer {
    const timer = new FakeTimer(run, this.now + Math.max(1, ms), period);
    this.#timers.push(timer);
    return timer;
  }

  clear(timer: FakeTimer | undefined): void {
    const at = timer === undefined ? -1 : this.#timers.indexOf(timer);
    if (at >= 0) this.#timers.splice(at, 1);
  }

  /** One timer that is due; the earliest, and of two the older one. @returns whether there was one */
  fire(): boolean {
    const next = this.next;
    if (next > this.now) return false;
    const timer = this.#timers.find(({ due }) => due === next)!;
    this.#trace.step("a timer fires at @ ms", 0, Math.round(this.now));
    if (timer.period === undefined) this.clear(timer);
    else timer.due = this.now + timer.period;
    timer.run();
    return true;
  }

  immediate(run: () => void): void {
    this.#immediates.push(run);
  }

  /** One turn of the event loop: the immediates that wait now. */
  turn(): void {
    this.#trace.step("a turn of the event loop: @ immediates", 0, this.#immediates.length);
    for (const run of this.#immediates.splice(0)) {
      run();
      drainMicrotasks();
      this.happened();
    }
  }
}

/** Puts the clock in the place of the real one, for good. @param current the one of the running simulation */
export function installClock(current: () => Clock): void {
  const clear = (timer: unknown): void => current().clear(timer as FakeTimer);
  Object.assign(globalThis, {
    setTimeout: (run: () => void, ms?: number) => current().pastSeam("setTimeout").set(run, ms),
    setInterval: (run: () => void, ms = 1) => current().pastSeam("setInterval").set(run, ms, Math.max(1, ms)),
    setImmediate: (run: () => void) => current().pastSeam("setImmediate").immediate(run),
    clearTimeout: clear,
    clearInterval: clear,
  });
  performance.now = () => current().pastSeam("performance.now").now;
  process.cpuUsage = () => ({ user: current().cpu * 1000, system: 0 });
}
