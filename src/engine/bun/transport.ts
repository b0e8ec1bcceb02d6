/**
 * How Bun's sockets carry a connection: by Bun's own writes, or by send(2) for small messages. It changes
 * when Bun's sockets do, or a platform has another way.
 */
import { ptr } from "bun:ffi";
import type { Transport, TransportEvents } from "../../core/transport.ts";
import { MSG_DONTWAIT, MSG_NOSIGNAL } from "../../os/constants.ts";
import type { Open } from "../engine.ts";
import { libc, type Libc } from "../../os/libc.ts";
import { peerFinished, unacknowledged, unread } from "../../os/descriptor.ts";

/**
 * Up to this size send(2) through bun:ffi goes first. Copying rules the cost of a larger write, and a short
 * one would cost two calls.
 */
const SEND_MAX = 16_384;

/** A socket whose events go to a connection. Bun's types lack its descriptor. */
export type BunSocket = Bun.Socket<TransportEvents | undefined> & { readonly fd?: number };

/** macOS has no MSG_NOSIGNAL: there send(2) is left to Bun. */
const canSend = libc !== undefined && MSG_NOSIGNAL !== undefined;

/** Called only where `canSend`. */
const send = libc?.send as Libc["send"];
const SEND_FLAGS = MSG_NOSIGNAL | MSG_DONTWAIT;

/**
 * A plain socket writes small messages by send(2) itself, which costs less CPU per message than Bun's write.
 * Bun writes the rest: it then arms `drain`, and can tell a full socket from a dead one.
 *
 * The descriptor's number is only safe while the socket is open: afterwards it may be somebody else's. Bun
 * clears its own when it closes, before the `close` event; a connection replaces this object by
 * `closedTransport` at that event, and before it closes the socket itself.
 */
class BunTransport implements Transport {
  readonly #socket: BunSocket;
  /**
   * For send(2) and what only the kernel knows; -1 with TLS, whose bytes only Bun may write, and without
   * libc.
   */
  readonly #plainFd: number;

  constructor(socket: BunSocket, plain: boolean) {
    this.#socket = socket;
    this.#plainFd = plain && canSend ? (socket.fd ?? -1) : -1;
  }

  get fd(): number {
    return this.#socket.fd ?? -1;
  }

  write(bytes: Uint8Array, offset: number, length: number): number {
    if (this.#plainFd < 0 || length > SEND_MAX || length === 0)
      return this.#socket.write(bytes, offset, length);
    const sent = send(this.#plainFd, ptr(bytes, offset), length, SEND_FLAGS);
    if (sent === length) return sent;
    const taken = sent > 0 ? sent : 0;
    const more = this.#socket.write(bytes, offset + taken, length - taken);
    return more < 0 ? more : taken + more;
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

  unacknowledged(): number {
    return this.#plainFd < 0 ? 0 : unacknowledged(this.#plainFd);
  }

  unread(): number {
    return this.#plainFd < 0 ? 0 : unread(this.#plainFd);
  }

  peerFinished(): boolean {
    return this.#plainFd >= 0 && peerFinished(this.#plainFd);
  }
}

/** @param plain whether the descriptor carries the bytes as they are: not with TLS */
export const transportOf = (socket: BunSocket, plain: boolean): Transport => new BunTransport(socket, plain);

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
