/**
 * The seam between the rules and what brings them bytes and time. It changes when a rule needs something new
 * of every engine.
 *
 * An engine knows no rule. It does not decide who is served, how much is held, who is closed or when. The
 * rules rely on what follows, and on nothing else. `bun/` is Bun's own sockets; the simulation has another.
 *
 * - **Descriptors.** listen(), connect() and adopt() take a descriptor that is bound or connected by system
 *   calls. It is the caller's until the call returns, or, for connect(), until `open`; then it is the
 *   engine's, which closes it. Flags and options that belong to the socket are left as they were.
 * - **Opening.** `open` gets the transport and returns who takes its events. It must not throw. To refuse, it
 *   returns undefined, and the engine resets the connection. Otherwise onOpen() is called at once, before any
 *   other event.
 * - **Bytes** come in order, each once, in chunks of any size, until onEnd() or onClose(). After pause() none
 *   comes, but what the kernel had for a peer that has reset. A chunk is the receiver's memory from then on.
 * - **A short write** is followed by onDrain() when the kernel takes bytes again. It may also come for
 *   nothing.
 * - **FIN.** onEnd() is called once, after the last chunk, and closes nothing: the other direction stays open
 *   until shutdown(). When both FINs are out, the engine closes the descriptor and calls onClose(undefined).
 * - **The end.** onClose() is called once: for the peer, for the network, or by end() and terminate() before
 *   they return. From the moment it is called, no call reaches the descriptor, and no event comes.
 * - **A throw** of an event is given to abort() of the same connection. The others go on.
 * - **Turns.** All events of a turn come before nextTurn()'s callback, and promises are settled between two
 *   events, never within one. Errors are OSErrors, or what the network is to blame for with a numeric
 *   `errno`.
 */
import type { Time } from "../core/time.ts";
import type { Transport, TransportEvents } from "../core/transport.ts";
import type { OSError } from "../os/errors.ts";

/** Bun's options of TLS, with the name that a client asks for and verifies. */
export type TLS = Bun.TLSOptions & { serverName?: string };

export interface Handshake {
  /** Whether the handshake succeeded, and the peer's certificate is acceptable. */
  readonly accepted: boolean;
  /** Whether the peer has shown a certificate that was verified. */
  readonly authorized: boolean;
  /** Why not; it has OpenSSL's code. */
  readonly error: Error | null;
}

/** Takes a new transport. @returns who gets its events; undefined resets it */
export type Open = (transport: Transport) => TransportEvents | undefined;

export interface ListenOptions {
  /** listen(2)'s. */
  readonly backlog: number;
  readonly open: Open;
  /** Speaks TLS: `open` comes before the handshake, and no byte before `handshake`. */
  readonly tls?: TLS | undefined;
  readonly handshake?: ((events: TransportEvents, handshake: Handshake) => void) | undefined;
  /**
   * Called once when connections wait and accept(2) fails, and again only after it has worked for a while.
   */
  readonly failing?: ((error: OSError) => void) | undefined;
}

/** A socket that is listened on. */
export interface Acceptor {
  /** listen(2) again, with another backlog. @throws OSError */
  setBacklog(backlog: number): void;
  /** If accepting rests because it failed, tries again: the next turn of the event loop accepts who waits. */
  retry(): void;
  /** Frees the port, and resets who waits in the kernel's queue. */
  close(): void;
}

export interface ConnectOptions {
  /** Whether connect(2) has said that it is done. */
  readonly connected: boolean;
  /** Called before connect() returns, unless that throws or `failed` is called. */
  readonly open: Open;
  /** Called once: the connection is established, and with TLS the handshake is done. */
  established(handshake: Handshake | undefined): void;
  /** Called once instead. If there was an `open`, onClose() follows or the caller aborts the connection. */
  failed(error: unknown): void;
  readonly tls?: TLS | undefined;
}

export interface DatagramEvents {
  /** One datagram, whole, and its sender. @param host as text, of a link-local address with its zone */
  onDatagram(bytes: Buffer, host: string, port: number): void;
  /** What the kernel has learned of earlier ones: that nobody listens there, mostly. */
  onError(error: OSError): void;
}

export interface Closable {
  close(): void;
}

export interface Engine {
  readonly name: string;
  readonly time: Time;
  /** Accepts on a descriptor that is bound. @throws OSError; then the descriptor is still the caller's */
  listen(fd: number, options: ListenOptions): Acceptor;
  /**
   * Listens by itself, where no system call can be made (`libc` is undefined).
   * @param keepalive seconds of silence before SO_KEEPALIVE probes a peer; 0 never
   * @returns with the port, which is of the kernel's choice where 0 was asked for
   * @throws OSError
   */
  listenAt(
    host: string,
    port: number,
    keepalive: number,
    options: ListenOptions,
  ): Acceptor & { readonly port: number };
  /** Waits for a connection that is under way, or speaks TLS on one that is established. */
  connect(fd: number, options: ConnectOptions): void;
  /** Takes over a plain connection that is established. `open` is called at once. @throws OSError ENOTSUP */
  adopt(fd: number, open: Open): void;
  /** Reads datagrams. @returns what closes the descriptor @throws OSError ENOTSUP */
  receive(fd: number, events: DatagramEvents): Closable;
  /**
   * Calls back once when the descriptor, which stays the caller's, is readable. close() calls it off.
   * @throws OSError
   */
  watch(fd: number, callback: () => void): Closable;
}
