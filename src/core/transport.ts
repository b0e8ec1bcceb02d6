/**
 * What a connection and its socket say to each other: the calls that a connection makes, the events that an
 * engine reports, and the transport that stands in when the socket is gone. It changes when a connection
 * needs another call or event.
 */

/**
 * A socket, as its connection uses it. No call blocks, and none but write() and shutdown() touches a byte.
 */
export interface Transport {
  /** The descriptor's number, for system calls; -1 once it is closed, or if unknown. */
  readonly fd: number;
  /**
   * Offers bytes to the kernel, once, and queues nothing. If the kernel does not take all of them, onDrain()
   * follows as soon as it takes more.
   * @returns how many the kernel took, 0 too; -1 when the socket is closed or shut down
   */
  write(bytes: Uint8Array, offset: number, length: number): number;
  /** No chunk comes until resume(), but for a reset: what the kernel had is then handed over all the same. */
  pause(): void;
  resume(): void;
  /** Sends FIN after what the kernel has taken, and goes on reading. */
  shutdown(): void;
  /** Closes the descriptor. If the peer still sends, that is a reset, and what it has not read is lost. */
  end(): void;
  /** Closes the descriptor with a reset. */
  terminate(): void;
  /** Bytes that the kernel took and the peer has not acknowledged; 0 if the kernel cannot say. */
  unacknowledged(): number;
  /** Bytes from the peer that wait in the kernel; 0 if the kernel cannot say. */
  unread(): number;
  /** Whether the peer's FIN has reached the kernel, perhaps after unread bytes; false if unknown. */
  peerFinished(): boolean;
}

/** The events of one transport; a Connection takes them. None is called during another. */
export interface TransportEvents {
  /** The transport is open, and its events come here from now on. */
  onOpen(): void;
  /** A chunk came. It belongs to the receiver from now on: the engine neither reads nor writes it again. */
  onData(chunk: Uint8Array): void;
  /** The kernel takes bytes again. */
  onDrain(): void;
  /** The peer's FIN: no chunk follows. */
  onEnd(): void;
  /** The descriptor is gone. @param error undefined after an end that both sides wanted */
  onClose(error: unknown): void;
  /** One of the above has thrown: this connection ends with a reset, and no other notices. */
  abort(error: unknown): void;
}

const nothing = (): void => undefined;

/** Replaces a closed socket: nothing may reach its descriptor, whose number may be another's. */
export const closedTransport: Transport = {
  fd: -1,
  write: () => -1,
  pause: nothing,
  resume: nothing,
  shutdown: nothing,
  end: nothing,
  terminate: nothing,
  unacknowledged: () => 0,
  unread: () => 0,
  peerFinished: () => false,
};
