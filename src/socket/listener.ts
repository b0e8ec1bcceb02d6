/**
 * A listening socket: connections wait in a queue of bounded length until accept() takes them. It changes
 * when that queue's rules do. The engine accepts whatever comes, so the bound is kept here: what comes beyond
 * it is reset.
 */
import type { Transport, TransportEvents } from "../core/transport.ts";
import { engine } from "../engine/current.ts";
import type { Acceptor, Handshake, Open, TLS } from "../engine/engine.ts";
import { acceptedFrom, noDelay, setNoDelay } from "../os/descriptor.ts";
import { closedError, osError, wouldBlock } from "../os/errors.ts";
import { descriptorLimit, SPARE_DESCRIPTORS } from "../os/limits.ts";
import { abortReason, Alarm, nextTurn, PendingCall } from "./pending-call.ts";
import { detachByCopy, pendingError, type Role } from "./role.ts";
import { Stream } from "./stream.ts";

/** A client that does not finish its TLS handshake in this time is reset. */
const HANDSHAKE_MS = 10_000;
/**
 * Maximum clients in their TLS handshake: far more than a backlog, since silent clients must not keep the
 * others out. Beyond it, the oldest is reset. Never more than a quarter of the process's descriptors.
 */
const MAX_HANDSHAKES = 1024;
/** Maximum pending accept() calls on one listener. */
export const MAX_ACCEPTS = 1024;

export class Listener implements Role {
  readonly #acceptor: Acceptor;
  readonly fd: number;
  #noDelay: number | undefined;
  #backlog: number;
  readonly #queue: Stream[] = [];
  /** Connections in their TLS handshake, the oldest first. They are not yet in the queue. */
  readonly #handshaking = new Map<TransportEvents, { stream: Stream; alarm: Alarm }>();
  #accepts: PendingCall<Stream>[] = [];
  #closed = false;
  /** Clients that were reset because their handshake failed or their certificate was not verified. */
  refused = 0;
  /** The kernel hands out the lowest free number: at this one, the process is nearly out of descriptors. */
  readonly #limit = (descriptorLimit() ?? Infinity) - SPARE_DESCRIPTORS;
  readonly #maxHandshakes = Math.max(1, Math.min(MAX_HANDSHAKES, Math.floor(this.#limit / 4)));

  /**
   * @param fd bound; an unbound TCP one gets a port from the kernel
   * @param backlog from 0 on; at least one connection can wait
   * @throws OSError; the descriptor stays the caller's
   */
  constructor(fd: number, backlog: number, tls?: TLS) {
    if (fd + 1 >= this.#limit) {
      const reason = `fewer than ${SPARE_DESCRIPTORS} of the descriptors are left: raise the limit with ulimit -n`;
      throw osError({ code: "EMFILE", syscall: "listen", reason });
    }
    this.#backlog = Math.max(1, backlog);
    this.fd = fd;
    this.optionSet();
    this.#acceptor = engine.listen(fd, {
      backlog,
      open: tls === undefined ? this.#open : this.#openTLS,
      tls,
      handshake: (events, handshake) => this.#handshakeDone(events, handshake),
    });
  }

  /** Accepted sockets inherit their options in the kernel, except TCP_NODELAY, which Bun sets. */
  optionSet(): void {
    this.#noDelay = noDelay(this.fd);
  }

  /** listen() again, with another bound. Waiting connections stay. @throws OSError */
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
        reason: `${MAX_ACCEPTS} calls are already waiting to accept`,
      });
    }
    const waiter = new PendingCall<Stream>("accept");
    this.#accepts.push(waiter);
    return waiter.wait(timeout, signal);
  }

  /** Frees the port, ends pending accepts with an error, and resets waiting connections. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#acceptor.close();
    for (const stream of this.#queue.splice(0)) stream.abort();
    for (const { stream } of [...this.#handshaking.values()]) stream.abort();
    for (const waiter of this.#accepts.splice(0)) waiter.reject(closedError("accept"));
  }

  detach(): number {
    if (this.#queue.length > 0) throw pendingError("connections", "accept");
    return detachByCopy(this.fd, () => this.close());
  }

  #full(fd: number): boolean {
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

  readonly #open: Open = (transport) => {
    if (this.#full(transport.fd)) return undefined;
    const stream = this.#recordPeer(transport, true);
    this.#give(stream);
    return stream.events;
  };

  readonly #openTLS: Open = (transport) => {
    if (this.#full(transport.fd)) return undefined;
    const stream = this.#recordPeer(transport, false);
    const { events } = stream;
    const alarm = new Alarm(() => stream.abort());
    alarm.set(HANDSHAKE_MS);
    this.#handshaking.set(events, { stream, alarm });
    stream.onGone = () => this.#handshakeOver(events);
    if (this.#handshaking.size > this.#maxHandshakes) {
      const [oldest] = this.#handshaking.values();
      oldest!.stream.abort();
    }
    return events;
  };

  #handshakeOver(events: TransportEvents): Stream | undefined {
    const entry = this.#handshaking.get(events);
    if (entry === undefined) return undefined;
    this.#handshaking.delete(events);
    entry.alarm.clear();
    entry.stream.onGone = undefined;
    return entry.stream;
  }

  #handshakeDone(events: TransportEvents, handshake: Handshake): void {
    const stream = this.#handshakeOver(events);
    if (stream === undefined) return;
    stream.setAuthorized(handshake);
    if (!handshake.accepted) this.refused++;
    if (!handshake.accepted || this.#closed || this.#queueFull) stream.abort();
    else this.#give(stream);
  }

  #give(stream: Stream): void {
    for (let waiter = this.#accepts.shift(); waiter !== undefined; waiter = this.#accepts.shift()) {
      if (waiter.waiting) return waiter.resolve(stream);
    }
    this.#queue.push(stream);
  }

  /** Ask for the peer's address now: after a reset, getpeername(2) fails. */
  #recordPeer(transport: Transport, plain: boolean): Stream {
    const stream = new Stream(transport, plain);
    if (this.#noDelay === 0) setNoDelay(transport.fd, 0);
    try {
      stream.peer = acceptedFrom(transport.fd);
    } catch {
      // The peer has reset, and this platform no longer knows its address. accept() still returns the
      // connection, whose recv throws.
    }
    return stream;
  }
}
