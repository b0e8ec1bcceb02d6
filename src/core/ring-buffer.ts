/**
 * The ring: a fixed number of slots that refer to received chunks, in order. It copies nothing, does no I/O
 * and makes no promise. It changes when what "held" and "full" mean changes.
 *
 * Fullness counts the whole memory of every chunk that a slot still refers to, not only the bytes that are
 * still wanted: a chunk of 512 KiB of which one byte waits keeps 512 KiB alive, and the bound is on memory.
 */

/**
 * Sixteen chunks. A slow peer's small messages are better left to the kernel, which joins them into one large
 * chunk; more slots would hold more small chunks and cost a system call for each when the peer reads again.
 */
export const RING_SLOTS = 16;

const MASK = RING_SLOTS - 1;

/**
 * Chunks of this size or more are freed as soon as they are sent or discarded, not when the collector runs:
 * the next chunk then gets memory that is warm. 8 connections of 64 KiB, 4 in flight, CPU per message against
 * a bare handler: 0.85, and 1.02 without. At 16 KiB it gains nothing, below it costs.
 */
const FREE_FROM = 32_768;

/** Frees a chunk's memory, unless the chunk is a view of something larger. */
export function freeChunk(chunk: Uint8Array): void {
  if (chunk.length < FREE_FROM || chunk.length !== chunk.buffer.byteLength) return;
  if (chunk.buffer instanceof ArrayBuffer) chunk.buffer.transfer(0);
}

export class RingBuffer {
  /** The memory, in bytes, from which on the ring is full. */
  readonly capacity: number;

  readonly #slots: (Uint8Array | undefined)[] = new Array<Uint8Array | undefined>(RING_SLOTS).fill(undefined);
  #first = 0;
  #count = 0;
  /** How many bytes of the first chunk are gone already. */
  #offset = 0;
  #held = 0;
  #memory = 0;

  /**
   * @param capacity bytes, at least 1: a ring that refers to as much is full
   * @throws RangeError for a capacity that is not a positive whole number
   */
  constructor(capacity: number) {
    if (!Number.isSafeInteger(capacity) || capacity < 1) {
      throw new RangeError(`a ring's capacity is a whole number of bytes from 1 on, not ${capacity}`);
    }
    this.capacity = capacity;
  }

  /** Bytes that wait here. At most capacity and one chunk. */
  get held(): number {
    return this.#held;
  }

  /** Bytes of memory that the waiting chunks keep alive, used parts included. */
  get memory(): number {
    return this.#memory;
  }

  /** High water: the slots or the bytes are used up. Whoever fills the ring must stop now. */
  get full(): boolean {
    return this.#count === RING_SLOTS || this.#memory >= this.capacity;
  }

  /** Low water: at most half of the slots and of the bytes are in use. Whoever stopped may go on. */
  get low(): boolean {
    return this.#count <= RING_SLOTS / 2 && this.#memory <= this.capacity / 2;
  }

