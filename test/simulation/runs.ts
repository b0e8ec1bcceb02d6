/**
 * Bytes in order, as references to a pattern that everybody knows: what a queue of the fake kernel holds, and
 * what a stream must show next. It changes when the content of the streams does.
 */
import { Random } from "../support/random.ts";

/** A prime: no size in use repeats it, so that a byte at a wrong place shows. */
const PERIOD = 1_048_573;

/** Every stream's bytes: of the place p, PATTERN[p % PERIOD]. */
export const PATTERN = new Random(1).bytes(PERIOD);

export class Runs {
  length = 0;
  readonly #from: Buffer[] = [];
  readonly #at: number[] = [];
  readonly #size: number[] = [];
  #head = 0;

  push(from: Buffer, at: number, size: number): void {
    if (size === 0) return;
    this.length += size;
    const last = this.#from.length - 1;
    if (last >= this.#head && this.#from[last] === from && this.#at[last]! + this.#size[last]! === at) {
      this.#size[last]! += size;
      return;
    }
    this.#from.push(from);
    this.#at.push(at);
    this.#size.push(size);
  }

  /** The pattern's bytes from a place on. */
  pushPattern(place: number, size: number): void {
    for (let left = size; left > 0;) {
      const at = place % PERIOD;
      const run = Math.min(left, PERIOD - at);
      this.push(PATTERN, at, run);
      place += run;
      left -= run;
    }
  }

  /** Calls back for each run of the first bytes, until one call gives false. */
  #each(size: number, visit: (from: Buffer, at: number, size: number, done: number) => boolean): boolean {
    for (let i = this.#head, done = 0; done < size; i++) {
      const run = Math.min(size - done, this.#size[i]!);
      if (!visit(this.#from[i]!, this.#at[i]!, run, done)) return false;
      done += run;
    }
    return true;
  }

  /** The first bytes, in memory of their own; they stay here. */
  copy(size: number): Buffer {
    const copy = Buffer.allocUnsafeSlow(size);
    this.#each(size, (from, at, run, done) => {
      from.copy(copy, done, at, at + run);
      return true;
    });
    return copy;
  }

  /** Shows the first bytes to another queue as well. */
  copyTo(to: Runs, size: number): void {
    this.#each(size, (from, at, run) => {
      to.push(from, at, run);
      return true;
    });
  }

  /** Whether these bytes are the first ones here. */
  begins(bytes: Uint8Array, offset: number, size: number): boolean {
    if (size > this.length) return false;
    return this.#each(
      size,
      (from, at, run, done) => from.compare(bytes, offset + done, offset + done + run, at, at + run) === 0,
    );
  }

  drop(size: number): void {
    this.length -= size;
    while (size > 0) {
      const run = this.#size[this.#head]!;
      if (size < run) {
        this.#at[this.#head]! += size;
        this.#size[this.#head]! -= size;
        break;
      }
      size -= run;
      this.#head++;
    }
    if (this.#head < 32 || this.#head * 2 < this.#from.length) return;
    for (const list of [this.#from, this.#at, this.#size]) list.splice(0, this.#head);
    this.#head = 0;
  }

  /** Keeps the first bytes only. */
  truncate(size: number): void {
    const kept = new Runs();
    this.copyTo(kept, size);
    this.drop(this.length);
    kept.copyTo(this, size);
  }

  moveTo(to: Runs, size: number): void {
    this.copyTo(to, size);
    this.drop(size);
  }
}
