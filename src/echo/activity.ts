/**
 * The recent activity of one connection, sampled by one timer for all of them: how long it has been quiet,
 * how long our FIN has been out, and how it is ended for that. It changes when a reason to end a connection
 * does.
 *
 * A FIN says that the peer has everything. If something is missing, the echoed bytes are delivered first, as
 * far as time allows, and then the connection is reset.
 */
import type { Connection } from "../core/connection.ts";
import { osError, type OSError } from "../os/errors.ts";

/** How long a peer may keep its side open after our FIN. */
export const LINGER_MS = 2_000;

export class Activity {
  readonly connection: Connection;
  /** How long no byte has moved. The first period does not count: only a part of it was seen. */
  quietMs: number;
  #lingeredMs = 0;
  #movedBefore = 0;
  #acknowledgedBefore = 0;
  /** How long reading has been stopped; undefined while we read. */
  #concludedMs: number | undefined;

  /** @param periodMs the time between two calls of tick() */
  constructor(connection: Connection, periodMs: number) {
    this.connection = connection;
    this.quietMs = -periodMs;
  }

  /** Adds one period, and no more for a late timer: after a suspension, input is read first. */
  tick(ms: number): void {
    const { received, sent, dropped, lingering } = this.connection;
    const moved = received + sent + dropped;
    this.quietMs = moved === this.#movedBefore ? this.quietMs + ms : 0;
    this.#movedBefore = moved;
    if (lingering) this.#lingeredMs += ms;
  }

  /**
   * Whether the peer has acknowledged bytes since the last call, though none has moved here: the kernel may
   * hold megabytes for a slow peer. If so, the peer is not quiet.
   */
  noteAcknowledged(): boolean {
    const left = this.connection.transport.unacknowledged();
    // Compare acknowledged bytes, not remaining ones: later bytes may leave the same number.
    const acknowledged = this.connection.sent - left;
    const progress = left > 0 && acknowledged !== this.#acknowledgedBefore;
    this.#acknowledgedBefore = acknowledged;
    if (progress) this.quietMs = 0;
    return progress;
  }

  /** Outside a stop: ends a peer that has been idle, or lingers after our FIN. */
  endIfIdle(idleMs: number, periodMs: number): void {
    const { connection, quietMs } = this;
    if (connection.lingering) return this.endIfLingering();
    // Take the baseline when the quiet period starts. Taken only at the timeout, there would be nothing to
    // compare with, and a dead peer would get twice the time.
    if (quietMs === periodMs && quietMs < idleMs) this.noteAcknowledged();
    if (quietMs < idleMs || this.noteAcknowledged()) return;
    if (connection.held > 0) connection.abort(timedOut());
    else if (connection.transport.unacknowledged() === 0) connection.finish();
    // A FIN would wait behind the bytes that the peer does not read, and input that arrives meanwhile would
    // be lost before a clean end. After a close, the kernel goes on delivering, and resets a peer that sends.
    else if (quietMs >= idleMs + LINGER_MS) connection.close();
  }

  endIfLingering(): void {
    if (this.#lingeredMs >= LINGER_MS) this.expel();
  }

  /**
   * Ends a peer that keeps sending, over several calls: first we stop reading; after `graceMs`, once all
   * echoed bytes are acknowledged, it gets a FIN if those were all that it had sent, and a reset otherwise. A
   * peer whose FIN has come is served to its end, which is finite.
   */
  conclude(graceMs: number, periodMs: number): void {
    const { connection } = this;
    if (connection.peerFinished) return connection.readOn();
    if (this.#concludedMs === undefined) {
      connection.stopReading();
      this.#concludedMs = 0;
      return;
    }
    this.#concludedMs += periodMs;
    if (this.#concludedMs < graceMs || connection.held > 0 || connection.transport.unacknowledged() > 0)
      return;
    if (connection.transport.unread() > 0) connection.abort(cutShort());
    else connection.finish();
  }

  /** Ends the connection now: with a FIN if the peer has, or will get, everything; else with a reset. */
  expel(): void {
    const { connection } = this;
    if (connection.transport.unread() > 0 || !connection.complete) connection.abort(cutShort());
    else connection.close();
  }
}

const timedOut = (): OSError =>
  osError({
    code: "ETIMEDOUT",
    syscall: "send",
    reason: "the peer stopped reading while data was queued for it",
  });

const cutShort = (): OSError =>
  osError({
    code: "ETIMEDOUT",
    syscall: "recv",
    reason: "the time is up, and bytes of the peer were not echoed",
  });
