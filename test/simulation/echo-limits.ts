/**
 * When the echo server may end a connection by itself, and when it must, judged by what the fake kernel saw
 * of it, never by what the code under test counts. It changes when one of the service's times does.
 */
import type { Peer } from "./echo-peer.ts";
import type { FakeBun } from "./fake-bun.ts";

/** After our FIN, a peer may go on for this long. */
const LINGER_MS = 2_000;
/** In a stop, a peer that has been silent for this long has nothing under way. */
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

  /** Nothing has moved for the idle timeout, and what the kernel holds for the peer was not read either. */
  #idle({ end, movedAt, readAt }: Peer): boolean {
    return (
      this.#passed(this.idleMs, movedAt) && (end.incoming.length === 0 || this.#passed(this.idleMs, readAt))
    );
  }

  /** In a stop, the server reads nothing more of peers that go on. */
  get #concludeMs(): number {
    return this.stopMs - Math.min(LINGER_MS, this.stopMs / 2);
  }

  get #graceMs(): number {
    return Math.min(QUIET_MS, (this.stopMs - this.#concludeMs) / 2);
  }

  /** May the server have stopped reading, though there is room? */
  mayStopReading({ socket }: Peer): boolean {
    return this.#passed(this.#concludeMs, this.stopBegan) && !socket!.shut;
  }

  /** It has read nothing more for so long, in a stop, that a peer with something under way has sent it. */
  get #concluded(): boolean {
    return this.#passed(this.#concludeMs + this.#graceMs, this.stopBegan);
  }

  /** May the server send FIN, though the peer has not? Only to a peer that has everything. */
  mayFinish({ end, socket, movedAt, readAt, openedAt, cameAt }: Peer): boolean {
    // The peer has closed both ways, and a reset of its kernel may have overtaken its FIN.
    if (end.closed) return true;
    // What the server has not read: a FIN would be the clean end of a part.
    if (end.peer.incoming.length > 0) return false;
    if (this.#passed(this.stopMs, this.stopBegan)) return true;
    // By close(), after the bytes that an idle peer does not read.
    if (socket!.closed && end.incoming.length > 0) {
      return this.#passed(this.idleMs + LINGER_MS, Math.max(openedAt, movedAt, readAt));
    }
    if (end.incoming.length > 0) return false;
    const idle = this.#passed(this.idleMs, movedAt);
    return (
      idle ||
      (this.#concluded && this.#passed(this.#graceMs, cameAt)) ||
      this.#passed(QUIET_MS, Math.max(this.stopBegan, movedAt))
    );
  }

  /** May the server close, now? It does not matter whether the peer will find out. */
  mayClose(peer: Peer): boolean {
    const { shutAt, refused, socket, expected, end } = peer;
    const { error, shut, broken } = socket!.endpoint;
    if (refused || broken || error !== "") return true;
    if (socket!.endTold && shut) return true;
    if (this.#passed(LINGER_MS, shutAt)) return true;
    if (this.#passed(this.stopMs, this.stopBegan)) return true;
    // A reset, of a peer that has all that was echoed, and has sent more.
    const sentMore = socket!.endpoint.incoming.length > 0 && !socket!.endpoint.fin;
    if (this.#concluded && end.incoming.length === 0 && sentMore) return true;
    // A reset, of a peer that does not take its bytes; or FIN, which mayFinish() judges.
    return this.#idle(peer) && (expected.length > 0 || end.incoming.length > 0);
  }

  /** Whether the server should have ended this connection long ago. */
  overdue({ shutAt, openedAt, movedAt, readAt, expected, end }: Peer): boolean {
    const sweeps = (ms: number, period = this.#sweepMs): number =>
      (Math.ceil(ms / period) + 2) * (period + this.#late);
    if (this.stopBegan < Infinity) {
      const stop = (ms: number): number => sweeps(ms, STOP_SWEEP_MS);
      if (this.now - this.stopBegan > stop(this.stopMs)) return true;
      // A peer that is quiet has its FIN after a second, and two more to answer it.
      if (shutAt < Infinity) return this.now - Math.max(shutAt, this.stopBegan) > stop(LINGER_MS);
      const moved = Math.max(this.stopBegan, openedAt, movedAt, readAt);
      const rests = expected.length === 0 && end.incoming.length === 0 && end.peer.incoming.length === 0;
      // When the time for reading is up before that, it has the grace of those that go on.
      const grace = this.#passed(this.#concludeMs, this.stopBegan) ? stop(this.#graceMs) : 0;
      return rests && this.now - moved > stop(QUIET_MS) + grace;
    }
    if (this.idleMs === Infinity) return false;
    if (shutAt < Infinity) return this.now - shutAt > sweeps(LINGER_MS);
    // When the kernel is asked first, what it tells is new in any case, and the timeout begins again.
    // One that does not read is closed after LINGER_MS more, without a FIN that would wait behind its bytes.
    const unread = end.incoming.length > 0 ? LINGER_MS : 0;
    return this.now - Math.max(openedAt, movedAt, readAt) > 2 * sweeps(this.idleMs) + unread;
  }
}
