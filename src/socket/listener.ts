/**
 * A listening socket that is awaited: connections wait in a queue of bounded length until accept takes them. It
 * changes when that queue's rules do. Bun accepts at once whatever comes, and cannot be told to stop, so that the
 * bound is kept here: what comes beyond it is reset.
 */
import { connectionEvents } from "../engine/bun/transport.ts";
import { Acceptor } from "../engine/bun/acceptor.ts";
import { type Connection } from "../core/connection.ts";
import { acceptedFrom, noDelay, setNoDelay } from "../os/descriptor.ts";
import { closedError, osError, wouldBlock } from "../os/errors.ts";
import { descriptorLimit, SPARE_DESCRIPTORS } from "../os/libc.ts";
import type { TLS } from "../engine/bun/transport.ts";
import { Stream, nextTurn } from "./stream.ts";
import { abortReason, Alarm, PendingCall } from "./pending-call.ts";

/** A client that does not finish its TLS handshake in this time is reset. */
const HANDSHAKE_MS = 10_000;
/**
 * How many clients may be in their TLS handshake: far more than a backlog, since who says nothing must not keep the
 * others out. The oldest gives way, which has had the longest time. At most a quarter of the process's descriptors.
 */
const MAX_HANDSHAKES = 1024;
/** How many accept() calls may wait on one listener. */
export const MAX_ACCEPTS = 1024;

export class Listener {
  readonly #acceptor: Acceptor;
  readonly #fd: number;
  #noDelay: number | undefined;
  #backlog: number;
  readonly #queue: Stream[] = [];
  /** Connections in their TLS handshake, the oldest first: they wait for nobody's accept(). */
  readonly #handshaking = new Map<Bun.Socket<Connection>, { stream: Stream; alarm: Alarm }>();
  #accepts: PendingCall<Stream>[] = [];
  #closed = false;
  /** Clients that were reset because their handshake failed or their certificate was not verified. */
  refused = 0;
  /** Whether a client needs a certificate that can be verified. */
  readonly #verifies: boolean;
  /**
   * Descriptors get the lowest number that is free: one with this number is one too many. Without a free one, Bun's accept
   * loop takes a core for itself.
   */
  readonly #limit = (descriptorLimit() ?? Infinity) - SPARE_DESCRIPTORS;
  readonly #maxHandshakes = Math.max(1, Math.min(MAX_HANDSHAKES, Math.floor(this.#limit / 4)));

  /**
   * @param fd bound (a TCP one that is not gets a port from the kernel)
   * @param backlog from 0 on; at least one connection can wait
   * @throws OSError; the descriptor stays the caller's
   */
  constructor(fd: number, backlog: number, tls?: TLS) {
    if (fd + 1 >= this.#limit) {
      const reason = `fewer than ${SPARE_DESCRIPTORS} of the descriptors are left: raise the limit with ulimit -n`;
      throw osError({ code: "EMFILE", syscall: "listen", reason });
    }
    this.#backlog = Math.max(1, backlog);
    this.#fd = fd;
    this.#verifies = tls?.requestCert === true && tls.rejectUnauthorized !== false;
    this.optionsChanged();
    const socket = tls === undefined ? this.#plainEvents() : this.#tlsEvents();
    this.#acceptor = new Acceptor(fd, { backlog, socket, tls });
  }

  /** What is accepted inherits them from the kernel, but for TCP_NODELAY, which Bun sets. */
  optionsChanged(): void {
    this.#noDelay = noDelay(this.#fd);
  }

  /** listen() again, with another bound: what waits already stays. @throws OSError */
  setBacklog(backlog: number): void {
    this.#acceptor.setBacklog(backlog);
    this.#backlog = Math.max(1, backlog);
  }

