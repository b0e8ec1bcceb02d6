/**
 * Shows that the simulation can fail: puts each of the mutations into a copy of the source, and looks who sees it.
 * `bun run mutate`. It changes when its user's view does.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { MUTATIONS, type Mutation } from "./mutations.ts";

const ROOT = join(import.meta.dir, "../..");
const SECONDS = 20;
/** On top, for the start, and for a step that never ends. */
const PATIENCE_MS = (SECONDS + 20) * 1000;

const { values } = parseArgs({
  options: { only: { type: "string" }, help: { type: "boolean", default: false } },
});
if (values.help) {
  console.log(`Puts each mutation into a copy of the source and looks who sees it: bun run mutate [--only <words>]

  --only <words>  the mutations whose file and description have these words

Exit code 1: a mutation that nobody sees, or whose text is not in the source exactly once.`);
  process.exit(0);
}

interface Outcome {
  caught: boolean;
  by: string;
  seconds: number;
}

/** Runs Bun on the copy. @returns what it printed, and whether it failed */
function run(copy: string, args: string[]): { failed: boolean; text: string; hung: boolean } {
  const child = Bun.spawnSync([process.execPath, ...args], {
    cwd: copy,
    stdout: "pipe",
    stderr: "pipe",
    timeout: PATIENCE_MS,
    killSignal: "SIGKILL",
  });
  const hung = child.exitedDueToTimeout === true;
  return { failed: child.exitCode !== 0, hung, text: child.stdout.toString() + child.stderr.toString() };
}

function look(copy: string, { test }: Mutation): Omit<Outcome, "seconds"> {
  const simulate = ["test/simulation/simulate.ts", "--seed", "1", "--seconds", String(SECONDS), "--quiet"];
  const { failed, hung, text } = run(copy, simulate);
  const [, where] = /DEFECT in the world (\w+, seed \d+, step \d+: .*)/.exec(text) ?? [];
  if (where !== undefined) return { caught: true, by: where };
  if (hung) return { caught: true, by: "the simulation: a step never ends" };
  if (failed) return { caught: false, by: `the simulation broke: ${text.trim().split("\n").at(-1)}` };
  if (test === undefined) return { caught: false, by: "nobody" };
  const caught = run(copy, ["test", test]).failed;
  return { caught, by: caught ? test : `nobody, ${test} neither` };
}

/** @throws Error when the text is not there exactly once */
function apply(copy: string, { file, text, becomes }: Mutation): () => void {
  const path = join(copy, "src", file);
  const source = readFileSync(path, "utf8");
  if (source.split(text).length !== 2) throw new Error(`src/${file} does not have exactly once: ${text}`);
  writeFileSync(
    path,
    source.replace(text, () => becomes),
  );
  return () => writeFileSync(path, source);
}

/** Without a mutation nothing may be seen, or what is seen says nothing of the mutations. */
function expectClean(copy: string): void {
  const { caught, by } = look(copy, { breaks: "nothing", file: "", text: "", becomes: "" });
  if (!caught) return;
  console.error(`The source as it is has a defect: ${by}`);
  process.exit(1);
}

const copy = mkdtempSync(join(tmpdir(), "mutate-"));
let missed = 0;
try {
  for (const part of ["src", "test", "package.json", "tsconfig.json", "bunfig.toml"]) {
    cpSync(join(ROOT, part), join(copy, part), { recursive: true });
  }
  symlinkSync(join(ROOT, "node_modules"), join(copy, "node_modules"));
  expectClean(copy);
  const chosen = MUTATIONS.filter(({ file, breaks }) => `${file}: ${breaks}`.includes(values.only ?? ""));
  for (const [i, mutation] of chosen.entries()) {
    const undo = apply(copy, mutation);
    const began = performance.now();
    const { caught, by } = look(copy, mutation);
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    undo();
    if (!caught) missed++;
    console.log(
      `${caught ? "caught" : "MISSED"}  ${i + 1}/${chosen.length}  ${mutation.file}: ${mutation.breaks}`,
    );
    console.log(`        ${seconds} s, by ${by.slice(0, 160)}`);
  }
  console.log(`${chosen.length - missed} of ${chosen.length} mutations are caught`);
} finally {
  rmSync(copy, { recursive: true, force: true });
}
process.exit(missed === 0 ? 0 : 1);
