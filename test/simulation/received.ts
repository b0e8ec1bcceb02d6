/**
 * The bytes that one end of the library has been handed and has not received yet. It changes when what a
 * receiving call may give does.
 */
import { Runs } from "./runs.ts";

export class Received {
  /** Bytes that calls gave, in all. */
  count = 0;
  readonly #owed = new Runs();
  /** The last bytes that were received, and what they are: they must stay what they are. */
  #last: Buffer | undefined;
  #lastIs = new Runs();
  readonly #fail: (reason: string) => never;

  constructor(fail: (reason: string) => never) {
    this.#fail = fail;
  }

  get owed(): number {
    return this.#owed.length;
  }

  /** A chunk, the first bytes of the queue, is handed over. */
  handed(queue: Runs, size: number): void {
    queue.copyTo(this.#owed, size);
  }

  /** A call gives these bytes. */
  given(bytes: Buffer): void {
    if (this.#last !== undefined && !this.#lastIs.begins(this.#last, 0, this.#last.length)) {
      this.#fail("bytes have changed since they were received");
    }
    if (!this.#owed.begins(bytes, 0, bytes.length))
      this.#fail(`${bytes.length} bytes that are not what comes next`);
    this.#last = bytes;
    this.#lastIs = new Runs();
    this.#owed.moveTo(this.#lastIs, bytes.length);
    this.count += bytes.length;
  }

  /** The end, or an error that is reported once: all bytes that came before it have been received. */
  ended(how: string): void {
    if (this.owed > 0) this.#fail(`${how}, and ${this.owed} bytes have not been received`);
  }

  /** Nobody receives what has been handed over. */
  forget(): void {
    this.#owed.drop(this.#owed.length);
  }
}
