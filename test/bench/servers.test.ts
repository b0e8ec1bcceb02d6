/** The servers that are compared: each one echoes as the others do, or its figures would mean nothing. */
import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { installed, parseServer, servers, start, type Running, type Server } from "../../bench/servers.ts";
import { exchange, pattern, peer, until } from "../support/peers.ts";

setDefaultTimeout(30_000);

const directory = mkdtempSync(join(tmpdir(), "ringback-servers-"));
afterAll(() => rmSync(directory, { recursive: true }));

const running: Running[] = [];
afterEach(async () => {
  await Promise.all(running.splice(0).map((server) => server.stop()));
});

async function launch(server: Server, deadlineMs?: number): Promise<Running> {
  const started = await start(server, deadlineMs);
  running.push(started);
  return started;
}

/** A server of one file, which gets its port as its argument. */
function written(source: string): Server {
  const file = join(directory, `${Bun.hash(source)}.ts`);
  writeFileSync(file, source);
  return { name: "written", command: [process.execPath, "run", file, "{port}"], about: "For a test." };
}

const ECHO = `Bun.listen({
  hostname: "127.0.0.1",
  port: Number(process.argv[2]),
  socket: { data: (socket, chunk) => void socket.write(chunk) },
});`;

const isGone = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return false;
  } catch {
    return true;
  }
};

test("the table: names that differ, a port, a sentence", () => {
  expect(new Set(servers.map(({ name }) => name)).size).toBe(servers.length);
  for (const { name, command, about } of servers) {
    expect(name).not.toContain("=");
    expect(command.join(" ")).toContain("{port}");
    expect(about).toMatch(/^[A-Z].*\.$/i);
  }
});

for (const server of servers) {
  const missing = installed(server) ? "" : ` (left out: ${server.needs} is not installed)`;

  describe.skipIf(missing !== "")(server.name + missing, () => {
    let port: number;
    let pid: number;
    let one: Running;
    beforeAll(async () => {
      one = await start(server);
      ({ port, pid } = one);
    });
    afterAll(() => one.stop());

    test("gives back every byte, and then the FIN", async () => {
      const bytes = pattern(6 << 20);
      expect((await exchange(port, bytes)).equals(bytes)).toBe(true);
    });

    test("loses nothing for a peer that reads late", async () => {
      const client = await peer(port);
      client.socket.pause();
      const bytes = pattern(16 << 20);
      client.socket.end(bytes);
      // Bytes wait on every way: with us, in both kernels, with the server.
      let seen = -1;
      let since = performance.now();
      await until(() => {
        if (client.socket.bytesWritten !== seen) since = performance.now();
        seen = client.socket.bytesWritten;
        return performance.now() - since > 50;
      }, "nothing moves any more");
      client.socket.resume();
      expect(await client.ended).toBe("FIN");
      expect(client.got.equals(bytes)).toBe(true);
    });

    test("serves 50 at once, also after peers that reset", async () => {
      const resetting = await Promise.all(Array.from({ length: 20 }, () => peer(port)));
      const block = pattern(200_000);
      for (const { socket } of resetting) {
        socket.pause();
        socket.write(block, () => socket.resetAndDestroy());
      }
      await Promise.all(resetting.map(({ ended }) => ended));
      const all = Array.from({ length: 50 }, async (_, seed) => {
        const bytes = pattern(20_000, seed);
        return (await exchange(port, bytes)).equals(bytes);
      });
      expect(await Promise.all(all)).toEqual(all.map(() => true));
      expect(isGone(pid)).toBe(false);
    });
  });
}

