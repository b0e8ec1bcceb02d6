/** The roles of a socket, as the socket object uses them. It changes when they need another call. */
import { closeDescriptor, duplicateDescriptor } from "../os/descriptor.ts";
import { osError, type OSError } from "../os/errors.ts";

/** An unused descriptor, a stream, a listener, or a datagram socket. */
export interface Role {
  /** The descriptor's number; -1 when it is gone. */
  readonly fd: number;
  /** Ends it, as the socket's close() does. Pending calls end with an error. Again does nothing. */
  close(): void;
  /**
   * Ends it, and leaves the socket open.
   * @returns a descriptor of the same socket
   * @throws OSError EBUSY where something would be lost; then nothing has changed
   */
  detach(): number;
  /** setsockopt(2) has set an option. */
  optionSet?(level: number, option: number, value: number | Uint8Array): void;
}

/**
 * An engine closes what it has adopted. A second descriptor keeps the socket open, and gets the first one's
 * number back.
 * @param close what closes the first one
 * @throws OSError EMFILE; then nothing has changed
 */
export function detachByCopy(fd: number, close: () => void): number {
  const kept = duplicateDescriptor(fd, 0);
  close();
  const same = duplicateDescriptor(kept, fd);
  closeDescriptor(kept);
  return same;
}

export function pendingError(what: "bytes" | "connections", call: "recv" | "accept"): OSError {
  const reason = `${what} wait here that would be lost: ${call} them first`;
  return osError({ code: "EBUSY", syscall: "detach", reason });
}
