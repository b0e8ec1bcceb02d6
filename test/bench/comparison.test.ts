import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { servers, type Server } from "../../bench/servers.ts";
import { turns } from "../../bench/compare.ts";
import { BASELINE, bench, COMPARE, REPORT, resultOf } from "../support/comparison.ts";
import { until } from "../support/peers.ts";
import { join } from "node:path";
import { cases, metrics } from "../../bench/comparison/cases.ts";
import { page, summaryChart } from "../../bench/comparison/page.ts";
import {
  agreement,
  cellsOf,
  parseResult,
  resultText,
  shown,
  type Result,
} from "../../bench/comparison/result.ts";
import { table } from "../../bench/comparison/table.ts";

setDefaultTimeout(120_000);

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "ringback-comparison-"));
});
afterAll(() => rmSync(directory, { recursive: true }));

const verdict = (result: Result, metric: string) =>
  cellsOf(result).find((cell) => cell.server === "ringback" && cell.metric.name === metric)!.verdict;

/** The text of every cell of every table row of a page, and whether its tags are balanced. */
async function parsed(html: string): Promise<{ rows: string[][]; text: string }> {
  const rows: string[][] = [];
  let text = "";
  const rewriter = new HTMLRewriter()
    .on("tbody tr", { element: () => void rows.push([]) })
    .on("tbody td", {
      element: () => void rows.at(-1)!.push(""),
      text: (chunk) => void rows.at(-1)!.push((rows.at(-1)!.pop() ?? "") + chunk.text),
    })
    .on("body *", { text: (chunk) => void (text += chunk.text) })
    .on("script", {
      element: () => {
        throw new Error("the page must not need a script");
      },
    });
  await rewriter.transform(new Response(html)).text();
  const plain = (source: string): string =>
    source.replace(/&#(\d+);/g, (_, code: string) => String.fromCodePoint(Number(code)));
  return { rows: rows.map((row) => row.map(plain)), text: plain(text) };
}

/** An SVG is XML: every tag is closed, in order, and nothing in the text is taken for one. */
function expectWellFormed(xml: string): void {
  const open: string[] = [];
  for (const [, closing, name, alone] of xml.matchAll(/<(\/?)([a-z]+)(?:"[^"]*"|[^">])*?(\/?)>/gi)) {
    if (closing === "/") expect(open.pop()).toBe(name);
    else if (alone !== "/") open.push(name!);
  }
  expect(open).toEqual([]);
  expect(xml).not.toMatch(/NaN|Infinity|undefined/);
}

describe("a verdict", () => {
  test("is given where the interval does not span 1, and for the better direction", () => {
    const even = [10, 10, 10, 10, 10, 10, 10];
    expect(verdict(resultOf([8, 8.1, 7.9, 8, 9.9, 8, 8], even), "cpu")).toBe("better");
    expect(verdict(resultOf([12, 11, 13, 10.1, 12, 12, 12], even), "cpu")).toBe("worse");
    expect(verdict(resultOf([8, 8, 8, 13, 13, 8, 8], even), "cpu")).toBeNull();
    expect(verdict(resultOf(Array(7).fill(8), even), "rate")).toBe("better");
    expect(verdict(resultOf(Array(7).fill(12), even), "rate")).toBe("worse");
    expect(verdict(resultOf([1, 1, 1, 1, 1], [10, 10, 10, 10, 10]), "cpu")).toBeNull();
  });

  test("a latency of the closed loop has no verdict: it repeats the rate", () => {
    const result = resultOf(Array(7).fill(5), Array(7).fill(10));
    expect([verdict(result, "rate"), verdict(result, "p50"), verdict(result, "p99")]).toEqual([
      "better",
      null,
      null,
    ]);
  });

  test("a latency of the open loop is one, but not where it is mostly the generator's lateness", () => {
    const result = resultOf(Array(7).fill(5), Array(7).fill(10), false, ["p99", "p999"]);
    expect([verdict(result, "p50"), verdict(result, "p99"), verdict(result, "cpu")]).toEqual([
      "better",
      null,
      "better",
    ]);
    expect(page(result)).toContain("(p50, p90; beyond, it is mostly the generator&#39;s own lateness)");
  });

  test("ratios are taken round by round, so that what slows both down cancels out", () => {
    const result = resultOf([5, 50, 8, 20, 11, 9, 3], [10, 100, 16, 40, 22, 18, 6]);
    const cell = cellsOf(result).find(({ server }) => server === "ringback")!;
    expect(cell.ratio).toEqual({ estimate: 0.5, low: 0.5, high: 0.5 });
  });

  test("no rate is a verdict where the generator was the limit; CPU time still is", () => {
    const result = resultOf(Array(7).fill(5), Array(7).fill(10), true);
    expect([verdict(result, "rate"), verdict(result, "cpu")]).toEqual([null, "better"]);
    expect(table(result)).toContain("*");
    expect(page(result)).toContain("or more");
  });

  test("figures are shown with the digits that say something", () => {
    const texts = [
      shown(1.234, "µs"),
      shown(12.34, "µs"),
      shown(123_456, "/s"),
      shown(1536, "B"),
      shown(5e7, "B"),
    ];
    expect(texts).toEqual(["1.23 µs", "12.3 µs", "123,456/s", "1.5 kB", "50.0 MB"]);
  });
});

