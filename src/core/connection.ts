/**
 * One socket made lossless: what the kernel does not take is kept and sent before anything newer, memory is
 * bounded, a FIN never overtakes a byte, closing twice is closing once. It changes when such a rule does.
 * The ring keeps received chunks that were neither taken nor relayed; the tail is the rest of a write().
 */
import { osError } from "../os/errors.ts";
import type { ConnectionHandler } from "./handler.ts";
import { freeChunk, type RingBuffer, type RingPool } from "./ring-buffer.ts";
import { closedTransport, type Transport } from "./transport.ts";
import { UNITS_PER_VISIT, unitsOf, type Yielded, type TurnBudget } from "./turn-budget.ts";

/** "finishing": a FIN follows the held bytes; "shut": it is out, or nothing can be written. */
type Sending = "open" | "finishing" | "shut";

/** "stopped": paused, whatever is held; "dropping": input is discarded; "ended": by the peer's FIN. */
type Receiving = "open" | "stopped" | "dropping" | "ended";

/** "full": offer nothing until the kernel drains; "yielded": nothing until our turn. */
type Kernel = "ready" | "full" | "yielded";

export class Connection implements Yielded {
  /** Bytes that came from the peer and were handed to the handler. */
  received = 0;
  /** Bytes that the kernel took. */
  sent = 0;
  /** Bytes that our code copied on their way; counted by the code that copies. */
  copied = 0;
  /** Bytes that were discarded: they came after our FIN, or drop() was called. */
  dropped = 0;
  /** Shared by all connections of a server: the work of one turn of the event loop. */
  readonly budget: TurnBudget;
  nextYielded: Yielded | null = null;

  #transport: Transport;
  #handler: ConnectionHandler;
  readonly #rings: RingPool;
  #ring: RingBuffer | null = null;
  #tail: Uint8Array | null = null;
  #tailOffset = 0;
  #sending: Sending = "open";
  #receiving: Receiving = "open";
  #kernel: Kernel = "ready";
  #paused = false;
  /** The chunks in the ring were given to relay(): nobody else refers to them. */
  #relaying = false;
  /** Received bytes were lost that are counted as neither held nor dropped. */
  #lost = false;

  constructor(transport: Transport, handler: ConnectionHandler, rings: RingPool, budget: TurnBudget) {
    this.#transport = transport;
    this.#handler = handler;
    this.#rings = rings;
    this.budget = budget;
  }

  /** For what only the kernel knows. */
  get transport(): Transport {
    return this.#transport;
  }

