/**
 * When the echo server may end a connection of itself, and when it must: told by what the fake kernel saw of it,
 * never by what the code under test counts. It changes when one of the service's times does.
 */
import type { Peer } from "./echo-peer.ts";
import type { FakeBun } from "./fake-bun.ts";

/** Behind our FIN, a peer may go on for so long. */
const LINGER_MS = 2_000;
/** In a stop, a peer from which nothing has come for so long has nothing more under way. */
const QUIET_MS = 1_000;
/** In a stop the server looks so often. */
const STOP_SWEEP_MS = 50;
/** The clock's sums of fractions are not exact. */
const EXACT_MS = 0.001;

export class Limits {
  /** Infinity when there is none. */
  readonly idleMs: number;
  readonly stopMs: number;
  stopBegan = Infinity;
  readonly #bun: FakeBun;
  /** The server looks for idle peers so often, and a timer may be so late. */
  readonly #sweepMs: number;
  readonly #late: number;

  /** @param late how late a timer may be */
  constructor(bun: FakeBun, idleTimeout: number, stopTimeout: number, late: number) {
    this.#bun = bun;
    this.idleMs = idleTimeout > 0 ? idleTimeout * 1000 : Infinity;
    this.stopMs = stopTimeout * 1000;
    this.#sweepMs = Math.min(1000, Math.max(50, this.idleMs / 4));
    this.#late = late;
  }

  get now(): number {
    return this.#bun.clock.now;
  }

  #passed(ms: number, since: number): boolean {
    return this.now - since >= ms - EXACT_MS;
  }

  /** A stop has begun, and the port is free. */
  get draining(): boolean {
    return this.stopBegan < Infinity && this.#bun.kernel.ports.size === 0;
  }

  /** Nothing has moved for the idle timeout, and what the kernel holds for the peer was not read either. */
  #idle({ end, movedAt, readAt }: Peer): boolean {
    return (
      this.#passed(this.idleMs, movedAt) && (end.incoming.length === 0 || this.#passed(this.idleMs, readAt))
    );
  }

  /** May the server send FIN, though the peer has not? */
  mayFinish(peer: Peer): boolean {
    if (this.stopBegan < Infinity) {
      const finishAll = this.stopMs - Math.min(LINGER_MS, this.stopMs / 2);
      if (this.#passed(finishAll, this.stopBegan)) return true;
    }
    if (peer.end.peer.incoming.length > 0) return false;
    return this.#idle(peer) || this.#passed(QUIET_MS, Math.max(this.stopBegan, peer.movedAt));
  }

  /** May the server close, now? It does not matter whether the peer will find out. */
  mayClose(peer: Peer): boolean {
    const { shutAt, shutInStop, refused, socket, expected } = peer;
    const { error, shut, broken } = socket!.endpoint;
    if (refused || broken || error !== "") return true;
    if (socket!.endTold && shut) return true;
    if (!shutInStop && this.#passed(LINGER_MS, shutAt)) return true;
    if (this.#passed(this.stopMs, this.stopBegan)) return true;
    // A reset, of a peer that does not take what it is owed.
    return expected.length > 0 && this.#idle(peer);
  }

  /** Whether the server should have ended this connection long ago. */
  overdue({ shutAt, openedAt, movedAt, readAt }: Peer): boolean {
    const sweeps = (ms: number, period = this.#sweepMs): number =>
      (Math.ceil(ms / period) + 2) * (period + this.#late);
    if (this.stopBegan < Infinity) return this.now - this.stopBegan > sweeps(this.stopMs, STOP_SWEEP_MS);
    if (this.idleMs === Infinity) return false;
    if (shutAt < Infinity) return this.now - shutAt > sweeps(LINGER_MS);
    // When the kernel is asked first, what it tells is new in any case, and the timeout begins again.
    return this.now - Math.max(openedAt, movedAt, readAt) > 2 * sweeps(this.idleMs);
  }
}
