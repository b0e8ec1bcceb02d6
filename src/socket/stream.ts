/**
 * A connection that is awaited: the library's face of it. recv, send, sendall, shutdown and close, and what happens
 * to a pending one when the peer, the deadline or the signal comes first. It changes when one of these calls does.
 * How bytes are kept and sent is the connection's business.
 */
import type { AnyAddress } from "../os/address.ts";
import { Connection } from "../core/connection.ts";
import type { ConnectionHandler } from "../core/handler.ts";
import { SO_LINGER, SOL_SOCKET } from "../os/constants.ts";
import { closeDescriptor, duplicateDescriptor, lingerTime, setOption } from "../os/descriptor.ts";
import { libc } from "../os/libc.ts";
import {
  ConnectionError,
  toOSError,
  busyError,
  closedError,
  osError,
  SSLError,
  wouldBlock,
  type OSError,
} from "../os/errors.ts";
import { RingPool } from "../core/ring-buffer.ts";
import { transportOf } from "../engine/bun/transport.ts";
import { TurnBudget } from "../core/turn-budget.ts";
import { abortReason, Alarm, PendingCall } from "./pending-call.ts";

/**
 * Received bytes that wait for recv(), for each socket; one chunk of at most 512 KiB may come on top. With 1 MiB, 200
 * stalled peers of a recv/sendall loop cost 1,121 KiB each, with this 679; CPU on bulk (8 connections of 64 KiB, 4 in
 * flight) was the same, 60.2 and 60.9 µs a message.
 */
const RING_CAPACITY = 262_144;
/** How many sendall() and send() calls may wait on one socket. */
const MAX_WRITERS = 1024;
/** After close(), a peer that takes none of what it is still owed for so long is reset. */
const FLUSH_MS = 10_000;
/** After close(), a peer may go on sending for so long before its FIN. */
const LINGER_MS = 2_000;

const rings = new RingPool(RING_CAPACITY);
/** Nothing here waits for a turn: a caller paces itself. */
const budget = new TurnBudget();

/** Bun's receive buffer. */
const LARGEST_CHUNK = 524_288;

const EMPTY = Buffer.alloc(0);
const RESOLVED: Promise<void> = Promise.resolve();

/** A send or sendall that the kernel has not finished. A sendall resolves to nothing. */
class Writer extends PendingCall<number | void> {
  readonly call: "send" | "sendall";
  readonly bytes: Uint8Array;
  offset: number;

  constructor(call: "send" | "sendall", bytes: Uint8Array, offset: number) {
    super(call);
    this.call = call;
    this.bytes = bytes;
    this.offset = offset;
  }
}

export class Stream implements ConnectionHandler {
  /** Bytes that recv_into copied to where its caller wants them. */
  get copied(): number {
    return this.#connection.copied;
  }

  readonly #connection: Connection;
  readonly #socket: Bun.Socket<Connection> & { readonly fd?: number };
  readonly #reader = new PendingCall<Buffer | number>("recv");
  #size = 0;
  /** Where the recv_into that waits wants its bytes. */
  #into: Uint8Array | undefined;
  /** A recv that does not wait has its turn of the event loop. */
  #polling = false;
  #writers: Writer[] = [];
  /** What waited in the ring when the connection ended. */
  #rest: Uint8Array[] = [];
  /** No further byte will come. */
  #ended = false;
  /** Bytes that a recvAll() had taken when it was given up: before all that waits elsewhere. */
  #front: Uint8Array[] = [];
  /** A recvAll() is under way. */
  #collecting = false;
  /** Told once, to the next recv. */
  #error: OSError | undefined;
  #shutdownPending = false;
  /** A duplicate of Bun's descriptor, from shutdown() to close(); otherwise -1. */
  #second = -1;
  #closing: Alarm | undefined;
  #sentAtAlarm = 0;
  readonly #gone = Promise.withResolvers<void>();
  /** The peer's address, as it was when the connection came. */
  peer: AnyAddress | undefined;
  /** Called once, by the first thing that shows that the connection stands, or with what prevented it. */
  onOpen: ((error?: unknown) => void) | undefined;

  /** Whether the peer's certificate was verified; false without TLS. */
  authorized = false;
  /** Why it was not: the code of the reason. */
  authorizationError: string | undefined;

  setAuthorized(authorized: boolean, error: Error | null): void {
    this.authorized = authorized;
    this.authorizationError = authorized ? undefined : (error as { code?: string } | null)?.code;
  }

