/**
 * The decisions of a graceful stop, connection by connection: which peer gets a FIN, and when, and which is
 * reset at the end. It changes when the order of a stop does.
 */
import type { Time } from "../core/time.ts";
import { LINGER_MS, type Activity } from "./activity.ts";

/** How often a stop polls its connections. */
export const DRAIN_PERIOD_MS = 50;

/**
 * A peer that has been silent for this long has nothing under way: it is longer than a long-distance round
 * trip, a first retransmission, or a client that was busy with something else. With 250 ms, clients on a
 * machine with a load of four per core were cut off.
 */
const QUIET_MS = 1_000;

/** A process that gets less than this fraction of a core counts as suspended for the rest of the time. */
const BUSY_FACTOR = 4;

/**
 * The share of the time between two polls that counts for the peers. A suspended process could not serve
 * them; a busy one could, and has used CPU.
 */
export function servedMs(wallMs: number, cpuMs: number): number {
  return Math.min(wallMs, 2 * DRAIN_PERIOD_MS + BUSY_FACTOR * cpuMs);
}

const cpuMs = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

export class Drain {
  readonly #timeoutMs: number;
  /** From then on, peers that may send more are not read. */
  readonly #concludeMs: number;
  readonly #graceMs: number;
  #elapsedMs = 0;
  readonly #time: Time;
  #wallMs: number;
  #cpuMs = cpuMs();

  constructor(timeoutMs: number, time: Time) {
    this.#time = time;
    this.#wallMs = time.now();
    this.#timeoutMs = timeoutMs;
    this.#concludeMs = timeoutMs - Math.min(LINGER_MS, timeoutMs / 2);
    this.#graceMs = Math.min(QUIET_MS, (timeoutMs - this.#concludeMs) / 2);
  }

  /** Before each round over the connections. */
  look(): void {
    const [wall, cpu] = [this.#time.now(), cpuMs()];
    this.#elapsedMs += servedMs(wall - this.#wallMs, cpu - this.#cpuMs);
    [this.#wallMs, this.#cpuMs] = [wall, cpu];
  }

  /** Ends the connection if it is time. */
  judge(activity: Activity): void {
    const { connection, quietMs } = activity;
    if (this.#elapsedMs >= this.#timeoutMs) activity.expel();
    else if (connection.lingering) activity.endIfLingering();
    else if (this.#elapsedMs >= this.#concludeMs) activity.conclude(this.#graceMs, DRAIN_PERIOD_MS);
    else if (quietMs >= QUIET_MS && connection.held === 0 && connection.transport.unacknowledged() === 0)
      connection.finish();
  }
}
