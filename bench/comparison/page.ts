/**
 * What is drawn of a result: the page of --html with all charts, and the README's one chart. It changes when
 * the report says something else.
 */
import {
  bars,
  escaped,
  footnotes,
  ladders,
  STYLE,
  svg,
  WIDTH,
  type BarRow,
  type LadderRow,
  type Panel,
} from "./chart.ts";
import type { Case } from "./cases.ts";
import { MIN_ROUNDS, median } from "../statistics.ts";
import { cellsOf, roundsOf, shown, type Cell, type Result } from "./result.ts";

type Cells = readonly Cell[];

const ofMetric = (cells: Cells, one: Case, metric: string): Cell[] =>
  cells.filter((cell) => cell.case === one.name && cell.metric.name === metric);

function barText({ median, metric, ratio, verdict, limited }: Cell): string {
  const value = shown(median, metric.unit);
  if (limited) return `${value} or ${metric.better === "higher" ? "more" : "less"}`;
  return ratio === null ? value : `${value}   ${ratio.estimate.toFixed(2)}×${verdict === null ? " ?" : ""}`;
}

function panel(cells: Cells, one: Case, metric: string): Panel<BarRow>[] {
  const found = ofMetric(cells, one, metric);
  if (found.length === 0) return [];
  const { title, better } = found[0]!.metric;
  const rows = found.map((cell) => ({
    name: cell.server,
    value: cell.median,
    spread: cell.spread,
    text: barText(cell),
  }));
  return [
    {
      title: `${title}: ${one.name}`,
      note: `${one.about} ${better === "lower" ? "Less" : "More"} is better.`,
      rows,
    },
  ];
}

const panels = (
  result: Result,
  cells: Cells,
  metric: string,
  kinds: readonly Case["kind"][],
): Panel<BarRow>[] =>
  result.cases.filter(({ kind }) => kinds.includes(kind)).flatMap((one) => panel(cells, one, metric));

const PERCENTILES = { p50: "p50", p90: "p90", p99: "p99", p999: "p99.9" } as const;
type Percentile = keyof typeof PERCENTILES;

/**
 * Medians of the rounds, as everywhere: in the sum of all rounds, one in which the machine did something else
 * is the tail.
 */
function ladder(result: Result, one: Case): Panel<LadderRow>[] {
  const loads = result.measurements.filter((m) => m.case === one.name && m.load !== undefined);
  const isLate = (name: Percentile): boolean =>
    loads.filter(({ load }) => load!.schedule?.late.includes(name)).length * 2 > loads.length;
  const all = Object.keys(PERCENTILES) as Percentile[];
  const known = all.filter((name) => !isLate(name));
  const rows = result.servers.flatMap(({ name }): LadderRow[] => {
    const its = loads.filter(({ server, load }) => server === name && load!.latency.count !== 0);
    if (its.length === 0 || known.length === 0) return [];
    const points = known.map((percentile) => {
      const value = median(its.map(({ load }) => load!.latency[percentile]));
      return { name: PERCENTILES[percentile], value, text: shown(value, "µs") };
    });
    return [{ name, points }];
  });
  const names = known.map((name) => PERCENTILES[name]).join(", ");
  const rest = known.length < all.length ? "; beyond, it is mostly the generator's own lateness" : "";
  return rows.length === 0
    ? []
    : [{ title: `latency: ${one.name} (${names}${rest})`, note: one.about, rows }];
}

const tickText = (micros: number): string =>
  micros >= 1e6
    ? `${micros / 1e6} s`
    : micros >= 1000
      ? `${micros / 1000} ms`
      : `${Number(micros.toPrecision(1))} µs`;

function latencies(result: Result): string {
  const loaded = result.cases.filter(({ kind }) => kind === "open" || kind === "closed" || kind === "churn");
  return chart(
    "Latency by percentile",
    ladders(
      loaded.flatMap((one) => ladder(result, one)),
      tickText,
    ),
  );
}

const chart = (title: string, drawn: { body: string; height: number }): string =>
  drawn.height === 0
    ? ""
    : `<h2>${escaped(title)}</h2>\n<div class="chart">${svg(drawn, title, false)}</div>`;

const isCase = (result: Result, name: string): Case | undefined =>
  result.cases.find((one) => one.name === name);