  /** Whether the descriptor alone carries the bytes as they are: not for TLS. */
  readonly plain: boolean;

  /** @param plain whether the socket may be written past Bun: not for TLS */
  constructor(socket: Bun.Socket<Connection>, plain: boolean) {
    this.plain = plain;
    this.#socket = socket;
    this.#connection = new Connection(plain ? transportOf(socket) : socket, this, rings, budget);
    socket.data = this.#connection;
  }

  /** -1 once the connection is gone, unless it has ended by both FINs and close() has not been called. */
  get fd(): number {
    return this.#connection.closed ? this.#second : (this.#socket.fd ?? -1);
  }

  /** Settles when the descriptor is gone. */
  get gone(): Promise<void> {
    return this.#gone.promise;
  }

  /** Whether received bytes wait for a recv. */
  get readable(): boolean {
    return this.#connection.held > 0 || this.#rest.length > 0 || this.#front.length > 0;
  }

  // Reading.

  /**
   * @param size from 0 on
   * @param timeout milliseconds; null waits for ever, 0 does not wait
   */
  recv(size: number, timeout: number | null, signal?: AbortSignal): Promise<Buffer> {
    if (signal?.aborted) return Promise.reject(abortReason(signal));
    if (this.#busy) return Promise.reject(busyError("recv"));
    const there = size === 0 ? EMPTY : this.#take(size);
    if (there !== undefined) return Promise.resolve(there as Buffer);
    return this.#wait(size, undefined, timeout, signal) as Promise<Buffer>;
  }

  /**
   * Fills the buffer from its start with what is there, one byte at least. No microtask lies between taking bytes and
   * copying them: in it another call could take what follows, or the buffer be transferred away with them.
   * @returns the count; 0 at the end
   */
  recvInto(buffer: Uint8Array, timeout: number | null, signal?: AbortSignal): Promise<number> {
    if (signal?.aborted) return Promise.reject(abortReason(signal));
    if (this.#busy) return Promise.reject(busyError("recv"));
    const size = buffer.length;
    if (size === 0) return Promise.resolve(0);
    if (this.readable) return this.#fillSoon(size, buffer, signal);
    return this.#wait(size, buffer, timeout, signal) as Promise<number>;
  }

  get #busy(): boolean {
    return this.#reader.waiting || this.#polling;
  }

  /** What is there is copied in the caller's next microtask; until then the reading side is this call's. */
  async #fillSoon(size: number, buffer: Uint8Array, signal: AbortSignal | undefined): Promise<number> {
    this.#polling = true;
    await RESOLVED;
    if (signal?.aborted) {
      this.#polling = false;
      throw abortReason(signal);
    }
    return this.#recvNow(size, buffer) as number;
  }

