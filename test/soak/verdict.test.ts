/**
 * Verdicts on series whose truth is known: its statistics, its checks, its
 * graph.
 */
import { describe, expect, test } from "bun:test";
import { Random } from "../support/random.ts";
import { graph } from "./graph.ts";
import { parseTotals } from "./served.ts";
import { emptyLedger } from "./session.ts";
import { fit, jumps, limits, rises, step, warmUp } from "./trend.ts";
import { checks, graphs, lines, totalsCheck, type Sample, type Seen } from "./verdict.ts";

const MB = 1e6;
const seconds = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
const noise = (random: Random): number => random.next() + random.next() + random.next() - 1.5;

type Memory = (second: number, random: Random) => number;

/**
 * Whether a memory in bytes, seen every `every` seconds, is found to grow in so many seconds, by its slope or
 * its ends.
 */
function found(value: Memory, seed: number, count = 1440, every = 1): "slope" | "step" | undefined {
  const random = new Random(seed);
  const times = seconds(count / every).map((i) => i * every);
  const values = times.map((at) => value(at, random));
  const { memory } = limits(count);
  if (rises(fit(times, values, seed)!, memory)) return "slope";
  return jumps(step(values)!, memory) ? "step" : undefined;
}

describe("the trend", () => {
  const SEEDS = [1, 2, 3, 4, 5];

  test("flat noise is flat", () => {
    for (const seed of SEEDS)
      expect(found((_, random) => 60 * MB + 4 * MB * noise(random), seed)).toBeUndefined();
  });

  test("a leak of 60 MB an hour is found in noise of ±6 MB, with its slope", () => {
    const leak: Memory = (at, random) => 60 * MB + (60 * MB * at) / 3600 + 4 * MB * noise(random);
    for (const seed of SEEDS) expect(found(leak, seed)).toBe("slope");
    const random = new Random(9);
    const times = seconds(1440);
    const { slope, low, high, growth } = fit(
      times,
      times.map((at) => leak(at, random)),
    )!;
    expect((slope * 3600) / MB).toBeWithin(57, 63);
    expect(slope).toBeWithin(low, high);
    expect(growth / MB).toBeWithin(22.8, 25.2);
  });

  test("a slow leak is found when it has come to something, however long that takes", () => {
    const leak =
      (perMinute: number): Memory =>
      (at, random) =>
        56 * MB + (perMinute * at) / 60 + MB * noise(random);
    for (const seed of SEEDS) {
      // Ten minutes, of which nine are judged; half an hour; a day.
      expect(found(leak(1.5 * MB), seed, 540)).toBe("slope");
      expect(found(leak(333_000), seed)).toBe("slope");
      expect(found(leak(10_000), seed, 69_120, 12)).toBe("slope");
      expect(found(leak(0), seed, 69_120, 12)).toBeUndefined();
    }
  });

  test("a leak under a saw of 30 MB is found, and the saw alone is flat", () => {
    for (const seed of SEEDS) {
      const period = 20 + 17 * seed;
      const saw: Memory = (at, random) => 60 * MB + (30 * MB * (at % period)) / period + MB * noise(random);
      expect(found(saw, seed)).toBeUndefined();
      expect(found((at, random) => saw(at, random) + (60 * MB * at) / 3600, seed)).toBe("slope");
    }
  });

  test("a step, and a leak that begins late, are no slope, and found by the ends", () => {
    const from =
      (second: number, more: (since: number) => number): Memory =>
      (at, random) =>
        (at < second ? 60 * MB : 60 * MB + more(at - second)) + 2 * MB * noise(random);
    for (const seed of SEEDS) {
      expect(
        found(
          from(200, () => 100 * MB),
          seed,
        ),
      ).toBe("step");
      expect(
        found(
          from(1000, () => 800 * MB),
          seed,
        ),
      ).toBe("step");
      expect(
        found(
          from(1000, () => 10 * MB),
          seed,
        ),
      ).toBe("step");
      expect(
        found(
          from(1100, (since) => 3 * MB * since),
          seed,
        ),
      ).toBe("step");
      expect(
        found(
          from(1000, () => 3 * MB),
          seed,
        ),
      ).toBeUndefined();
    }
  });

  test("single peaks are no growth", () => {
    const peaks: Memory = (at, random) =>
      60 * MB + MB * noise(random) + (at > 1000 && random.chance(0.1) ? 500 * MB : 0);
    for (const seed of SEEDS) expect(found(peaks, seed)).toBeUndefined();
  });

  test("falling is not rising, a straight line has no interval, and a few samples have no slope", () => {
    expect(found((at) => 900 * MB - at * MB, 1, 800)).toBeUndefined();
    const line = fit(seconds(60), seconds(60))!;
    for (const slope of [line.slope, line.low, line.high]) expect(slope).toBeCloseTo(1, 9);
    expect(fit(seconds(11), seconds(11))).toBeUndefined();
    expect(step(seconds(11))).toBeUndefined();
  });

  test("the warm-up is a fifth, a minute at least, and half of what is short", () => {
    expect([1800, 300, 180, 60, 6].map(warmUp)).toEqual([360, 60, 60, 30, 3]);
  });
});

