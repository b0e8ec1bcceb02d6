/**
 * Shows that the simulation can fail: puts each of the mutations into a copy of the source, and looks who
 * sees it. `bun run mutate`. It changes when its user's view does.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { listFlags } from "../../src/cli/flags-help.ts";
import { readFlags, text, UsageError } from "../../src/cli/flags.ts";
import { MUTATIONS, type Mutation } from "./mutations.ts";
import { mutated } from "./pattern.ts";

const ROOT = join(import.meta.dir, "../..");
/**
 * Of each world, as many as a machine plays in about 10 s: counted in steps, so that a busy one sees as much.
 */
const STEPS = 800_000;
/**
 * For a step that never ends. A machine may be busy: a run is only taken for one that hangs when it does so
 * twice.
 */
const PATIENCE_MS = 120_000;

const FLAGS = {
  only: { kind: text("words"), help: "the mutations whose file and description have these words" },
  help: { short: "h", help: "show this text" },
} as const;

const HELP = `Applies each mutation to a copy of the source and reports which check catches it.

Usage: bun run mutate [options]

${listFlags(FLAGS)}

Exit code 1: a mutation that nothing catches. 2: a wrong flag, or words that no mutation has.
`;

function flags() {
  try {
    return readFlags(FLAGS, process.argv.slice(2), { name: () => "bun run mutate" });
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(error.message);
    return process.exit(2);
  }
}

const values = flags();
if (values.help) {
  process.stdout.write(HELP);
  process.exit(0);
}

const NOBODY = "nobody";

interface Outcome {
  caught: boolean;
  by: string;
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

/**
 * The library does not know the service. Most of what both stand on is seen sooner by the library's world.
 */
function worldsFor(file: string): string[] {
  if (file.startsWith("engine/bun/")) return ["library-bun", "echo-bun"];
  return file.startsWith("echo/") ? ["echo", "echo-bun"] : ["library", "echo"];
}

function look(copy: string, { file, test }: Mutation): Outcome {
  const worlds = worldsFor(file);
  for (const world of worlds) {
    const simulate = [
      "test/simulation/simulate.ts",
      "--world",
      world,
      "--seed",
      "1",
      "--steps",
      String(STEPS),
    ];
    const first = run(copy, [...simulate, "--quiet"]);
    const { failed, hung, text } = first.hung ? run(copy, [...simulate, "--quiet"]) : first;
    const [, where] = /DEFECT in the world ([\w-]+, seed \d+, step \d+: .*)/.exec(text) ?? [];
    if (where !== undefined) return { caught: true, by: where };
    if (hung) return { caught: true, by: `the world ${world}: a step never ends, twice` };
    if (failed) return { caught: false, by: `the world ${world} broke: ${text.trim().split("\n").at(-1)}` };
  }
  if (test === undefined) return { caught: false, by: NOBODY };
  const tested = run(copy, ["test", test]);
  const caught = tested.failed && !tested.hung;
  return { caught, by: caught ? test : `nobody, ${test} neither` };
}

/** @throws Error when there is not exactly one place for it */
function apply(copy: string, mutation: Mutation): () => void {
  const path = join(copy, "src", mutation.file);
  const source = readFileSync(path, "utf8");
  writeFileSync(path, mutated(source, mutation));
  return () => writeFileSync(path, source);
}

/** Without a mutation all checks must pass, or their failures prove nothing. */
function expectClean(copy: string): void {
  const nothing = { breaks: "nothing", file: "", at: "", text: "", becomes: "" };
  const onBun = { ...nothing, file: "engine/bun/" };
  const tests = new Set(chosen.flatMap(({ test }) => test ?? []));
  const found = [
    look(copy, nothing).by,
    look(copy, onBun).by,
    ...[...tests].map((test) => (run(copy, ["test", test]).failed ? test : NOBODY)),
  ];
  const by = found.find((one) => one !== NOBODY);
  if (by === undefined) return;
  console.error(`The source as it is has a defect: ${by}`);
  process.exit(1);
}

const copy = mkdtempSync(join(tmpdir(), "mutate-"));
let missed = 0;
const chosen = MUTATIONS.filter(({ file, breaks }) => `${file}: ${breaks}`.includes(values.only ?? ""));
if (chosen.length === 0) {
  console.error(`--only: no mutation has ${values.only}`);
  process.exit(2);
}
try {
  for (const part of ["src", "test", "bench", "package.json", "tsconfig.json", "bunfig.toml"]) {
    cpSync(join(ROOT, part), join(copy, part), { recursive: true });
  }
  symlinkSync(join(ROOT, "node_modules"), join(copy, "node_modules"));
  expectClean(copy);
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
