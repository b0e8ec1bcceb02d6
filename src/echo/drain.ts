/**
 * A graceful stop, seen from one connection after the other: who gets a FIN, when, and who is reset at the
 * end. It changes when the order of a stop does.
 */
import type { Time } from "../core/time.ts";
import { LINGER_MS, type Activity } from "./activity.ts";

/** How often a stop looks at its connections. */
export const DRAIN_PERIOD_MS = 50;

/**
 * A peer from which nothing has come for so long has nothing more under way: longer than a long-distance
 * round trip, a first retransmission, or a client that was busy with something else. With 250 ms, clients on
 * a machine with four times as much to do as cores were cut off.
 */
const QUIET_MS = 1_000;

/**
 * A process shares its core with so many others, at most, before it counts as suspended for a part of the
 * time.
 */
const BUSY_FACTOR = 4;

/**
 * How much of the time between two looks the peers had as well. A process that was suspended has not given it
 * to them; one that was busy has, and has used its CPU.
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
  /** From then on nothing more is read of peers that may go on. */
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