  /** Bytes in the ring and the tail: at most the ring's capacity, one chunk and one tail. */
  get held(): number {
    const tail = this.#tail === null ? 0 : this.#tail.length - this.#tailOffset;
    return tail + (this.#ring === null ? 0 : this.#ring.held);
  }

  /** Whether write() can be called now. */
  get writable(): boolean {
    return this.#kernel === "ready" && this.#sending !== "shut" && !this.closed;
  }

  get paused(): boolean {
    return this.#paused;
  }

  get closed(): boolean {
    return this.#transport === closedTransport;
  }

  /** Whether our FIN is out. */
  get lingering(): boolean {
    return this.#sending === "shut";
  }

  /** Whether the kernel has taken the reply to every byte that came. Valid after the close, too. */
  get complete(): boolean {
    return this.held === 0 && this.dropped === 0 && !this.#lost;
  }

  /** Whether the peer's FIN has reached the kernel at least: nothing follows the unread bytes. */
  get peerFinished(): boolean {
    return this.#receiving === "ended" || this.#transport.peerFinished();
  }

  // Commands.

  /**
   * Gives the events to another handler, and at once the rest of a chunk: for a header that is read first.
   */
  handOver(handler: ConnectionHandler, rest: Uint8Array): void {
    this.#handler = handler;
    if (rest.length > 0 && !this.closed) handler.onData(this, rest);
  }

  /** Sends a chunk back by reference, then frees it; the ring keeps the rest. @param limit bytes per write */
  relay(chunk: Uint8Array, limit: number): void {
    const length = chunk.length;
    if (this.#ring === null && this.#kernel === "ready" && length <= limit && !this.budget.exhausted) {
      const sent = this.#transport.write(chunk, 0, length);
      this.budget.spend(unitsOf(length));
      if (sent === length) {
        this.sent += length;
        return freeChunk(chunk);
      }
      if (sent < 0) return this.#failWrite();
      this.#kernel = "full";
      this.sent += sent;
      this.#relaying = true;
      return this.hold(chunk, sent);
    }
    this.#relaying = true;
    this.hold(chunk);
    this.relayHeld(limit);
  }

  /** Sends the chunks in the ring, as far as the kernel takes them. */
  relayHeld(limit: number): void {
    const ring = this.#ring;
    if (ring === null) return;
    let units = 0;
    for (let head = ring.head; head !== undefined && this.#kernel === "ready"; head = ring.head) {
      if (units >= UNITS_PER_VISIT || this.budget.exhausted) return this.yieldTurn();
      const length = Math.min(limit, head.length - ring.headOffset);
      const sent = this.#transport.write(head, ring.headOffset, length);
      units += unitsOf(length);
      this.budget.spend(unitsOf(length));
      if (sent < 0) return this.#failWrite();
      if (sent < length) this.#kernel = "full";
      this.sent += sent;
      ring.advance(sent);
      if (ring.head !== head) freeChunk(head);
      this.#recycleIfEmpty(ring);
    }
  }

  /** Lets other connections work: offers nothing to the kernel until a later turn of the event loop. */
  yieldTurn(): void {
    if (this.#kernel !== "ready" || this.closed) return;
    this.#kernel = "yielded";
    this.budget.wait(this);
  }

  /** Keeps a received chunk, by reference, until take(). @param offset where the kept part begins */
  hold(chunk: Uint8Array, offset = 0): void {
    if (this.closed) return;
    // A chunk in spite of the pause means that the peer has reset: Bun hands over the kernel's whole buffer,
    // megabytes, before it reports the reset. Nobody is left to send it to, and the ring must not take it.
    if (this.#paused) {
      this.#lost = true;
      freeChunk(chunk);
      return this.abort(osError({ code: "ECONNRESET", syscall: "recv" }));
    }
    (this.#ring ??= this.#rings.borrow()).push(chunk, offset);
    this.#pauseIfFull();
  }

  /** @returns the oldest 1 to size held bytes, uncopied; undefined without any. After the close, too. */
  take(size: number): Uint8Array | undefined {
    const ring = this.#ring;
    if (ring === null) return undefined;
    const slice = ring.take(size);
    this.#recycleIfEmpty(ring);
    return slice;
  }

  /** Puts bytes that take() gave back, before all that is held. */
  putBack(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    (this.#ring ??= this.#rings.borrow()).unshift(bytes);
    this.#pauseIfFull();
  }

  /** Sends one chunk; the rest waits as the tail, by reference. @throws Error unless `writable` */
  write(chunk: Uint8Array): void {
    if (this.closed) return;
    if (!this.writable)
      throw new Error("write: the previous chunk is still queued, or the connection is shut down");
    this.#tail = chunk;
    this.#tailOffset = 0;
    if (!this.#flushTail(chunk)) this.#pauseIfFull();
  }

  /**
   * Offers the kernel one chunk from an offset on, once, and keeps nothing. onDrain() follows a short send.
   * @returns bytes that the kernel took: 0 while earlier ones wait, -1 when closed for writing
   */
  send(chunk: Uint8Array, offset: number): number {
    if (this.#sending === "shut" || this.closed) return -1;
    if (this.#kernel !== "ready") return 0;
    const length = chunk.length - offset;
    if (length === 0) return 0;
    const sent = this.#transport.write(chunk, offset, length);
    if (sent < 0) {
      // Keep reading: what the peer sent before it closed can still be received, and so can its end.
      this.#sending = "shut";
      return -1;
    }
    this.sent += sent;
    if (sent < length) this.#kernel = "full";
    return sent;
  }

  /**
   * Ends gracefully: flushes, sends FIN, discards input until the peer's FIN, closes. The handler still gets
   * what comes before our FIN is out. If the peer never sends its FIN, the owner has to call close().
   */
  finish(): void {
    if (this.closed) return;
    if (this.#sending === "shut") return this.#discardInput();
    this.#sending = "finishing";
    this.#finishIfFlushed();
  }

  /** Sends FIN and goes on reading. @throws Error while a tail waits: ask `writable` first */
  shutdown(): void {
    if (this.#sending === "shut" || this.closed) return;
    if (this.#tail !== null) throw new Error("shutdown: the previous chunk is still queued");
    this.#sending = "shut";
    this.#transport.shutdown();
  }

  /** Discards the ring and all further input. */
  drop(): void {
    if (this.#receiving !== "ended") this.#receiving = "dropping";
    const ring = this.#ring;
    if (ring === null) return;
    this.dropped += ring.held;
    ring.discard(this.#relaying);
    this.#recycleIfEmpty(ring);
  }

  /** Closes now, without a reset unless the peer still sends. Held bytes are lost. */
  close(): void {
    this.#leave("end", undefined);
  }

  /** Closes now, with a reset: the peer learns that bytes may be missing. */
  abort(error: unknown = undefined): void {
    this.#leave("terminate", error);
  }

  /** Reads nothing until our FIN is out: what the peer sends stays in the kernel (transport.unread()). */
  stopReading(): void {
    if (this.closed || this.#receiving !== "open") return;
    this.#receiving = "stopped";
    if (this.#paused) return;
    this.#paused = true;
    this.#transport.pause();
  }

  /** Undoes stopReading(). */
  readOn(): void {
    if (this.#receiving !== "stopped") return;
    this.#receiving = "open";
    this.#resumeIfLow();
  }

  // Events.

  onOpen(): void {
    this.#handler.onOpen?.(this);
  }

  onData(chunk: Uint8Array): void {
    if (this.#receiving === "dropping") {
      this.dropped += chunk.length;
      return freeChunk(chunk);
    }
    if (this.closed) return;
    this.received += chunk.length;
    this.#handler.onData(this, chunk);
  }

  onDrain(): void {
    if (this.#kernel !== "full" || this.closed) return;
    this.#kernel = "ready";
    if (this.#tail !== null && !this.#flushTail(this.#tail)) return;
    this.#handler.onDrain(this);
    this.#finishIfFlushed();
  }

  onTurn(): void {
    if (this.closed) return;
    this.#kernel = "ready";
    try {
      this.#handler.onDrain(this);
      this.#finishIfFlushed();
    } catch (error) {
      // Outside the engine's events nobody else catches: a throw would end the process.
      this.abort(error);
    }
  }

  onEnd(): void {
    if (this.closed) return;
    const wanted = this.#receiving !== "dropping";
    this.#receiving = "ended";
    if (this.#sending === "shut" && !wanted) return this.close();
    this.#handler.onEnd(this);
    this.#finishIfFlushed();
  }

  onClose(error: unknown): void {
    this.#leave(undefined, error);
  }

  // Internals.

  /**
   * Terminates immediately: a paused socket would never get its close event, and its descriptor would leak.
   */
  #failWrite(): void {
    this.#lost = true;
    this.abort(osError({ code: "EPIPE", syscall: "send" }));
  }

  /** @returns whether the whole tail is out */
  #flushTail(tail: Uint8Array): boolean {
    const length = tail.length - this.#tailOffset;
    const sent = this.#transport.write(tail, this.#tailOffset, length);
    if (sent < 0) {
      this.#failWrite();
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

  /** The bytes of memory that this connection keeps alive: whole chunks, in the ring and the tail. */
  get #memory(): number {
    return (this.#ring === null ? 0 : this.#ring.memory) + (this.#tail === null ? 0 : this.#tail.length);
  }

  #pauseIfFull(): void {
    if (this.#paused || !(this.#ring?.full || this.#memory >= this.#rings.capacity)) return;
    this.#paused = true;
    this.#transport.pause();
  }

  #resumeIfLow(): void {
    if (!this.#paused || this.#receiving === "stopped") return;
    if (this.#ring?.low === false || this.#memory > this.#rings.capacity / 2) return;
    this.#paused = false;
    this.#transport.resume();
  }

  /** After bytes left the ring: returns an empty ring to the pool, and resumes reading at low water. */
  #recycleIfEmpty(ring: RingBuffer): void {
    if (ring.held === 0) {
      this.#ring = null;
      this.#rings.giveBack(ring);
    }
    this.#resumeIfLow();
  }

  #finishIfFlushed(): void {
    if (this.#sending !== "finishing" || this.held > 0 || this.closed) return;
    this.#sending = "shut";
    this.#transport.shutdown();
    this.#discardInput();
  }

  /** From now on only the peer's FIN matters; if it has come, the connection is over. */
  #discardInput(): void {
    if (this.#receiving === "ended") return this.close();
    this.#receiving = "dropping";
    this.#resumeIfLow();
  }

  /**
   * Nothing may reach the descriptor after the close: its number may belong to another socket by then. The
   * handler is notified once, by the call that finds the real transport.
   */
  #leave(by: "end" | "terminate" | undefined, error: unknown): void {
    const transport = this.#transport;
    if (transport === closedTransport) return;
    this.#transport = closedTransport;
    if (by !== undefined) transport[by]();
    this.#handler.onClose(this, error);
    this.#tail = null;
  }
}
