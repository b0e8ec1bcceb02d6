/**
 * The result of a comparison: everything raw, as --json writes it, and what it says: medians, their spread,
 * the ratio to node:net and when that is a verdict. It changes when the file's form or the rules for a
 * verdict do.
 */
import type { LoadResult } from "../load/result.ts";
import { cases as allCases, metrics, type Case, type Metric } from "./cases.ts";
import { interval, median, quantile, type Interval } from "../statistics.ts";

export const FORMAT = "ringback comparison 2";

export interface Measurement {
  /** From 1 on. */
  round: number;
  server: string;
  case: string;
  /** Seconds since the comparison began. */
  at: number;
  /** Milliseconds from the start of the server's process to its first echoed byte, if there was one. */
  firstEchoMs?: number;
  /** The load generator's result, without the histogram: readers use its percentiles alone. */
  load?: Omit<LoadResult, "histogram">;
  memory?: { connections: number; emptyBytes: number; fullBytes: number };
  /** Why there is no figure. */
  error?: string;
}

export interface Result {
  format: typeof FORMAT;
  /** ISO 8601, UTC, of the beginning. */
  date: string;
  /** null outside a git repository; ends in "+" when files were changed. */
  commit: string | null;
  /** What reproduces it. */
  command: string;
  versions: { ringback: string; bun: string; node: string | null };
  machine: {
    cpu: string;
    cores: number;
    memoryBytes: number;
    kernel: string;
    /** Which core runs what; null where they are not pinned. */
    pinned: { server: number; load: number } | null;
  };
  settings: { rounds: number; seconds: number; warmup: number };
  /** All ratios are to this server. */
  baseline: string;
  servers: { name: string; about: string; command: string[] }[];
  cases: Case[];
  notMeasured: string[];
  measurements: Measurement[];
}

export type Verdict = "better" | "worse" | null;

export interface Cell {
  server: string;
  case: string;
  metric: Metric;
  /** One per round. */
  values: number[];
  median: number;
  /** Quartiles of the rounds. */
  spread: [low: number, high: number];
  /**
   * Whether the generator was the limit of it in most rounds: the server could do better, by an unknown
   * amount.
   */
  limited: boolean;
  /** To the baseline, round by round; null for the baseline itself, or without an interval. */
  ratio: Interval | null;
  /** Whether the ratio can be a verdict: the figure is the server's, and its metric has verdicts. */
  judged: boolean;
  verdict: Verdict;
}

/** The figure of one measurement; undefined when it has none. */
export function valueOf({ load, memory, firstEchoMs }: Measurement, metric: string): number | undefined {
  if (metric === "start") return firstEchoMs;
  if (memory !== undefined) {
    const { connections, emptyBytes, fullBytes } = memory;
    return metric === "memory" ? fullBytes : (fullBytes - emptyBytes) / connections;
  }
  if (load === undefined) return undefined;
  switch (metric) {
    case "cpu":
      return load.server?.cpuMicrosPerMessage ?? undefined;
    case "rate":
      return load.messagesPerSecond;
    case "peak":
      return load.server?.rssPeak;
    default:
      return load.latency.count === 0 ? undefined : load.latency[metric as "p50" | "p99" | "p999"];
  }
}

/**
 * The figure of each round for a server in a case. Starts are measured several times per round: their median.
 */
function byRound(result: Result, server: string, one: Case, metric: Metric): Map<number, number> {
  const found = new Map<number, number[]>();
  for (const measurement of result.measurements) {
    const fits = one.kind === "start" || measurement.case === one.name;
    if (!fits || measurement.server !== server || measurement.error !== undefined) continue;
    const value = valueOf(measurement, metric.name);
    if (value === undefined) continue;
    const values = found.get(measurement.round) ?? [];
    values.push(value);
    found.set(measurement.round, values);
  }
  return new Map([...found].map(([round, values]) => [round, median(values)]));
}

function verdictOf({ better }: Metric, ratio: Interval | null): Verdict {
  if (ratio === null || (ratio.low <= 1 && ratio.high >= 1)) return null;
  return ratio.high < 1 === (better === "lower") ? "better" : "worse";
}

/** Whether a figure is the generator's and not the server's. */
function isGenerators(
  { schedule, generator }: Omit<LoadResult, "histogram">,
  { name, limited }: Metric,
): boolean {
  if (limited === undefined) return false;
  return schedule === null ? generator.limited : schedule.late.some((one) => one === name);
}

function cellOf(result: Result, server: string, one: Case, metric: Metric): Cell | undefined {
  const rounds = byRound(result, server, one, metric);
  const values = [...rounds.values()];
  if (values.length === 0) return undefined;
  const isLimited = (name: string): boolean => {
    const loads = result.measurements.filter((m) => m.server === name && m.case === one.name && m.load);
    return loads.filter((m) => isGenerators(m.load!, metric)).length * 2 > loads.length;
  };
  const limited = isLimited(server);
  const base = server === result.baseline ? undefined : byRound(result, result.baseline, one, metric);
  const ratios = [...rounds].flatMap(([round, value]) => {
    const its = base?.get(round);
    return its === undefined || its <= 0 ? [] : [value / its];
  });
  const ratio = interval(ratios);
  // Where the generator was the limit of either, a ratio compares the generator with itself.
  const judged = ratio !== null && metric.noVerdict === undefined && !limited && !isLimited(result.baseline);
  return {
    server,
    case: one.name,
    metric,
    values,
    median: median(values),
    spread: [quantile(values, 0.25), quantile(values, 0.75)],
    limited,
    ratio,
    judged,
    verdict: judged ? verdictOf(metric, ratio) : null,
  };
}

