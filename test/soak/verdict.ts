/**
 * What is said of a soak: each check with its figures, the graphs, and whether it has passed. It changes when
 * a check or its text does.
 */
import { median } from "../../bench/statistics.ts";
import { graph, type Series } from "./graph.ts";
import type { End, Reading, Totals } from "./served.ts";
import type { Ledger } from "./session.ts";
import {
  CPU_AT_REST,
  CPU_GROWTH,
  fit,
  jumps,
  limits,
  rises,
  step,
  warmUp,
  type Fit,
  type Step,
} from "./trend.ts";

/** The server and the peers' count at one moment. */
export interface Sample extends Reading {
  /** Seconds since the peers started. */
  at: number;
  messages: number;
  /** Bytes that came back. */
  back: number;
}

/** The observations of a soak; undefined for a part that it did not reach. */
export interface Seen {
  samples: Sample[];
  /** The first thing that went wrong, if any: a wrong byte, a hang, a crash. */
  failure: string | undefined;
  descriptors: { before: number; after: number } | undefined;
  /**
   * Some seconds after all peers had left: resident bytes, and the share of a core that it used in its
   * quietest part.
   */
  rest: { seconds: number; rss: number; cpu: number } | undefined;
  end: End | undefined;
  /** When the stop began, and at the end. */
  atStop: Ledger | undefined;
  ledger: Ledger;
  own: boolean;
}

export interface Check {
  name: string;
  /** undefined: not enough samples to tell. */
  passed: boolean | undefined;
  text: string;
}

/** Of our server, whose --drain-timeout is 10 s: one more to end in. */
const STOP_SECONDS = 11;

/** Of the first connection, which only sees whether the server serves. */
const PROBE = { connections: 1, bytes: 1 };

const count = (value: number): string => value.toLocaleString("en-US");
export const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
const micros = (seconds: number): string => `${(seconds * 1e6).toFixed(1)} µs`;
const signed = (value: number, digits = 1): string => (value < 0 ? "" : "+") + value.toFixed(digits);

interface Points {
  times: number[];
  values: number[];
}

/** CPU seconds for each message, between one sample and the next. */
function cpuAMessage(samples: readonly Sample[]): Points {
  const points: Points = { times: [], values: [] };
  for (const [i, { at, cpu, messages }] of samples.entries()) {
    const before = samples[i - 1];
    if (before === undefined || messages === before.messages) continue;
    points.times.push((at + before.at) / 2);
    points.values.push(Math.max(0, cpu - before.cpu) / (messages - before.messages));
  }
  return points;
}

const pointsOf = (samples: readonly Sample[], figure: "rss" | "descriptors"): Points => ({
  times: samples.map(({ at }) => at),
  values: samples.map((sample) => sample[figure]),
});

/** The series after the warm-up: the line through it, and the step from its beginning to its end. */
function judged({ times, values }: Points): { seconds: number; line?: Fit; ends?: Step } {
  const last = times.at(-1) ?? 0;
  const from = times.findIndex((at) => at >= warmUp(last));
  if (from < 0) return { seconds: 0 };
  const [line, ends] = [fit(times.slice(from), values.slice(from)), step(values.slice(from))];
  return { seconds: last - times[from]!, ...(line && { line }), ...(ends && { ends }) };
}

const inHours = (found: Fit, unit: number): string =>
  [found.slope, found.low, found.high]
    .map((slope) => signed((slope * 3600) / unit))
    .join(" ")
    .replace(/ (\S+) (\S+)$/, " ($1 to $2)");

const TOO_SHORT = "cannot tell: too few samples";

function memory(samples: readonly Sample[]): Check {
  const name = "memory";
  const { seconds, line, ends } = judged(pointsOf(samples, "rss"));
  if (line === undefined || ends === undefined) return { name, passed: undefined, text: TOO_SHORT };
  const most = limits(seconds).memory;
  return {
    name,
    passed: !rises(line, most) && !jumps(ends, most),
    text:
      `RSS ${inHours(line, 1e6)} MB an hour, ${signed(line.growth / 1e6)} MB in all, median ${megabytes(line.median)};` +
      `\n${signed(ends.height / 1e6)} MB from the first tenth to the last; fails above ${megabytes(most)}, when sure to rise`,
  };
}

function cpu(samples: readonly Sample[]): Check {
  const { line } = judged(cpuAMessage(samples));
  if (line === undefined) return { name: "CPU", passed: undefined, text: TOO_SHORT };
  const share = (100 * line.growth) / line.median;
  return {
    name: "CPU",
    passed: !rises(line, CPU_GROWTH * line.median),
    text:
      `${micros(line.median)} a message, ${inHours(line, 1e-6)} µs an hour, ${signed(share)}% in all` +
      `;\nfails above ${100 * CPU_GROWTH}% in all, when sure to rise`,
  };
}

function descriptorCheck({ descriptors, samples }: Seen): Check {
  const name = "descriptors";
  if (descriptors === undefined)
    return { name, passed: false, text: "not seen: the peers did not come to leave" };
  const { before, after } = descriptors;
  const left = `${before} before any peer, ${after} after all had left`;
  const { seconds, line, ends } = judged(pointsOf(samples, "descriptors"));
  if (after > before) return { name, passed: false, text: left };
  if (line === undefined || ends === undefined)
    return { name, passed: undefined, text: `${left};\nunder load ${TOO_SHORT}` };
  const most = limits(seconds).descriptors;
  return {
    name,
    passed: !rises(line, most) && !jumps(ends, most),
    text:
      `${left};\nunder load ${signed(line.growth)} in all, ${signed(ends.height, 0)} from the first tenth to the last, median ${line.median}` +
      `;\nfails above ${most}, when sure to rise`,
  };
}

