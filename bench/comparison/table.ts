/**
 * The comparison on a terminal: a block for each case, with bars. It changes when its looks do.
 */
import { MIN_ROUNDS } from "../statistics.ts";
import { agreement, cellsOf, roundsOf, shown, type Cell, type Result } from "./result.ts";
import type { Case } from "./cases.ts";

const BAR = 16;
const EIGHTHS = " ▏▎▍▌▋▊▉";

function bar(share: number): string {
  const eighths = Math.round(Math.min(1, Math.max(0, share)) * BAR * 8);
  const part = eighths % 8 === 0 ? "" : EIGHTHS[eighths % 8]!;
  return ("█".repeat(Math.floor(eighths / 8)) + part).padEnd(BAR);
}

/** + and - where there is a verdict; an asterisk where the generator was the limit. */
function figure({ median, metric, verdict, limited }: Cell): string {
  const mark = verdict === "better" ? " +" : verdict === "worse" ? " -" : "";
  return shown(median, metric.unit) + (limited ? " *" : mark);
}

function ratioText({ ratio }: Cell): string {
  return ratio === null
    ? ""
    : `${ratio.estimate.toFixed(2)} [${ratio.low.toFixed(2)}, ${ratio.high.toFixed(2)}]`;
}

/**
 * Columns as wide as their widest cell; the first from the left, the bar as it is, the others from the right.
 */
function aligned(rows: string[][]): string[] {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => [...row[i]!].length)));
  const line = (row: string[]): string =>
    row.map((cell, i) => (i < 2 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join("  ");
  return rows.map((row) => `  ${line(row).trimEnd()}`);
}

function block(one: Case, cells: readonly Cell[], result: Result): string {
  const metrics = [...new Set(cells.map((cell) => cell.metric))];
  const [first] = metrics;
  if (first === undefined) return `${one.name}: nothing was measured\n`;
  const find = (server: string, metric = first): Cell | undefined =>
    cells.find((cell) => cell.server === server && cell.metric === metric);
  const max = Math.max(...cells.filter((cell) => cell.metric === first).map((cell) => cell.median));
  const head = ["server", "", first.title, "quartiles", `of ${result.baseline}`];
  const rows = [[...head, ...metrics.slice(1).map((metric) => metric.title)]];
  for (const { name } of result.servers) {
    const cell = find(name);
    if (cell === undefined) {
      const why = cells.some((one) => one.server === name) ? "nothing was answered" : "no measurement";
      rows.push([name, "", why, ...Array.from({ length: metrics.length + 1 }, () => "")]);
      continue;
    }
    const [low, high] = cell.spread;
    rows.push([
      name,
      bar(max > 0 ? cell.median / max : 0),
      figure(cell),
      `${shown(low, first.unit)} to ${shown(high, first.unit)}`,
      ratioText(cell),
      ...metrics.slice(1).map((metric) => {
        const other = find(name, metric);
        return other === undefined ? "" : figure(other);
      }),
    ]);
  }
  return `${one.name}: ${one.about}\n${aligned(rows).join("\n")}\n`;
}

function agreementText(result: Result, again: Result): string {
  const { both, once, none, contrary } = agreement(result, again);
  const of = `this one and that of ${again.date.slice(0, 16).replace("T", " ")}`;
  return `A mark is a verdict of two runs, ${of}. Of ${both + once + none + contrary} ratios that can be verdicts, ${both} are one in both, ${once} in one of them, ${none} in none; ${contrary} contradict each other.`;
}

/** @param again another run: marks are then the verdicts of both */
export function table(result: Result, again?: Result): string {
  const cells = cellsOf(result, again);
  const blocks = result.cases.map((one) =>
    block(
      one,
      cells.filter((cell) => cell.case === one.name),
      result,
    ),
  );
  const rounds = roundsOf(result);
  const notes = [
    `Medians of ${rounds} ${rounds === 1 ? "round" : "rounds"} of ${result.settings.seconds} s. Ratios are taken round by round; [low, high] has the true one`,
    `in at least 95 of 100 cases${rounds < MIN_ROUNDS ? `, and needs ${MIN_ROUNDS} rounds: there are no verdicts here` : ""}.`,
    `+ better, - worse than ${result.baseline}; no mark where the interval spans 1, nor at what is never a verdict`,
    "(latencies of a closed loop, which follow from its rate, and p99.9).",
    "* the load generator was the limit: the server can do better, by an unknown amount.",
    ...(again === undefined ? [] : [agreementText(result, again)]),
    ...result.notMeasured.map((text) => `not measured: ${text}`),
  ];
  return `\n${blocks.join("\n")}\n${notes.join("\n")}\n`;
}
