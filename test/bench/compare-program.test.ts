import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readCommand } from "../../bench/compare.ts";
import { cases } from "../../bench/comparison/cases.ts";
import { FORMAT, parseResult, resultText } from "../../bench/comparison/result.ts";
import { bench, COMPARE, REPORT, resultOf } from "../support/comparison.ts";

setDefaultTimeout(30_000);

const directory = mkdtempSync(join(tmpdir(), "ringback-compare-"));
afterAll(() => rmSync(directory, { recursive: true }));

describe("wrong words are refused before anything is measured", () => {
  for (const [args, why] of [
    [["--rounds", "0"], `--rounds: "0" is not a whole number from 1 to 99`],
    [["--rounds", "1.5"], `--rounds: "1.5" is not a whole number`],
    [["--seconds", "x"], `--seconds: "x" is not a number of seconds from 0.05 to 600`],
    [["--case", "none"], `--case: there is no case "none"; there are: 1 x 64 B,`],
    [["--server", "none"], `--server: there is no server "none"; there are: ringback;`],
    [["--server", "a=b"], "{port}"],
    [["--server", "ringback=x {port}"], "there are two servers of the name ringback"],
    [["--json", "/nonexistent/r.json"], "--json: "],
    [["--nonsense"], "--nonsense"],
  ] as const) {
    test(args.join(" "), () => {
      expect(() => readCommand([...args])).toThrow(why);
    });
  }

  test("with exit code 2, and nothing on stdout", async () => {
    const { stdout, stderr, code } = await bench(COMPARE, "--rounds", "0");
    expect({ stdout, code }).toEqual({ stdout: "", code: 2 });
    expect(stderr).toBe('bench: --rounds: "0" is not a whole number from 1 to 99\n');
  });

  test("--help is not a wrong flag", async () => {
    const { stdout, stderr, code } = await bench(COMPARE, "--help");
    expect({ stderr, code }).toEqual({ stderr: "", code: 0 });
    for (const one of cases) expect(stdout).toContain(one.name);
  });

  test("a damaged file is refused by its line", () => {
    const text = resultText(resultOf([1], [2]));
    expect(parseResult(text, "r.jsonl").measurements).toHaveLength(2);
    const lines = text.split("\n");
    expect(() => parseResult([lines[0], lines[1]!.slice(0, -1)].join("\n"), "r.jsonl")).toThrow(
      /^r\.jsonl: line 2 is not JSON: /,
    );
    expect(() => parseResult(JSON.stringify({ format: FORMAT }), "r.jsonl")).toThrow(
      'r.jsonl: damaged: its first line has no "date"',
    );
    expect(() => parseResult("[]", "r.jsonl")).toThrow("not a result of this benchmark");
  });

  test("for the report: no file, another file, no result", async () => {
    expect((await bench(REPORT)).code).toBe(2);
    expect((await bench(REPORT, "--nonsense")).code).toBe(2);
    const file = join(directory, "other.jsonl");
    await Bun.write(file, "{}");
    const { code, stderr } = await bench(REPORT, file);
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: `bench:report: ${file}: not a result of this benchmark (its format is undefined, and not "${FORMAT}")\n`,
    });
  });
});
