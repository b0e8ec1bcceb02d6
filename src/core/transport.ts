/**
 * The calls that a connection makes on its socket, and the transport that stands in when the socket is gone. It changes
 * when a connection needs another call.
 */

export interface Transport {
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
export const closedTransport: Transport = {
  write: () => -1,
  pause: () => undefined,
  resume: () => undefined,
  shutdown: () => undefined,
  end: () => undefined,
  terminate: () => undefined,
};
