/**
 * Charts as SVG: bars with their spread, and percentiles on a log axis. It changes when their design does.
 */

export interface BarRow {
  readonly name: string;
  readonly value: number;
  readonly spread: readonly [low: number, high: number];
  /** The text after the bar. */
  readonly text: string;
}

export interface Panel<Row> {
  readonly title: string;
  readonly note: string;
  readonly rows: readonly Row[];
}

export interface LadderRow {
  readonly name: string;
  /** From the lowest to the highest, all above 0. */
  readonly points: readonly { readonly name: string; readonly value: number; readonly text: string }[];
}

export const WIDTH = 860;
const NAME = 190;
const VALUE = 190;
const ROW = 22;
const HEAD = 46;
const GAP = 14;
const AXIS = 26;

/** Light and dark, by the reader's system; a page with charts has this once. */
export const STYLE = `
:root, svg { --paper: #ffffff; --ink: #1f2328; --soft: #59636e; --rule: #d8dee4; --own: #c2410c; --other: #8b98a5; }
@media (prefers-color-scheme: dark) {
  :root, svg { --paper: #0d1117; --ink: #e6edf3; --soft: #9198a1; --rule: #30363d; --own: #f0883e; --other: #6e7b88; }
}
svg text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: var(--ink); }
svg .title { font-size: 15px; font-weight: 600; }
svg .note, svg .tick { fill: var(--soft); font-size: 12px; }
svg .own { fill: var(--own); } svg .other { fill: var(--other); }
svg .own-name { font-weight: 600; }
svg .whisker { stroke: var(--ink); stroke-opacity: 0.55; fill: none; }
svg .rule { stroke: var(--rule); }
svg .own-line { stroke: var(--own); stroke-width: 2; } svg .other-line { stroke: var(--other); stroke-width: 2; }
`;

export const escaped = (text: string): string =>
  text.replace(/[&<>"']/g, (character) => `&#${character.codePointAt(0)};`);

/** This project's own bars stand out. */
const own = (name: string): "own" | "other" => (name.startsWith("ringback") ? "own" : "other");

const at = (x: number): string => x.toFixed(1);

function label(name: string, y: number): string {
  const weight = own(name) === "own" ? ` class="own-name"` : "";
  return `<text x="${NAME - 10}" y="${y + 15}" text-anchor="end"${weight}>${escaped(name)}</text>`;
}

const heading = ({ title, note }: Panel<unknown>, y: number): string =>
  `<text class="title" x="0" y="${y + 16}">${escaped(title)}</text><text class="note" x="0" y="${y + 34}">${escaped(note)}</text>`;

/** Bars from 0 on, each panel on a scale of its own. */
export function bars(panels: readonly Panel<BarRow>[]): { body: string; height: number } {
  const room = WIDTH - NAME - VALUE;
  let y = 0;
  let body = "";
  for (const panel of panels) {
    body += heading(panel, y);
    y += HEAD;
    const max = Math.max(
      ...panel.rows.map(({ value, spread }) => Math.max(value, spread[1])),
      Number.MIN_VALUE,
    );
    const scale = (value: number): number => NAME + (Math.max(0, value) / max) * room;
    for (const { name, value, spread, text } of panel.rows) {
      const [low, high] = [scale(spread[0]), scale(spread[1])];
      const middle = y + 10;
      body += `${label(name, y)}<rect class="${own(name)}" x="${NAME}" y="${y + 3}" width="${at(scale(value) - NAME)}" height="15" rx="2"/>`;
      body += `<path class="whisker" d="M${at(low)} ${middle}H${at(high)}M${at(low)} ${middle - 3}v6M${at(high)} ${middle - 3}v6"/>`;
      body += `<text x="${at(Math.max(scale(value), high) + 8)}" y="${y + 15}">${escaped(text)}</text>`;
      y += ROW;
    }
    y += GAP;
  }
  return { body, height: y };
}

/** 1, 2 and 5 of each decade. */
function ticks(low: number, high: number): number[] {
  const found: number[] = [];
  for (let decade = 10 ** Math.floor(Math.log10(low)); decade <= high; decade *= 10) {
    for (const step of [1, 2, 5]) {
      const tick = decade * step;
      if (tick >= low && tick <= high) found.push(tick);
    }
  }
  return found;
}

/** Percentiles of each row as points of a line, on a log axis that all panels share. */
export function ladders(
  panels: readonly Panel<LadderRow>[],
  tickText: (value: number) => string,
): { body: string; height: number } {
  const values = panels.flatMap(({ rows }) => rows.flatMap(({ points }) => points.map(({ value }) => value)));
  if (values.length === 0) return { body: "", height: 0 };
  const [low, high] = [Math.min(...values) * 0.8, Math.max(...values) * 1.25];
  const room = WIDTH - NAME - 30;
  const scale = (value: number): number => NAME + (Math.log(value / low) / Math.log(high / low)) * room;
  let y = 0;
  let body = "";
  for (const panel of panels) {
    body += heading(panel, y);
    y += HEAD;
    const bottom = y + panel.rows.length * ROW;
    for (const tick of ticks(low, high)) {
      const x = at(scale(tick));
      body += `<path class="rule" d="M${x} ${y}V${bottom}"/><text class="tick" x="${x}" y="${bottom + 15}" text-anchor="middle">${escaped(tickText(tick))}</text>`;
    }
    for (const { name, points } of panel.rows) {
      const middle = y + 10.5;
      const [first, last] = [points[0]!, points.at(-1)!];
      body += `${label(name, y)}<path class="${own(name)}-line" d="M${at(scale(first.value))} ${middle}H${at(scale(last.value))}"/>`;
      for (const [i, point] of points.entries()) {
        const radius = i === 0 ? 5.5 : 4;
        body += `<circle class="${own(name)}" cx="${at(scale(point.value))}" cy="${middle}" r="${radius}"><title>${escaped(`${name}, ${point.name}: ${point.text}`)}</title></circle>`;
      }
      y += ROW;
    }
    y += AXIS + GAP;
  }
  return { body, height: y };
}

export const footnotes = (lines: readonly string[]): { body: string; height: number } => ({
  body: lines
    .map((line, i) => `<text class="note" x="0" y="${i * 18 + 12}">${escaped(line)}</text>`)
    .join(""),
  height: lines.length * 18,
});

/** One picture. @param standalone whether it is a file of its own, with its style and its background */
export function svg(
  { body, height }: { body: string; height: number },
  title: string,
  standalone: boolean,
): string {
  const edge = standalone ? 20 : 0;
  const [width, whole] = [WIDTH + 2 * edge, height + 2 * edge];
  const paper = standalone
    ? `<style>${STYLE}</style><rect width="${width}" height="${whole}" rx="6" style="fill: var(--paper)"/>`
    : "";
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${whole}" width="${width}" height="${whole}" role="img" aria-label="${escaped(title)}">${paper}<g transform="translate(${edge} ${edge})">${body}</g></svg>\n`;
}
