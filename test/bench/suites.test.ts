/**
 * Every suite of the benchmarks runs, measures everybody whom it should, fails loudly and leaves no server
 * behind.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { installed, servers } from "../../bench/servers.ts";
import { peer, until } from "../support/peers.ts";

setDefaultTimeout(30_000);

const BENCH = join(import.meta.dir, "../../bench");
const directory = mkdtempSync(join(tmpdir(), "ringback-suites-"));
afterAll(() => rmSync(directory, { recursive: true }));

const here = servers.filter(installed).map(({ name }) => name);
/** Whom each suite measures, and in how many groups. */
const suites: Record<string, { groups: number; contenders: string[] }> = {
  "churn.bench.ts": { groups: 1, contenders: here },
  "pipelined.bench.ts": { groups: 2, contenders: here },
  "round-trip.bench.ts": { groups: 3, contenders: here },
  "recv-sendall.bench.ts": { groups: 4, contenders: ["recv/sendall", "bare Bun sockets"] },
  "reply.bench.ts": {
    groups: 3,
    contenders: ["ringback --reply tutorial", "Buffer.concat", "template string"],
  },
  "ring-buffer.bench.ts": {
    groups: 3,
    contenders: ["RingBuffer", "byte ring, copied in and out", "array of chunks", "Buffer.concat"],
  },
  "slicing.bench.ts": {
    groups: 3,
    contenders: ["RingBuffer.take", "Buffer.subarray, a view", "Uint8Array.slice, a copy", "Buffer.copy"],
  },
};

function spawn(file: string, ...args: string[]) {
  const env = { ...process.env, NO_COLOR: "1", FORCE_COLOR: undefined };
  const command = [process.execPath, "run", file, ...args];
  return Bun.spawn(command, { env, stdin: "ignore", stdout: "pipe", stderr: "pipe", timeout: 20_000 });
}

async function finished(child: ReturnType<typeof spawn>) {
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  return { code: await child.exited, stdout, stderr };
}

test("every suite is one of these", async () => {
  const found = await Array.fromAsync(new Bun.Glob("*.bench.ts").scan(BENCH));
  expect(found.sort()).toEqual(Object.keys(suites).sort());
});

for (const [file, { groups, contenders }] of Object.entries(suites)) {
  test(`${file}: measures ${contenders.join("; ")}`, async () => {
    const { code, stdout, stderr } = await finished(spawn(join(BENCH, file), "--smallest"));
    expect([code, stderr]).toEqual([0, ""]);
    // A line with an average for each contender of each group.
    const averages = [...stdout.matchAll(/^(.*?) +\d+ ns\/iter$/gm)].map(([, name]) => name);
    for (const name of contenders) {
      expect(averages.filter((measured) => measured === name)).toHaveLength(groups);
    }
  });
}

/** A suite that prints its servers' ports and then does as the lap says. */
function suite(lap: string): string {
  const file = join(directory, `${Bun.hash(lap)}.ts`);
  writeFileSync(
    file,
    `import { runWithServers } from ${JSON.stringify(join(BENCH, "suite.ts"))};
await runWithServers((compare) => {
  compare("a group", async (port) => {
    console.log("port", port);
    return { lap: ${lap}, close() {} };
  });
});`,
  );
  return file;
}

async function expectNobody(stdout: string): Promise<void> {
  const ports = [...stdout.matchAll(/^port (\d+)$/gm)].map(([, port]) => Number(port));
  expect(ports.length).toBeGreaterThan(0);
  for (const port of ports) {
    // A SIGKILL that the suite has sent in its last moment takes the kernel a moment.
    let refused = false;
    await until(() => {
      void peer(port).catch((error: NodeJS.ErrnoException) => (refused = error.code === "ECONNREFUSED"));
      return refused;
    }, `nobody listens on ${port}`);
  }
}

describe("a suite that cannot go on", () => {
  test("a lap that fails: exit code 1, the reason, and no server left", async () => {
    const file = suite(`() => Promise.reject(new Error("lost its way"))`);
    const { code, stdout, stderr } = await finished(spawn(file, "--smallest"));
    expect(code).toBe(1);
    expect(stderr).toContain("lost its way");
    await expectNobody(stdout);
  });

  test.each([
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const)("%s: exit code %d, and no server left", async (signal, expected) => {
    const child = spawn(suite(`() => new Promise(() => console.log("waiting"))`), "--smallest");
    let stdout = "";
    const reading = (async () => {
      const decoder = new TextDecoder();
      for await (const bytes of child.stdout) stdout += decoder.decode(bytes, { stream: true });
    })();
    await until(() => stdout.includes("waiting"), "a lap is under way");
    child.kill(signal);
    expect(await child.exited).toBe(expected);
    await reading;
    await expectNobody(stdout);
  });

  test("an unknown flag: exit code 2, and the flags that there are", async () => {
    const { code, stderr } = await finished(spawn(join(BENCH, "slicing.bench.ts"), "--tiny"));
    expect(code).toBe(2);
    expect(stderr).toContain("--tiny");
    expect(stderr).toContain("The only flag is --smallest.");
  });
});
