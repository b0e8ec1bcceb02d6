/**
 * What a connection's ring must look like from outside, told by what was delivered and what was taken:
 * whether it is full or low. It changes when the rules of full and low change.
 */
import { RING_SLOTS } from "../../src/core/ring-buffer.ts";

export class ShadowRing {
  memory = 0;
  /** Bytes that have come, and that are gone. */
  came = 0;
  #gone = 0;
  /** The chunks that wait, the first one at #head. */
  readonly #chunks: number[] = [];
  #head = 0;
  /** Where the first chunk that waits ends. */
  #end = 0;

  get slots(): number {
    return this.#chunks.length - this.#head;
  }

  push(size: number): void {
    this.#chunks.push(size);
    this.memory += size;
    this.came += size;
    if (this.slots === 1) this.#end = this.#gone + size;
  }

  /** @param gone how many bytes of all that came are gone by now */
  advance(gone: number): void {
    while (this.slots > 0 && gone >= this.#end) {
      const size = this.#chunks[this.#head++]!;
      this.memory -= size;
      this.#gone = this.#end;
      if (this.slots > 0) this.#end += this.#chunks[this.#head]!;
      if (this.#head < 64) continue;
      this.#chunks.splice(0, this.#head);
      this.#head = 0;
    }
  }

  /** All that waits is forgotten. */
  clear(): void {
    this.#chunks.length = this.#head = this.memory = 0;
    this.#gone = this.came;
  }

  /** @param beside memory that counts as well */
  full(capacity: number, beside = 0): boolean {
    return this.slots >= RING_SLOTS || this.memory + beside >= capacity;
  }

  low(capacity: number, beside = 0): boolean {
    return this.slots <= RING_SLOTS / 2 && this.memory + beside <= capacity / 2;
  }
}
