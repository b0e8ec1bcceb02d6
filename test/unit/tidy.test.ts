/** The plan of the house, checked from the files' own import lines and sizes. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";

const ROOT = join(import.meta.dir, "../..");
const files = [...new Bun.Glob("{src,bench,test}/**/*.ts").scanSync(ROOT)].sort();
const text = (file: string): string => readFileSync(join(ROOT, file), "utf8");

/** The rooms of src, each with the rooms it may import. */
const MAY_IMPORT: Record<string, string[]> = {
  "server.ts": ["cli"],
  cli: ["cli", "echo", "os"],
  echo: ["echo", "engine", "core", "os"],
  "socket.ts": ["socket", "engine", "os"],
  examples: ["socket.ts"],
  socket: ["socket", "engine", "core", "os"],
  engine: ["engine", "core", "os"],
  core: ["core", "os"],
  os: ["os"],
};

const imports = (file: string): string[] =>
  [...text(file).matchAll(/(?:from|import)\s*\(?\s*"([^"]+)"/g)].map(([, name]) => name!);

const roomOf = (path: string): string => path.split("/")[1]!;

describe("imports in src", () => {
  test("imports between the rooms of src run one way", () => {
    const wrong: string[] = [];
    for (const file of files.filter((one) => one.startsWith("src/"))) {
      const may = MAY_IMPORT[roomOf(file)];
      if (may === undefined) wrong.push(`${file} is in no room`);
      for (const name of imports(file).filter((one) => one.startsWith("."))) {
        const target = normalize(join(dirname(file), name));
        if (target === "package.json" || may?.includes(roomOf(target))) continue;
        wrong.push(`${file} imports ${target}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  test("core imports the errors of os and nothing else of it", () => {
    const wrong = files
      .filter((file) => file.startsWith("src/core/"))
      .flatMap((file) =>
        imports(file).filter((name) => name.startsWith("../os/") && !name.endsWith("/errors.ts")),
      );
    expect(wrong).toEqual([]);
  });

  test("only engine and os load bun and bun:ffi", () => {
    const users = files.filter(
      (file) => file.startsWith("src/") && imports(file).some((name) => /^bun(:ffi)?$/.test(name)),
    );
    expect(users.filter((file) => !["engine", "os"].includes(roomOf(file)))).toEqual([]);
  });

  test("only Bun's engine calls Bun.listen, Bun.connect and Bun.udpSocket", () => {
    const users = files.filter(
      (file) =>
        file.startsWith("src/") && /^(?!\s*(\*|\/\/)).*\bBun\.(listen|connect|udpSocket)\b/m.test(text(file)),
    );
    expect(users.filter((file) => !file.startsWith("src/engine/bun/"))).toEqual([]);
  });
});

test("the load generator and the comparison reach servers by process and port, never by import", () => {
  const wrong = files
    .filter((file) => /^bench\/(load|comparison|compare|report)/.test(file))
    .flatMap((file) => imports(file).filter((name) => /\.\.\/src\/(?!cli\/)/.test(name)));
  expect(wrong).toEqual([]);
});

describe("every file", () => {
  test("is short enough to be read as one: 400 lines", () => {
    const long = files.filter((file) => text(file).split("\n").length > 401);
    expect(long).toEqual([]);
  });

  test("has lines of at most 110 columns, but for a literal that cannot be broken", () => {
    const wide = files.flatMap((file) =>
      text(file)
        .split("\n")
        .map((line, i) => ({ at: `${file}:${i + 1}`, line }))
        .filter(({ line }) => line.length > 110)
        .filter(({ line }) => /^\s*(\/\/|\/?\*)/.test(line) || !/["'`]|^\s*\//.test(line))
        .map(({ at }) => at),
    );
    expect(wide.filter((at) => !inText(at))).toEqual([]);
  });

  test("begins with its reason to change", () => {
    const silent = files.filter((file) => file.startsWith("src/") && !/^(#!.*\n)?\/\*\*/.test(text(file)));
    expect(silent).toEqual([]);
  });

  test("has no function of more than 50 lines in src and bench", () => {
    const long = files.filter((file) => /^(src|bench)\//.test(file)).flatMap(longFunctions);
    expect(long).toEqual([]);
  });
});

/** Whether a line is inside of a template: a help text, a program of another language. */
function inText(at: string): boolean {
  const [file, number] = at.split(":") as [string, string];
  const before = text(file)
    .split("\n")
    .slice(0, Number(number) - 1)
    .join("\n");
  return (before.match(/(?<!\\)`/g)?.length ?? 0) % 2 === 1;
}

/**
 * Functions and methods by the formatter's layout: from a line that opens a block to the brace in its column.
 */
function longFunctions(file: string): string[] {
  const lines = text(file).split("\n");
  return lines.flatMap((line, i) => {
    const opens =
      /^(\s*)(?:export |async |static |private |protected |function |const |#|get |readonly |\w+\().*\{$/;
    const indent = opens.exec(line)?.[1];
    if (indent === undefined || !/\(.*\{$|=> \{$/.test(line)) return [];
    const end = lines.findIndex((other, j) => j > i && other.startsWith(`${indent}}`));
    return end - i > 50 ? [`${file}:${i + 1}`] : [];
  });
}
