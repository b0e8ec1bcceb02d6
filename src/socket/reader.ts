/**
 * The receiving half of a stream: recv, recv_into and MSG_WAITALL, and what happens to a pending one when the
 * end, an error, the deadline or the signal comes first. It changes when one of these calls does. The bytes
 * wait in the connection's ring.
 */
import type { Connection } from "../core/connection.ts";
import { busyError, ConnectionError, wouldBlock, type OSError } from "../os/errors.ts";
import { abortReason, nextTurn, PendingCall } from "./pending-call.ts";
import { engine } from "../engine/current.ts";

const EMPTY = Buffer.alloc(0);
const RESOLVED: Promise<void> = Promise.resolve();

export class Reader {
  readonly #connection: Connection;
  readonly #call = new PendingCall<Buffer | number>("recv");
  /** How many bytes the pending call wants at most. */
  #size = 0;
  /** Where the pending recv_into wants them. */
  #into: Uint8Array | undefined;
  /** A call waits for the next turn or microtask: the bytes that come until then are its own. */
  #polling = false;
  /** A recvAll() is under way. */
  #collecting = false;
  /** No further byte comes. */
  #ended = false;
  /** Thrown by the next call, and then cleared. */
  #error: OSError | undefined;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Whether received bytes wait for a call. */
  get hasPending(): boolean {
    return this.#connection.held > 0;
  }

