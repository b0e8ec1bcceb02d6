/**
 * What one connection has done lately, as one timer for all of them sees it: how long it has been quiet, how
 * long our FIN has been out, and how it is ended because of that. It changes when a reason to end a
 * connection does.
 *
 * A FIN says that the peer has everything. Where something is missing, what was echoed is delivered first, as
 * far as time allows, and then the connection is reset.
 */
import type { Connection } from "../core/connection.ts";
import { osError, type OSError } from "../os/errors.ts";

/** How long a peer may keep its side open after our FIN. */
export const LINGER_MS = 2_000;

export class Activity {
  readonly connection: Connection;
  /** How long no byte has moved. Of the first period, only a part was seen: it does not count. */
  quietMs: number;
  #lingeredMs = 0;
  #movedBefore = 0;
  #acknowledgedBefore = 0;
  /** How long we have read nothing more; undefined while we read. */
  #concludedMs: number | undefined;

  /** @param periodMs the time between two calls of tick() */
  constructor(connection: Connection, periodMs: number) {
    this.connection = connection;
    this.quietMs = -periodMs;
  }

  /**
   * Adds the time since the last call. A timer that is late adds its period all the same: a process that was
   * suspended does not find every peer too old, since it reads what has come before the next call.
   */
  tick(ms: number): void {
    const { received, sent, dropped, lingering } = this.connection;
    const moved = received + sent + dropped;
    this.quietMs = moved === this.#movedBefore ? this.quietMs + ms : 0;
    this.#movedBefore = moved;
    if (lingering) this.#lingeredMs += ms;
  }

  /**
   * Whether the peer has acknowledged something since the last call, though no byte has moved here: the
   * kernel may hold megabytes for a slow peer. If so, it is not quiet.
   */
  noteAcknowledged(): boolean {
    const left = this.connection.transport.unacknowledged();
    // Not the number of bytes that are left: it may be the same again, of later bytes.
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
    // The baseline for the question below: a peer that takes nothing would otherwise have twice the time.
    if (quietMs === periodMs && quietMs < idleMs) this.noteAcknowledged();
    if (quietMs < idleMs || this.noteAcknowledged()) return;
    if (connection.held > 0) connection.abort(timedOut());
    else if (connection.transport.unacknowledged() === 0) connection.finish();
    // A FIN would wait behind what the peer does not read, and what it sends meanwhile would be lost before a
    // clean end. The kernel goes on delivering after the close, and resets a peer that sends.
    else if (quietMs >= idleMs + LINGER_MS) connection.close();
  }

  endIfLingering(): void {
    if (this.#lingeredMs >= LINGER_MS) this.expel();
  }

  /**
   * Ends a peer that goes on, in several calls: first we stop reading; after `graceMs`, when all that was
   * echoed has been acknowledged, it gets a FIN if that was everything it sent, and a reset if not. A peer
   * whose FIN has come is served on: what is left of it is finite.
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

  /**
   * Ends the connection now: with a FIN, behind what the kernel still delivers, only if nothing is missing.
   */
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
