/**
 * Statistics of a few measurements: medians, quantiles, and the interval of a ratio. It changes when they do.
 */

export interface Interval {
  estimate: number;
  low: number;
  high: number;
}

const CONFIDENCE = 0.95;
/** How many rounds an interval needs, and with it a verdict. */
export const MIN_ROUNDS = 6;

const ascending = (values: readonly number[]): number[] => [...values].sort((a, b) => a - b);

/** Between the two in the middle, when there are two; quantile(values, 0.25) is the lower quartile. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = ascending(values);
  const at = (sorted.length - 1) * q;
  const below = sorted[Math.floor(at)]!;
  return below + (sorted[Math.ceil(at)]! - below) * (at - Math.floor(at));
}

export const median = (values: readonly number[]): number => quantile(values, 0.5);

/**
 * How many of the means of two, from each end, can be left out of the interval: the signed-rank distribution.
 * Of the numbers 1 to n each counts or not as a coin falls, and the sum is below k in so many of all cases
 * (Wilcoxon 1945).
 */
function leftOut(n: number): number {
  const ways = new Float64Array((n * (n + 1)) / 2 + 1);
  ways[0] = 1;
  for (let rank = 1; rank <= n; rank++) {
    for (let sum = ways.length - 1; sum >= rank; sum--) ways[sum]! += ways[sum - rank]!;
  }
  let outside = 0;
  for (let k = 0; ; k++) {
    outside += (2 * ways[k]!) / 2 ** n;
    if (1 - outside < CONFIDENCE) return k - 1;
  }
}

/**
 * An interval that contains the true ratio in at least 95 of 100 cases (Hodges and Lehmann 1963): the median
 * of the geometric means of all pairs of rounds, and how far they go when the outer ones are left out on both
 * sides. It assumes only that errors of both signs are equally likely, so that a round in which the machine
 * was busy moves it little.
 * @param ratios all above 0
 * @returns null for fewer than six
 */
export function interval(ratios: readonly number[]): Interval | null {
  const out = leftOut(ratios.length);
  if (out < 0) return null;
  const means = ratios.flatMap((one, i) => ratios.slice(i).map((other) => Math.sqrt(one * other)));
  const sorted = ascending(means);
  return { estimate: median(means), low: sorted[out]!, high: sorted[sorted.length - 1 - out]! };
}