describe("the whole comparison at its smallest", () => {
  let result: Result;
  let html: string;
  let said: Awaited<ReturnType<typeof bench>>;
  const name = (file: string): string => join(directory, file);

  beforeAll(async () => {
    const files = ["--json", name("r.jsonl"), "--html", name("r.html")];
    said = await bench(COMPARE, "--rounds", "1", "--seconds", "0.25", "--server", "ringback", ...files);
    result = parseResult(await Bun.file(name("r.jsonl")).text(), "r.jsonl");
    html = await Bun.file(name("r.html")).text();
  });

  test("measures every case of every server, without an error", () => {
    expect(said.stderr.replace(/^round .*\n/gm, "")).toBe("");
    expect(said.code).toBe(0);
    const others = cases.filter(({ kind }) => kind !== "start");
    const expected = others.flatMap((one) =>
      ["ringback", BASELINE].map((server) => `${one.name}, ${server}`),
    );
    expect(result.measurements.map((one) => `${one.case}, ${one.server}`).sort()).toEqual(expected.sort());
    for (const cell of cellsOf(result)) expect(cell.median).toBeGreaterThan(0);
    for (const metric of metrics) expect(cellsOf(result).some((cell) => cell.metric === metric)).toBe(true);
  });

  test("says in the file where, when and how", () => {
    expect(Date.parse(result.date)).toBeWithin(Date.now() - 600_000, Date.now());
    expect(result.versions.bun).toBe(Bun.version);
    expect(result.machine).toMatchObject({
      cores: navigator.hardwareConcurrency,
      kernel: expect.any(String),
    });
    expect(result.command).toBe("bun run bench --rounds 1 --seconds 0.25 --server ringback");
    expect(result.settings).toEqual({ rounds: 1, seconds: 0.25, warmup: 0.25 });
    for (const { command } of result.servers) expect(command.join(" ")).not.toContain(process.cwd());
  });

  test("prints a block for each case with each server", () => {
    for (const one of cases) expect(said.stdout).toContain(`${one.name}: ${one.about}`);
    expect(said.stdout.match(/^ {2}ringback /gm)!.length).toBe(cases.length);
    expect(said.stdout.match(/^ {2}node:net pipe, Bun /gm)!.length).toBe(cases.length);
    expect(said.stdout).toContain("there are no verdicts here");
  });

  test("gives a page that parses, shows every server and case, and has the numbers of the JSON", async () => {
    const { rows, text } = await parsed(html);
    for (const one of result.cases) expect(text).toContain(one.about);
    for (const { about, command } of result.servers) {
      expect(text).toContain(about);
      expect(text).toContain(command.join(" "));
    }
    expect(text).toContain(result.command);
    const cells = cellsOf(result);
    expect(rows.map((row) => row.slice(0, 3))).toEqual(
      cells.map((cell) => [cell.server, cell.metric.title, shown(cell.median, cell.metric.unit)]),
    );
    const drawings = html.match(/<svg.*<\/svg>/g)!;
    expect(drawings.length).toBe(5);
    for (const drawing of drawings) expectWellFormed(drawing);
  });

  test("gives a file from which the report draws the README's chart, and prints the same table", async () => {
    const report = await bench(REPORT, name("r.jsonl"));
    expect(report.code).toBe(0);
    expect(report.stdout).toBe(`${said.stdout}\n${name("r.svg")} is drawn\n`);
    const drawn = await Bun.file(name("r.svg")).text();
    expect(drawn).toBe(summaryChart(result));
    expectWellFormed(drawn);
    expect(drawn).toContain("prefers-color-scheme: dark");
    expect(drawn).toContain(">ringback<");
  });
});

