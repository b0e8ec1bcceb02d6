/**
 * The result of a run: its figures, whose limit they are, and how they read. It changes when the output does.
 */
import type { Histogram, HistogramJSON } from "../histogram.ts";
import type { CpuUsage, OwnUsage, Pacing, Usage } from "../system.ts";
import type { Measured, Settings } from "./run.ts";

type Percentile = (typeof PERCENTILES)[number];
const PERCENTILES = ["p50", "p90", "p99", "p999"] as const;

/** In microseconds. */
interface Times {
  count: number;
  min: number;
  p50: number;
  p90: number;
  p99: number;
  p999: number;
  max: number;
  mean: number;
}

/**
 * A process's CPU time, that of its main thread, and the time that one waited for a core, as shares of the
 * window.
 */
interface Shares {
  cpuShare: number;
  mainShare: number | null;
  waitShare: number | null;
}

/** What --json prints. Times are in microseconds, but for the histogram's nanoseconds. */
export interface LoadResult {
  settings: Omit<Settings, "rate"> & { rate: number | null; pid: number | null };
  mode: "closed" | "open" | "churn";
  interrupted: boolean;
  /** Length of the window. */
  seconds: number;
  /** Answered inside the window; with --churn, visits. */
  messages: number;
  messagesPerSecond: number;
  /** In one direction. */
  bytesPerSecond: number;
  /** Of messages whose start is inside the window. */
  latency: Times;
  histogram: HistogramJSON;
  generator: Shares & {
    /** Whether the generator, and not the server, set the result; and why that is thought. */
    limited: boolean;
    reason: string | null;
  };
  /** The open loop only. */
  schedule: {
    pacing: Pacing;
    due: number;
    backlog: number;
    unsent: number;
    lateness: Times;
    /**
     * Percentiles of the latency that are mostly the generator's own lateness, and not the server's.
     */
    late: Percentile[];
  } | null;
  /** With --pid only. */
  server: (Usage & Shares & { cpuMicrosPerMessage: number | null }) | null;
}

function timesOf(histogram: Histogram): Times {
  const micros = (nanoseconds: number): number => rounded(nanoseconds / 1000, 3);
  return {
    count: histogram.count,
    min: micros(histogram.min),
    p50: micros(histogram.percentile(50)),
    p90: micros(histogram.percentile(90)),
    p99: micros(histogram.percentile(99)),
    p999: micros(histogram.percentile(99.9)),
    max: micros(histogram.max),
    mean: micros(histogram.mean),
  };
}

const rounded = (value: number, digits: number): number => Number(value.toFixed(digits));

export function resultOf(
  settings: Settings,
  measured: Measured,
  own: OwnUsage,
  usage: Usage | undefined,
): LoadResult {
  const { seconds, messages, schedule } = measured;
  const server =
    usage === undefined
      ? null
      : {
          ...usage,
          ...sharesOf(usage, seconds),
          cpuMicrosPerMessage: messages === 0 ? null : rounded((usage.cpuSeconds / messages) * 1e6, 4),
        };
  const result: LoadResult = {
    settings: { ...settings, rate: settings.rate ?? null, pid: usage?.pid ?? null },
    mode: settings.churn ? "churn" : settings.rate === undefined ? "closed" : "open",
    interrupted: measured.interrupted,
    seconds,
    messages,
    messagesPerSecond: messages / seconds,
    bytesPerSecond: (messages * settings.bytes) / seconds,
    latency: timesOf(measured.latency),
    histogram: measured.latency.toJSON(),
    generator: {
      ...sharesOf(own, seconds),
      limited: false,
      reason: null,
    },
    schedule: schedule === undefined ? null : { ...schedule, lateness: timesOf(schedule.lateness), late: [] },
    server,
  };
  const busy = busyGenerator(result);
  const late = PERCENTILES.filter((one) => busy !== undefined || mostlyLate(result, one));
  const reason = busy ?? (late.includes("p99") ? latenessText(result) : undefined);
  if (reason !== undefined) Object.assign(result.generator, { limited: true, reason });
  if (result.schedule !== null) result.schedule.late = late;
  return result;
}

function sharesOf({ cpuSeconds, mainSeconds, waitSeconds }: CpuUsage, seconds: number): Shares {
  const share = <T extends number | null>(time: T): T =>
    (time === null ? null : rounded(time / seconds, 4)) as T;
  return { cpuShare: share(cpuSeconds), mainShare: share(mainSeconds), waitShare: share(waitSeconds) };
}

/** A process on one thread that uses so much of a core has no more to give. */
const BUSY = 0.9;
/** A lateness below this, in microseconds, is what it takes to be woken at all. */
const WOKEN = 100;

