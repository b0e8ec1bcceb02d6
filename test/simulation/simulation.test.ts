/**
 * The simulation of test/simulation: some of its seeds, in a process of their own, and whether it can be
 * trusted.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { MUTATIONS } from "./mutations.ts";
import { mutated } from "./pattern.ts";

setDefaultTimeout(60_000);

const ROOT = join(import.meta.dir, "../..");
/**
 * What all of this may take. The time of the processors is measured: the machine may be busy with something
 * else.
 */
const MOST_SECONDS = 20;
let seconds = 0;

async function simulate(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const child = Bun.spawn([process.execPath, "run", "test/simulation/simulate.ts", "--quiet", ...args], {
    cwd: ROOT,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  seconds += Number(child.resourceUsage()!.cpuTime.total) / 1e6;
  return { code, out, err };
}

test("the first seeds of every world are clean", async () => {
  const { code, out, err } = await simulate("--seed", "1", "--count", "40");
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

test("a seed with a length is the beginning of the seed's own story", async () => {
  const trace = async (...args: string[]): Promise<string> => {
    const { out } = await simulate("--seed", "34", "--trace", "--world", "echo", ...args);
    return out.slice(0, out.indexOf("from here on no more bad luck"));
  };
  const [whole, beginning] = [await trace(), await trace("--length", "60")];
  const last = beginning.lastIndexOf("\n");
  expect(beginning.slice(0, last).split("\n").length).toBeGreaterThan(60);
  expect(whole.slice(0, last)).toBe(beginning.slice(0, last));
});

test("a wrong flag is said to be one, and nothing played is not clean", async () => {
  for (const args of [
    ["--sead", "3"],
    ["--count", "0"],
    ["--seconds", "0"],
    ["--world", "none"],
  ]) {
    const { code, out, err } = await simulate(...args);
    expect([code, out]).toEqual([2, ""]);
    expect(err).not.toContain("    at ");
    expect(err).toContain(args[0]!);
  }
});

/** What the simulation has found in the source, each by the seed that showed it. */
test.each([
  ["echo-bun", "34", "a peer was idle that had acknowledged as much as had been sent since"],
  ["echo-bun", "151", "who came shortly before a sweep was idle a sweep too early"],
  ["echo-bun", "423", "a throw in the turn after a rest ended the process"],
  ["library-bun", "700357", "after close, a call that gave up left what went before it without a FIN"],
])("the seed that found it is clean: %s %s, %s", async (world, seed) => {
  const { err } = await simulate("--world", world, "--seed", seed);
  expect(err).toBe("");
});

test("every mutation has exactly one place in the source", () => {
  for (const mutation of MUTATIONS) {
    const source = readFileSync(join(ROOT, "src", mutation.file), "utf8");
    expect(mutated(source, mutation)).not.toBe(source);
  }
});

test(`all of it takes less than ${MOST_SECONDS} s`, () => {
  expect(seconds).toBeLessThan(MOST_SECONDS);
  console.log(`the simulations: ${seconds.toFixed(1)} s of the processors' time`);
});
