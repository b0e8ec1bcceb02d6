/**
 * How Bun's sockets carry a connection: by Bun's own writes, or by send(2) for small messages. It changes
 * when Bun's sockets do, or a platform has another way.
 */
import { ptr } from "bun:ffi";
import type { Transport, TransportEvents } from "../../core/transport.ts";
import { MSG_DONTWAIT, MSG_NOSIGNAL } from "../../os/constants.ts";
import type { Open } from "../engine.ts";
import { libc, peerFinished, unacknowledged, unread, type Libc } from "../../os/libc.ts";

/**
 * Up to this size send(2) through bun:ffi goes first. Copying rules the cost of a larger write, and a short
 * one would cost two calls.
 */
const SEND_MAX = 16_384;

/** A socket whose events go to a connection. Bun's types lack its descriptor. */
export type BunSocket = Bun.Socket<TransportEvents | undefined> & { readonly fd?: number };

/** macOS has no MSG_NOSIGNAL: there send(2) is left to Bun. */
export const canSend = libc !== undefined && MSG_NOSIGNAL !== undefined;

/** Used only by DirectTransport, which exists only where libc was found. */
const send = libc?.send as Libc["send"];
const SEND_FLAGS = MSG_NOSIGNAL | MSG_DONTWAIT;

/** For TLS, whose bytes only Bun may write, and where there is no C library. */
class BunTransport implements Transport {
  protected readonly socket: BunSocket;

  constructor(socket: BunSocket) {
    this.socket = socket;
  }

  get fd(): number {
    return this.socket.fd ?? -1;
  }

  write(bytes: Uint8Array, offset: number, length: number): number {
    return this.socket.write(bytes, offset, length);
  }

  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  shutdown(): void {
    this.socket.shutdown();
  }

  end(): void {
    this.socket.end();
  }

  terminate(): void {
    this.socket.terminate();
  }

  unacknowledged(): number {
    return 0;
  }

  unread(): number {
    return 0;
  }

  peerFinished(): boolean {
    return false;
  }
}

/**
 * A plain socket that writes small messages by send(2) itself, which costs less CPU per message than Bun's
 * write. Bun writes the rest: it then arms `drain`, and can tell a full socket from a dead one.
 *
 * The descriptor's number is only safe while the socket is open: afterwards it may be somebody else's. Bun
 * clears its own when it closes, before the `close` event; a connection replaces this object by
 * `closedTransport` at that event, and before it closes the socket itself.
 */
class DirectTransport extends BunTransport {
  readonly #fd: number;

  constructor(socket: BunSocket, fd: number) {
    super(socket);
    this.#fd = fd;
  }

  override write(bytes: Uint8Array, offset: number, length: number): number {
    if (length > SEND_MAX || length === 0) return this.socket.write(bytes, offset, length);
    const sent = send(this.#fd, ptr(bytes, offset), length, SEND_FLAGS);
    if (sent === length) return sent;
    const taken = sent > 0 ? sent : 0;
    const more = this.socket.write(bytes, offset + taken, length - taken);
    return more < 0 ? more : taken + more;
  }

  override unacknowledged(): number {
    return unacknowledged(this.#fd);
  }

  override unread(): number {
    return unread(this.#fd);
  }

  override peerFinished(): boolean {
    return peerFinished(this.#fd);
  }
}

/** @param plain whether the descriptor carries the bytes as they are: not with TLS */
export function transportOf(socket: BunSocket, plain: boolean): Transport {
  const { fd } = socket;
  return plain && canSend && fd !== undefined && fd >= 0
    ? new DirectTransport(socket, fd)
    : new BunTransport(socket);
}

/** For Bun's `open`. @param plain as for transportOf() */
export function opened(socket: BunSocket, open: Open, plain: boolean): void {
  const events = open(transportOf(socket, plain));
  if (events === undefined) return void socket.terminate();
  socket.data = events;
  events.onOpen();
}

/**
 * The handlers that bring a Bun socket's events to the connection in `socket.data`, which `open` puts there.
 * A socket that was refused has none, and its `close` says nothing.
 */
export const socketEvents = {
  data(socket: BunSocket, chunk: Uint8Array): void {
    socket.data!.onData(chunk);
  },
  drain(socket: BunSocket): void {
    socket.data!.onDrain();
  },
  end(socket: BunSocket): void {
    socket.data!.onEnd();
  },
  close(socket: BunSocket, error?: Error): void {
    socket.data?.onClose(error);
  },
  /** One of the above has thrown. Bun reports it here, and leaves the socket open. */
  error(socket: BunSocket, error: Error): void {
    if (socket.data === undefined) socket.terminate();
    else socket.data.abort(error);
  },
};
