/**
 * What a connection asks of a socket, and the sockets that answer: Bun's own, a faster one over send(2), and the
 * one that stands in when the real one is gone. It changes when a connection needs another call, or a platform
 * another socket.
 */
import { ptr } from "bun:ffi";
import { MSG_DONTWAIT, MSG_NOSIGNAL } from "../../os/constants.ts";
import { libc, peerFinished, unacknowledged, unread, type Libc } from "../../os/libc.ts";

export interface StreamSocket {
  /**
   * Gives bytes to the kernel, in one try, and queues nothing. What it does not take, it announces by a `drain`
   * event later.
   * @returns how many the kernel took, 0 too; -1 when the socket is closed or shut down
   */
  write(bytes: Uint8Array, offset: number, length: number): number;
  /** No further chunk until resume(). */
  pause(): unknown;
  resume(): unknown;
  /** Sends FIN behind what the kernel has taken. */
  shutdown(): unknown;
  /** Closes the descriptor. If the peer still sends, that is a reset, and what it has not read is lost. */
  end(): unknown;
  /** Closes the descriptor with a reset. */
  terminate(): unknown;
  /** How many of the bytes that the kernel took the peer has not acknowledged. Not every socket can tell. */
  unacknowledged?(): number;
  /** How many bytes of the peer's wait in the kernel. Not every socket can tell. */
  unread?(): number;
  /** Whether the peer's FIN has reached the kernel, though bytes may wait before it. Not every socket can tell. */
  peerFinished?(): boolean;
}

/** Takes the place of a socket that is closed, so that nothing can reach its descriptor, which may be another's. */
export const closedSocket: StreamSocket = {
  write: () => -1,
  pause: () => undefined,
  resume: () => undefined,
  shutdown: () => undefined,
  end: () => undefined,
  terminate: () => undefined,
};

/**
 * Up to this size send(2) through bun:ffi goes first. Copying rules the cost of a larger write, and a short one
 * would cost two calls.
 */
const SEND_MAX = 16_384;

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
 * its own when it closes, before the `close` event; a connection replaces this object by `closedSocket` at that
 * event, and before it closes the socket itself.
 */
class SendSocket implements StreamSocket {
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
export function streamSocket(socket: BunSocket): StreamSocket {
  const fd = socket.fd;
  const direct = canSend && fd !== undefined && fd >= 0;
  return direct ? new SendSocket(socket, fd) : socket;
}