/**
 * Why the generator set the result by being busy, if it did. In the closed loop a busy one did, unless the
 * server's process is known to be as busy: then the figure is the server's. In the open loop a busy one
 * cannot keep the schedule, whatever the server does.
 */
function busyGenerator({ mode, generator, server }: LoadResult): string | undefined {
  if (taken(generator) <= BUSY) return undefined;
  const busy = `the generator ${used(generator)}`;
  if (mode === "open") return `${busy}: it cannot be trusted to keep the schedule`;
  if (server === null) return `${busy}; whether the server was as busy is only known with --pid`;
  return taken(server) < BUSY ? `${busy}, and the server ${used(server)}` : undefined;
}

/**
 * Where messages left late by the generator's fault, a latency that is mostly this lateness is not the
 * server's.
 */
function mostlyLate({ schedule, latency }: LoadResult, percentile: Percentile): boolean {
  const late = schedule?.lateness[percentile] ?? 0;
  return late > WOKEN && late > latency[percentile] / 2;
}

const latenessText = ({ schedule }: LoadResult): string =>
  `messages left up to ${micros(schedule!.lateness.p99)} µs late (p99) by the generator's own fault, more than half of the latency's p99`;

/**
 * How much of a core was taken: by all threads, or by the main thread with what it waited for. Both together
 * would count twice: the compilers and the collector on the same core are what it waits for.
 */
const taken = ({ cpuShare, mainShare, waitShare }: Shares): number =>
  Math.max(cpuShare, (mainShare ?? 0) + (waitShare ?? 0));

function used(shares: Shares): string {
  const { cpuShare, mainShare, waitShare } = shares;
  const waited =
    waitShare !== null && waitShare >= 0.005
      ? `, its main thread running or waiting for one for ${percent(mainShare! + waitShare)}`
      : "";
  return `used ${percent(cpuShare)} of a core${waited}`;
}

const percent = (share: number): string => `${(share * 100).toFixed(0)}%`;
const grouped = (value: number): string => Math.round(value).toLocaleString("en-US");
const micros = (value: number): string => (value < 100 ? value.toFixed(1) : grouped(value));
const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;

function timesLine({ count, p50, p90, p99, p999, max, mean }: Times): string {
  const cells = Object.entries({ p50, p90, p99, "p99.9": p999, max, mean });
  return `${cells.map(([name, value]) => `${name} ${micros(value)}`).join("   ")}   (of ${grouped(count)})`;
}

/** The text for people. */
export function describe(result: LoadResult): string {
  const { settings, mode, generator, schedule, server } = result;
  const what = mode === "churn" ? "visits" : "messages";
  const loop = mode === "open" ? `open loop, ${grouped(settings.rate!)} messages/s` : `${mode} loop`;
  const depth = mode === "churn" ? "" : `, ${settings.depth} in flight on each`;
  const rows: [string, string][] = [
    ["load", `${mode === "churn" ? "visits" : loop}, ${settings.connections} connections${depth}`],
    ["", `${settings.bytes} bytes per message, ${settings.verify ? "every byte verified" : "not verified"}`],
    [
      "window",
      `${result.seconds.toFixed(2)} s after ${settings.warmup} s of warm-up${result.interrupted ? ", interrupted" : ""}`,
    ],
    [
      what,
      `${grouped(result.messages)}   ${grouped(result.messagesPerSecond)}/s   ${megabytes(result.bytesPerSecond)}/s each way`,
    ],
    ["latency, µs", timesLine(result.latency)],
  ];
  if (schedule !== null) {
    rows.push(["lateness, µs", timesLine(schedule.lateness)]);
    if (schedule.backlog > 0) {
      const lost = schedule.unsent > 0 ? `, and ${grouped(schedule.unsent)} were never sent` : "";
      rows.push([
        "schedule",
        `of ${grouped(schedule.due)} due, ${grouped(schedule.backlog)} were waiting at the end${lost}`,
      ]);
    }
  }
  if (server !== null) {
    const each =
      server.cpuMicrosPerMessage === null
        ? ""
        : `   ${server.cpuMicrosPerMessage.toFixed(2)} µs of CPU for each`;
    rows.push([
      "server",
      `${used(server)}${each}   ${megabytes(server.rssEnd)} resident, at most ${megabytes(server.rssPeak)}`,
    ]);
  }
  rows.push(["generator", generator.reason === null ? used(generator) : `LIMITED: ${generator.reason}`]);
  return rows.map(([name, text]) => `${name.padEnd(14)}${text}\n`).join("");
}