  /**
   * All of `size` bytes, or fewer at the end or before an error (recv(2), MSG_WAITALL). Bytes that came before a timeout
   * or an abort are there for the next call.
   */
  async recvAll(size: number, timeout: number | null, signal?: AbortSignal): Promise<Buffer> {
    if (signal?.aborted) throw abortReason(signal);
    if (this.#reader.waiting || this.#polling || this.#collecting) throw busyError("recv");
    const deadline = timeout === null ? null : performance.now() + timeout;
    const pieces: Uint8Array[] = [];
    let missing = size;
    this.#collecting = true;
    try {
      while (missing > 0) {
        let piece = this.#slice(missing);
        if (piece === undefined) {
          if (pieces.length > 0 && this.#error !== undefined) break;
          const left = deadline === null ? null : Math.max(0, deadline - performance.now());
          piece = (await this.#wait(missing, undefined, left, signal)) as Buffer;
          if (piece.length === 0) break;
        }
        pieces.push(piece);
        missing -= piece.length;
      }
    } catch (error) {
      if (!(error instanceof ConnectionError)) this.#front.unshift(...pieces);
      if (!(error instanceof ConnectionError) || pieces.length === 0) throw error;
      this.#error = error;
    } finally {
      this.#collecting = false;
    }
    this.#connection.copied += size - missing;
    return Buffer.concat(pieces);
  }

  /** Nothing is there yet. */
  #wait(
    size: number,
    into: Uint8Array | undefined,
    timeout: number | null,
    signal?: AbortSignal,
  ): Promise<Buffer | number> {
    const error = this.#error;
    if (error !== undefined) {
      this.#error = undefined;
      return Promise.reject(error);
    }
    if (this.#ended) return Promise.resolve(into === undefined ? EMPTY : 0);
    if (timeout === 0) {
      this.#polling = true;
      return nextTurn().then(() => this.#recvNow(size, into));
    }
    this.#size = size;
    this.#into = into;
    return this.#reader.wait(timeout, signal);
  }

  /** @returns how many bytes of what waits here the buffer has now @throws TypeError when it has become smaller */
  #fill(buffer: Uint8Array, size: number): number {
    if (!this.readable) return 0;
    checkBuffer(buffer, size);
    let count = 0;
    while (count < size) {
      const slice = this.#slice(size - count);
      if (slice === undefined) break;
      buffer.set(slice, count);
      count += slice.length;
    }
    this.#connection.copied += count;
    return count;
  }

  /** The end, for the call that waits. */
  #endReader(): void {
    this.#reader.resolve(this.#into === undefined ? EMPTY : 0);
  }

  /**
   * What is there, at most `size` bytes, to keep: a slice that would keep far more memory than its own size alive is
   * copied, and counted.
   */
  #take(size: number): Uint8Array | undefined {
    const slice = this.#slice(size);
    if (slice === undefined || !pinsMuch(slice)) return slice;
    this.#connection.copied += slice.length;
    return copyOf(slice);
  }

  #slice(size: number): Uint8Array | undefined {
    const front = this.#front[0];
    if (front !== undefined) {
      if (front.length <= size) return this.#front.shift();
      this.#front[0] = front.subarray(size);
      return front.subarray(0, size);
    }
    const slice = this.#connection.take(size);
    if (slice !== undefined) return slice;
    const rest = this.#rest[0];
    if (rest === undefined) return undefined;
    if (rest.length <= size) return this.#rest.shift();
    this.#rest[0] = rest.subarray(size);
    return rest.subarray(0, size);
  }

  #recvNow(size: number, into: Uint8Array | undefined): Buffer | number {
    this.#polling = false;
    const there = into === undefined ? this.#take(size) : this.#fill(into, size) || undefined;
    if (there !== undefined) return there as Buffer | number;
    const error = this.#error;
    this.#error = undefined;
    if (error !== undefined) throw error;
    if (this.#ended) return into === undefined ? EMPTY : 0;
    throw osError({
      code: "EAGAIN",
      syscall: "recv",
      reason: "nothing is there, and the socket does not wait",
    });
  }

  // Writing.

