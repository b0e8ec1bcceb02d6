/**
 * One connection's bytes: what it sends is its own piece of a long pattern, and what comes back is compared
 * with it. It changes when the stream does, or the way to find and report a wrong byte.
 */

/** What voids a run, in a sentence for the user. */
export class LoadError extends Error {}

/** The pattern's period: a prime, so that no message size divides it. */
const PERIOD = 1_048_573;
/** The largest chunk that Bun hands over, and the maximum of one write. */
const LONGEST = 524_288;

/**
 * The pattern, followed by its beginning again: whatever begins inside is in one piece, and a
 * comparison is one native call without a view. Pseudo-random, so that a piece is found nowhere else.
 */
const PATTERN = Buffer.allocUnsafe(PERIOD + LONGEST);
{
  let x = 0x2545f491;
  for (let i = 0; i < PERIOD; i++) {
    // Xorshift32 (Marsaglia); its upper bits.
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    PATTERN[i] = x >>> 24;
  }
  PATTERN.copy(PATTERN, PERIOD, 0, LONGEST);
}

/** Near the golden section of the period: neighbours begin far apart, and no two at the same place. */
const STRIDE = 648_053;

const wrapped = (place: number): number => (place >= PERIOD ? place - PERIOD : place);
/** How far it is from one place of the pattern forward to another. */
const ahead = (from: number, to: number): number => (to - from + PERIOD) % PERIOD;
const hex = (byte: number): string => `0x${byte.toString(16).padStart(2, "0")}`;

/** As many bytes in a row are no accident. */
const CERTAIN = 8;

export interface Writable {
  write(bytes: Uint8Array, offset: number, length: number): number;
}

export abstract class CheckedStream<S extends Writable> {
  /** "connection 3": how errors call it. */
  readonly name: string;
  socket: S | undefined;
  /** Bytes that the kernel has taken. */
  sent = 0;
  /** Bytes that are to be sent and that the kernel has not taken yet. */
  unsent = 0;
  /** Bytes that have come back. */
  received = 0;

  readonly #verify: boolean;
  #sendPlace: number;
  #receivePlace: number;

  constructor(name: string, index: number, verify: boolean) {
    this.name = name;
    this.#verify = verify;
    this.#sendPlace = this.#receivePlace = (index * STRIDE) % PERIOD;
  }

  /** Voids the run. */
  abstract fail(why: string): void;
  /** All streams of the run, for saying whose bytes have come. */
  abstract get everyone(): readonly CheckedStream<S>[];

  /** Bytes that the kernel took and that have not come back. */
  get owed(): number {
    return this.sent - this.received;
  }

  /** Gives the kernel what is unsent, as far as it takes it; `drain` calls again. */
  flush(): void {
    while (this.unsent > 0) {
      const length = this.unsent < LONGEST ? this.unsent : LONGEST;
      const taken = this.socket!.write(PATTERN, this.#sendPlace, length);
      if (taken < 0) return this.fail(`closed by the server after ${this.sent} bytes; the next write failed`);
      this.sent += taken;
      this.unsent -= taken;
      this.#sendPlace = wrapped(this.#sendPlace + taken);
      if (taken < length) return;
    }
  }

  /** @returns whether these bytes are what must come next; if not, the run is void */
  accept(chunk: Buffer): boolean {
    const length = chunk.length;
    const place = this.#receivePlace;
    if (
      length > this.owed ||
      length > LONGEST ||
      (this.#verify && chunk.compare(PATTERN, place, place + length) !== 0)
    ) {
      this.fail(this.#explain(chunk));
      return false;
    }
    this.received += length;
    this.#receivePlace = wrapped(place + length);
    return true;
  }

  #explain(chunk: Buffer): string {
    const place = this.#receivePlace;
    const checked = this.#verify ? Math.min(chunk.length, this.owed) : 0;
    let at = 0;
    while (at < checked && chunk[at] === PATTERN[(place + at) % PERIOD]) at++;
    if (at === checked) {
      return `surplus bytes: ${chunk.length} came at offset ${this.received} of its stream, and ${this.owed} were due`;
    }
    const expected = PATTERN[(place + at) % PERIOD]!;
    return (
      `wrong byte at offset ${this.received + at} of its stream: expected ${hex(expected)}, got ${hex(chunk[at]!)}` +
      this.#origin(chunk.subarray(at, at + 64), at)
    );
  }

  /** Where the received bytes belong, if that is known. */
  #origin(bytes: Buffer, at: number): string {
    const found = bytes.length < CERTAIN ? -1 : PATTERN.indexOf(bytes);
    if (found < 0) return "";
    const offset = this.received + at;
    const skipped = ahead(this.#receivePlace + at, found % PERIOD);
    if (skipped < this.owed) return ` (what is at ${offset + skipped}: ${skipped} bytes are left out)`;
    for (const other of this.everyone) {
      const further = ahead(other.#receivePlace, found % PERIOD);
      if (other !== this && further < other.owed)
        return ` (what ${other.name} has at ${other.received + further})`;
    }
    const back = PERIOD - skipped;
    return back <= offset ? ` (what was at ${offset - back}, ${back} bytes before)` : "";
  }
}
