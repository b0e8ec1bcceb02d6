/**
 * A connection of Python's module: what its two halves, the reader and the writer, have in common, and how it
 * ends. It changes when shutdown, close or detach does. How bytes are kept and sent is the connection's
 * business.
 */
import { Connection } from "../core/connection.ts";
import type { ConnectionHandler } from "../core/handler.ts";
import { RingPool } from "../core/ring-buffer.ts";
import type { Transport, TransportEvents } from "../core/transport.ts";
import { TurnBudget } from "../core/turn-budget.ts";
import { engine } from "../engine/current.ts";
import type { Handshake } from "../engine/engine.ts";
import type { AnyAddress } from "../os/address.ts";
import { SO_LINGER, SOL_SOCKET } from "../os/constants.ts";
import { closeDescriptor, duplicateDescriptor, lingerTime, setOption } from "../os/descriptor.ts";
import { closedError, osError, SSLError, toOSError, type OSError } from "../os/errors.ts";
import { libc } from "../os/libc.ts";
import { unsupported } from "./checks.ts";
import { Alarm } from "./pending-call.ts";
import { Reader } from "./reader.ts";
import { detachByCopy, pendingError, type Role } from "./role.ts";
import { brokenPipe, Writer } from "./writer.ts";

/**
 * Received bytes that wait for recv(), for each socket; one chunk of at most 512 KiB may come on top. With 1
 * MiB, 200 stalled peers of a recv/sendall loop cost 1,121 KiB each, with this 679; CPU on bulk (8
 * connections of 64 KiB, 4 in flight) was the same, 60.2 and 60.9 µs per message.
 */
const RING_CAPACITY = 262_144;
/** After close(), a peer that takes none of the bytes that are queued for it is reset after this time. */
const FLUSH_MS = 10_000;
/** After close(), a peer may keep sending for this long before its FIN. */
const LINGER_MS = 2_000;

const rings = new RingPool(RING_CAPACITY);
/** Nothing here waits for a turn: a caller paces itself. */
const budget = new TurnBudget(engine.time);

export class Stream implements ConnectionHandler, Role {
  readonly #connection: Connection;
  readonly reader: Reader;
  readonly writer: Writer;
  /** Whether the descriptor alone carries the bytes as they are: not with TLS. */
  readonly plain: boolean;
  /** A duplicate of the engine's descriptor, from shutdown() to close(); otherwise -1. */
  #duplicate = -1;
  /** Set once close() was called. */
  #closing: Alarm | undefined;
  #sentAtAlarm = 0;
  readonly #gone = Promise.withResolvers<void>();
  /** Set for a server's TLS handshake: called when the connection ends before it. */
  onGone: (() => void) | undefined;
  /** The peer's address, as it was when the connection came. */
  peer: AnyAddress | undefined;
  /** Whether a connect that was not waited for has succeeded, and no connect() has said so. */
  arrived = false;
  /** Whether the peer's certificate was verified; false without TLS. */
  authorized = false;
  /** The code of the reason why it was not. */
  authorizationError: string | undefined;

