/**
 * What is measured of each server, in one table. It changes when there is another case or another figure.
 */

interface Named {
  readonly name: string;
  /** One sentence, for the report. */
  readonly about: string;
}

export interface LoadCase extends Named {
  readonly kind: "closed" | "open" | "churn";
  readonly connections: number;
  readonly bytes: number;
  readonly depth: number;
  /** Messages per second over all connections; for the open loop. */
  readonly rate?: number;
}

export interface MemoryCase extends Named {
  readonly kind: "idle" | "stalled";
  readonly connections: number;
}

/** Is measured whenever a server is started. */
export interface StartCase extends Named {
  readonly kind: "start";
}

export type Case = LoadCase | MemoryCase | StartCase;

export const cases: readonly Case[] = [
  {
    name: "1 x 64 B",
    kind: "closed",
    about: "One connection, messages of 64 bytes, one in flight.",
    connections: 1,
    bytes: 64,
    depth: 1,
  },
  {
    name: "50 x 64 B",
    kind: "closed",
    about: "50 connections, messages of 64 bytes, one in flight on each.",
    connections: 50,
    bytes: 64,
    depth: 1,
  },
  {
    name: "50 x 64 B x 32",
    kind: "closed",
    about: "50 connections, messages of 64 bytes, 32 in flight on each.",
    connections: 50,
    bytes: 64,
    depth: 32,
  },
  {
    name: "8 x 64 KiB x 4",
    kind: "closed",
    about: "8 connections, messages of 64 KiB, 4 in flight on each.",
    connections: 8,
    bytes: 65_536,
    depth: 4,
  },
  {
    name: "10,000 a second",
    kind: "open",
    about:
      "50 connections, messages of 64 bytes, 10,000 per second by a schedule that does not wait for the server.",
    connections: 50,
    bytes: 64,
    depth: 64,
    rate: 10_000,
  },
  {
    name: "visits",
    kind: "churn",
    about: "16 visitors: connect, 64 bytes, their echo, close, again and again.",
    connections: 16,
    bytes: 64,
    depth: 1,
  },
  {
    name: "idle",
    kind: "idle",
    about: "10,000 connections that stay silent after their first byte.",
    connections: 10_000,
  },
  {
    name: "stalled",
    kind: "stalled",
    about: "200 connections that send as much as is taken, and read nothing.",
    connections: 200,
  },
  { name: "start", kind: "start", about: "From the start of the process to the first echoed byte." },
];

/** Those of the quick comparison. */
export const QUICK: readonly string[] = ["50 x 64 B", "8 x 64 KiB x 4", "start"];

/** What a measurement gives, and how it reads. */
export interface Metric {
  readonly name: string;
  readonly title: string;
  readonly unit: "µs" | "/s" | "B" | "ms";
  readonly better: "lower" | "higher";
  /** Of which cases. */
  readonly kinds: readonly Case["kind"][];
  /** Whether it is not the server's figure when the generator was the limit. */
  readonly limited?: true;
  /** Why its ratio is never a verdict. */
  readonly noVerdict?: string;
}

/** An answer lets the next message go: then the latency is the rate once more, by another name. */
const CLOSED = "in a closed loop it follows from the rate";
const FEW = "of so few messages that chance decides";

export const metrics: readonly Metric[] = [
  {
    name: "cpu",
    title: "CPU time per message",
    unit: "µs",
    better: "lower",
    kinds: ["closed", "open", "churn"],
  },
  {
    name: "rate",
    title: "messages per second",
    unit: "/s",
    better: "higher",
    kinds: ["closed"],
    limited: true,
  },
  {
    name: "rate",
    title: "connections per second",
    unit: "/s",
    better: "higher",
    kinds: ["churn"],
    limited: true,
  },
  { name: "p50", title: "latency, p50", unit: "µs", better: "lower", kinds: ["open"], limited: true },
  { name: "p99", title: "latency, p99", unit: "µs", better: "lower", kinds: ["open"], limited: true },
  {
    name: "p999",
    title: "latency, p99.9",
    unit: "µs",
    better: "lower",
    kinds: ["open"],
    limited: true,
    noVerdict: FEW,
  },
  {
    name: "p50",
    title: "latency, p50",
    unit: "µs",
    better: "lower",
    kinds: ["closed", "churn"],
    noVerdict: CLOSED,
  },
  {
    name: "p99",
    title: "latency, p99",
    unit: "µs",
    better: "lower",
    kinds: ["closed", "churn"],
    noVerdict: CLOSED,
  },
  {
    name: "peak",
    title: "resident memory under load",
    unit: "B",
    better: "lower",
    kinds: ["closed"],
  },
  {
    name: "memory",
    title: "resident memory with all of them",
    unit: "B",
    better: "lower",
    kinds: ["idle", "stalled"],
  },
  {
    name: "each",
    title: "memory for each connection",
    unit: "B",
    better: "lower",
    kinds: ["idle", "stalled"],
  },
  { name: "start", title: "start to first echo", unit: "ms", better: "lower", kinds: ["start"] },
];
