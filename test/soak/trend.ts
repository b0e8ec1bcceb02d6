/**
 * Whether a series of samples grows: a robust slope, how sure it is, and what is too much. It changes when the
 * statistics or a threshold does.
 */
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

const median = (values: Iterable<number>): number => middle(Float64Array.from(values).sort());

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
 * Fits a line. The interval is by a bootstrap of the residuals in blocks of an eighth of the series, since neighbours
 * resemble each other: memory that is collected now and then goes up and down like a saw. Its nominal 99% are too
 * much: of 60 simulated flat series of 60 to 1440 samples, the truth lay outside in 1 to 6 with independent noise, and
 * with noise that resembles itself for 10 samples in 1 (of 1440) to 14 (of 60). Hence the second and third condition.
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

/** A slope is one when all three hold: it is sure to rise, it is steep, and it has come to something. */
export interface Threshold {
  /** A second. */
  slope: number;
  growth: number;
}

const MB = 1e6;
const HOUR = 3600;

export const rises = (found: Fit, { slope, growth }: Threshold): boolean =>
  found.low > 0 && found.slope > slope && found.growth > growth;

/** The least seconds behind the warm-up in which the memory of a busy runtime has settled. */
const SETTLED = 600;

/** @param seconds of the series that is judged */
export function rssThreshold(seconds: number): Threshold {
  // A young heap goes on growing for some minutes: a short soak finds only what is worse.
  return { slope: (20 * MB) / HOUR, growth: seconds >= SETTLED ? 8 * MB : 24 * MB };
}

/** Of its median: a quarter more CPU a message. */
export const CPU_GROWTH = 0.25;
export const cpuThreshold = ({ median }: Fit): Threshold => ({ slope: 0, growth: CPU_GROWTH * median });

/** How much of a run of so many seconds is left out: a fifth and at least a minute, but never more than half. */
export const warmUp = (seconds: number): number => Math.max(0.2 * seconds, Math.min(60, 0.5 * seconds));