describe("start", () => {
  test("says how long the first echo took, and stop ends the program", async () => {
    const began = performance.now();
    const server = await launch(written(ECHO));
    expect(server.firstEchoMs).toBeGreaterThan(1);
    expect(server.firstEchoMs).toBeLessThanOrEqual(performance.now() - began);
    expect((await exchange(server.port, Buffer.from("here"))).toString()).toBe("here");
    await Promise.all([server.stop(), server.stop()]);
    expect(isGone(server.pid)).toBe(true);
    await server.stop();
  });

  test("one that has ended says how, with its last words", async () => {
    const server = await launch(
      written(
        `${ECHO}\nprocess.stdin; setTimeout(() => { console.error("no more"); process.exit(3); }, 200);`,
      ),
    );
    expect(server.ended()).toBeUndefined();
    await until(() => server.ended()?.includes("no more") === true, "its last words");
    expect(server.ended()).toBe("exited with code 3; its stderr ends in:\nno more");
  });

  test.skipIf(process.platform !== "linux")(
    "a server that is a child of the started process is refused",
    async () => {
      const { command } = written(ECHO);
      const given = {
        name: "given",
        command: ["sh", "-c", `"$@"; true`, "sh", ...command],
        about: "For a test.",
      };
      const refused = await start(given).catch((error: Error) => error.message);
      expect(refused).toContain("does not listen on port");
      // Its children end as well.
      const port = Number(/on port (\d+)/.exec(String(refused))![1]);
      await expect(exchange(port, Buffer.from("here"))).rejects.toThrow("ECONNREFUSED");
      const direct = { ...given, command: ["sh", "-c", `exec "$@"`, "sh", ...command] };
      expect(await exchange((await launch(direct)).port, Buffer.from("here"))).toEqual(Buffer.from("here"));
    },
  );

  test("await using stops it, too", async () => {
    let pid: number;
    {
      await using server = await start(written(ECHO));
      ({ pid } = server);
      expect(isGone(pid)).toBe(false);
    }
    expect(isGone(pid)).toBe(true);
  });

  test("one that ignores SIGTERM is killed", async () => {
    const server = await launch(written(`process.on("SIGTERM", () => {});\n${ECHO}`));
    const began = performance.now();
    await server.stop();
    expect(performance.now() - began).toBeWithin(1_900, 10_000);
    expect(isGone(server.pid)).toBe(true);
  });

  test("one that talks without end, on both of its outputs, is not held up", async () => {
    const talk = `for (const to of [1, 2]) writeSync(to, Buffer.alloc(4 << 20, "talk\\n"));`;
    const server = await launch(written(`import { writeSync } from "node:fs";\n${talk}\n${ECHO}`));
    expect((await exchange(server.port, Buffer.from("here"))).toString()).toBe("here");
  });

  test("one that exits is an error with its code and the last of its stderr", async () => {
    const source = `for (let i = 0; i < 9999; i++) console.error("line", i); process.exit(3)`;
    const error = (await start(written(source)).catch((error: unknown) => error)) as Error;
    expect(error.message).toStartWith("written: exited with code 3 before it answered");
    expect(error.message).toEndWith("line 9997\nline 9998");
    expect(error.message.length).toBeLessThan(1_000);
    const oneLine = start(written(`process.stderr.write("x".repeat(1 << 20) + "end"); process.exitCode = 3`));
    const long = (await oneLine.catch((error: unknown) => error)) as Error;
    expect(long.message).toEndWith("xxxend");
    expect(long.message.length).toBeLessThan(4_000);
  });

  test("one that a signal ends is an error with the signal's name", async () => {
    const source = `process.kill(process.pid, "SIGKILL"); setInterval(() => {}, 1000);`;
    await expect(start(written(source))).rejects.toThrow("was ended by SIGKILL before it answered");
  });

  test("one that never listens is an error at the deadline, and is ended", async () => {
    const source = `console.error("my pid is", process.pid); setInterval(() => {}, 1000);`;
    const error = (await start(written(source), 400).catch((error: unknown) => error)) as Error;
    expect(error.message).toMatch(/written: nothing accepts on port \d+, for 400 ms/);
    const [, pid] = /my pid is (\d+)$/.exec(error.message) ?? [];
    expect(isGone(Number(pid))).toBe(true);
  });

  test("one that accepts and is silent, or hangs up, is another error", async () => {
    const errors = ["data() {}", "data() {}, open: (socket) => void socket.end()"].map((handlers) =>
      start(written(ECHO.replace(/data: .*\)/, handlers)), 600).catch((error: unknown) => String(error)),
    );
    for (const error of await Promise.all(errors)) {
      expect(error).toMatch(/port \d+ accepts, and no byte comes back, for 600 ms/);
    }
  });

  test("a program that is not there is an error that names it", async () => {
    const absent = parseServer("absent=/no/such/program {port}");
    await expect(start(absent)).rejects.toThrow(/^absent: cannot start \/no\/such\/program \d+: ENOENT/);
  });
});

test("a node that is Bun under that name is not Node", () => {
  symlinkSync(process.execPath, join(directory, "node"));
  const source = `import { installed, servers } from ${JSON.stringify(join(import.meta.dir, "../../bench/servers.ts"))};
console.log(JSON.stringify(servers.filter((server) => installed(server) !== (server.needs === undefined))));`;
  const { command } = written(source);
  const { stdout } = Bun.spawnSync([...command], { env: { ...process.env, PATH: directory } });
  expect(stdout.toString().trim()).toBe("[]");
});

describe("parseServer", () => {
  test.each([
    ["mine=server {port}", "mine", ["server", "{port}"]],
    ["  mine =  server   --port={port} ", "mine", ["server", "--port={port}"]],
    ["a=b c=d {port}", "a", ["b", "c=d", "{port}"]],
    [`a="my server" '{port}' ''`, "a", ["my server", "{port}", ""]],
    [`a=b 'x"y' "x'y" {port}`, "a", ["b", `x"y`, "x'y", "{port}"]],
    [`a=b --x='1 2'"3 4"5 {port}`, "a", ["b", "--x=1 23 45", "{port}"]],
    [String.raw`a=b x\ y "\"\\\n" '\' {port}`, "a", ["b", "x y", String.raw`"\\n`, "\\", "{port}"]],
  ])("%s", (text, name, command) => {
    const server = parseServer(text);
    expect([server.name, server.command]).toEqual([name, command]);
    expect(server.about).not.toBe("");
    expect(installed(server)).toBe(true);
  });

  test.each([
    ["server {port}", "has no ="],
    ["=server {port}", "has no name before the ="],
    ["a=", "has no command"],
    ["a='' {port}", "has no command"],
    ["a=server", "does not say where the {port} goes"],
    ["a=server '{port}", "has a ' that is not closed"],
    [`a=server "{port}\\"`, `has a " that is not closed`],
    ["a=server {port} \\", "ends in a backslash"],
  ])("%s: %s", (text, why) => {
    const message = `a server is written name='command with {port}'; ${JSON.stringify(text)} ${why}`;
    expect(() => parseServer(text)).toThrow(message);
  });
});
