import { describe, expect, test } from "bun:test";
import { Histogram, type HistogramJSON } from "../../bench/histogram.ts";
import { Random } from "../support/random.ts";

const SECOND = 1e9;

/** Times as servers have them, and as they should not. Each gives a value in nanoseconds. */
const DISTRIBUTIONS: Record<string, (random: Random) => number> = {
  "uniform up to 1 ms": (random) => random.between(0, 1e6),
  "exponential, mean 50 µs": (random) => -5e4 * Math.log(1 - random.next()),
  "log-normal, median 100 µs": (random) =>
    1e5 * Math.exp(Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next())),
  "two modes, 40 µs and 500 ms": (random) =>
    random.chance(0.01) ? random.between(4.5e8, 5.5e8) : random.between(3e4, 5e4),
  "a heavy tail, up to 100 s": (random) => Math.min(100 * SECOND, 1e4 / (1 - random.next()) ** 2),
  "a handful of nanoseconds": (random) => random.between(0, 300),
  "always the same": () => 123_457,
};

/** Nearest rank on all values, in whole numbers: p is in thousandths of a percent. */
function exact(sorted: readonly number[], p: number): number {
  return sorted[Math.max(0, Math.ceil((p * sorted.length) / 100_000) - 1)]!;
}

const PERCENTILES = [0, 1, 10_000, 25_000, 50_000, 90_000, 99_000, 99_900, 99_990, 100_000];

describe("percentiles are within half a percent of the exact ones:", () => {
  for (const [name, draw] of Object.entries(DISTRIBUTIONS)) {
    for (const [seed, count] of [
      [1, 50_000],
      [2, 1000],
      [3, 7],
    ] as const) {
      test(`${name}, ${count} values`, () => {
        const random = new Random(seed);
        const histogram = new Histogram();
        const values: number[] = [];
        for (let i = 0; i < count; i++) {
          const value = draw(random);
          values.push(Math.round(value));
          histogram.record(value);
        }
        values.sort((a, b) => a - b);
        for (const p of PERCENTILES) {
          const [is, should] = [histogram.percentile(p / 1000), exact(values, p)];
          expect([p, Math.abs(is - should) <= should * 0.005], `${is} for ${should}`).toEqual([p, true]);
        }
        expect(histogram.count).toBe(count);
        expect(histogram.min).toBe(values[0]!);
        expect(histogram.max).toBe(values.at(-1)!);
        expect(histogram.mean).toBe(values.reduce((sum, value) => sum + value, 0) / count);
        expect(histogram.percentile(0)).toBe(values[0]!);
        expect(histogram.percentile(100)).toBe(values.at(-1)!);
      });
    }
  }
});

test("values below 256 are exact, and those up to 300 are off by at most half a percent", () => {
  for (let value = 0; value <= 300; value++) {
    // A neighbour on each side, so that neither min nor max gives the value away.
    const histogram = new Histogram();
    histogram.record(0);
    histogram.record(value);
    histogram.record(1e6);
    const middle = histogram.percentile(50);
    if (value < 256) expect(middle).toBe(value);
    else expect(Math.abs(middle - value) / value).toBeLessThanOrEqual(0.005);
  }
});

test("the edges of every octave up to 2^40 ns are within half a percent", () => {
  for (let octave = 8; octave < 40; octave++) {
    for (const value of [2 ** octave - 1, 2 ** octave, 2 ** octave + 1, 2 ** octave * 1.5]) {
      const histogram = new Histogram();
      histogram.record(0);
      histogram.record(value);
      histogram.record(2 ** 39.9);
      if (value > 2 ** 39.9) continue;
      expect(Math.abs(histogram.percentile(50) - value) / value).toBeLessThanOrEqual(0.005);
    }
  }
});

test("values beyond the last bucket count, and max stays exact", () => {
  const histogram = new Histogram();
  histogram.record(1);
  histogram.record(5000 * SECOND);
  expect(histogram.count).toBe(2);
  expect(histogram.max).toBe(5000 * SECOND);
  expect(histogram.percentile(99)).toBe(5000 * SECOND);
});

