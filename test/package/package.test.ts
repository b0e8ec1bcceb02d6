/** The package as a stranger gets it: packed, installed in an empty folder, type-checked, run. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ROOT } from "../support/program.ts";

setDefaultTimeout(120_000);

/**
 * It needs the npm registry and half a minute of two cores: CI has both, and `bun run test:package` asks for
 * them.
 */
const skipped = !process.env["CI"];

const folder = mkdtempSync(join(tmpdir(), "ringback-package-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function run(cwd: string, ...command: string[]): { code: number; text: string } {
  const child = Bun.spawnSync(command, { cwd, stdout: "pipe", stderr: "pipe", stdin: "ignore" });
  return { code: child.exitCode, text: child.stdout.toString() + child.stderr.toString() };
}

/** What a user of the library writes. */
const PROGRAM = `import * as socket from "ringback";
import { EchoServer } from "ringback/echo";

export async function echo(conn: socket.Socket): Promise<void> {
  for (let data = await conn.recv(1024); data.length > 0; data = await conn.recv(1024)) await conn.sendall(data);
  conn.close();
}
const server = await EchoServer.listen({ host: "127.0.0.1", port: 0, reply: "raw", ring: 65536, idleTimeout: 0 });
const client = await socket.create_connection(["127.0.0.1", server.port]);
await client.sendall(new TextEncoder().encode("hello"));
const flags: number = socket.MSG_WAITALL;
console.log((await client.recv(5, flags)).toString());
client.close();
await server.stop(1);
`;

/** Strangers' compiler options, on top of what every project here has. */
const STRANGERS: Record<string, object> = {
  nodenext: { module: "nodenext", moduleResolution: "nodenext", target: "es2022" },
  bundler: { module: "esnext", moduleResolution: "bundler", target: "esnext" },
  "strict: false": { module: "esnext", moduleResolution: "bundler", target: "esnext", strict: false },
  "lib: es2022": { module: "esnext", moduleResolution: "bundler", target: "es2022", lib: ["es2022"] },
};

beforeAll(async () => {
  if (skipped) return;
  const packed = run(ROOT, process.execPath, "pm", "pack", "--destination", folder);
  expect(packed).toMatchObject({ code: 0, text: expect.stringContaining(".tgz") });
  const [tarball] = [...new Bun.Glob("*.tgz").scanSync(folder)];
  await Bun.write(join(folder, "package.json"), JSON.stringify({ name: "stranger", type: "module" }));
  const types = "@types/bun@1.4.5";
  const added = run(folder, process.execPath, "add", join(folder, tarball!), types, "typescript@5.9.3");
  expect(added).toMatchObject({ code: 0 });
  await Bun.write(join(folder, "main.ts"), PROGRAM);
});

describe.skipIf(skipped)("the types are clean in a stranger's project", () => {
  for (const [name, options] of Object.entries(STRANGERS)) {
    test.concurrent(name, async () => {
      const config = join(folder, `tsconfig.${Object.keys(STRANGERS).indexOf(name)}.json`);
      const compilerOptions = { strict: true, noEmit: true, types: ["bun"], ...options };
      await Bun.write(config, JSON.stringify({ compilerOptions, files: ["main.ts"] }));
      const child = Bun.spawn(["node_modules/.bin/tsc", "-p", config], { cwd: folder, stdout: "pipe" });
      const text = await child.stdout.text();
      expect({ code: await child.exited, text }).toEqual({ code: 0, text: "" });
    });
  }
});

test.skipIf(skipped)("the library runs from where it is installed", () => {
  expect(run(folder, process.execPath, "run", "main.ts")).toEqual({ code: 0, text: "hello\n" });
});

test.skipIf(skipped)("the program runs as `ringback`", () => {
  const { code, text } = run(folder, process.execPath, "x", "ringback", "--version");
  expect({ code, text }).toEqual({ code: 0, text: expect.stringMatching(/^ringback \d+\.\d+\.\d+\n$/) });
});

test.skipIf(skipped)(
  "the package contains the source, its declarations, the licence, the README and nothing else",
  () => {
    const files = [...new Bun.Glob("**/*").scanSync(join(folder, "node_modules/ringback"))];
    const others = files.filter((file) => !/^(src|types)\//.test(file)).sort();
    expect(others).toEqual(["LICENSE", "README.md", "package.json"]);
  },
);