/** The two runs of the README: the second one's name ends in -again. */
test("the committed results can be read, the chart is drawn from them, and the two runs contradict each other nowhere", async () => {
  const results = join(import.meta.dir, "../../bench/results");
  const read = async (file: string) => parseResult(await Bun.file(join(results, file)).text(), file);
  const files = readdirSync(results).filter((file) => file.endsWith(".svg"));
  expect(files.length).toBeGreaterThan(0);
  for (const file of files) {
    const name = file.replace(/\.svg$/, "");
    const [result, again] = [await read(`${name}.jsonl`), await read(`${name}-again.jsonl`)];
    expect((await Bun.file(join(results, file)).text()) === summaryChart(result, again)).toBe(true);
    expect(agreement(result, again).contrary).toBe(0);
  }
});

test("a verdict of two runs is one that both have come to", () => {
  const even = Array<number>(7).fill(10);
  const one = resultOf(Array(7).fill(5), even);
  for (const [cpu, verdict, counts] of [
    [6, "better", { both: 2, once: 0, none: 1, contrary: 0 }],
    [10, null, { both: 0, once: 2, none: 1, contrary: 0 }],
    [20, null, { both: 0, once: 0, none: 1, contrary: 2 }],
  ] as const) {
    const again = resultOf(Array(7).fill(cpu), even);
    const cell = cellsOf(one, again).find(({ server }) => server === "ringback")!;
    expect(cell.verdict).toBe(verdict);
    expect(agreement(one, again)).toEqual(counts);
    expect(table(one, again)).toContain(`Of 3 ratios that can be verdicts, ${counts.both} are one in both, `);
  }
});

test("the report with --to prints the ratios to another server, and draws nothing", async () => {
  const file = join(directory, "to.jsonl");
  await Bun.write(file, resultText(resultOf(Array(7).fill(5), Array(7).fill(10))));
  const { stdout, code } = await bench(REPORT, file, "--to", "ringback");
  expect(code).toBe(0);
  expect(stdout).toContain("of ringback");
  expect(stdout).toMatch(/^ {2}node:net pipe, Bun .* 2\.00 \[2\.00, 2\.00\]/m);
  expect(await Bun.file(join(directory, "to.svg")).exists()).toBe(false);
  const same = await bench(REPORT, file, file);
  expect({ code: same.code, stderr: same.stderr }).toEqual({
    code: 2,
    stderr: `bench:report: ${file}: the same run, not a second one\n`,
  });
  const refused = await bench(REPORT, file, "--to", "none");
  expect(refused.code).toBe(2);
  expect(refused.stderr).toContain(`there is no server "none" in the file; there are: ringback; `);
});

