#!/usr/bin/env bun
/**
 * Draws the README's chart from a committed result: `bun run bench:report FILE`. It changes when there is
 * something else to draw.
 */
import { readFlags, text, UsageError } from "../src/cli/flags.ts";
import { listFlags } from "../src/cli/flags-help.ts";
import { summaryChart } from "./comparison/page.ts";
import { parseResult, type Result } from "./comparison/result.ts";
import { table } from "./comparison/table.ts";

const FLAGS = {
  to: { kind: text("server"), help: "print the ratios to this server of the file, and draw nothing" },
  help: { short: "h", help: "show this text" },
} as const;

const HELP = `Draws a chart from a comparison's result, as an SVG file beside it, and prints its table.

Usage: bun run bench:report <file.jsonl> [<again.jsonl>] [options]

${listFlags(FLAGS)}

A file is what "bun run bench --json <file.jsonl>" has written. With a second file, of another run, a verdict needs both.

Try it:
  bun run bench:report result.jsonl --to Bun.listen
`;

/** @throws UsageError where two files are no two runs of one comparison */
function checkComparable(one: Result, again: Result, file: string): void {
  const what = (result: Result) => ({
    settings: result.settings,
    cases: result.cases.map(({ name }) => name),
    servers: result.servers.map(({ name }) => name),
    machine: [result.machine.cpu, result.machine.cores],
  });
  const [mine, its] = [Object.entries(what(one)), what(again)];
  const differs = mine.find(([name, value]) => !Bun.deepEquals(value, its[name as keyof typeof its]));
  if (differs !== undefined)
    throw new UsageError(`${file}: its ${differs[0]} differ: not a second run of the same comparison`);
  if (one.date === again.date) throw new UsageError(`${file}: the same run, not a second one`);
}

async function main(args: string[]): Promise<void> {
  const operands: string[] = [];
  const { help, to } = readFlags(FLAGS, args, { name: () => "bun run bench:report", operands });
  if (help) return void process.stdout.write(HELP);
  const [file, second] = operands;
  if (file === undefined || !file.endsWith(".jsonl"))
    throw new UsageError('a file is needed, whose name ends in .jsonl; try "bun run bench:report --help"');
  if (operands.length > 2) throw new UsageError("at most two files: two runs of one comparison");
  const result = parseResult(await Bun.file(file).text(), file);
  const again = second === undefined ? undefined : parseResult(await Bun.file(second).text(), second);
  if (again !== undefined) checkComparable(result, again, second!);
  if (to !== undefined) {
    const names = result.servers.map(({ name }) => name);
    if (!names.includes(to))
      throw new UsageError(
        `--to: there is no server ${JSON.stringify(to)} in the file; there are: ${names.join("; ")}`,
      );
    return void process.stdout.write(table({ ...result, baseline: to }, again));
  }
  const drawn = file.replace(/\.jsonl$/, ".svg");
  await Bun.write(drawn, summaryChart(result, again));
  process.stdout.write(`${table(result, again)}\n${drawn} is drawn\n`);
}

try {
  await main(Bun.argv.slice(2));
} catch (error) {
  process.stderr.write(`bench:report: ${(error as Error).message}\n`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
