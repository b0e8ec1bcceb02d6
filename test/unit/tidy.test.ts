/** The rules of the house, checked from the files' own import lines. */
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

  test("bun:ffi is imported only by engine, os and the library's system calls", () => {
    const users = files.filter((file) => file.startsWith("src/") && imports(file).includes("bun:ffi"));
    const rooms = new Set(users.map(roomOf));
    expect([...rooms].filter((room) => !["engine", "os", "socket"].includes(room))).toEqual([]);
  });
});

test("the load generator and the comparison reach servers by process and port, never by import", () => {
  const wrong = files
    .filter((file) => /^bench\/(load|comparison|compare|report)/.test(file))
    .flatMap((file) => imports(file).filter((name) => name.includes("../src/")));
  expect(wrong).toEqual([]);
});