describe("the verdict", () => {
  const cpuOf = (perMessage: (at: number) => number): Sample[] => {
    let [cpu, messages] = [0, 0];
    return seconds(300).map((at) => {
      cpu += 1000 * perMessage(at);
      messages += 1000;
      return { at, rss: 50 * MB, descriptors: 60, cpu, messages, back: messages };
    });
  };
  const flat = cpuOf(() => 40e-6);
  const seen = (samples: Sample[]): Seen => ({
    samples,
    ...{ failure: undefined, descriptors: { before: 6, after: 6 }, atStop: emptyLedger(), own: true },
    rest: { seconds: 10, rss: 52 * MB, cpu: 0.001 },
    end: { code: 0, signal: null, seconds: 1, totals: undefined },
    ledger: { ...emptyLedger(), connections: 10, sent: 900, back: 700, abrupt: 2, unanswered: 3 },
  });
  const named = (given: Seen, is: boolean | undefined): string[] =>
    checks(given)
      .filter(({ passed }) => passed === is)
      .map(({ name }) => name);
  const failed = (given: Seen): string[] => named(given, false);

  test("CPU a message that grows by half fails, and one that is dear from the beginning passes", () => {
    expect(failed(seen(cpuOf((at) => 40e-6 * (1 + at / 300))))).toContain("CPU");
    expect(failed(seen(cpuOf((at) => (at % 7 === 0 ? 90e-6 : 40e-6))))).not.toContain("CPU");
  });

  test("the server's totals are those of the peers, or fail", () => {
    const line = (text: string) => ({ ...seen([]), end: { ...seen([]).end!, totals: parseTotals(text) } });
    const right = "11 connections (2 broken), 801 bytes in, 751 bytes out, 0 bytes copied, 3 bytes dropped\n";
    expect(totalsCheck(line(right))).toMatchObject({ passed: true });
    for (const [part, other, named] of [
      ["11 conn", "12 conn", "connections"],
      ["2 broken", "3 broken", "broken"],
      ["2 broken", "1 refused, 2 broken", "refused"],
      ["801 bytes in", "700 bytes in", "bytes in"],
      ["801 bytes in", "902 bytes in", "bytes in"],
      ["751 bytes out", "802 bytes out", "bytes out"],
      ["751 bytes out", "700 bytes out", "bytes out"],
      ["0 bytes copied", "1 bytes copied", "bytes copied"],
      ["3 bytes dropped", "4 bytes dropped", "dropped"],
    ] as const) {
      const { passed, text } = totalsCheck(line(right.replace(part, other)));
      expect({ passed, other }).toEqual({ passed: false, other });
      expect(text).toContain(named);
    }
    expect(totalsCheck(line("goodbye\n"))).toMatchObject({ passed: false });
    expect(totalsCheck({ ...line("goodbye\n"), own: false })).toMatchObject({ passed: true });
  });

  test("a check with too few samples has not passed", () => {
    for (const samples of [[], flat.slice(0, 9)]) {
      expect(named(seen(samples), undefined)).toEqual([
        ...["memory", "CPU", "descriptors"],
        ...(samples.length === 0 ? ["rest"] : []),
      ]);
      expect(lines(checks(seen(samples)))).toMatch(/^\?    memory +cannot tell: too few samples$/m);
      expect(failed({ ...seen(samples), descriptors: { before: 6, after: 7 } })).toContain("descriptors");
    }
    expect(named(seen(flat), undefined)).toEqual([]);
  });

  test("a server that uses CPU or memory when all peers have left fails", () => {
    const { rest } = seen(flat);
    expect(failed(seen(flat))).not.toContain("rest");
    expect(failed({ ...seen(flat), rest: { ...rest!, cpu: 0.05 } })).toContain("rest");
    expect(failed({ ...seen([]), rest: { ...rest!, cpu: 0.05 } })).toContain("rest");
    expect(failed({ ...seen(flat), rest: { ...rest!, rss: 90 * MB } })).toContain("rest");
    expect(failed({ ...seen(flat), rest: undefined })).toContain("rest");
    // A long one, which has settled.
    const long = Array.from({ length: 1000 }, (_, at) => ({ ...flat[0]!, at }));
    expect(failed({ ...seen(long), rest: { ...rest!, rss: 70 * MB } })).toContain("rest");
    expect(failed({ ...seen(long), rest: { ...rest!, rss: 64 * MB } })).not.toContain("rest");
  });

  test("descriptors that become more under load fail, although all are closed in the end", () => {
    const more = (open: (at: number) => number): Sample[] =>
      Array.from({ length: 1000 }, (_, at) => ({ ...flat[0]!, at, descriptors: open(at) }));
    const around = (at: number): number => 84 + (at % 7) - 3;
    expect(failed(seen(more(around)))).not.toContain("descriptors");
    expect(failed(seen(more((at) => around(at) + Math.floor(at / 100))))).toContain("descriptors");
    expect(failed(seen(more((at) => around(at) + (at > 800 ? 8 : 0))))).toContain("descriptors");
  });

  test("a wrong end, and descriptors that stay open, fail", () => {
    expect(failed({ ...seen(flat), descriptors: { before: 6, after: 7 } })).toContain("descriptors");
    const ended = (code: number | null, signal: string | null, own: boolean): string[] =>
      failed({ ...seen([]), own, end: { code, signal, seconds: 1, totals: undefined } });
    expect(ended(143, null, true)).toContain("stop");
    expect(ended(null, "SIGTERM", true)).toContain("stop");
    expect(ended(null, "SIGTERM", false)).not.toContain("stop");
    expect(ended(null, "SIGKILL", false)).toContain("stop");
    const after = (seconds: number, own: boolean): string[] =>
      failed({ ...seen([]), own, end: { code: 0, signal: null, seconds, totals: undefined } });
    expect(after(10.5, true)).not.toContain("stop");
    expect(after(12, true)).toContain("stop");
    expect(after(12, false)).not.toContain("stop");
  });
});

