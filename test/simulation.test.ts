/** The simulation of test/simulation: some of its seeds, in a process of their own, and whether it can be trusted. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { MUTATIONS } from "./simulation/mutations.ts";

setDefaultTimeout(60_000);

const ROOT = join(import.meta.dir, "..");

async function simulate(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const child = Bun.spawn([process.execPath, "run", "test/simulation/simulate.ts", "--quiet", ...args], {
    cwd: ROOT,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { code, out, err };
}

test("the first seeds of every world are clean", async () => {
  const { code, out, err } = await simulate("--seed", "1", "--count", "80");
  expect(err).toBe("");
  expect(code).toBe(0);
  expect(out).toContain("clean from seed 1 on");
});

test("a seed is always the same story, and another seed is another", async () => {
  const [first, again, other] = await Promise.all([
    simulate("--seed", "7", "--count", "3"),
    simulate("--seed", "7", "--count", "3"),
    simulate("--seed", "8", "--count", "3"),
  ]);
  const trace = /\d+ steps, trace [0-9a-f]{8}/;
  expect(first.out).toMatch(trace);
  expect(trace.exec(again.out)![0]).toBe(trace.exec(first.out)![0]);
  expect(trace.exec(other.out)![0]).not.toBe(trace.exec(first.out)![0]);
});

test("a seed is the same story whatever has been played before it", async () => {
  const trace = async (...args: string[]): Promise<string> => {
    const { out } = await simulate("--world", "library", "--trace", "--length", "300", ...args);
    return out.slice(0, out.lastIndexOf("clean from seed"));
  };
  const both = await trace("--seed", "20", "--count", "2");
  const alone = (await trace("--seed", "21", "--count", "1")).replace(/\d+ s  library: .*\n/, "");
  expect(both).toContain(alone);
});

test("every mutation's text is in the source exactly once", () => {
  for (const { file, text, becomes } of MUTATIONS) {
    const source = readFileSync(join(ROOT, "src", file), "utf8");
    expect([file, text, source.split(text).length - 1]).toEqual([file, text, 1]);
    expect(becomes).not.toBe(text);
  }
});
