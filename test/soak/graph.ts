/** A series as a graph of braille characters, for a terminal. It changes when its looks do. */

export interface Series {
  readonly title: string;
  /** Rising, in seconds. */
  readonly times: readonly number[];
  readonly values: readonly number[];
  readonly show: (value: number) => string;
  /** Where the warm-up ends. */
  readonly warm: number;
}

/** The dots of a braille character from the top down, left and right (Unicode, chapter 21). */
const DOTS = [
  [0x01, 0x08],
  [0x02, 0x10],
  [0x04, 0x20],
  [0x40, 0x80],
] as const;
const BLANK = 0x2800;

export const clock = (seconds: number): string =>
  `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

/**
 * Of each dot column the least and the greatest value, with the line from the column before; infinite where
 * nothing is.
 */
function columns({ times, values }: Series, count: number): [low: number, high: number][] {
  const [from, to] = [times[0]!, times.at(-1)!];
  const found = Array.from({ length: count }, (): [number, number] => [Infinity, -Infinity]);
  let last: [column: number, value: number] | undefined;
  for (const [i, value] of values.entries()) {
    const column =
      to > from ? Math.min(count - 1, Math.floor(((times[i]! - from) / (to - from)) * count)) : 0;
    const [before, was] = last ?? [column, value];
    const on = (x: number): number => was + ((value - was) * (x - before)) / (column - before);
    const reach = (x: number, y: number): void => {
      found[x] = [Math.min(found[x]![0], y), Math.max(found[x]![1], y)];
    };
    reach(column, value);
    // From the middle of one column to the middle of the next, so that a jump is a line.
    for (let x = before; x < column; x++) {
      reach(x, on(x + 0.5));
      reach(x + 1, on(x + 0.5));
    }
    last = [column, value];
  }
  return found;
}

/**
 * @param width of the curve, in characters
 * @param height in lines, without the title and the axis
 */
export function graph(series: Series, width: number, height: number): string {
  const { title, times, values, show } = series;
  if (values.length === 0) return `${title}\n  (no samples)\n`;
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const rows = 4 * height;
  const row = (value: number): number =>
    most > least ? Math.round(((most - value) / (most - least)) * (rows - 1)) : rows - 1;
  const cells = Array.from({ length: height }, () => new Array<number>(width).fill(BLANK));
  for (const [x, [low, high]] of columns(series, 2 * width).entries()) {
    if (low > high) continue;
    for (let y = row(high); y <= row(low); y++) cells[y >> 2]![x >> 1]! |= DOTS[y & 3]![x & 1]!;
  }
  const labels = [show(most), show(least)];
  const margin = Math.max(...labels.map(({ length }) => length));
  const lines = cells.map((line, y) => {
    const label = y === 0 ? labels[0]! : y === height - 1 ? labels[1]! : "";
    return `${label.padStart(margin)} ${label === "" ? "│" : "┤"}${String.fromCharCode(...line)}`;
  });
  return [title, ...lines, axis(series, times, margin, width), ""].join("\n");
}

function axis({ warm }: Series, times: readonly number[], margin: number, width: number): string {
  const [from, to] = [times[0]!, times.at(-1)!];
  const at = to > from ? Math.floor(((warm - from) / (to - from)) * width) : width;
  const line = Array.from({ length: width }, (_, x) => (x === at ? "┴" : "─")).join("");
  const marks = [
    clock(from).padEnd(Math.max(0, at)),
    at >= 0 && at < width ? `${clock(warm)} warm` : "",
  ].join("");
  const end = clock(to);
  const legend = `${marks.padEnd(width - end.length).slice(0, width - end.length)}${end}`;
  return `${" ".repeat(margin)} └${line}\n${" ".repeat(margin)}  ${legend}`;
}
