/**
 * How Bun's sockets carry a connection: Bun's own writes, or send(2) for small messages. It changes when Bun's sockets
 * do, or a platform can do it another way.
 */
import { ptr } from "bun:ffi";
import type { Connection } from "../../core/connection.ts";
import type { Transport } from "../../core/transport.ts";
import { MSG_DONTWAIT, MSG_NOSIGNAL } from "../../os/constants.ts";
import { libc, peerFinished, unacknowledged, unread, type Libc } from "../../os/libc.ts";

/**
 * Up to this size send(2) through bun:ffi goes first. Copying rules the cost of a larger write, and a short one
 * would cost two calls.
 */
const SEND_MAX = 16_384;

/** Bun's options of TLS, with the name that a server is asked for. */
export type TLS = Bun.TLSOptions & { serverName?: string };

/** The descriptor is there, and Bun's types lack it. */
type BunSocket = Bun.Socket<unknown> & { readonly fd?: number };

/** macOS has no MSG_NOSIGNAL: there send(2) is left to Bun. */
export const canSend = libc !== undefined && MSG_NOSIGNAL !== undefined;

/** Only called by the socket that is made where it is to be had. */
const send = libc?.send as Libc["send"];
const SEND_FLAGS = MSG_NOSIGNAL | MSG_DONTWAIT;

/**
 * A plain socket that writes small messages by send(2) itself, which costs less CPU a message than Bun's write.
 * What the kernel leaves goes through Bun, which then arms `drain` and tells a full socket from a dead one.
 *
 * The descriptor number is only safe while the socket is open: afterwards it may be somebody else's. Bun clears
 * its own when it closes, before the `close` event; a connection replaces this object by `closedTransport` at that
 * event, and before it closes the socket itself.
 */
class DirectTransport implements Transport {
  readonly #socket: BunSocket;
  readonly #fd: number;

  constructor(socket: BunSocket, fd: number) {
    this.#socket = socket;
    this.#fd = fd;
  }

  write(bytes: Uint8Array, offset: number, length: number): number {
    if (length > SEND_MAX || length === 0) return this.#socket.write(bytes, offset, length);
    const sent = send(this.#fd, ptr(bytes, offset), length, SEND_FLAGS);
    if (sent === length) return sent;
    const taken = sent > 0 ? sent : 0;
    const more = this.#socket.write(bytes, offset + taken, length - taken);
    return more < 0 ? more : taken + more;
  }

  unacknowledged(): number {
    return unacknowledged(this.#fd);
  }

  unread(): number {
    return unread(this.#fd);
  }

  peerFinished(): boolean {
    return peerFinished(this.#fd);
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  shutdown(): void {
    this.#socket.shutdown();
  }

  end(): void {
    this.#socket.end();
  }

  terminate(): void {
    this.#socket.terminate();
  }
}

/** The socket for a plain connection that Bun has just opened: the one over send(2) where that is to be had. */
export function transportOf(socket: BunSocket): Transport {
  const fd = socket.fd;
  const direct = canSend && fd !== undefined && fd >= 0;
  return direct ? new DirectTransport(socket, fd) : socket;
}

/**
 * The handlers that bring a Bun socket's events to the connection in `socket.data`. `open` is the owner's: it
 * puts the connection there, or refuses the socket. A refused socket has none, and its `close` says nothing.
 */
export const connectionEvents = {
  data(socket: Bun.Socket<Connection>, chunk: Uint8Array): void {
    socket.data.onData(chunk);
  },
  drain(socket: Bun.Socket<Connection>): void {
    socket.data.onDrain();
  },
  end(socket: Bun.Socket<Connection>): void {
    socket.data.onEnd();
  },
  close(socket: Bun.Socket<Connection | undefined>, error?: Error): void {
    socket.data?.onClose(error);
  },
  /** A throw in one of the above is a defect: of this connection it makes an end, of the others nothing. */
  error(socket: Bun.Socket<Connection | undefined>, error: Error): void {
    if (socket.data === undefined) socket.terminate();
    else socket.data.abort(error);
  },
};