  /**
   * @param size from 0 on
   * @param timeout milliseconds; null waits for ever, 0 does not wait
   */
  recv(size: number, timeout: number | null, signal?: AbortSignal): Promise<Buffer> {
    if (signal?.aborted) return Promise.reject(abortReason(signal));
    if (this.#busy) return Promise.reject(busyError("recv"));
    const slice = size === 0 ? EMPTY : this.#take(size);
    if (slice !== undefined) return Promise.resolve(slice as Buffer);
    return this.#wait(size, undefined, timeout, signal) as Promise<Buffer>;
  }

  /**
   * Fills the buffer from its start with what has come, one byte at least. No microtask lies between taking
   * bytes and copying them: in it another call could take what follows, or the buffer be transferred away
   * with them.
   * @returns the count; 0 at the end
   */
  recvInto(buffer: Uint8Array, timeout: number | null, signal?: AbortSignal): Promise<number> {
    if (signal?.aborted) return Promise.reject(abortReason(signal));
    if (this.#busy) return Promise.reject(busyError("recv"));
    const size = buffer.length;
    if (size === 0) return Promise.resolve(0);
    if (this.hasPending) return this.#fillSoon(size, buffer, signal);
    return this.#wait(size, buffer, timeout, signal) as Promise<number>;
  }

  /**
   * All of `size` bytes, or fewer at the end or before an error (recv(2), MSG_WAITALL). Bytes that came
   * before a timeout or an abort are put back for the next call.
   */
  async recvAll(size: number, timeout: number | null, signal?: AbortSignal): Promise<Buffer> {
    if (signal?.aborted) throw abortReason(signal);
    if (this.#busy) throw busyError("recv");
    const deadline = timeout === null ? null : engine.time.now() + timeout;
    const pieces: Uint8Array[] = [];
    let missing = size;
    this.#collecting = true;
    try {
      while (missing > 0) {
        let piece = this.#connection.take(missing);
        if (piece === undefined) {
          if (pieces.length > 0 && this.#error !== undefined) break;
          const left = deadline === null ? null : Math.max(0, deadline - engine.time.now());
          piece = (await this.#wait(missing, undefined, left, signal)) as Buffer;
          if (piece.length === 0) break;
        }
        pieces.push(piece);
        missing -= piece.length;
      }
    } catch (error) {
      if (!(error instanceof ConnectionError)) this.#connection.putBack(Buffer.concat(pieces));
      if (!(error instanceof ConnectionError) || pieces.length === 0) throw error;
      this.#error = error;
    } finally {
      this.#collecting = false;
    }
    this.#connection.copied += size - missing;
    return Buffer.concat(pieces);
  }

  // Events.

  received(chunk: Uint8Array): void {
    const connection = this.#connection;
    const call = this.#call;
    const size = this.#size;
    if (!call.waiting) return connection.hold(chunk);
    if (this.#into !== undefined) return this.#receivedInto(chunk, this.#into);
    if (chunk.length <= size) return call.resolve(chunk as Buffer);
    const slice = this.#kept(chunk.subarray(0, size));
    connection.hold(chunk, size);
    // hold() closes a connection that has been reset: then the call has got its error.
    call.resolve(slice as Buffer);
  }

  #receivedInto(chunk: Uint8Array, into: Uint8Array): void {
    const connection = this.#connection;
    if (into.length === this.#size && chunk.length <= this.#size) {
      into.set(chunk);
      connection.copied += chunk.length;
      return this.#call.resolve(chunk.length);
    }
    connection.hold(chunk);
    try {
      const count = this.#fill(into, this.#size);
      if (count > 0) this.#call.resolve(count);
    } catch (error) {
      // The bytes stay, for the next call.
      this.#call.reject(error);
    }
  }

  /** No further byte comes; what waits can still be received. @param error for the next call, after that */
  end(error?: OSError): void {
    this.#ended = true;
    if (error === undefined) this.#call.resolve(this.#into === undefined ? EMPTY : 0);
    else if (this.#call.waiting) this.#call.reject(error);
    else this.#error = error;
  }

  /**
   * What waits is dropped, and no call receives anything.
   * @param error for pending and later calls; else it is the end
   */
  close(error?: OSError): void {
    this.#ended = true;
    this.#connection.drop();
    if (error === undefined) return this.end();
    this.#call.reject(error);
    this.#error = error;
  }

  // Internals.

  get #busy(): boolean {
    return this.#call.waiting || this.#polling || this.#collecting;
  }

  /** What has come is copied in the caller's next microtask; until then the reading side is this call's. */
  async #fillSoon(size: number, buffer: Uint8Array, signal: AbortSignal | undefined): Promise<number> {
    this.#polling = true;
    await RESOLVED;
    if (signal?.aborted) {
      this.#polling = false;
      throw abortReason(signal);
    }
    return this.#recvNow(size, buffer) as number;
  }

  /** Nothing has come yet. */
  #wait(
    size: number,
    into: Uint8Array | undefined,
    timeout: number | null,
    signal?: AbortSignal,
  ): Promise<Buffer | number> {
    const error = this.#takeError();
    if (error !== undefined) return Promise.reject(error);
    if (this.#ended) return Promise.resolve(into === undefined ? EMPTY : 0);
    if (timeout === 0) {
      this.#polling = true;
      return nextTurn().then(() => this.#recvNow(size, into));
    }
    this.#size = size;
    this.#into = into;
    return this.#call.wait(timeout, signal);
  }

  #recvNow(size: number, into: Uint8Array | undefined): Buffer | number {
    this.#polling = false;
    const found = into === undefined ? this.#take(size) : this.#fill(into, size) || undefined;
    if (found !== undefined) return found as Buffer | number;
    const error = this.#takeError();
    if (error !== undefined) throw error;
    if (this.#ended) return into === undefined ? EMPTY : 0;
    throw wouldBlock("recv", "no data available");
  }

  #takeError(): OSError | undefined {
    const error = this.#error;
    this.#error = undefined;
    return error;
  }

  /**
   * @returns how many of the bytes that wait the buffer has now
   * @throws TypeError when it has become smaller
   */
  #fill(buffer: Uint8Array, size: number): number {
    if (!this.hasPending) return 0;
    checkBuffer(buffer, size);
    let count = 0;
    while (count < size) {
      const slice = this.#connection.take(size - count);
      if (slice === undefined) break;
      buffer.set(slice, count);
      count += slice.length;
    }
    this.#connection.copied += count;
    return count;
  }

  #take(size: number): Uint8Array | undefined {
    const slice = this.#connection.take(size);
    return slice === undefined ? undefined : this.#kept(slice);
  }

  /** A slice for the caller to keep: copied, and counted, if it would keep far more memory alive. */
  #kept(slice: Uint8Array): Uint8Array {
    if (!pinsMuch(slice)) return slice;
    this.#connection.copied += slice.length;
    return copyOf(slice);
  }
}

/** Bun's receive buffer. */
const MAX_CHUNK = 524_288;
/** A slice may keep this many times its own size alive, and in any case this many bytes. */
const PINNED_TIMES = 16;
const PINNED_MIN = 1024;

/** Whether a slice keeps far more memory alive than it shows. */
export function pinsMuch(slice: Uint8Array): boolean {
  const { length } = slice;
  if (length * PINNED_TIMES >= MAX_CHUNK) return false;
  const pinned = slice.buffer.byteLength;
  return pinned > PINNED_MIN && pinned > length * PINNED_TIMES;
}

/** In memory of its own: Buffer.from() would put a small one into a pool. */
export function copyOf(slice: Uint8Array): Buffer {
  const copy = Buffer.allocUnsafeSlow(slice.length);
  copy.set(slice);
  return copy;
}

/** @throws TypeError for a buffer of a recv_into that is smaller than when it was called */
export function checkBuffer(buffer: Uint8Array, size: number): void {
  if (buffer.length >= size) return;
  throw new TypeError("recv_into: the buffer was transferred or made smaller while the call waited");
}