/**
 * For the README: what the server costs, in the cases that a reader asks about first.
 * @param again another run: verdicts are then those of both
 */
export function summaryChart(result: Result, again?: Result): string {
  const cells = cellsOf(result, again);
  const some = ["50 x 64 B", "8 x 64 KiB x 4"].flatMap((name) => {
    const one = isCase(result, name);
    return one === undefined ? [] : panel(cells, one, "cpu");
  });
  const open = result.cases.filter(({ kind }) => kind === "open");
  const top = bars([...some, ...panels(result, cells, "each", ["idle"])]);
  const bottom = ladders(
    open.flatMap((one) => ladder(result, one)),
    tickText,
  );
  const { machine, versions, date, baseline } = result;
  const caption = footnotes([
    `Bars: medians of ${roundsOf(result)} rounds, with quartiles. 0.75×: of what ${baseline} needs; "?": the interval spans 1${again === undefined ? "" : ", here or in a second run"}.`,
    `${date.slice(0, 10)}, ${machine.cpu}, ${machine.cores} cores, Bun ${versions.bun}, Node ${versions.node ?? "not installed"}. Drawn by bun run bench:report.`,
  ]);
  const height = top.height + bottom.height;
  const body =
    top.body +
    `<g transform="translate(0 ${top.height})">${bottom.body}</g>` +
    `<g transform="translate(0 ${height})">${caption.body}</g>`;
  const title = `Ringback against node:net and a bare handler, ${result.date.slice(0, 10)}`;
  return svg({ body, height: height + caption.height }, title, true);
}

/** One line per case: ringback's share of the baseline's CPU, or that there is no verdict. */
function sentences(result: Result, cells: Cells): string {
  const lines = cells
    .filter(({ server, metric, ratio }) => server === "ringback" && metric.name === "cpu" && ratio !== null)
    .map(({ case: its, ratio, verdict }) => {
      const { estimate, low, high } = ratio!;
      const text = `${estimate.toFixed(2)} [${low.toFixed(2)}, ${high.toFixed(2)}] of ${result.baseline}'s CPU time per message`;
      return `<li><b>${escaped(its)}</b>: ${escaped(text)}${verdict === null ? " (the interval spans 1: no verdict)" : ""}</li>`;
    });
  return lines.length === 0
    ? ""
    : `<h2>ringback against ${escaped(result.baseline)}</h2><ul>${lines.join("")}</ul>`;
}

function row({ server, metric, median, spread, ratio, verdict, limited }: Cell): string {
  const range = spread.map((value) => shown(value, metric.unit)).join(" to ");
  const text =
    ratio === null ? "" : `${ratio.estimate.toFixed(3)} [${ratio.low.toFixed(3)}, ${ratio.high.toFixed(3)}]`;
  const says = limited ? "the generator was the limit" : (metric.noVerdict ?? verdict ?? "");
  const fields = [server, metric.title, shown(median, metric.unit), range, text, says];
  return `<tr>${fields.map((field) => `<td>${escaped(field)}</td>`).join("")}</tr>`;
}

function tables(result: Result, cells: Cells): string {
  const head = ["server", "figure", "median", "quartiles", `ratio to ${result.baseline}`, "verdict"];
  return result.cases
    .map((one) => {
      const rows = cells.filter((cell) => cell.case === one.name).map(row);
      const top = head.map((text) => `<th>${escaped(text)}</th>`).join("");
      return `<h3>${escaped(one.name)}</h3><p>${escaped(one.about)}</p><div class="chart"><table><thead><tr>${top}</tr></thead><tbody>${rows.join("\n")}</tbody></table></div>`;
    })
    .join("\n");
}

