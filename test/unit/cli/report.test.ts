import { describe, expect, test } from "bun:test";
import type { Figures } from "../../../src/echo/echo-server.ts";
import {
  bytesText,
  statsHeader,
  statsMeanings,
  statsRow,
  stopping,
  totals,
} from "../../../src/cli/report.ts";
import { fold } from "../../../src/cli/text.ts";

const NONE: Figures = {
  ...{ connections: 0, open: 0, refused: 0, broken: 0 },
  ...{ bytesIn: 0, bytesOut: 0, bytesCopied: 0, bytesDropped: 0, held: 0 },
};
/** A month at 10 Gbit/s. */
const LARGE: Figures = {
  ...{ connections: 12_345_678_901, open: 65_535, refused: 12_345_678, broken: 1_234_567 },
  ...{
    bytesIn: 3.2e15,
    bytesOut: 3.2e15,
    bytesCopied: 3.2e15,
    bytesDropped: 999_949_999,
    held: 65_535 * 589_824,
  },
};

describe("a row of statistics", () => {
  const row = statsRow({
    now: LARGE,
    before: { ...LARGE, bytesIn: 3.2e15 - 2.5e9, bytesOut: 3.2e15 - 2e9 },
    seconds: 2,
  });

  test("a row of statistics aligns with its header within 100 columns, even for large numbers", () => {
    expect(row.length).toBe(statsHeader().length);
    expect(row.length).toBeLessThanOrEqual(100);
    expect(row.trim().split(/ +(?=\d)/)).toEqual([
      ...["65535", "12345678901", "12345678", "1234567", "3.2 PB", "1.3 GB", "3.2 PB", "1.0 GB"],
      ...["38.7 GB", "3.2 PB", "999.9 MB"],
    ]);
  });

  test("every column of the statistics has a description", () => {
    expect(statsHeader().trim().split(/ +/)).toEqual(statsMeanings().map(([name]) => name));
  });
});

test("a number of bytes takes at most 8 columns", () => {
  for (const [bytes, text] of [
    ...([
      [0, "0 B"],
      [0.4, "0 B"],
      [999, "999 B"],
      [999.96, "1.0 kB"],
      [1000, "1.0 kB"],
    ] as const),
    ...([
      [999_949, "999.9 kB"],
      [999_951, "1.0 MB"],
      [1e9, "1.0 GB"],
      [1e12, "1.0 TB"],
    ] as const),
  ]) {
    expect(bytesText(bytes)).toBe(text);
  }
});

test("the totals are exact, name only what happened, and wrap where they are long", () => {
  expect(totals({ ...NONE, connections: 1, bytesIn: 5, bytesOut: 5 })).toBe(
    "1 connection, 5 bytes in, 5 bytes out, 0 bytes copied",
  );
  expect(totals({ ...NONE, connections: 2, refused: 1, broken: 1, bytesDropped: 3 })).toBe(
    "2 connections (1 refused, 1 broken), 0 bytes in, 0 bytes out, 0 bytes copied, 3 bytes dropped",
  );
  const lines = fold(totals(LARGE)).split("\n");
  expect(lines.every((line) => line.length <= 100)).toBe(true);
  expect(lines.map((line) => line.trim()).join(" ")).toBe(totals(LARGE));
});

test("a stop reports how many connections it waits for, how long, and how to end it now", () => {
  expect(stopping("SIGINT", 1, 10)).toBe(
    "SIGINT: finishing 1 connection, at most 10 s; press Ctrl-C again to end now",
  );
  expect(stopping("SIGTERM", 20, 0.5)).toBe(
    "SIGTERM: finishing 20 connections, at most 0.5 s; a second SIGTERM ends it now",
  );
  expect(stopping("SIGHUP", 65_535, 86_400.25).length).toBeLessThanOrEqual(100);
});

test("a word longer than a line is cut", () => {
  const lines = fold(`ringback: ${"x".repeat(250)}: unknown host`).split("\n");
  expect(lines.every((line) => line.length <= 100)).toBe(true);
  expect(
    lines
      .map((line) => line.trim())
      .join("")
      .replace("ringback:", ""),
  ).toBe(`${"x".repeat(250)}: unknown host`);
});
