import { describe, expect, test } from "bun:test";
import { interval, median, quantile } from "../../bench/statistics.ts";
import { Random } from "../support/random.ts";

describe("the statistics", () => {
  test("median and quantiles lie between the values where they must", () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
    expect(quantile([1, 2, 3, 4, 5], 0.25)).toBe(2);
    expect(quantile([1, 2], 0.25)).toBe(1.25);
  });

  test("an interval needs six values, and is then from the least to the largest", () => {
    expect(interval([1, 2, 4, 8, 16])).toBeNull();
    expect(interval([16, 1, 4, 2, 8, 32])).toEqual({ estimate: 2 ** 2.5, low: 1, high: 32 });
    // Of seven, two means are left out on each side, as R has it: wilcox.test(0:6, conf.int = TRUE) says 1 to
    // 5.
    const { estimate, low, high } = interval([64, 1, 16, 2, 8, 4, 32])!;
    expect([estimate, low, high].map(Math.log2)).toEqual([3, 1, 5]);
  });

  test("one round in which the machine did something else moves it little", () => {
    const quiet = interval([0.8, 0.81, 0.79, 0.8, 0.82, 0.78, 0.8, 0.8, 0.8])!;
    const disturbed = interval([0.8, 0.81, 0.79, 0.8, 0.82, 0.78, 5, 0.8, 0.8])!;
    expect(disturbed.estimate / quiet.estimate).toBeLessThan(1.02);
  });

  test("it has the true ratio inside in at least 95 of 100 cases, also with outliers", () => {
    const random = new Random(7);
    for (const count of [6, 7, 9, 12, 17]) {
      let inside = 0;
      for (let i = 0; i < 4000; i++) {
        const error = () => random.between(-1000, 1000) / (random.chance(0.1) ? 100 : 2000);
        const { low, high } = interval(Array.from({ length: count }, () => 0.7 * Math.exp(error())))!;
        if (low <= 0.7 && 0.7 <= high) inside++;
      }
      expect(inside / 4000).toBeGreaterThan(0.94);
    }
  });
});
