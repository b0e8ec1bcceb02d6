/**
 * One connection of the crowd: every byte that comes back is checked, it knows when it waits in vain, and
 * which ends are right. It changes when a rule about a connection's end does.
 */
import { CheckedStream } from "../../bench/load/checked-stream.ts";

/** What the peers have counted. All numbers count from the start, but for `open`. */
export interface Ledger {
  /** Connections that stood. */
  connections: number;
  open: number;
  /** Bytes that the kernel took from peers, and bytes that came back, checked. */
  sent: number;
  back: number;
  /** Chatty messages and pieces of 64 KiB that came back, and visits. */
  messages: number;
  /**
   * Connections that did not end by two FINs: thrown away by a peer, or given up by the server, as it may.
   */
  abrupt: number;
  /** Bytes that were missing when the server's FIN came first, in a stop. */
  unanswered: number;
}

export const emptyLedger = (): Ledger => ({
  ...{ connections: 0, open: 0, sent: 0, back: 0, messages: 0, abrupt: 0, unanswered: 0 },
});

/** Where the sessions are, and what they share. */
export interface Surroundings {
  readonly port: number;
  readonly ledger: Ledger;
  readonly sessions: Set<Session>;
  /** Places in the pattern, so that no two sessions send the same bytes at the same time. */
  nextIndex(): number;
  /** When the server's stop was announced; from then on it may end quiet connections. */
  readonly stopping: number | undefined;
  /** Whether the server delivers all echoes when it is stopped. */
  readonly graceful: boolean;
  /**
   * How long nothing moves, in milliseconds, before the server ends it at the earliest, and by when it has;
   * if it is known.
   */
  readonly idle: readonly [least: number, most: number] | undefined;
  fail(why: string): void;
}

/** A connection that was established this many milliseconds before a stop did not come in its very moment. */
const SETTLED_MS = 1_000;
/** How long it takes at most to see an end that is there. */
const SEEN_MS = 3_000;

const handlers: Bun.SocketHandler<Session> = {
  open: (socket) => void socket.setNoDelay(true),
  data: ({ data }, chunk) => data.receive(chunk),
  drain: ({ data }) => data.push(),
  end: ({ data }) => data.serverFin(),
  close: ({ data }, error) => data.closed(error),
  error: ({ data }, error) => data.fail(Bun.inspect(error)),
};

export class Session extends CheckedStream<Bun.Socket<Session>> {
  /** It stays and moves no byte: the server shall end it, at its time. */
  expendable = false;

  readonly #around: Surroundings;
  #state: "connecting" | "open" | "finishing" | "over" = "connecting";
  #reading = true;
  /** We threw it away: every end is right. */
  #abandoned = false;
  #pushing = false;
  #stoodSince = Infinity;
  /** When something last moved, by performance.now(). */
  #moved = performance.now();
  /**
   * For how long, in milliseconds, this process did not run when it should have: so much later may #moved be
   * than the move.
   */
  #missed = 0;
  /** Since when its end is due, by performance.now(). One that reads nothing may not have seen it yet. */
  #due = Infinity;
  #waiting: { condition: () => boolean; tell: (held: boolean) => void } | undefined;

  private constructor(around: Surroundings, kind: string) {
    const index = around.nextIndex();
    super(`${kind} peer ${index}`, index, true);
    this.#around = around;
  }

  /** @returns undefined when the server no longer listens, which is a failure outside a stop */
  static async open(around: Surroundings, kind: string): Promise<Session | undefined> {
    const session = new Session(around, kind);
    around.sessions.add(session);
    const options = { hostname: "127.0.0.1", port: around.port, allowHalfOpen: true };
    try {
      // `data` may come before the promise settles: the socket is recorded in `open`.
      session.socket = await Bun.connect({ ...options, data: session, socket: handlers });
    } catch (error) {
      around.sessions.delete(session);
      if (around.stopping === undefined)
        session.fail(`cannot connect: ${(error as NodeJS.ErrnoException).code ?? (error as Error).message}`);
      return undefined;
    }
    around.ledger.connections++;
    if (session.over) {
      // Nobody waits for it.
      session.socket.end();
      return undefined;
    }
    around.ledger.open++;
    session.#stoodSince = session.#moved = performance.now();
    session.#state = "open";
    return session;
  }

