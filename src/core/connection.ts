/**
 * One socket made lossless: what the kernel does not take is kept and sent before anything else, what is held is
 * bounded, a FIN never overtakes a byte, and closing twice is closing once. It changes when one of these rules
 * does. What is said on a connection is its user's business.
 *
 * Two kinds of bytes wait here. The ring holds received chunks that have not been passed on, neither taken by
 * the user nor relayed to the peer. The tail is the rest of the one piece that the user gave to write().
 */
import { osError } from "../os/errors.ts";
import type { RingBuffer, RingPool } from "./ring-buffer.ts";
import { closedTransport, type Transport } from "./transport.ts";
import { UNITS_PER_VISIT, unitsOf, type Resting, type TurnBudget } from "./turn-budget.ts";

/**
 * From this size on, the memory of a chunk that has been relayed, or that nobody will have, is given back at once,
 * not when the collector comes: the next chunk then gets memory that is warm. 8 connections of 64 KiB, 4 in flight,
 * CPU a message against a bare handler: 0.85, and 1.02 without; at 16 KiB it gains nothing, below it costs.
 */
const RELEASE_FROM = 32_768;

/** A chunk that is a view of something larger is left alone. */
function release(chunk: Uint8Array): void {
  if (chunk.length < RELEASE_FROM || chunk.length !== chunk.buffer.byteLength) return;
  if (chunk.buffer instanceof ArrayBuffer) chunk.buffer.transfer(0);
}

/** Who uses a connection. Everything here is called synchronously; what it throws ends that connection alone. */
export interface ConnectionUser {
  /** A chunk came. It is the user's now, to relay, to hold, to read or to drop. */
  received(connection: Connection, chunk: Uint8Array): void;
  /** The kernel took what waited in the tail, and may take more. */
  drained(connection: Connection): void;
  /** The peer's FIN: no chunk will follow. The other direction is still open. */
  ended(connection: Connection): void;
  /**
   * The descriptor is gone; called once. An error when it did not end by both sides' FIN. What is in the ring can
   * still be taken, now or never.
   */
  closed(connection: Connection, error: unknown): void;
}

/** Our direction: finishing means that a FIN follows what is held, shut that it is out. */
type Sending = "open" | "finishing" | "shut";

/**
 * The peer's direction. Stopped: nothing is read, whatever is held. Dropping: what comes is of no use any more. Ended:
 * the peer's FIN has come.
 */
type Receiving = "open" | "stopped" | "dropping" | "ended";

/**
 * Whether the kernel can be offered bytes. Full: not before it drains; always so while a tail waits. Resting: not before
 * this connection's turn.
 */
type Kernel = "ready" | "full" | "resting";

export class Connection implements Resting {
  /** Bytes that came from the peer and were handed to the user. */
  received = 0;
  /** Bytes that the kernel took. */
  sent = 0;
  /** Bytes that our code copied on their way; whoever copies, counts here. */
  copied = 0;
  /** Bytes that came when nobody wanted any more: behind our FIN, or after drop(). */
  dropped = 0;
  /** Shared by all connections: what one turn of the event loop may cost. */
  readonly budget: TurnBudget;
  nextResting: Resting | null = null;

  #socket: Transport;
  readonly #user: ConnectionUser;
  readonly #rings: RingPool;
  #ring: RingBuffer | null = null;
  #tail: Uint8Array | null = null;
  #tailOffset = 0;
  #sending: Sending = "open";
  #receiving: Receiving = "open";
  #kernel: Kernel = "ready";
  #paused = false;
  /** What is in the ring was given away to be relayed: nobody else has a part of it. */
  #relaying = false;
  /** Received bytes are lost that count as neither held nor dropped. */
  #lost = false;

  constructor(socket: Transport, user: ConnectionUser, rings: RingPool, budget: TurnBudget) {
    this.#socket = socket;
    this.#user = user;
    this.#rings = rings;
    this.budget = budget;
  }

