/**
 * One simulated world, made from a seed: its kernel, its Bun and its clock, and what happens in every one.
 * What is played on it is echo-world.ts's and library-world.ts's. It changes when another kind of event can
 * happen.
 */
import { drainMicrotasks } from "bun:jsc";
import { Random } from "../support/random.ts";
import { Clock, installClock } from "./clock.ts";
import { FakeBun, installBun, type FakeSocket, type Watcher } from "./fake-bun.ts";
import { installLibc } from "./fake-libc.ts";
import { Kernel, type Endpoint } from "./kernel.ts";
import type { Runs } from "./runs.ts";
import { Trace } from "./trace.ts";

/** What the fakes take the place of, for who runs the simulations. */
export const real = {
  now: performance.now.bind(performance),
  turn: setImmediate,
  cpuUsage: process.cpuUsage.bind(process),
};

/** The fakes serve one world at a time. */
let current: World;
installClock(() => current.clock);
installLibc(() => current.kernel);
installBun(() => current.bun);

/** The sockets of the world that is being played. */
export const currentSockets = (): FakeBun => current.bun;

/** How often each kind of event is tried, in relation to the others. */
export type Weights = Record<string, number>;

/** What happens next, by weight. */
export class Dice {
  readonly #names: string[] = [];
  readonly #upTo: number[] = [];
  #total = 0;

  constructor(weights: Weights) {
    for (const [name, weight] of Object.entries(weights)) {
      this.#total += weight;
      this.#names.push(name);
      this.#upTo.push(this.#total);
    }
  }

  throw(random: Random): string {
    const at = random.next() * this.#total;
    let i = 0;
    while (at >= this.#upTo[i]!) i++;
    return this.#names[i]!;
  }
}

export abstract class World implements Watcher {
  readonly random: Random;
  readonly trace: Trace;
  readonly clock: Clock;
  readonly kernel: Kernel;
  readonly bun: FakeBun;
  /** How far the clock goes in one step, in milliseconds. */
  readonly pace: number;

  constructor(seed: number, loud: boolean) {
    current = this;
    this.random = new Random(seed);
    this.trace = new Trace(loud);
    this.clock = new Clock(this.trace);
    this.kernel = new Kernel(this.random, this.trace);
    this.bun = new FakeBun(this.kernel, this.clock, this);
    this.kernel.onReset = (by) => this.resets(by);
    this.clock.happened = () => this.happened();
    this.pace = [0.1, 5, 100, 2000][this.random.between(0, 3)]!;
    const { random, kernel } = this;
    kernel.shortWrites = [0, 0.05, 0.5][random.between(0, 2)]!;
    kernel.capacity = [500, 20_000, 200_000, 4 << 20][random.chance(0.1) ? 3 : random.between(0, 2)]!;
  }

  abstract opened(socket: FakeSocket): void;
  abstract delivers(socket: FakeSocket, queue: Runs, size: number): void;
  closed(_: FakeSocket): void {}
  /** Rightly so? */
  abstract pauses(socket: FakeSocket): void;
  abstract resumes(socket: FakeSocket): void;
  /** Code under test throws a connection away. */
  abstract resets(by: Endpoint): void;
  /** Begins, so that there is something to happen. */
  abstract begin(): void;
  /** Something happens, or nothing can. */
  abstract act(): void;
  /** Nothing of interest can still happen. */
  abstract get exhausted(): boolean;
  /** The invariants. */
  abstract check(): void;
  /** Ends the bad luck. @returns whether everything has ended */
  abstract heal(): boolean;
  /** What must be true in the end. */
  abstract judge(): void;

  fail(reason: string): never {
    this.trace.fail(reason);
  }

  assert(holds: boolean, reason: string): void {
    if (!holds) this.fail(reason);
  }