test("an empty one has zeros", () => {
  const empty = new Histogram();
  expect([empty.count, empty.min, empty.max, empty.mean, empty.percentile(50)]).toEqual([0, 0, 0, 0, 0]);
});

test("an invalid time and an invalid percentile are refused", () => {
  const histogram = new Histogram();
  for (const value of [-1, NaN, Infinity]) expect(() => histogram.record(value)).toThrow(RangeError);
  expect(histogram.count).toBe(0);
  for (const p of [-0.1, 100.1, NaN]) expect(() => histogram.percentile(p)).toThrow(RangeError);
});

describe("merging and JSON", () => {
  function drawn(seed: number, draw: (random: Random) => number, count: number): number[] {
    const random = new Random(seed);
    return Array.from({ length: count }, () => draw(random));
  }
  const recorded = (values: readonly number[]): Histogram => {
    const histogram = new Histogram();
    for (const value of values) histogram.record(value);
    return histogram;
  };

  test("merged parts are the same as all in one, whatever the parts, and an empty one too", () => {
    const draws = Object.values(DISTRIBUTIONS);
    const parts = draws.map((draw, i) => drawn(i + 10, draw, 1000 * (i + 1)));
    const merged = new Histogram();
    for (const part of [...parts, []]) merged.merge(recorded(part));
    expect(merged.toJSON()).toEqual(recorded(parts.flat()).toJSON());
    expect(merged.percentile(99.9)).toBe(recorded(parts.flat()).percentile(99.9));
  });

  test("merging leaves the other one as it is", () => {
    const [one, other] = [recorded([1, 2]), recorded([3])];
    one.merge(other);
    other.record(4);
    expect([one.count, one.max, other.count]).toEqual([3, 3, 2]);
  });

  test("JSON and back is the same, and goes on counting", () => {
    for (const draw of Object.values(DISTRIBUTIONS)) {
      const histogram = recorded(drawn(5, draw, 3000));
      const back = Histogram.fromJSON(JSON.parse(JSON.stringify(histogram)) as HistogramJSON);
      expect(back.toJSON()).toEqual(histogram.toJSON());
      for (const p of PERCENTILES) expect(back.percentile(p / 1000)).toBe(histogram.percentile(p / 1000));
      back.record(7);
      histogram.record(7);
      expect(back.toJSON()).toEqual(histogram.toJSON());
    }
    expect(Histogram.fromJSON(new Histogram().toJSON()).toJSON()).toEqual(new Histogram().toJSON());
  });

  test("JSON is sparse", () => {
    expect(JSON.stringify(recorded([1000, 1000, 5e9])).length).toBeLessThan(150);
  });

  test("JSON that is damaged is refused", () => {
    const good = recorded([5, 1000, 1000, 5e9]).toJSON();
    const damaged: [string, Partial<HistogramJSON>][] = [
      ["another unit", { unit: "us" as "ns" }],
      ["other buckets", { bucketsPerOctave: 64 }],
      ["a count that is not theirs", { count: 3 }],
      ["a bucket outside", { buckets: [1, 1, 1e6, 3] }],
      ["a bucket before the one before", { buckets: [900, 1, -3, 3] }],
      ["a part of a value", { buckets: [900, 0.5, 3, 3.5] }],
      ["half a pair", { buckets: [900, 4, 3] }],
      ["a max elsewhere", { max: 7e9 }],
      ["a min elsewhere", { min: 6 }],
      ["no sum", { sum: NaN }],
    ];
    for (const [what, change] of damaged) {
      expect(() => Histogram.fromJSON({ ...good, ...change }), what).toThrow("no histogram of ours");
    }
    for (const what of [null, [], "x"])
      expect(() => Histogram.fromJSON(what as never)).toThrow("no histogram");
  });
});
