/**
 * The work of one turn of the event loop, over all connections that share it: bounded, so that timers,
 * signals and small messages keep their time, and dealt out round robin. It changes when the cost of a turn
 * does.
 */
import type { Time } from "./time.ts";

/**
 * A unit is about 5 µs: a write of up to 16 KiB, or 16 composed replies. A turn has this many for the
 * connections that wait in the queue and as many for what the kernel brings: 5 to 10 ms.
 */
const UNITS_PER_TURN = 1024;

/** Units for one connection before the next one has its turn. */
export const UNITS_PER_VISIT = 16;

/** The cost of one write. */
export const unitsOf = (bytes: number): number => 1 + (bytes >>> 14);

/** A connection that waits for its turn; it stands in at most one queue, once. */
export interface Yielded {
  onTurn(): void;
  /** The next one in the queue: links in the connections themselves allocate nothing. */
  nextYielded: Yielded | null;
}

export class TurnBudget {
  readonly #time: Time;
  /** Whether the units of this turn are used up: work that remains has to wait(). */
  exhausted = false;
  #left = UNITS_PER_TURN;
  #armed = false;
  #first: Yielded | null = null;
  #last: Yielded | null = null;
  readonly #begin = (): void => this.#next();

  constructor(time: Time) {
    this.#time = time;
  }

  /** Counts work that was done. */
  spend(units: number): void {
    this.#left -= units;
    if (this.#left > 0) return;
    if (this.#armed) this.exhausted = true;
    else {
      // These units may have been spent over many turns, which nobody counts: that would cost an immediate in
      // each.
      this.#arm();
      this.#refill();
    }
  }

  /** Calls the connection's onTurn() in a later turn, after all that wait already. */
  wait(connection: Yielded): void {
    if (this.#last === null) this.#first = connection;
    else this.#last.nextYielded = connection;
    this.#last = connection;
    if (!this.#armed) this.#arm();
  }

  #arm(): void {
    this.#armed = true;
    this.#time.nextTurn(this.#begin);
  }

  #refill(): void {
    this.#left = UNITS_PER_TURN;
    this.exhausted = false;
  }

  #next(): void {
    this.#armed = false;
    this.#refill();
    if (this.#first === null) return;
    this.#arm();
    for (let one: Yielded | null = this.#first; one !== null && !this.exhausted; one = this.#first) {
      this.#first = one.nextYielded;
      if (this.#first === null) this.#last = null;
      one.nextYielded = null;
      one.onTurn();
    }
    // The events of this turn have units of their own: a peer with a small message does not wait for the
    // queue.
    this.#refill();
  }
}