  /** Lives for this many steps, and then to the end. @throws Fault */
  live(steps: number): void {
    this.begin();
    this.#settle();
    for (let tries = steps * 20; this.trace.steps < steps && tries > 0 && !this.exhausted; tries--) {
      const before = this.trace.steps;
      this.act();
      if (this.trace.steps > before) this.#settle();
    }
    this.trace.note("from here on no more bad luck", 0);
    let patience = 200_000;
    while (!this.heal()) {
      this.#settle();
      if (--patience === 0) this.fail("it does not come to its end");
    }
    this.#settle();
    this.judge();
    this.#nothingIsLeft();
  }

  /** A step may be many events: the invariants hold after each. */
  happened(): void {
    if (this.trace.fault !== undefined) throw this.trace.fault;
    this.check();
  }

  #settle(): void {
    drainMicrotasks();
    this.happened();
  }

  /** Timers that only sweep up are given their time. */
  #nothingIsLeft(): void {
    this.assert(this.bun.sockets.length === 0, `${this.bun.sockets.length} sockets are open`);
    for (let i = 0; i < 1000 && this.clock.armed > 0; i++) {
      if (this.clock.immediates > 0) this.clock.turn();
      else if (!this.clock.fire()) this.clock.now = this.clock.next;
      this.#settle();
    }
    this.assert(this.clock.armed === 0, `${this.clock.armed} timers are armed for ever`);
    this.assert(this.kernel.openDescriptors === 0, `${this.kernel.openDescriptors} descriptors are open`);
  }

  // What happens in every world. Each gives whether it could.

  anySocket(): FakeSocket | undefined {
    const { sockets } = this.bun;
    return sockets.length === 0 ? undefined : sockets[this.random.between(0, sockets.length - 1)];
  }

  deliver(): boolean {
    return this.anySocket()?.deliver() ?? false;
  }

  accept(): boolean {
    const { listeners } = this.bun;
    if (listeners.length === 0) return false;
    return listeners[this.random.between(0, listeners.length - 1)]!.accept();
  }

  answer(): boolean {
    const { connecting } = this.kernel;
    if (connecting.length === 0) return false;
    return this.kernel.answer(connecting[this.random.between(0, connecting.length - 1)]!);
  }

  arrive(): boolean {
    const end = this.anySocket()?.endpoint;
    if (end?.resetDue !== true) return false;
    this.kernel.arrive(end);
    return true;
  }

  /** Time passes, mostly up to the next timer, sometimes beyond; then one timer fires. */
  time(): boolean {
    const { clock, random } = this;
    if (this.#timer()) return true;
    const jump = random.next() * this.pace;
    const late = random.chance(0.1) ? random.next() * this.pace : 0;
    clock.now = Math.min(clock.now + jump, Math.max(clock.now, clock.next) + late);
    this.trace.step("it is @ ms", 0, Math.round(clock.now));
    this.#timer();
    return true;
  }

  #timer(): boolean {
    if (this.clock.next > this.clock.now) return false;
    this.beforeTimer();
    return this.clock.fire();
  }

  /** A timer is due. */
  beforeTimer(): void {}

  turn(): boolean {
    if (this.clock.immediates === 0) return false;
    this.clock.turn();
    return true;
  }

  drainForNothing(): boolean {
    const socket = this.anySocket();
    return socket !== undefined && socket.endpoint.state === "established" && socket.drain();
  }

  late(): boolean {
    const { ghosts } = this.bun;
    if (ghosts.length === 0) return false;
    ghosts[this.random.between(0, ghosts.length - 1)]!.late();
    return true;
  }

  /** Whatever waits, everywhere. @returns whether something happened */
  everythingHappens(): boolean {
    const before = this.trace.steps;
    for (const client of [...this.kernel.connecting]) this.kernel.answer(client);
    for (const listener of [...this.bun.listeners]) while (listener.accept());
    for (const socket of [...this.bun.sockets]) {
      if (socket.closed) continue;
      if (socket.endpoint.resetDue) this.kernel.arrive(socket.endpoint);
      for (let i = 0; i < 50 && !socket.closed && socket.deliver(); i++);
    }
    this.turn();
    return this.trace.steps > before;
  }
}
