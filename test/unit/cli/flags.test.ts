import { expect, test } from "bun:test";
import { choice, readFlags, seconds, whole } from "../../../src/cli/flags.ts";
import { listFlags } from "../../../src/cli/flags-help.ts";

const FLAGS = {
  case: { kind: choice(["a", "b"]), help: "one case", multiple: true },
  rounds: { kind: whole({ min: 1, max: 99 }), help: "how many rounds", preset: "7" },
  pid: { kind: whole({ min: 1, max: 9 }), help: "a process" },
  warmup: {
    kind: seconds({ min: 0, max: 9 }),
    help: "before it, ".repeat(12).trim(),
    otherwise: "by the case",
  },
  quick: { help: "fewer of them" },
} as const;
const name = (): string => "bun run bench";

test("a flag table reads repeated values, defaults, absent flags and switches", () => {
  const values = readFlags(FLAGS, ["--case", "b", "--quick", "--case=a"], { name });
  expect(values).toEqual({ case: ["b", "a"], rounds: 7, pid: undefined, warmup: undefined, quick: true });
  const typed: { case: ("a" | "b")[]; rounds: number; pid: number | undefined; quick: boolean } = values;
  expect(typed.rounds).toBe(7);
  expect(readFlags(FLAGS, [], { name })).toMatchObject({ case: [], quick: false });
  expect(() => readFlags(FLAGS, ["--case", "c"], { name })).toThrow('--case: "c" is not a or b');
  expect(() => readFlags(FLAGS, ["--x"], { name })).toThrow(
    `Unknown option '--x'; try "bun run bench --help"`,
  );
});

test("help without short flags has no column for them, and long help wraps below itself", () => {
  const lines = listFlags(FLAGS).split("\n");
  expect(lines[0]).toBe("  --case <a|b>        one case");
  expect(lines[1]).toBe("  --rounds <number>   how many rounds (default: 7)");
  expect(lines[4]).toMatch(/^ {22}\S.*\(default: by the case\)$/);
  expect(lines.every((line) => line.length <= 100)).toBe(true);
});
