/**
 * Fuzzing by seeds: each seed makes an input, which must be judged alike whenever it is played. It changes
 * when what a failure says does, or when there is another kind of nonsense.
 */
import { Random } from "./random.ts";

const GIVEN = process.env["FUZZ_SEED"];
const FIRST = Number(GIVEN ?? 1);

/** How many seeds are played where so many are the custom. */
const runsOf = (custom: number): number =>
  Number(process.env["FUZZ_RUNS"] ?? (GIVEN === undefined ? custom : 1));

/** @throws Error with the seed and the input, when the input is not what it should be to the judge */
export async function fuzz<T>(
  runs: number,
  make: (random: Random) => T,
  judge: (input: T) => unknown,
): Promise<void> {
  for (let seed = FIRST; seed < FIRST + runsOf(runs); seed++) {
    const input = make(new Random(seed));
    try {
      // Most judges do not wait, and then nothing here does: thousands of awaits are seconds.
      const judged = judge(input);
      if (judged instanceof Promise) await judged;
    } catch (error) {
      const shown = Bun.inspect(input, { depth: 6 });
      throw new Error(`FUZZ_SEED=${seed} made ${shown}: ${(error as Error).message}`, { cause: error });
    }
  }
}

/**
 * Whether all seeds are played, of which some are known to make what is right; or only those that were asked
 * for.
 */
export const allSeeds = GIVEN === undefined;

/**
 * The inputs of all seeds, for what is judged in one batch: each with its own, which stays with it when some
 * are left out.
 */
export function inputs<T>(runs: number, make: (random: Random) => T): [seed: number, input: T][] {
  return Array.from({ length: runsOf(runs) }, (_, i) => [FIRST + i, make(new Random(FIRST + i))]);
}

/** What a call throws; undefined when it does not. */
export function thrown(call: () => unknown): unknown {
  try {
    call();
  } catch (error) {
    return error;
  }
  return undefined;
}

export const oneOf = <T>(random: Random, all: readonly T[]): T => all[random.between(0, all.length - 1)]!;

export const several = <T>(random: Random, most: number, make: (random: Random) => T): T[] =>
  Array.from({ length: random.between(0, most) }, () => make(random));

const WORDS = [
  ...[
    "",
    " ",
    "0",
    "-0",
    "1",
    "-1",
    "007",
    "1.5",
    ".5",
    "5.",
    "1e3",
    "1e999",
    "0x10",
    "0b1",
    "1_000",
    "+1",
    "٣",
  ],
  ...[
    "NaN",
    "Infinity",
    "true",
    "null",
    "undefined",
    "__proto__",
    "constructor",
    "65535",
    "65536",
    "4294967296",
  ],
  ...[
    "2147483647",
    "2147483648",
    "9007199254740993",
    "18446744073709551616",
    "9".repeat(400),
    "0".repeat(90) + "7",
  ],
  ...[
    "-",
    "--",
    "---",
    "=",
    "a=b",
    "--=",
    "\0",
    "\n",
    "\r\n",
    "\t",
    "\x1b[31mred",
    "\x7f",
    "a b",
    "a. b",
    "'",
    '"',
  ],
  ...[
    "\\",
    "%s",
    "${x}",
    "$(x)",
    "`",
    "é",
    "e\u0301",
    "\u202egnirts",
    "\u{1f600}",
    "\ud800",
    "\ufeff",
    "x".repeat(999),
  ],
  ...[
    "127.0.0.1",
    "::1",
    "localhost",
    "*",
    "/",
    "../..",
    "raw",
    "tutorial",
    "{port}",
    "a {port}",
    "x={port}",
  ],
];

/** A word as a user would hardly type it. */
export function word(random: Random): string {
  const dice = random.next();
  if (dice < 0.7) return oneOf(random, WORDS);
  if (dice < 0.85) return oneOf(random, WORDS) + oneOf(random, WORDS);
  const any = (): number => (random.chance(0.7) ? random.between(0x20, 0x7e) : random.between(0, 0x1_ffff));
  return String.fromCodePoint(...several(random, 12, any));
}

/** Words of a command line, of which many are flags of the program. */
export function commandLine(random: Random, flags: readonly string[]): string[] {
  return several(random, 6, (of) => {
    const flag = `--${oneOf(of, flags)}`;
    const dice = of.next();
    if (dice < 0.4) return [flag, word(of)];
    if (dice < 0.7) return [`${flag}=${word(of)}`];
    if (dice < 0.8) return [flag];
    if (dice < 0.9) return [`${oneOf(of, ["--", "-", "--no-"])}${word(of)}`];
    return [word(of)];
  }).flat();
}

const OBJECTS: readonly (() => unknown)[] = [
  ...[
    () => ({}),
    () => [],
    () => Object.create(null),
    () => () => 1,
    () => Symbol("s"),
    () => 5n,
    () => new Date(0),
  ],
  ...[
    () => ({ valueOf: () => 1 }),
    () => ({ toString: () => "1" }),
    () => [1],
    () => ["127.0.0.1"],
    () => /x/,
  ],
  ...[() => new Uint8Array(3), () => new Proxy({}, {}), () => new Map(), () => Promise.resolve(1), () => NaN],
];
const NUMBERS = [
  ...[
    0,
    -0,
    1,
    -1,
    1.5,
    NaN,
    Infinity,
    -Infinity,
    2 ** 31,
    -(2 ** 31) - 1,
    2 ** 32,
    2 ** 32 + 1,
    2 ** 53,
    1e300,
  ],
  ...[5e-324, 65_535, 65_536, 255, 256],
];

/** Anything at all. */
export function anything(random: Random): unknown {
  const dice = random.next();
  if (dice < 0.35) return oneOf(random, NUMBERS);
  if (dice < 0.55) return word(random);
  if (dice < 0.7) return oneOf(random, [undefined, null, true, false]);
  return oneOf(random, OBJECTS)();
}