  /** Bytes that wait here: in the ring and in the tail. At most the ring's capacity, one chunk and one piece. */
  get held(): number {
    const tail = this.#tail === null ? 0 : this.#tail.length - this.#tailOffset;
    return tail + (this.#ring === null ? 0 : this.#ring.held);
  }

  /** Whether a piece can be given to write() now. */
  get writable(): boolean {
    return this.#kernel === "ready" && this.#sending !== "shut" && !this.closed;
  }

  get paused(): boolean {
    return this.#paused;
  }

  get closed(): boolean {
    return this.#socket === closedTransport;
  }

  /** Whether our FIN is out: what still comes is dropped. */
  get lingering(): boolean {
    return this.#sending === "shut";
  }

  /** Whether the kernel has taken an answer to every byte that came. Also to be asked when it is over. */
  get complete(): boolean {
    return this.held === 0 && this.dropped === 0 && !this.#lost;
  }

  /** Bytes from the peer that wait in the kernel; 0 where it cannot be asked. */
  get unread(): number {
    return this.#socket.unread?.() ?? 0;
  }

  /** Bytes that the kernel took and that the peer has not acknowledged; 0 where it cannot be asked. */
  get unacknowledged(): number {
    return this.#socket.unacknowledged?.() ?? 0;
  }

  /** Whether the peer's FIN has come, if only to the kernel: nothing follows what is unread. */
  get peerFinished(): boolean {
    return this.#receiving === "ended" || this.#socket.peerFinished?.() === true;
  }

  // What the user asks for.

  /**
   * Sends a received chunk back, by reference. What the kernel does not take waits in the ring. The chunk is given
   * away with the call: when it is out, its memory may be gone.
   * @param limit the most that one write may offer, in bytes
   */
  relay(chunk: Uint8Array, limit: number): void {
    const length = chunk.length;
    if (this.#ring === null && this.#kernel === "ready" && length <= limit && !this.budget.exhausted) {
      const sent = this.#socket.write(chunk, 0, length);
      this.budget.spend(unitsOf(length));
      if (sent === length) {
        this.sent += length;
        release(chunk);
        return;
      }
      if (sent < 0) return this.#broken();
      this.#kernel = "full";
      this.sent += sent;
      this.#relaying = true;
      this.#push(chunk, sent);
      return;
    }
    this.#relaying = true;
    this.#push(chunk, 0);
    this.relayHeld(limit);
  }

  /** Sends back what waits in the ring, as far as the kernel takes it. */
  relayHeld(limit: number): void {
    const ring = this.#ring;
    if (ring === null) return;
    let units = 0;
    for (let head = ring.head; head !== undefined && this.#kernel === "ready"; head = ring.head) {
      if (units >= UNITS_PER_VISIT || this.budget.exhausted) return this.rest();
      const length = Math.min(limit, head.length - ring.headOffset);
      const sent = this.#socket.write(head, ring.headOffset, length);
      units += unitsOf(length);
      this.budget.spend(unitsOf(length));
      if (sent < 0) return this.#broken();
      if (sent < length) this.#kernel = "full";
      this.sent += sent;
      ring.advance(sent);
      if (ring.head !== head) release(head);
      this.#emptied(ring);
    }
  }

  /** Lets the others have their turn: nothing is offered to the kernel until a later turn of the event loop. */
  rest(): void {
    if (this.#kernel !== "ready" || this.closed) return;
    this.#kernel = "resting";
    this.budget.wait(this);
  }

  /** Keeps a received chunk, by reference, until it is taken. What take() gives is then the taker's. */
  hold(chunk: Uint8Array): void {
    this.#push(chunk, 0);
  }

  /**
   * Takes the oldest held bytes out of the ring, without a copy.
   * @param size the most that is wanted, from 1 on
   * @returns 1 to size bytes of one chunk, or undefined when the ring is empty
   */
  take(size: number): Uint8Array | undefined {
    const ring = this.#ring;
    if (ring === null) return undefined;
    const slice = ring.take(size);
    this.#emptied(ring);
    return slice;
  }

  /**
   * Gives the kernel one piece; what it does not take waits as the tail, by reference.
   * @throws Error when a piece waits already: ask `writable` first
   */
  write(piece: Uint8Array): void {
    if (this.closed) return;
    if (!this.writable) throw new Error("write: the piece before this one is not out yet, or our FIN is");
    const sent = this.#socket.write(piece, 0, piece.length);
    if (sent < 0) return this.#broken();
    this.sent += sent;
    if (sent === piece.length) return;
    this.#kernel = "full";
    this.#tail = piece;
    this.#tailOffset = sent;
    this.#pauseIfFull();
  }

  /**
   * Offers the kernel one piece, once, and keeps nothing.
   * @param offset where in the piece to begin
   * @returns how many bytes the kernel took: 0 when bytes wait already, -1 when nothing can be written any more. If
   *   it is not all, drained() will be called.
   */
  send(piece: Uint8Array, offset: number): number {
    if (this.#sending === "shut" || this.closed) return -1;
    if (this.#kernel !== "ready") return 0;
    const length = piece.length - offset;
    if (length === 0) return 0;
    const sent = this.#socket.write(piece, offset, length);
    if (sent < 0) {
      // Nothing is lost by going on: what the peer said before it closed can still be read, and its end is told.
      this.#sending = "shut";
      return -1;
    }
    this.sent += sent;
    if (sent < length) this.#kernel = "full";
    return sent;
  }

  /**
   * Ends gracefully: once nothing is held, sends FIN, then reads and drops until the peer's FIN, then closes.
   * What comes before our FIN is out still reaches the user. A peer that never ends is the owner's to close.
   */
  finish(): void {
    if (this.closed) return;
    if (this.#sending === "shut") return this.#discardInput();
    this.#sending = "finishing";
    this.#settle();
  }

  /**
   * Sends FIN and goes on reading.
   * @throws Error when a piece waits still: ask `writable` first
   */
  shutdown(): void {
    if (this.#sending === "shut" || this.closed) return;
    if (this.#tail !== null) throw new Error("shutdown: a piece is not out yet");
    this.#sending = "shut";
    this.#socket.shutdown();
  }

  /** Forgets what is in the ring, and from now on everything that comes. */
  drop(): void {
    if (this.#receiving !== "ended") this.#receiving = "dropping";
    const ring = this.#ring;
    if (ring === null) return;
    this.dropped += ring.held;
    this.#discard(ring);
    this.#emptied(ring);
  }

  /** Closes now, without a reset unless the peer still sends. What is held is lost. */
  close(): void {
    const socket = this.#release();
    socket.end();
    this.#tell(socket, undefined);
  }

  /** Closes now, with a reset: the peer learns that bytes may be missing. */
  abort(error: unknown = undefined): void {
    const socket = this.#release();
    socket.terminate();
    this.#tell(socket, error);
  }

  /**
   * Reads nothing more until our FIN is out, so that what the peer sends from now on stays unread, where it can be
   * seen, and is neither echoed nor dropped.
   */
  stopReading(): void {
    if (this.closed || this.#receiving !== "open") return;
    this.#receiving = "stopped";
    if (this.#paused) return;
    this.#paused = true;
    this.#socket.pause();
  }

  /** Takes back stopReading(). */
  readOn(): void {
    if (this.#receiving !== "stopped") return;
    this.#receiving = "open";
    this.#resumeIfLow();
  }

  // What the socket tells.

  onData(chunk: Uint8Array): void {
    if (this.#receiving === "dropping") {
      this.dropped += chunk.length;
      release(chunk);
      return;
    }
    if (this.closed) return;
    this.received += chunk.length;
    this.#user.received(this, chunk);
  }

  onDrain(): void {
    if (this.#kernel !== "full" || this.closed) return;
    this.#kernel = "ready";
    if (this.#tail !== null && !this.#writeTail(this.#tail)) return;
    this.#user.drained(this);
    this.#settle();
  }

  onTurn(): void {
    if (this.closed) return;
    this.#kernel = "ready";
    try {
      this.#user.drained(this);
      this.#settle();
    } catch (error) {
      // No handler of Bun's is on the stack that could: what the user throws here would end the process.
      this.abort(error);
    }
  }

  onEnd(): void {
    if (this.closed) return;
    const wanted = this.#receiving !== "dropping";
    this.#receiving = "ended";
    if (this.#sending === "shut" && !wanted) return this.close();
    this.#user.ended(this);
    this.#settle();
  }

  onClose(error: unknown): void {
    this.#tell(this.#release(), error);
  }

  // How it is done.

  /**
   * The kernel says that nothing can be written any more. It means terminate, and now: a socket that is paused
   * instead never hears of its end, and its descriptor leaks.
   */
  #broken(): void {
    this.#lost = true;
    this.abort(osError({ code: "EPIPE", syscall: "send" }));
  }

  /** @returns whether the whole tail is out */
  #writeTail(tail: Uint8Array): boolean {
    const length = tail.length - this.#tailOffset;
    const sent = this.#socket.write(tail, this.#tailOffset, length);
    if (sent < 0) {
      this.#broken();
      return false;
    }
    this.sent += sent;
    this.#tailOffset += sent;
    if (sent < length) {
      this.#kernel = "full";
      return false;
    }
    this.#tail = null;
    this.#resumeIfLow();
    return true;
  }

  #push(chunk: Uint8Array, offset: number): void {
    if (this.closed) return;
    // A chunk that comes in spite of the pause: the peer has reset, and Bun empties the kernel's buffer into us,
    // megabytes of it, before it says so. Nobody is there to send it to, and the ring must not take it.
    if (this.#paused) {
      this.#lost = true;
      release(chunk);
      return this.abort(osError({ code: "ECONNRESET", syscall: "recv" }));
    }
    const ring = (this.#ring ??= this.#rings.borrow());
    ring.push(chunk, offset);
    this.#pauseIfFull();
  }

  /** What is kept alive for this connection, in bytes: the ring's chunks and the tail's piece, whole. */
  get #memory(): number {
    return (this.#ring === null ? 0 : this.#ring.memory) + (this.#tail === null ? 0 : this.#tail.length);
  }

  #pauseIfFull(): void {
    if (this.#paused || !(this.#ring?.full || this.#memory >= this.#rings.capacity)) return;
    this.#paused = true;
    this.#socket.pause();
  }

  #resumeIfLow(): void {
    if (!this.#paused || this.#receiving === "stopped") return;
    if (this.#ring?.low === false || this.#memory > this.#rings.capacity / 2) return;
    this.#paused = false;
    this.#socket.resume();
  }

  /** After bytes have left the ring: an empty ring goes back to the pool, and at low water reading goes on. */
  #emptied(ring: RingBuffer): void {
    if (ring.held === 0) {
      this.#ring = null;
      this.#rings.giveBack(ring);
    }
    this.#resumeIfLow();
  }

  #settle(): void {
    if (this.#sending !== "finishing" || this.held > 0 || this.closed) return;
    this.#sending = "shut";
    this.#socket.shutdown();
    this.#discardInput();
  }

  /** From now on only the peer's FIN is of interest; if it is there already, it is over. */
  #discardInput(): void {
    if (this.#receiving === "ended") return this.close();
    this.#receiving = "dropping";
    this.#resumeIfLow();
  }

  /**
   * Empties the ring of what nobody will have any more. Its memory goes back at once: left to the collector, 100
   * stalled peers that reset, again and again, let the server grow to 251 MB, and with this to 97.
   */
  #discard(ring: RingBuffer): void {
    for (let head = ring.head; head !== undefined; head = ring.head) {
      // A slice that the user took of this chunk is still the user's.
      const shared = ring.headOffset > 0 && !this.#relaying;
      ring.advance(head.length - ring.headOffset);
      if (!shared) release(head);
    }
  }

  /** Takes the socket away, so that nothing reaches a descriptor that may be another's by then. */
  #release(): Transport {
    const socket = this.#socket;
    this.#socket = closedTransport;
    return socket;
  }

  /** Says once that it is over: only whoever took the real socket away has something to tell. */
  #tell(socket: Transport, error: unknown): void {
    if (socket === closedTransport) return;
    this.#user.closed(this, error);
    this.#tail = null;
    if (this.#ring === null) return;
    this.#discard(this.#ring);
    this.#rings.giveBack(this.#ring);
    this.#ring = null;
  }
}