function restCheck({ rest, samples }: Seen): Check {
  const name = "rest";
  if (rest === undefined) return { name, passed: false, text: "not seen: the peers did not come to leave" };
  const last = samples.at(-1)?.at ?? 0;
  const warm = samples.filter(({ at }) => at < warmUp(last)).map(({ rss }) => rss);
  const idle = rest.cpu <= CPU_AT_REST;
  const used = `${(100 * rest.cpu).toFixed(1)}% of a core ${rest.seconds.toFixed(1)} s after all had left, fails above ${100 * CPU_AT_REST}%`;
  if (warm.length === 0) return { name, passed: idle && undefined, text: `${used};\nmemory: ${TOO_SHORT}` };
  const before = median(warm);
  const most = limits(last - warmUp(last)).memoryAtRest;
  return {
    name,
    passed: idle && rest.rss - before <= most,
    text: `${used};\nRSS ${megabytes(rest.rss)}, in the warm-up ${megabytes(before)}, fails above ${megabytes(most)} more`,
  };
}

function stop({ end, own }: Seen): Check {
  const name = "stop";
  if (end === undefined) return { name, passed: false, text: "not seen" };
  const how = end.signal === null ? `exit ${end.code}` : `ended by ${end.signal}`;
  const right = end.code === 0 || (!own && end.signal === "SIGTERM");
  const late = own && end.seconds > STOP_SECONDS;
  const after = Number.isFinite(end.seconds) ? `after ${end.seconds.toFixed(1)} s` : "since it did not end";
  const text = `SIGTERM under load: ${how} ${after}${late ? `, fails after ${STOP_SECONDS} s` : ""}`;
  return { name, passed: right && !late, text };
}

/** Each figure of the server, and between which two numbers the peers know it to be. */
function bounds(
  totals: Totals,
  atStop: Ledger,
  ledger: Ledger,
): [name: string, is: number, low: number, high: number][] {
  const [sent, back] = [ledger.sent + PROBE.bytes, ledger.back + PROBE.bytes];
  return [
    // Of those that come while it stops, not all are accepted.
    [
      "connections",
      totals.connections,
      atStop.connections + PROBE.connections,
      ledger.connections + PROBE.connections,
    ],
    ["bytes in", totals.bytesIn, back, sent],
    ["bytes out", totals.bytesOut, back, totals.bytesIn],
    ["refused", totals.refused, 0, 0],
    ["broken", totals.broken, 0, ledger.abrupt],
    ["bytes copied", totals.bytesCopied, 0, 0],
    ["bytes dropped", totals.bytesDropped, 0, ledger.unanswered],
  ];
}

export function totalsCheck({ end, own, atStop, ledger }: Seen): Check {
  const name = "totals";
  if (end?.totals === undefined || atStop === undefined) {
    return { name, passed: !own, text: "the server said none" };
  }
  const all = bounds(end.totals, atStop, ledger);
  const wrong = all.filter(([, is, low, high]) => is < low || is > high);
  const shown = (wrong.length > 0 ? wrong : all.slice(0, 5)).map(([what, is, low, high]) => {
    const known = low === high ? "" : ` (the peers: ${count(low)} to ${count(high)})`;
    return `${count(is)} ${what}${known || (is === low ? "" : ` (the peers: ${count(low)})`)}`;
  });
  return { name, passed: wrong.length === 0, text: shown.join(",\n") };
}

export function checks(seen: Seen): Check[] {
  const { ledger, failure, samples } = seen;
  const checked = `${count(ledger.messages)} messages on ${count(ledger.connections)} connections; ${megabytes(ledger.sent)} sent, ${megabytes(ledger.back)} came back, every byte checked`;
  const all: Check[] = [{ name: "bytes", passed: failure === undefined, text: failure ?? checked }];
  // What it did not come to because of the failure is no failure of its own.
  if (failure === undefined || samples.length > 0) all.push(memory(samples), cpu(samples));
  if (failure === undefined || seen.descriptors !== undefined) all.push(descriptorCheck(seen));
  if (failure === undefined || seen.rest !== undefined) all.push(restCheck(seen));
  if (failure === undefined || seen.end !== undefined) all.push(stop(seen), totalsCheck(seen));
  return all;
}

export function graphs(samples: readonly Sample[], width: number): string {
  const warm = warmUp(samples.at(-1)?.at ?? 0);
  const drawn = (title: string, points: Points, show: (value: number) => string, slope: string): string =>
    graph({ title: `${title}${slope}`, ...points, show, warm } satisfies Series, width, 4);
  const slopeOf = (points: Points, unit: number, name: string): string => {
    const { line } = judged(points);
    return line === undefined ? "" : `, ${inHours(line, unit)}${name} an hour`;
  };
  const [rss, open, cost] = [
    pointsOf(samples, "rss"),
    pointsOf(samples, "descriptors"),
    cpuAMessage(samples),
  ];
  return [
    drawn("RSS", rss, megabytes, slopeOf(rss, 1e6, " MB")),
    drawn("descriptors", open, String, slopeOf(open, 1, "")),
    drawn("CPU a message", cost, micros, slopeOf(cost, 1e-6, " µs")),
  ].join("\n");
}

export const lines = (all: readonly Check[]): string =>
  all
    .map(
      ({ name, passed, text }) =>
        `${passed === undefined ? "?   " : passed ? "ok  " : "FAIL"} ${name.padEnd(13)}${text}\n`,
    )
    // Further lines of a text are indented.
    .map((line) => line.replace(/\n(?=.)/g, `\n${"".padEnd(18)}`))
    .join("");