  /**
   * Appends a chunk, by reference: its bytes must not change while they wait.
   * @param offset number of leading bytes that are already used
   * @throws RangeError when the ring is full, or when nothing of the chunk is left; the ring is as it was
   */
  push(chunk: Uint8Array, offset = 0): void {
    if (this.full) throw new RangeError(`the ring is full: ${this.#memory} bytes in ${this.#count} slots`);
    if (!(offset >= 0 && offset < chunk.length)) {
      throw new RangeError(`offset ${offset} is outside the chunk of ${chunk.length} bytes`);
    }
    // Only the oldest chunk can be partly used: the ring has one offset, for its head.
    if (offset > 0 && this.#count > 0)
      throw new RangeError("only the first chunk of a ring can have a used part");
    this.#slots[(this.#first + this.#count) & MASK] = chunk;
    this.#count++;
    this.#held += chunk.length - offset;
    this.#memory += chunk.length;
    if (offset > 0) this.#offset = offset;
  }

  /**
   * Puts bytes before all that waits, for one who took them and gives them back. Where no slot is free, or a
   * part of the oldest chunk is gone, they are joined with it, by a copy.
   */
  unshift(bytes: Uint8Array): void {
    const head = this.#slots[this.#first];
    this.#held += bytes.length;
    this.#memory += bytes.length - this.#offset;
    if (head === undefined || (this.#offset === 0 && this.#count < RING_SLOTS)) {
      this.#first = (this.#first - 1) & MASK;
      this.#slots[this.#first] = bytes;
      this.#count++;
      return;
    }
    this.#slots[this.#first] = Buffer.concat([bytes, head.subarray(this.#offset)]);
    this.#offset = 0;
  }

  /** The oldest chunk, whole; its bytes from {@link headOffset} on wait. Undefined when nothing waits. */
  get head(): Uint8Array | undefined {
    return this.#slots[this.#first];
  }

  get headOffset(): number {
    return this.#offset;
  }

  /**
   * Lets go of the first bytes of the oldest chunk.
   * @param bytes from 0 to what waits of that chunk
   * @throws RangeError beyond that; the ring is as it was
   */
  advance(bytes: number): void {
    const head = this.#slots[this.#first];
    const left = head === undefined ? 0 : head.length - this.#offset;
    if (!(bytes >= 0 && bytes <= left)) {
      throw new RangeError(`cannot advance by ${bytes}: ${left} bytes of the first chunk wait`);
    }
    this.#held -= bytes;
    if (head === undefined || bytes < left) {
      this.#offset += bytes;
      return;
    }
    this.#slots[this.#first] = undefined;
    this.#first = (this.#first + 1) & MASK;
    this.#count--;
    this.#offset = 0;
    this.#memory -= head.length;
  }

  /**
   * Takes the oldest bytes out, as a slice of the chunk that they came in: no copy, never across two chunks.
   * @param size maximum bytes, from 1 on
   * @returns 1 to size bytes, or undefined when nothing waits
   * @throws RangeError for a size below 1; the ring is as it was
   */
  take(size: number): Uint8Array | undefined {
    if (!(size >= 1)) throw new RangeError(`a slice has 1 byte or more, not ${size}`);
    const head = this.#slots[this.#first];
    if (head === undefined) return undefined;
    const start = this.#offset;
    const end = Math.min(head.length, start + size);
    this.advance(end - start);
    return start === 0 && end === head.length ? head : head.subarray(start, end);
  }

  /**
   * Empties the ring, and frees the memory of its chunks at once. Left to the collector, 100 stalled peers
   * that reset, again and again, let a server grow to 251 MB, and with this to 97.
   * @param relayed whether no part of a chunk was handed out: take() gives slices of a chunk's memory
   */
  discard(relayed: boolean): void {
    for (let head = this.head; head !== undefined; head = this.head) {
      const shared = this.#offset > 0 && !relayed;
      this.advance(head.length - this.#offset);
      if (!shared) freeChunk(head);
    }
  }

  /** Forgets everything that waits. */
  clear(): void {
    this.#slots.fill(undefined);
    this.#first = this.#count = this.#offset = this.#held = this.#memory = 0;
  }
}

/** At most this many empty rings are kept for the next connection that needs one; the rest is garbage. */
const SPARE_RINGS = 64;

/**
 * Lends rings, so that a connection owns one only while bytes wait, and a backlog that comes and goes a
 * thousand times a second allocates nothing.
 */
export class RingPool {
  readonly capacity: number;
  readonly #spare: RingBuffer[] = [];

  /** @param capacity of each ring, in bytes; see {@link RingBuffer} */
  constructor(capacity: number) {
    this.capacity = capacity;
    this.#spare.push(new RingBuffer(capacity));
  }

  borrow(): RingBuffer {
    return this.#spare.pop() ?? new RingBuffer(this.capacity);
  }

  /** Takes a ring back. What still waits in it is forgotten. */
  giveBack(ring: RingBuffer): void {
    if (ring.held > 0) ring.clear();
    if (this.#spare.length < SPARE_RINGS) this.#spare.push(ring);
  }
}