  /** @param timeout milliseconds; null waits for ever, 0 does not wait */
  async accept(timeout: number | null, signal?: AbortSignal): Promise<Stream> {
    if (signal?.aborted) throw abortReason(signal);
    if (timeout === 0 && this.#queue.length === 0) await nextTurn();
    const waiting = this.#queue.shift();
    if (waiting !== undefined) return waiting;
    if (this.#closed) throw closedError("accept");
    if (timeout === 0) throw wouldBlock("accept", "no connection waits");
    this.#accepts = this.#accepts.filter((waiter) => waiter.waiting);
    if (this.#accepts.length >= MAX_ACCEPTS) {
      throw osError({
        code: "ENOBUFS",
        syscall: "accept",
        reason: `${MAX_ACCEPTS} calls wait already to accept`,
      });
    }
    const waiter = new PendingCall<Stream>("accept");
    this.#accepts.push(waiter);
    return waiter.wait(timeout, signal);
  }

  /** Frees the port at once, ends pending accepts with an error, and resets the connections that wait. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#acceptor.close();
    for (const stream of this.#queue.splice(0)) stream.abort();
    for (const { stream } of [...this.#handshaking.values()]) stream.abort();
    for (const waiter of this.#accepts.splice(0)) waiter.reject(closedError("accept"));
  }

  /** Whether connections wait for accept(). */
  get readable(): boolean {
    return this.#queue.length > 0;
  }

  #full({ fd = -1 }: Bun.Socket<Connection> & { readonly fd?: number }): boolean {
    return fd >= this.#limit || this.#closed || this.#queueFull;
  }

  get #queueFull(): boolean {
    return this.#queue.length >= this.#backlog + this.#pendingAccepts;
  }

  get #pendingAccepts(): number {
    let pending = 0;
    for (const { waiting } of this.#accepts) pending += Number(waiting);
    return pending;
  }

  #plainEvents() {
    return {
      ...connectionEvents,
      open: (socket: Bun.Socket<Connection>): void => {
        if (this.#full(socket)) socket.terminate();
        else this.#give(this.#recordPeer(new Stream(socket, true)));
      },
    };
  }

  #tlsEvents() {
    const handshaking = this.#handshaking;
    const done = (socket: Bun.Socket<Connection>): Stream | undefined => {
      const entry = handshaking.get(socket);
      if (entry === undefined) return undefined;
      handshaking.delete(socket);
      entry.alarm.clear();
      return entry.stream;
    };
    return {
      ...connectionEvents,
      open: (socket: Bun.Socket<Connection>): void => {
        if (this.#full(socket)) return void socket.terminate();
        const stream = this.#recordPeer(new Stream(socket, false));
        const alarm = new Alarm(() => stream.abort());
        alarm.set(HANDSHAKE_MS);
        handshaking.set(socket, { stream, alarm });
        if (handshaking.size > this.#maxHandshakes)
          for (const [, oldest] of handshaking) return oldest.stream.abort();
      },
      handshake: (socket: Bun.Socket<Connection>, success: boolean, error: Error | null): void => {
        const stream = done(socket);
        if (stream === undefined) return;
        stream.setAuthorized(socket.authorized, error);
        // Bun reports success for a client whose certificate it refused, and then closes without an error.
        const refused = !success || (this.#verifies && !socket.authorized);
        if (refused) this.refused++;
        if (refused || this.#closed || this.#queueFull) stream.abort();
        else this.#give(stream);
      },
      close: (socket: Bun.Socket<Connection>, error?: Error): void => {
        done(socket);
        connectionEvents.close(socket, error);
      },
    };
  }

  #give(stream: Stream): void {
    for (let waiter = this.#accepts.shift(); waiter !== undefined; waiter = this.#accepts.shift()) {
      if (waiter.waiting) return waiter.resolve(stream);
    }
    this.#queue.push(stream);
  }

  /** The peer's address is asked for at once: when it has reset, getpeername(2) does not know it any more. */
  #recordPeer(stream: Stream): Stream {
    if (this.#noDelay === 0) setNoDelay(stream.fd, 0);
    try {
      stream.peer = acceptedFrom(stream.fd);
    } catch {
      // It has reset, and this platform does not tell. accept() still gives the connection, whose recv tells the reset.
    }
    return stream;
  }
}