describe("the graph", () => {
  const show = (value: number): string => `${value} MB`;

  test("is a curve between its least and its greatest value, with the time and the end of the warm-up below", () => {
    const series = { title: "RSS", times: [0, 30, 60, 90], values: [0, 1, 2, 3], show, warm: 30 };
    expect(graph(series, 30, 2)).toBe(`RSS
3 MB ┤⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⣀⣀⣀⣀⣠⠤⠤⠤⠴⠒⠒⠒⠚⠉⠉
0 MB ┤⣀⣀⡤⠤⠤⠤⠴⠒⠒⠒⠚⠉⠉⠉⠉⠁⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀
     └──────────┴───────────────────
      0:00      0:30 warm       1:30
`);
  });

  test("a jump is a line, a flat one lies at the bottom, one sample and none are shown too", () => {
    const jump = { title: "", times: [0, 1, 2, 3], values: [5, 5, 9, 9], show, warm: 9 };
    expect(graph(jump, 2, 1).split("\n")[1]).toBe("9 MB ┤⣠⠏");
    expect(graph({ ...jump, values: [5, 5, 5, 5] }, 2, 1).split("\n")[1]).toBe("5 MB ┤⣀⣀");
    expect(graph({ ...jump, times: [3], values: [5] }, 2, 1)).toContain("┤⡀");
    expect(graph({ ...jump, times: [], values: [] }, 2, 1)).toContain("no samples");
  });

  test("no line is wider than a terminal", () => {
    const samples = seconds(500).map((at) => {
      return { at, rss: 1e8 + at, descriptors: at % 90, cpu: at / 3, messages: at * 900, back: at };
    });
    const lines = graphs(samples, 72).split("\n");
    expect(lines.length).toBeGreaterThan(15);
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(100);
  });
});