  get everyone(): readonly Session[] {
    return [...this.#around.sessions];
  }

  get over(): boolean {
    return this.#state === "over";
  }

  /** Voids the soak; but where a write found the connection gone, it is an end like any other. */
  fail(why: string): void {
    if (!this.#pushing) return this.#void(why);
    this.#lost("closed", 0);
    // A paused socket would tell of its end to nobody, and keep its descriptor.
    this.socket!.terminate();
  }

  #void(why: string): void {
    this.#around.fail(`${this.name}: ${why}`);
    this.#forget();
  }

  // What a peer does.

  send(bytes: number): void {
    this.unsent += bytes;
    this.push();
  }

  push(): void {
    if (this.over || this.socket === undefined) return;
    const before = this.sent;
    this.#pushing = true;
    this.flush();
    this.#pushing = false;
    this.#around.ledger.sent += this.sent - before;
    if (this.sent > before) this.#moved = performance.now();
    this.#look();
  }

  /** @returns false when the connection ended before the condition held */
  until(condition: () => boolean): Promise<boolean> {
    if (condition()) return Promise.resolve(true);
    if (this.over) return Promise.resolve(false);
    return new Promise((tell) => {
      this.#waiting = { condition, tell };
    });
  }

  /** All that was sent is back. */
  answered(): Promise<boolean> {
    return this.until(() => this.unsent === 0 && this.owed === 0);
  }

  stopReading(): void {
    this.#reading = false;
    this.socket?.pause();
  }

  read(): void {
    this.#reading = true;
    this.#moved = performance.now();
    if (!this.over) this.socket?.resume();
  }

  /** FIN after all bytes. The missing echoes still come, and then the server's own FIN. */
  async halfClose(): Promise<void> {
    if (!(await this.until(() => this.unsent === 0)) || this.over || this.#state === "finishing") return;
    this.#state = "finishing";
    this.#moved = performance.now();
    this.socket!.shutdown();
  }

  /** halfClose(), and waits for the end. */
  async finish(): Promise<void> {
    await this.halfClose();
    await this.until(() => this.over);
  }

  reset(): void {
    this.#abandon();
    this.socket?.terminate();
  }

  /**
   * The descriptor is closed with what it still holds: the kernel answers for a peer that is not there any
   * more.
   */
  vanish(): void {
    this.#abandon();
    this.socket?.end();
  }

  #abandon(): void {
    if (this.over) return;
    this.#abandoned = true;
    this.#around.ledger.abrupt++;
    this.#forget();
  }

  // What comes from the server.

  receive(chunk: Buffer): void {
    if (this.over || !this.accept(chunk)) return;
    this.#around.ledger.back += chunk.length;
    // What was there already comes to one that reads nothing when the connection ends.
    if (this.#reading) this.#moved = performance.now();
    this.#look();
  }

  serverFin(): void {
    if (this.over) return;
    this.#lost("ended (FIN)", this.owed);
    this.socket!.end();
  }

  closed(error: Error | undefined): void {
    if (this.over) return;
    const finished = this.#state === "finishing" && error === undefined && this.owed === 0;
    if (finished) return this.#forget();
    this.#lost(error === undefined ? "closed" : `reset (${(error as NodeJS.ErrnoException).code})`, 0);
  }

  /** The server ended it first. @param unanswered bytes that it says it has dropped */
  #lost(how: string, unanswered: number): void {
    const { stopping, graceful, ledger, idle } = this.#around;
    const came = stopping !== undefined && this.#stoodSince > stopping - SETTLED_MS;
    // In a stop a quiet peer is sent FIN, and what it sends at that very moment is dropped and counted.
    const asked = stopping !== undefined && (!graceful || came || how === "ended (FIN)");
    const silent = performance.now() - this.#moved;
    const early = idle !== undefined && silent + this.#missed < idle[0] && this.#due === Infinity;
    if (!this.#abandoned && !asked && (!this.expendable || early)) {
      const phase = this.expendable
        ? `when nothing had moved for ${(silent / 1000).toFixed(1)} s`
        : this.#state === "finishing"
          ? "behind the peer's FIN"
          : "in mid-stream";
      return this.#void(
        `${how} by the server ${phase}, after ${this.received} of ${this.sent} bytes had come back`,
      );
    }
    ledger.abrupt++;
    ledger.unanswered += unanswered;
    this.#forget();
  }

  /** This process did not run for this many milliseconds. */
  excuse(ms: number): void {
    this.#missed += ms;
  }

  /**
   * @returns what is wrong, when nothing has come for so many milliseconds although it should, or its end has
   *   not
   */
  hang(now: number, patience: number): string | undefined {
    const silent = now - this.#moved;
    const most = this.#around.idle?.[1] ?? Infinity;
    if (this.expendable && this.#state === "open" && silent > most + this.#missed && this.#due === Infinity) {
      this.#due = now;
      // The end comes after the bytes that it has not read.
      this.socket!.resume();
    }
    if (now - this.#due > SEEN_MS)
      return `${this.name}: a hang: it moved nothing for ${most / 1000} s, and is not ended; ${this.received} of ${this.sent} bytes had come back`;
    if (!this.#reading || silent <= patience + this.#missed) return undefined;
    const waits = {
      connecting: "for its connection to stand",
      open: this.owed + this.unsent > 0 ? `for ${this.owed + this.unsent} bytes` : undefined,
      finishing: this.owed > 0 ? `for ${this.owed} bytes` : "for the server's FIN",
      over: undefined,
    }[this.#state];
    return waits && `${this.name}: a hang: it waits ${waits} since ${(silent / 1000).toFixed(1)} s`;
  }

  #look(): void {
    if (this.#waiting?.condition()) this.#settle(true);
  }

  #settle(held: boolean): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.tell(held);
  }

  #forget(): void {
    if (this.over) return;
    this.#state = "over";
    if (this.#around.sessions.delete(this) && this.#stoodSince < Infinity) this.#around.ledger.open--;
    this.#settle(this.#waiting?.condition() ?? false);
  }
}