/** How it was measured, as paragraphs. */
function method(result: Result): string[] {
  const { settings, machine, servers, baseline } = result;
  const { seconds, warmup } = settings;
  const { pinned } = machine;
  return [
    `${servers.length} servers took turns in ${roundsOf(result)} rounds, in order and in reverse, each time as a fresh process with a fresh load generator: ${warmup} s of warm-up that is not counted, then ${seconds} s.`,
    pinned === null
      ? "Nothing was pinned to a core: the kernel decided what shared one."
      : `The server ran on core ${pinned.server} with all its threads, the load generator on core ${pinned.load}; everything else on the machine shared both.`,
    "CPU time is the kernel's account of the server's process, all its threads, over exactly the window, divided by the messages that were answered in it. Every byte that came back was checked: a wrong or missing one voids a measurement.",
    "In the open loop messages leave by a schedule, and latency counts from the moment a message was due, so that a server that stalls cannot hide it. In the closed loop an answer lets the next message go: its latency is friendlier, and its rate is often the generator's limit; then no rate is a verdict, and no latency of a closed loop ever is. Where the schedule was kept so badly by the generator that its own lateness is more than half of a latency, that one is none, either.",
    `A ratio is taken round by round, against ${baseline}. It is given as the median of the geometric means of all pairs of rounds, with the interval that belongs to it (Hodges and Lehmann, by the signed-rank distribution): it has the true ratio in at least 95 of 100 cases, if rounds are independent and err as easily in one direction as in the other. Where it spans 1, there is no verdict; with fewer than ${MIN_ROUNDS} rounds there is none at all. Among a hundred verdicts, a few may be chance.`,
    "Bars are medians with their quartiles, latencies medians of the rounds' own percentiles. A bar is followed by the figure and the ratio; a question mark means that there is no verdict.",
  ];
}

function facts({ date, commit, versions, machine }: Result): [string, string][] {
  return [
    ["date", date],
    ["commit", commit ?? "unknown"],
    ["Bun", versions.bun],
    ["Node", versions.node ?? "not installed"],
    ["ringback", versions.ringback],
    ["CPU", `${machine.cpu}, ${machine.cores} cores`],
    ["memory", shown(machine.memoryBytes, "B")],
    ["kernel", machine.kernel],
  ];
}

const PAGE_STYLE = `${STYLE}
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif;
  max-width: ${WIDTH}px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; } h3 { margin-bottom: 0; }
.chart { overflow-x: auto; } svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; font-size: 13px; white-space: nowrap; }
th, td { text-align: left; padding: 2px 14px 2px 0; border-bottom: 1px solid var(--rule); }
code, pre { font: 13px ui-monospace, monospace; } p.soft { color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; } dt { color: var(--soft); } dd { margin: 0; }
`;

const list = (items: readonly string[]): string =>
  `<ul>${items.map((item) => `<li>${item}</li>`).join("")}</ul>`;

/** One self-contained page, which needs no script. */
export function page(result: Result): string {
  const cells = cellsOf(result);
  const title = `Echo servers compared, ${result.date.slice(0, 10)}`;
  const drawn = (name: string, metric: string, ...kinds: Case["kind"][]): string =>
    chart(name, bars(panels(result, cells, metric, kinds)));
  const errors = result.measurements.filter((one) => one.error !== undefined);
  const missing = [
    ...result.notMeasured,
    ...errors.map((one) => `${one.server}, ${one.case}, round ${one.round}: ${one.error}`),
  ];
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escaped(title)}</title>
<style>${PAGE_STYLE}</style>
</head>
<body>
<h1>${escaped(title)}</h1>
<p class="soft">Ringback, <code>node:net</code>, a bare <code>Bun.listen</code> handler, on one machine.</p>
${sentences(result, cells)}
${drawn("CPU time per message", "cpu", "closed", "open", "churn")}
${drawn("Throughput", "rate", "closed", "churn")}
${latencies(result)}
${drawn("Memory", "memory", "idle", "stalled")}
${drawn("Start", "start", "start")}
<h2>Servers</h2>
${list(result.servers.map(({ name, about, command }) => `<b>${escaped(name)}</b>: ${escaped(about)}<br><code>${escaped(command.join(" "))}</code>`))}
<h2>Method</h2>
${method(result)
  .map((text) => `<p>${escaped(text)}</p>`)
  .join("\n")}
<h2>Where and when</h2>
<dl>${facts(result)
    .map(([name, text]) => `<dt>${escaped(name)}</dt><dd>${escaped(text)}</dd>`)
    .join("")}</dl>
<h2>Not measured</h2>
${missing.length === 0 ? "<p>Nothing was left out.</p>" : list(missing.map(escaped))}
<h2>Do it again</h2>
<pre>${escaped(result.command)}</pre>
<h2>Every figure</h2>
${tables(result, cells)}
</body>
</html>
`;
}