/**
 * Every figure of every server and case, in the tables' order.
 * @param again another run of the same comparison: a verdict is one only where both runs have come to it
 */
export function cellsOf(result: Result, again?: Result): Cell[] {
  const cells = ownCells(result);
  if (again === undefined) return cells;
  const inTheOther = finder(again, result.baseline);
  return cells.map((cell) =>
    inTheOther(cell)?.verdict === cell.verdict ? cell : { ...cell, verdict: null },
  );
}

/** Finds the same figure of another run, by a ratio to the same server. */
function finder(run: Result, baseline: string): (cell: Cell) => Cell | undefined {
  const key = (cell: Cell): string => [cell.case, cell.server, cell.metric.name].join("\n");
  const cells = new Map(ownCells({ ...run, baseline }).map((cell) => [key(cell), cell]));
  return (cell) => cells.get(key(cell));
}

/**
 * Of the ratios that can be verdicts: how many are one in both runs, in one of them only, in none, and
 * contradict.
 */
export function agreement(one: Result, again: Result) {
  const inTheOther = finder(again, one.baseline);
  const counts = { both: 0, once: 0, none: 0, contrary: 0 };
  for (const cell of ownCells(one)) {
    const other = inTheOther(cell);
    if (other === undefined || !(cell.judged || other.judged)) continue;
    if (cell.verdict !== other.verdict) counts[cell.verdict && other.verdict ? "contrary" : "once"]++;
    else counts[cell.verdict === null ? "none" : "both"]++;
  }
  return counts;
}

function ownCells(result: Result): Cell[] {
  const cells: Cell[] = [];
  for (const one of result.cases) {
    for (const metric of metrics) {
      if (!metric.kinds.includes(one.kind)) continue;
      for (const { name } of result.servers) {
        const cell = cellOf(result, name, one, metric);
        if (cell !== undefined) cells.push(cell);
      }
    }
  }
  return cells;
}

/**
 * As a file (JSON Lines, https://jsonlines.org): everything but the measurements, and then one measurement
 * per line.
 */
export function resultText({ measurements, ...rest }: Result): string {
  return [rest, ...measurements].map((line) => `${JSON.stringify(line)}\n`).join("");
}

/** @throws Error that names the mistake, unless the text is one of resultText()'s */
export function parseResult(text: string, from: string): Result {
  const [rest, ...measurements] = text
    .trimEnd()
    .split("\n")
    .map((line, i) => {
      try {
        return JSON.parse(line) as unknown;
      } catch (error) {
        throw new Error(`${from}: line ${i + 1} is not JSON: ${(error as Error).message}`, { cause: error });
      }
    });
  const { format } = (rest ?? {}) as Partial<Result>;
  if (format !== FORMAT) {
    const found = JSON.stringify(format);
    throw new Error(`${from}: not a result of this benchmark (its format is ${found}, and not "${FORMAT}")`);
  }
  for (const name of ["date", "settings", "servers", "cases", "baseline", "notMeasured"]) {
    if (!(name in (rest as object))) throw new Error(`${from}: damaged: its first line has no "${name}"`);
  }
  return { ...(rest as Omit<Result, "measurements">), measurements: measurements as Measurement[] };
}

/** The cases by their names. @throws Error that lists them */
export function casesNamed(names: readonly string[]): Case[] {
  return names.map((name) => {
    const found = allCases.find((one) => one.name === name);
    if (found !== undefined) return found;
    throw new Error(
      `there is no case ${JSON.stringify(name)}; there are: ${allCases.map((one) => one.name).join(", ")}`,
    );
  });
}

/** 12.3 µs, 45,600 /s, 1.2 MB: three significant digits. */
export function shown(value: number, unit: Metric["unit"]): string {
  if (unit === "B") return bytesShown(value);
  const text =
    Math.abs(value) >= 100
      ? Math.round(value).toLocaleString("en-US")
      : value.toFixed(Math.abs(value) >= 10 ? 1 : 2);
  return unit === "/s" ? `${text}/s` : `${text} ${unit}`;
}

function bytesShown(bytes: number): string {
  const size = Math.abs(bytes);
  if (size < 1000) return `${bytes.toFixed(0)} B`;
  const [divisor, name] = size < 1e6 ? [1e3, "kB"] : size < 1e9 ? [1e6, "MB"] : [1e9, "GB"];
  const scaled = bytes / divisor;
  return `${scaled.toFixed(Math.abs(scaled) >= 100 ? 0 : 1)} ${name}`;
}

/**
 * The number of measured rounds, the last one perhaps incomplete: an interrupted comparison has fewer than
 * planned.
 */
export const roundsOf = ({ measurements }: Result): number =>
  new Set(measurements.map(({ round }) => round)).size;