  sendall(bytes: Uint8Array, timeout: number | null, signal?: AbortSignal): Promise<void> {
    if (this.#writers.length === 0 && signal === undefined) {
      // What the kernel takes at once costs no promise of its own.
      const sent = this.#connection.send(bytes, 0);
      if (sent === bytes.length && !this.#shutdownPending) return RESOLVED;
      return this.#write("sendall", bytes, sent, timeout) as Promise<void>;
    }
    if (signal?.aborted) return Promise.reject(abortReason(signal));
    const sent = this.#writers.length === 0 ? this.#connection.send(bytes, 0) : 0;
    return this.#write("sendall", bytes, sent, timeout, signal) as Promise<void>;
  }

  send(bytes: Uint8Array, timeout: number | null, signal?: AbortSignal): Promise<number> {
    if (signal?.aborted) return Promise.reject(abortReason(signal));
    const sent = this.#writers.length === 0 ? this.#connection.send(bytes, 0) : 0;
    return this.#write("send", bytes, sent, timeout, signal) as Promise<number>;
  }

  /** What remains to be done after the first try, which gave `sent`. */
  #write(
    call: "send" | "sendall",
    bytes: Uint8Array,
    sent: number,
    timeout: number | null,
    signal?: AbortSignal,
  ): Promise<number | void> {
    if (sent < 0 || this.#shutdownPending) return Promise.reject(brokenPipe(call));
    if (call === "send" && (sent > 0 || bytes.length === 0)) return Promise.resolve(sent);
    if (sent === bytes.length) return RESOLVED;
    if (timeout === 0) {
      return Promise.reject(wouldBlock(call, `the kernel took ${sent} of ${bytes.length} bytes`));
    }
    // Who gave up must not keep its bytes here while others come and give up.
    if (this.#writers.length > 0) this.#writers = this.#writers.filter((writer) => writer.waiting);
    if (this.#writers.length >= MAX_WRITERS) {
      const reason = `${MAX_WRITERS} calls wait already to send on this socket`;
      return Promise.reject(osError({ code: "ENOBUFS", syscall: call, reason }));
    }
    const writer = new Writer(call, bytes, sent);
    this.#writers.push(writer);
    return writer.wait(timeout, signal);
  }

  /** Gives the kernel what waits, in order. Who gave up while waiting is passed over. */
  #pump(): void {
    for (let writer = this.#writers[0]; writer !== undefined; writer = this.#writers[0]) {
      if (writer.waiting) {
        if (writer.offset >= writer.bytes.length) {
          writer.reject(
            new TypeError(`${writer.call}: the bytes were transferred away before they were sent`),
          );
          continue;
        }
        const sent = this.#connection.send(writer.bytes, writer.offset);
        if (sent < 0) {
          this.#rejectWriters(brokenPipe);
          break;
        }
        writer.offset += sent;
        const all = writer.call === "sendall";
        if (all ? writer.offset < writer.bytes.length : sent === 0) return;
        writer.resolve(all ? undefined : sent);
      }
      this.#writers.shift();
    }
    if (this.#closing !== undefined) this.#finish();
    else if (this.#shutdownPending) this.#sendFin();
  }

  #rejectWriters(reason: (call: "send" | "sendall") => OSError): void {
    for (const writer of this.#writers.splice(0)) writer.reject(reason(writer.call));
  }

  /** Whether a FIN must wait for pending calls. */
  get hasPendingWrites(): boolean {
    return this.#writers.some((writer) => writer.waiting);
  }

  // Ending.

  /** Reads end: a pending recv gets the end, and what comes is dropped. */
  shutdownRead(): void {
    this.#ended = true;
    this.#rest = this.#front = [];
    this.#connection.drop();
    this.#endReader();
  }

  /** FIN, behind everything that was given before. */
  shutdownWrite(): void {
    if (this.#shutdownPending) return;
    this.#shutdownPending = true;
    this.#keepDescriptor();
    if (!this.hasPendingWrites) this.#sendFin();
  }

  /**
   * Bun closes its descriptor when both FINs are through; names and options are asked for until close(). Without a
   * descriptor that is free, they end with the connection.
   */
  #keepDescriptor(): void {
    if (this.#closing !== undefined || this.#connection.closed || libc === undefined) return;
    try {
      this.#second = duplicateDescriptor(this.fd, 0);
      forgotten.register(this, this.#second, this);
    } catch {
      this.#second = -1;
    }
  }

  #closeSecond(): void {
    if (this.#second < 0) return;
    forgotten.unregister(this);
    closeDescriptor(this.#second);
    this.#second = -1;
  }

  /** A connection that is full takes a FIN only when it drains: the kernel could not send it earlier either. */
  #sendFin(): void {
    if (this.#connection.writable) this.#connection.shutdown();
  }

  /**
   * Ends gracefully, in the background: what sendall was given arrives, then FIN; then what the peer still sends is
   * read and dropped until its FIN, or for two seconds. A peer that takes nothing of what it is owed for ten seconds
   * is reset.
   */
  close(): void {
    if (this.#closing !== undefined) return;
    // The kernel's way to linger would stop the whole process when the descriptor is closed; ours goes on beside it.
    if (lingerTime(this.fd) !== undefined) setOption(this.fd, SOL_SOCKET, SO_LINGER, new Uint8Array(8));
    this.#closeSecond();
    this.#closing = new Alarm(() => this.#closeNow());
    this.#endReading();
    if (this.#connection.closed) return;
    // A send of which the kernel has taken nothing promises nothing; a sendall is delivered.
    for (const writer of this.#writers) if (writer.call === "send") writer.reject(closedError("send"));
    if (!this.hasPendingWrites) return this.#finish();
    this.#sentAtAlarm = this.#connection.sent;
    this.#closing.set(FLUSH_MS);
  }

  #finish(): void {
    this.#closing!.set(LINGER_MS);
    this.#connection.finish();
    if (this.#connection.closed) this.#closing!.clear();
  }

  #closeNow(): void {
    // A call may have given up what it owed: before what the kernel has taken there is still a FIN to send.
    if (!this.hasPendingWrites) return this.#connection.lingering ? this.#connection.close() : this.#finish();
    if (this.#connection.sent === this.#sentAtAlarm) return this.#connection.abort(timedOut());
    this.#sentAtAlarm = this.#connection.sent;
    this.#closing!.set(FLUSH_MS);
  }

  /** The socket is closed: a recv that waits, or that has its turn of the event loop, ends with an error. */
  #endReading(): void {
    this.#reader.reject(closedError("recv"));
    this.#ended = true;
    this.#rest = this.#front = [];
    this.#error = closedError("recv");
    this.#connection.drop();
  }

  /** Closes the descriptor now and says nothing to the peer that the kernel does not say: for SO_LINGER of 0 s. */
  closeAtOnce(): void {
    this.#endReading();
    this.#rejectWriters(closedError);
    this.#connection.close();
    this.#closeSecond();
  }

  /** Ends with a reset. */
  abort(): void {
    this.#endReading();
    this.#connection.abort(closedError("recv"));
    this.#closeSecond();
  }

  // What the connection tells.

  onData(connection: Connection, chunk: Uint8Array): void {
    this.onOpen?.();
    const reader = this.#reader;
    if (!reader.waiting) return connection.hold(chunk);
    if (this.#into !== undefined) return this.#receivedInto(connection, chunk, this.#into);
    if (chunk.length <= this.#size) return reader.resolve(chunk as Buffer);
    connection.hold(chunk);
    const slice = this.#take(this.#size);
    if (slice !== undefined) reader.resolve(slice as Buffer);
  }

  #receivedInto(connection: Connection, chunk: Uint8Array, into: Uint8Array): void {
    const reader = this.#reader;
    if (into.length === this.#size && chunk.length <= this.#size) {
      into.set(chunk);
      connection.copied += chunk.length;
      return reader.resolve(chunk.length);
    }
    connection.hold(chunk);
    try {
      const count = this.#fill(into, this.#size);
      if (count > 0) reader.resolve(count);
    } catch (error) {
      // The bytes stay, for the next call.
      reader.reject(error);
    }
  }

  onDrain(): void {
    this.#pump();
  }

  onEnd(): void {
    this.onOpen?.();
    this.#ended = true;
    this.#endReader();
  }

  onClose(connection: Connection, error: unknown): void {
    this.onOpen?.(error ?? osError({ code: "ECONNRESET", syscall: "connect" }));
    const reason = error === undefined ? undefined : resetBehindFin(toOSError(error, "recv"));
    this.#closing?.clear();
    if (this.#closing === undefined) {
      for (let rest = connection.take(Infinity); rest !== undefined; rest = connection.take(Infinity)) {
        this.#rest.push(rest);
      }
    }
    this.#ended = true;
    if (reason === undefined) this.#endReader();
    else if (this.#reader.waiting) this.#reader.reject(reason);
    else this.#error = reason;
    this.#rejectWriters((call) => (reason === undefined ? brokenPipe(call) : withSyscall(reason, call)));
    this.#gone.resolve();
  }
}

/** A slice may keep so many times its own size alive, and in any case so many bytes. */
const PINNED_TIMES = 16;
const PINNED_MIN = 1024;

/** Whether a slice keeps far more memory alive than it shows. */
export function pinsMuch(slice: Uint8Array): boolean {
  const { length } = slice;
  if (length * PINNED_TIMES >= LARGEST_CHUNK) return false;
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

/** Who forgets a connection that has ended, without close(), leaves its second descriptor to the collector. */
const forgotten = new FinalizationRegistry<number>(closeDescriptor);

const brokenPipe = (syscall: string): OSError =>
  osError({ code: "EPIPE", syscall, reason: "nothing can be sent any more" });

/** The same error, of the call that it ends. */
const withSyscall = (error: OSError, syscall: string): OSError => {
  const { code, errno, strerror: reason, cause } = error;
  const details = { code, errno, syscall, reason, cause };
  return error instanceof SSLError ? new SSLError(details) : osError(details);
};

/** A reset that comes behind the peer's FIN is EPIPE in the kernel (tcp_reset); to who receives it is a reset. */
const resetBehindFin = (error: OSError): OSError =>
  error.code === "EPIPE" ? osError({ code: "ECONNRESET", syscall: "recv", cause: error }) : error;

const timedOut = (): OSError =>
  osError({ code: "ETIMEDOUT", syscall: "close", reason: "the peer takes nothing of what it is still owed" });

/**
 * One turn of the event loop: what the kernel has is handed over in it. A loop that asks a socket that does not wait
 * would otherwise never see a byte.
 */
export const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
