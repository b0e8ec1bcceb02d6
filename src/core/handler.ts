/** Who speaks on a connection. It changes when a connection has another event. */
import type { Connection } from "./connection.ts";

/** Every method is called synchronously; what one throws ends that connection alone. */
export interface ConnectionHandler {
  /** The connection is open: for a handler that speaks first. */
  onOpen?(connection: Connection): void;
  /** A chunk came. The handler owns it now, and may relay, hold, read or drop it. */
  onData(connection: Connection, chunk: Uint8Array): void;
  /** The kernel took the tail, or the connection has its turn again: more can be written. */
  onDrain(connection: Connection): void;
  /** The peer's FIN: no chunk will follow. The other direction is still open. */
  onEnd(connection: Connection): void;
  /**
   * The descriptor is gone. Called once. What is held stays, for take(), until drop().
   * @param error undefined when both sides sent FIN
   */
  onClose(connection: Connection, error: unknown): void;
}
