/**
 * Whether a series of samples grows: a robust slope, its interval, and the thresholds. It changes when
 * the statistics or a threshold does.
 */
import { median } from "../../bench/statistics.ts";
import { Random } from "../support/random.ts";

export interface Fit {
  /** Per second: the median of the slopes between all pairs of points (Theil, Sen). */
  slope: number;
  /** It lies between these: a nominal 99%, see fit(). */
  low: number;
  high: number;
  /** By the slope, from the first sample to the last. */
  growth: number;
  /** Of all samples. */
  median: number;
}

/** So many pairs of points, and resamplings of them, are a matter of 50 ms. */
const MOST_POINTS = 60;
const FEWEST_POINTS = 12;
const RESAMPLINGS = 400;
const OUTSIDE = 0.01;

function middle(sorted: Float64Array): number {
  const at = (sorted.length - 1) / 2;
  return (sorted[Math.floor(at)]! + sorted[Math.ceil(at)]!) / 2;
}

function theilSen(times: readonly number[], values: readonly number[]): number {
  const slopes = new Float64Array((times.length * (times.length - 1)) / 2);
  let n = 0;
  for (let i = 0; i < times.length; i++) {
    for (let j = i + 1; j < times.length; j++)
      slopes[n++] = (values[j]! - values[i]!) / (times[j]! - times[i]!);
  }
  return middle(slopes.sort());
}

/** The medians of equal shares of the samples: what a moment's peak does is gone, and what lasts is not. */
function thinned(times: readonly number[], values: readonly number[]): [times: number[], values: number[]] {
  const points = Math.min(MOST_POINTS, times.length);
  const share = (of: readonly number[], i: number): number[] =>
    of.slice(Math.floor((i * of.length) / points), Math.floor(((i + 1) * of.length) / points));
  const each = Array.from({ length: points }, (_, i) => i);
  return [each.map((i) => median(share(times, i))), each.map((i) => median(share(values, i)))];
}

/**
 * Fits a line. The interval is by a bootstrap of the residuals in blocks of an eighth of the series, since
 * neighbours resemble each other: memory that is collected now and then goes up and down like a saw. Its
 * nominal 99% are too much: of 60 simulated flat series of 60 to 1440 samples, the truth lay outside in 1 to
 * 6 with independent noise, and with noise that resembles itself for 10 samples in 1 (of 1440) to 14 (of 60).
 * Hence the second condition of rises().
 * @param times seconds, rising
 * @returns undefined for too few samples
 */
export function fit(times: readonly number[], values: readonly number[], seed = 1): Fit | undefined {
  if (times.length < FEWEST_POINTS) return undefined;
  const [t, v] = thinned(times, values);
  const slope = theilSen(t, v);
  const residuals = v.map((value, i) => value - slope * t[i]!);
  const length = Math.ceil(t.length / 8);
  const random = new Random(seed);
  const slopes = new Float64Array(RESAMPLINGS);
  for (let i = 0; i < RESAMPLINGS; i++) {
    const resampled: number[] = [];
    while (resampled.length < t.length) {
      const from = random.between(0, t.length - length);
      for (let j = from; j < from + length && resampled.length < t.length; j++) {
        resampled.push(slope * t[resampled.length]! + residuals[j]!);
      }
    }
    slopes[i] = theilSen(t, resampled);
  }
  slopes.sort();
  const outer = Math.floor((OUTSIDE / 2) * RESAMPLINGS);
  // What is drawn lies about the slope as the slope lies about the truth.
  const low = 2 * slope - slopes[RESAMPLINGS - 1 - outer]!;
  const high = 2 * slope - slopes[outer]!;
  return { slope, low, high, growth: slope * (times.at(-1)! - times[0]!), median: median(values) };
}

const MB = 1e6;

/** Of what a series may grow in all, however long it is: a leak is one at every rate. */
export interface Limits {
  memory: number;
  /** When all peers have left, against the warm-up. */
  memoryAtRest: number;
  descriptors: number;
}

/**
 * What healthy soaks have shown is a third of it at most. A young heap goes on growing for some minutes, and
 * a young crowd is not complete: a short soak finds only larger leaks.
 * @param seconds of the series that is judged
 */
export function limits(seconds: number): Limits {
  if (seconds >= 600) return { memory: 5 * MB, memoryAtRest: 16 * MB, descriptors: 4 };
  if (seconds >= 240) return { memory: 10 * MB, memoryAtRest: 16 * MB, descriptors: 4 };
  return { memory: 24 * MB, memoryAtRest: 32 * MB, descriptors: 16 };
}

/** Of its median: a quarter more CPU a message. */
export const CPU_GROWTH = 0.25;
/** Of one core, when all peers have left: a timer that is busy in vain is seen then. */
export const CPU_AT_REST = 0.02;

/** A slope is one when it is sure to rise, and has come to something. */
export const rises = (found: Fit, growth: number): boolean => found.low > 0 && found.growth > growth;

export interface Step {
  /** From the median of the first tenth to that of the last. */
  height: number;
  /**
   * Three quarters of the last tenth are above three quarters of the first: it is more than what goes up and
   * down.
   */
  clear: boolean;
}

/** A line misses a step, or a late rise: compare the ends of the series. */
export function step(values: readonly number[]): Step | undefined {
  if (values.length < FEWEST_POINTS) return undefined;
  const count = Math.max(Math.ceil(FEWEST_POINTS / 4), Math.floor(values.length / 10));
  const [first, last] = [values.slice(0, count), values.slice(-count)].map((share) =>
    Float64Array.from(share).sort(),
  ) as [Float64Array, Float64Array];
  const height = middle(last) - middle(first);
  return { height, clear: last[count >> 2]! > first[count - 1 - (count >> 2)]! };
}

export const jumps = (found: Step, height: number): boolean => found.clear && found.height > height;

/**
 * How many seconds of a run are left out: a fifth and at least a minute, but never more than half.
 */
export const warmUp = (seconds: number): number => Math.max(0.2 * seconds, Math.min(60, 0.5 * seconds));