  /** @param plain false with TLS */
  constructor(transport: Transport, plain: boolean) {
    this.plain = plain;
    this.#connection = new Connection(transport, this, rings, budget);
    this.reader = new Reader(this.#connection);
    this.writer = new Writer(this.#connection);
  }

  /** For the engine. */
  get events(): TransportEvents {
    return this.#connection;
  }

  /** -1 once the connection is gone, unless both FINs have ended it and close() has not been called. */
  get fd(): number {
    return this.#connection.closed ? this.#duplicate : this.#connection.transport.fd;
  }

  /** Settles when the descriptor is gone. */
  get gone(): Promise<void> {
    return this.#gone.promise;
  }

  setAuthorized({ authorized, error }: Handshake): void {
    this.authorized = authorized;
    this.authorizationError = authorized ? undefined : (error as { code?: string } | null)?.code;
  }

  // Commands.

  /** Reads end: a pending recv gets the end, and what comes is dropped. */
  shutdownRead(): void {
    this.reader.close();
  }

  /** FIN, after everything that was given before. */
  shutdownWrite(): void {
    this.#keepDescriptor();
    this.writer.shutdown();
  }

  /**
   * The engine closes its descriptor when both FINs are through, but names and options are asked for until
   * close(). Where no descriptor is free, they end with the connection.
   */
  #keepDescriptor(): void {
    const { closed } = this.#connection;
    if (this.#duplicate >= 0 || this.#closing !== undefined || closed || libc === undefined) return;
    try {
      this.#duplicate = duplicateDescriptor(this.fd, 0);
      forgotten.register(this, this.#duplicate, this);
    } catch {
      this.#duplicate = -1;
    }
  }

  #closeDuplicate(): void {
    if (this.#duplicate < 0) return;
    forgotten.unregister(this);
    closeDescriptor(this.#duplicate);
    this.#duplicate = -1;
  }

  /**
   * Ends gracefully, in the background: what sendall was given arrives, then FIN; then what the peer still
   * sends is read and dropped until its FIN, or for two seconds. A peer that takes nothing of what is queued
   * for it for ten seconds is reset. With SO_LINGER of 0 s it ends at once, as the kernel does.
   */
  close(): void {
    if (this.#closing !== undefined) return;
    const linger = lingerTime(this.fd);
    if (linger === 0) return this.closeAtOnce();
    // The kernel's way to linger would stop the whole process when the descriptor is closed; ours goes on
    // beside it.
    if (linger !== undefined) setOption(this.fd, SOL_SOCKET, SO_LINGER, new Uint8Array(8));
    this.#closeDuplicate();
    this.#closing = new Alarm(() => this.#closeNow());
    this.reader.close(closedError("recv"));
    if (this.#connection.closed) return;
    this.writer.rejectSends(closedError);
    if (this.writer.hasPending) this.#awaitFlush();
    else this.#finish();
  }

  #awaitFlush(): void {
    this.#sentAtAlarm = this.#connection.sent;
    this.#closing!.set(FLUSH_MS);
  }

  #finish(): void {
    this.#closing!.set(LINGER_MS);
    this.#connection.finish();
    if (this.#connection.closed) this.#closing!.clear();
  }

  #closeNow(): void {
    if (!this.writer.hasPending) {
      // The call that had bytes left may have given up: the FIN is still to be sent.
      return this.#connection.lingering ? this.#connection.close() : this.#finish();
    }
    if (this.#connection.sent === this.#sentAtAlarm) return this.#connection.abort(timedOut());
    this.#awaitFlush();
  }

  /** Closes the descriptor now, and says nothing to the peer that the kernel does not say. */
  closeAtOnce(): void {
    this.reader.close(closedError("recv"));
    this.writer.rejectAll(closedError);
    this.#connection.close();
    this.#closeDuplicate();
  }

  /** Ends with a reset. */
  abort(): void {
    this.reader.close(closedError("recv"));
    this.#connection.abort(closedError("recv"));
    this.#closeDuplicate();
  }

  detach(): number {
    // The keys are in the object, and would be gone with it.
    if (!this.plain) throw unsupported("detach", "the descriptor of a TLS connection");
    if (this.reader.hasPending || this.writer.hasPending) throw pendingError("bytes", "recv");
    return detachByCopy(this.fd, () => this.closeAtOnce());
  }

  // Events of the connection.

  onData(_: Connection, chunk: Uint8Array): void {
    this.reader.received(chunk);
  }

  onDrain(): void {
    if (this.writer.flush() && this.#closing !== undefined) this.#finish();
  }

  onEnd(): void {
    this.reader.end();
  }

  onClose(_: Connection, error: unknown): void {
    this.onGone?.();
    const reason = error === undefined ? undefined : resetAfterFin(toOSError(error, "recv"));
    if (this.#closing === undefined) this.reader.end(reason);
    this.#closing?.clear();
    this.writer.rejectAll((call) => (reason === undefined ? brokenPipe(call) : withSyscall(reason, call)));
    this.#gone.resolve();
  }
}

/** A connection that has ended and is forgotten without close() leaves its duplicate to the collector. */
const forgotten = new FinalizationRegistry<number>(closeDescriptor);

/** The same error, of the call that it ends. */
const withSyscall = (error: OSError, syscall: string): OSError => {
  const { code, errno, strerror: reason, cause } = error;
  const details = { code, errno, syscall, reason, cause };
  return error instanceof SSLError ? new SSLError(details) : osError(details);
};

/**
 * A reset that comes after the peer's FIN is EPIPE in the kernel (tcp_reset); for a receiver it is a reset.
 */
const resetAfterFin = (error: OSError): OSError =>
  error.code === "EPIPE" ? osError({ code: "ECONNRESET", syscall: "recv", cause: error }) : error;

const timedOut = (): OSError => {
  const reason = "the peer stopped reading while data was queued for it";
  return osError({ code: "ETIMEDOUT", syscall: "close", reason });
};
