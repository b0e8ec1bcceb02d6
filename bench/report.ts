#!/usr/bin/env bun
/**
 * Draws the README's chart from a committed result: `bun run bench:report FILE`. It changes when there is something
 * else to draw.
 */
import { summaryChart } from "./comparison/page.ts";
import { parseResult } from "./comparison/result.ts";
import { table } from "./comparison/table.ts";

const HELP = `Draws a chart from a comparison's result, as an SVG file beside it, and prints its table.

Usage: bun run bench:report <file.json>

The file is what "bun run bench --json <file.json>" has written.
`;

const [file, ...more] = Bun.argv.slice(2);
if (file === "--help") {
  process.stdout.write(HELP);
} else if (file === undefined || more.length > 0 || !file.endsWith(".json")) {
  process.stderr.write(`bench:report: one file is needed, whose name ends in .json\n\n${HELP}`);
  process.exitCode = 2;
} else {
  try {
    const result = parseResult(await Bun.file(file).text(), file);
    const drawn = file.replace(/\.json$/, ".svg");
    await Bun.write(drawn, summaryChart(result));
    process.stdout.write(`${table(result)}\n${drawn} is drawn\n`);
  } catch (error) {
    process.stderr.write(`bench:report: ${(error as Error).message}\n`);
    process.exitCode = 1;
  }
}
