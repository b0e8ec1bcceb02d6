#!/usr/bin/env bun
/**
 * Draws the README's chart from a committed result: `bun run bench:report FILE`. It changes when there is something
 * else to draw.
 */
import { parseArgs } from "node:util";
import { summaryChart } from "./comparison/page.ts";
import { parseResult } from "./comparison/result.ts";
import { table } from "./comparison/table.ts";
import { flagsRefused, UsageError } from "./usage.ts";

const HELP = `Draws a chart from a comparison's result, as an SVG file beside it, and prints its table.

Usage: bun run bench:report <file.json> [--to <server>]

The file is what "bun run bench --json <file.json>" has written. With --to, only the table is printed, with its ratios
to another server of the file.

Try it:
  bun run bench:report result.json --to Bun.listen
`;

/** @throws UsageError */
function readFlags(args: string[]) {
  const options = { help: { type: "boolean" }, to: { type: "string" } } as const;
  try {
    return parseArgs({ args, options, strict: true, allowPositionals: true });
  } catch (error) {
    throw flagsRefused(error);
  }
}

async function main(args: string[]): Promise<void> {
  const { values, positionals } = readFlags(args);
  if (values.help) return void process.stdout.write(HELP);
  const [file] = positionals;
  if (file === undefined || positionals.length > 1 || !file.endsWith(".json"))
    throw new UsageError("one file is needed, whose name ends in .json; --help tells the usage");
  const result = parseResult(await Bun.file(file).text(), file);
  if (values.to !== undefined) {
    const names = result.servers.map(({ name }) => name);
    if (!names.includes(values.to))
      throw new UsageError(
        `--to: there is no server ${JSON.stringify(values.to)} in the file; there are: ${names.join("; ")}`,
      );
    return void process.stdout.write(table({ ...result, baseline: values.to }));
  }
  const drawn = file.replace(/\.json$/, ".svg");
  await Bun.write(drawn, summaryChart(result));
  process.stdout.write(`${table(result)}\n${drawn} is drawn\n`);
}

try {
  await main(Bun.argv.slice(2));
} catch (error) {
  process.stderr.write(`bench:report: ${(error as Error).message}\n`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
