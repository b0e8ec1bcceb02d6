/**
 * What the mitata suites have in common: their one flag, their servers, and a run that fails loudly. It
 * changes when the way a suite is run does.
 *
 *   bun run bench/<name>.bench.ts              as many samples as mitata likes
 *   bun run bench/<name>.bench.ts --smallest   a few samples, to see that it works: the figures mean nothing
 */
import { parseArgs } from "node:util";
import * as mitata from "mitata";
import { measure } from "mitata/src/lib.mjs";
import { Client } from "./client.ts";
import { installed, servers, start, type Running } from "./servers.ts";

function readFlags(): { smallest: boolean } {
  try {
    return parseArgs({ options: { smallest: { type: "boolean", default: false } } }).values;
  } catch (error) {
    console.error(`${(error as Error).message}\nThe only flag is --smallest.`);
    process.exit(2);
  }
}

export const { smallest } = readFlags();

/**
 * mitata's run() has no size. Its measure() takes one, so a smallest run calls that for each benchmark in
 * turn.
 */
const SMALLEST = { min_cpu_time: 1e6, min_samples: 4, batch_samples: 64 };

type Benchmark = Parameters<typeof mitata.bench>[1];
const collected: [name: string, benchmark: Benchmark][] = [];

/**
 * mitata's bench(), group() and summary(), which the suites use; a smallest run only collects the benchmarks.
 */
export const { bench, boxplot, group, summary } = smallest
  ? {
      bench: (name: string, benchmark: Benchmark) => {
        collected.push([name, benchmark]);
        return { baseline: () => undefined };
      },
      group: (_title: string, add: () => void) => add(),
      summary: (add: () => void) => add(),
      boxplot: (add: () => void) => add(),
    }
  : mitata;

/** Measures and prints what bench() was given. Throws what a benchmark throws. */
export async function runSuite(): Promise<void> {
  const watch = setInterval(endIfStalled, 1_000);
  try {
    if (smallest) await runSmallest();
    else await mitata.run({ throw: true, colors: Bun.enableANSIColors });
  } finally {
    clearInterval(watch);
  }
}

async function runSmallest(): Promise<void> {
  for (const [name, benchmark] of collected) {
    const { avg } = await measure(benchmark as () => unknown, { ...SMALLEST });
    console.log(`${name}  ${avg.toFixed(0)} ns/iter`);
  }
}

/** One way to do a thing, measured lap by lap. */
export interface Contender {
  readonly name: string;
  /** Called once, before the first lap. */
  open(): Promise<Laps>;
}

export interface Laps {
  /** @returns nanoseconds */
  lap(): Promise<number>;
  close(): unknown;
}

/** A contender that waits for its turn, with the laps that mitata has not seen yet. */
interface Entry {
  readonly laps: Laps;
  readonly done: number[];
  finished: boolean;
}

/**
 * A group that compares the first contender with each of the others.
 *
 * Each lap is a sample that times itself: mitata would time fast ones in batches and slow ones one by one.
 * And the contenders take turns of a few milliseconds in random order, where mitata alone would measure one
 * after the other: what else the machine does then meets all of them alike. Five times the same server on a
 * busy machine, the slowest against the fastest in four runs: 1.06 to 1.41, and one after the other 1.42 to
 * 7.3.
 */
export function compareLaps(title: string, contenders: readonly Contender[]): void {
  const entries = new Map<Contender, Entry>();
  const enter = async (): Promise<void> => {
    for (const contender of contenders) {
      const laps = await contender.open();
      entries.set(contender, { laps, done: [], finished: false });
      // The compilers of both sides warm up before anything counts.
      await timed(laps, WARM_UP_MS);
    }
  };
  const round = async (): Promise<void> => {
    for (const { laps, done, finished } of shuffled([...entries.values()])) {
      if (!finished) done.push(...(await timed(laps, TURN_MS)));
    }
  };
  const add = (contender: Contender): void => {
    const benchmark = async function* (): AsyncGenerator<() => Promise<number>, void, undefined> {
      if (entries.size === 0) await enter();
      const entry = entries.get(contender)!;
      const lap = async (): Promise<number> => {
        while (entry.done.length === 0) await round();
        return entry.done.pop()!;
      };
      // With this budget mitata takes laps until their own times are enough. Its types lack all of these.
      yield { manual: lap, budget: "manual", heap: false } as unknown as () => Promise<number>;
      entry.finished = true;
      await entry.laps.close();
    };
    bench(contender.name, benchmark as () => ReturnType<typeof benchmark>).baseline(
      contender === contenders[0],
    );
  };
  group(title, () => summary(() => boxplot(() => contenders.forEach(add))));
}

const WARM_UP_MS = smallest ? 2 : 300;
const TURN_MS = smallest ? 0 : 5;
/** A lap that takes longer has failed. */
const STALLED_MS = 10_000;

/** When the lap began that is under way. */
let lapBegan: number | undefined;

/** Laps for some milliseconds, at least one. */
async function timed(laps: Laps, ms: number): Promise<number[]> {
  const times: number[] = [];
  const end = performance.now() + ms;
  do {
    lapBegan = performance.now();
    times.push(await laps.lap());
    lapBegan = undefined;
  } while (performance.now() < end);
  return times;
}

function endIfStalled(): void {
  if (lapBegan === undefined || performance.now() - lapBegan < STALLED_MS) return;
  console.error(`a lap has not ended for ${STALLED_MS / 1000} seconds: the contender does not answer`);
  process.exit(1);
}

function shuffled<T>(list: T[]): T[] {
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [list[i], list[j]] = [list[j]!, list[i]!];
  }
  return list;
}

const NO_INTERVAL = `
These ratios have no interval: the same server five times differed from itself by a factor of up to 1.41 on a busy machine
of two cores. "bun run bench" has intervals, and takes verdicts from them.`;

/**
 * Starts the servers that are installed, adds their groups, runs, and stops them.
 * @param add adds a group
 */
export async function runWithServers(
  add: (compare: (title: string, open: (port: number) => Promise<Laps>) => void) => void,
): Promise<void> {
  // The servers end with this program, and a signal's default would end it without a word to them. A suite of
  // the parts keeps the default: it gives no signal a turn until it is done.
  process.on("SIGINT", () => process.exit(130));
  process.on("SIGTERM", () => process.exit(143));
  process.on("SIGHUP", () => process.exit(129));
  process.on("SIGQUIT", () => process.exit(131));
  const running: Running[] = [];
  try {
    for (const server of servers) {
      if (installed(server)) running.push(await start(server));
      else console.log(`${server.name}: left out, ${server.needs} is not installed`);
    }
    add((title, open) => {
      const contenders = running.map(({ name, port }) => ({ name, open: () => open(port) }));
      compareLaps(title, contenders);
    });
    await runSuite();
    console.log(NO_INTERVAL);
  } finally {
    await Promise.all(running.map((server) => server.stop()));
  }
}

/** Laps of one connection to a server: `count` messages at once, and all of them back. */
export async function exchanges(port: number, size: number, count = 1): Promise<Laps> {
  const client = await Client.connect(port);
  const message = new Uint8Array(size).fill(120);
  return { lap: () => client.exchange(message, count), close: () => client.close() };
}
