/** The comparison as a program, and results that it might have. */
import { cases } from "../../bench/comparison/cases.ts";
import { FORMAT, type Measurement, type Result } from "../../bench/comparison/result.ts";
import type { LoadResult } from "../../bench/load/result.ts";
import { join } from "node:path";

export const COMPARE = join(import.meta.dir, "../../bench/compare.ts");
export const REPORT = join(import.meta.dir, "../../bench/report.ts");
export const BASELINE = "node:net pipe, Bun";

export async function bench(file: string, ...args: string[]) {
  const child = Bun.spawn([process.execPath, "run", file, ...args], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { stdout, stderr, code };
}

/** A result of two servers, as if their CPU times a message had been these. */
export function resultOf(
  ours: readonly number[],
  theirs: readonly number[],
  limited = false,
  late?: string[],
): Result {
  const one = cases.find(({ name }) => name === (late === undefined ? "50 x 64 B" : "10,000 a second"))!;
  const measurement = (server: string, cpu: number, i: number): Measurement => ({
    round: i + 1,
    server,
    case: one.name,
    at: i,
    firstEchoMs: 30 + i,
    load: {
      messagesPerSecond: 1e6 / cpu,
      latency: { count: 1, p50: cpu * 2, p90: cpu * 5, p99: cpu * 9, p999: cpu * 20 },
      generator: { limited },
      schedule: late === undefined ? null : { late },
      server: { cpuMicrosPerMessage: cpu, rssPeak: 5e7 },
    } as unknown as LoadResult,
  });
  return {
    format: FORMAT,
    date: "2026-11-22T00:00:00.000Z",
    commit: null,
    command: "bun run bench",
    versions: { ringback: "0", bun: "0", node: null },
    machine: { cpu: "a <cpu> & more", cores: 2, memoryBytes: 1e9, kernel: "k", pinned: null },
    settings: { rounds: ours.length, seconds: 1, warmup: 1 },
    baseline: BASELINE,
    servers: ["ringback", BASELINE].map((name) => ({ name, about: `${name}.`, command: ["x", "{port}"] })),
    cases: [one],
    notMeasured: [],
    measurements: [
      ...ours.map((cpu, i) => measurement("ringback", cpu, i)),
      ...theirs.map((cpu, i) => measurement(BASELINE, cpu, i)),
    ],
  };
}