test("names are text in the page and the charts, whatever they are", () => {
  const result = resultOf([1, 2, 3], [1, 2, 3]);
  result.servers.push({ name: `<b>"&'`, about: "</svg>", command: ["<script>"] });
  result.measurements.push({ ...result.measurements[0]!, server: `<b>"&'` });
  expect(page(result)).not.toMatch(/<b>"|<script/);
  expectWellFormed(summaryChart(result));
});

describe("the order", () => {
  const named = (name: string) => cases.find((one) => one.name === name)!;
  const [a, b] = servers as [Server, Server];
  const order = (rounds: number, ...names: string[]) =>
    turns({ rounds, cases: names.map(named) }, [a, b]).map(
      ({ round, one, server }) => `${round} ${one.name} ${server === a ? "A" : "B"}`,
    );

  test("A B, then B A, at each case in turn", () => {
    expect(order(2, "1 x 64 B", "visits")).toEqual([
      ...["1 1 x 64 B A", "1 1 x 64 B B", "1 visits A", "1 visits B"],
      ...["2 1 x 64 B B", "2 1 x 64 B A", "2 visits B", "2 visits A"],
    ]);
  });

  test("a start alone only when nothing else is asked for: it is measured with each of the others", () => {
    expect(order(1, "visits", "start")).toEqual(["1 visits A", "1 visits B"]);
    expect(order(1, "start")).toEqual(["1 start A", "1 start B"]);
  });
});

test("each measurement has a process of its own", async () => {
  const json = join(directory, "rounds.jsonl");
  const flags = ["--case", "1 x 64 B", "--case", "visits", "--rounds", "2", "--seconds", "0.05"];
  const { code } = await bench(COMPARE, ...flags, "--server", "ringback", "--json", json);
  expect(code).toBe(0);
  const { measurements } = parseResult(await Bun.file(json).text(), json);
  expect(measurements.length).toBe(8);
  expect(new Set(measurements.map(({ load }) => load!.settings.pid)).size).toBe(8);
});

test.skipIf(process.platform !== "linux")(
  "Ctrl-C prints the rounds so far, and leaves no process running",
  async () => {
    const echo = join(directory, "left.ts");
    await Bun.write(
      echo,
      `Bun.listen({ hostname: "127.0.0.1", port: Number(process.argv[2]), socket: {
      data: (socket, chunk) => void socket.write(chunk),
    } });`,
    );
    const flags = ["--case", "1 x 64 B", "--case", "visits", "--rounds", "9", "--server", "ringback"];
    const command = [process.execPath, "run", COMPARE, ...flags];
    command.push("--server", `left='${process.execPath}' '${echo}' {port}`);
    const child = Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "ignore" });
    const running = (): string[] =>
      readdirSync("/proc").filter((pid) => {
        try {
          return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(`${echo}\0`);
        } catch {
          // It has ended since it was listed, or it is no process.
          return false;
        }
      });
    let [first] = running();
    await until(() => ([first] = running()) && first !== undefined, "the given server runs", 20_000);
    await until(() => running().some((pid) => pid !== first), "it runs again, for the next case", 20_000);
    child.kill("SIGINT");
    const [stdout] = await Promise.all([child.stdout.text(), child.exited]);
    expect(child.exitCode).toBe(1);
    expect(stdout).toContain("not measured: what was left when it was interrupted");
    // Of nine.
    expect(stdout).toMatch(/^Medians of [1-4] rounds? of /m);
    expect(stdout).toMatch(/^ {2}left +█/m);
    expect(running()).toEqual([]);
  },
);

test("a server that alters a byte is reported, has no row in the table, and makes the exit code 1", async () => {
  const file = join(directory, "wrong.ts");
  await Bun.write(
    file,
    `let count = 0;
    Bun.listen({ hostname: "127.0.0.1", port: Number(process.argv[2]), socket: { data(socket, chunk) {
      if (++count === 5) chunk[0] ^= 1;
      socket.write(chunk);
    } } });`,
  );
  const json = join(directory, "wrong.jsonl");
  const given = `wrong='${process.execPath}' '${file}' {port}`;
  const { stdout, stderr, code } = await bench(
    COMPARE,
    ...["--case", "1 x 64 B", "--case", "50 x 64 B"],
    ...["--rounds", "1", "--seconds", "0.05", "--json", json],
    ...["--server", "ringback", "--server", given],
  );
  expect(code).toBe(1);
  expect(stderr).toContain("bench: wrong, 50 x 64 B, round 1: ");
  expect(stderr.match(/wrong byte at offset/g)!.length).toBe(2);
  expect(stdout).toMatch(/^ {2}wrong +no measurement$/m);
  const { measurements } = parseResult(await Bun.file(json).text(), json);
  const failed = measurements.filter((one) => one.error !== undefined);
  expect(failed.map((one) => `${one.case}, ${one.server}`)).toEqual(["1 x 64 B, wrong", "50 x 64 B, wrong"]);
});
