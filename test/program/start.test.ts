/** How the program starts, and what it says if it cannot. */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { exchange, peer, until } from "../support/peers.ts";
import { hasProc, killAll, launch, ROOT, run } from "../support/program.ts";
import { engines, version } from "../../package.json";

afterEach(killAll);

// A machine that is busy with something else needs more than Bun's 5 seconds; a hang is one after 30 as well.
setDefaultTimeout(30_000);

describe("the start", () => {
  test("the start prints one line with the real port on stdout, and nothing else", async () => {
    const program = await launch();
    expect((await exchange(program.port, Buffer.from("hello"))).toString()).toBe("hello");
    program.signal("SIGTERM");
    const { stdout, stderr, code } = await program.finished;
    expect(stdout).toBe(`listening on 127.0.0.1:${program.port}\n`);
    expect(stderr).toBe("1 connection, 5 bytes in, 5 bytes out, 0 bytes copied\n");
    expect(code).toBe(0);
  });

  test("the start on a terminal also shows how to try it", async () => {
    let screen = "";
    const child = Bun.spawn([process.execPath, "run", "src/server.ts", "--port", "0"], {
      env: { ...process.env, PORT: "" },
      terminal: { cols: 120, rows: 30, data: (_, bytes) => void (screen += Buffer.from(bytes).toString()) },
    });
    await until(() => screen.includes("Ctrl-C"), "the hint is on the screen");
    const [, port] = /listening on 127\.0\.0\.1:(\d+)/.exec(screen) ?? [];
    expect(screen).toContain(`nc 127.0.0.1 ${port}`);
    child.terminal?.write("\x03");
    expect(await child.exited).toBe(0);
    expect(screen).toContain("0 connections, 0 bytes in");
  });

  test("the start reads PORT when --port is absent and ignores HOST", async () => {
    const busy = await launch();
    const { code, stderr } = await run([], { HOST: "x86_64-conda-linux-gnu", PORT: String(busy.port) });
    expect(code).toBe(1);
    expect(stderr).toContain(`127.0.0.1:${busy.port}`);
    expect((await run([], { PORT: "http" })).stderr).toStartWith(
      'ringback: PORT: "http" is not a whole number',
    );
    const free = await launch([], { env: { PORT: String(busy.port), HOST: "x86_64-conda-linux-gnu" } });
    expect(free.stdout).toBe(`listening on 127.0.0.1:${free.port}\n`);
  });

  test("the start reads no .env file in the current folder", async () => {
    const folder = mkdtempSync(join(tmpdir(), "ringback-"));
    writeFileSync(join(folder, ".env"), "HOST=0.0.0.0\nPORT=nonsense\n");
    const child = Bun.spawn(
      [process.execPath, "run", join(ROOT, "src/server.ts"), "--backlog", "2147483647"],
      {
        ...({ cwd: folder, stderr: "pipe", stdout: "ignore" } as const),
        env: { ...process.env, HOST: undefined, PORT: undefined },
      },
    );
    const stderr = await child.stderr.text();
    rmSync(folder, { recursive: true });
    // It got as far as the kernel, or to a port that is taken: the file's PORT would have been refused
    // before.
    expect(stderr).toMatch(/^ringback: listen (127\.0\.0\.1:8101|backlog 2147483647): /);
  });

  test("--help and --version write to stdout; a wrong flag is one line on stderr and exit code 2", async () => {
    const [help, short, wrong, many] = await Promise.all([
      run(["--help"]),
      run(["-V"]),
      run(["--bakclog", "3"]),
      run(["--max-connections", "2000000000"]),
    ]);
    expect(help).toMatchObject({ code: 0, stderr: "" });
    expect(help.stdout).toContain("\nUsage: bun run src/server.ts [options]\n");
    expect(short).toEqual({ code: 0, stdout: `ringback ${version}\n`, stderr: "" });
    expect(wrong).toEqual({
      ...{ code: 2, stdout: "" },
      stderr: `ringback: Unknown option '--bakclog'; try "bun run src/server.ts --help"\n`,
    });
    expect(many).toMatchObject({ code: 2, stdout: "" });
    expect(many.stderr.replaceAll("\n  ", " ")).toStartWith(
      "ringback: --max-connections: 2000000000 is more than the descriptor limit allows",
    );
  });

  test("started through a link named ringback, the program calls itself ringback", async () => {
    const folder = mkdtempSync(join(tmpdir(), "ringback-"));
    symlinkSync(join(ROOT, "src/server.ts"), join(folder, "ringback"));
    // A shell that sets `_` to what it runs.
    const child = Bun.spawn([process.execPath, join(folder, "ringback"), "--help"], {
      env: { ...process.env, _: join(folder, "ringback") },
    });
    expect(await child.stdout.text()).toContain("\nUsage: ringback [options]\n");
    rmSync(folder, { recursive: true });
  });
});

describe("on another runtime it says in one line which is needed", () => {
  const needed = engines.bun.replace(">=", "");

  test("an older Bun is told in one line which version is needed", async () => {
    const folder = mkdtempSync(join(tmpdir(), "ringback-"));
    mkdirSync(join(folder, "cli"));
    writeFileSync(join(folder, "cli/main.ts"), 'export const main = () => console.log("it is loaded");');
    const source = readFileSync(join(ROOT, "src/server.ts"), "utf8");
    expect(source.split(`"${needed}"`).length).toBe(2);
    const [major, minor, patch] = Bun.version.split(".").map(Number) as [number, number, number];
    for (const [wanted, refused] of [
      ...([
        [`${major}.${minor}.${patch + 1}`, true],
        [`${major}.${minor + 6}.0`, true],
      ] as const),
      ...([
        [`${major + 1}.0.0`, true],
        [Bun.version, false],
        [`${major}.0.99`, false],
      ] as const),
      ...([[`${major - 1}.99.99`, false]] as const),
    ]) {
      writeFileSync(join(folder, "server.ts"), source.replace(`"${needed}"`, `"${wanted}"`));
      const child = Bun.spawn([process.execPath, join(folder, "server.ts")], { stderr: "pipe" });
      const line = `ringback: it needs Bun ${wanted} or later, and this is Bun ${Bun.version}; see https://bun.sh\n`;
      expect(await child.stderr.text()).toBe(refused ? line : "");
      expect(await child.stdout.text()).toBe(refused ? "" : "it is loaded\n");
      expect(await child.exited).toBe(refused ? 1 : 0);
    }
    rmSync(folder, { recursive: true });
  });

  test("another runtime is told in one line that it needs Bun, and nothing else is loaded", async () => {
    // What Node makes of the file: its types stripped.
    const source = new Bun.Transpiler({ loader: "ts" }).transformSync(
      await Bun.file(join(ROOT, "src/server.ts")).text(),
    );
    const node = Bun.which("node");
    if (node === null) return;
    const child = Bun.spawn([node, "--input-type=module", "-"], {
      stdin: Buffer.from(source),
      stderr: "pipe",
    });
    expect(await child.stderr.text()).toMatch(
      new RegExp(
        `^ringback: it needs Bun ${needed} or later, and this is Node [\\d.]+; see https://bun.sh\\n$`,
      ),
    );
    expect(await child.exited).toBe(1);
  });
});

describe("a start that fails names the address and what to do, with exit code 1", () => {
  const failed = async (args: string[], ...parts: string[]): Promise<void> => {
    const { code, stdout, stderr } = await run(args);
    for (const part of parts) expect(stderr.replaceAll("\n  ", " ")).toContain(part);
    expect(stderr).toMatch(/^ringback: .*\n(  .*\n)?$/);
    expect(stderr.split("\n").every((line) => line.length <= 100)).toBe(true);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
  };

  test("a start on a busy port names the address and the cure", async () => {
    const { port } = await launch();
    await failed(["--port", String(port)], `listen 127.0.0.1:${port}`, "in use", "choose another --port");
  });

  test("a start on an unknown host names it", () =>
    failed(["--host", "nosuch.invalid"], "nosuch.invalid: unknown host", "--host"));

  test("a start on another machine's address names it", () =>
    failed(["--host", "192.0.2.1"], "192.0.2.1:8101", "choose another --host"));

  test.skipIf(!hasProc)(
    "a start with a descriptor limit that leaves no connection says how to raise it",
    async () => {
      for (const more of [[], ["--max-connections", "2"]]) {
        const child = Bun.spawn(
          ["sh", "-c", 'ulimit -n 34 && exec "$@"', "sh", process.execPath, "src/server.ts", ...more],
          {
            env: { ...process.env, PORT: "0" },
            stderr: "pipe",
          },
        );
        expect((await child.stderr.text()).replaceAll("\n  ", " ")).toMatch(
          /^ringback: listen 127\.0\.0\.1:0: .* raise it with ulimit -n \(EMFILE\)\n$/,
        );
        expect(await child.exited).toBe(1);
      }
    },
  );

  test.skipIf(!hasProc)(
    "a start with a receive buffer that the kernel does not grant names the kernel's limit",
    () =>
      failed(["--port", "0", "--receive-buffer", "1073741824"], "SO_RCVBUF 1073741824", "net.core.rmem_max"),
  );

  test.skipIf(!hasProc)(
    "a start with a backlog that the kernel does not grant names the kernel's limit",
    () => failed(["--port", "0", "--backlog", "2147483647"], "backlog 2147483647", "net.core.somaxconn"),
  );

  test.skipIf(!hasProc || Bun.which("setpriv") === null)(
    "a start on a privileged port says that it is reserved",
    async () => {
      // Even root is refused once it cannot have the capability.
      const asRoot = process.getuid?.() === 0 ? ["setpriv", "--bounding-set=-net_bind_service"] : [];
      const child = Bun.spawn([...asRoot, process.execPath, "run", "src/server.ts", "--port", "80"], {
        stderr: "pipe",
      });
      const stderr = (await child.stderr.text()).replaceAll("\n  ", " ");
      expect(stderr).toStartWith(
        "ringback: listen 127.0.0.1:80: Permission denied (EACCES); port 80 is reserved",
      );
      expect(await child.exited).toBe(1);
    },
  );
});

describe("the kernel is told", () => {
  test.skipIf(Bun.which("ss") === null)("--backlog reaches the kernel", async () => {
    const { port } = await launch(["--backlog", "7"]);
    const list = await Bun.$`ss -ltnH sport = :${port}`.text();
    expect(list.trim().split(/\s+/)[2]).toBe("7");
  });

  test.skipIf(Bun.which("ss") === null)(
    "--receive-buffer reaches the kernel for every connection",
    async () => {
      const { port } = await launch(["--receive-buffer", "65536"]);
      const client = await peer(port);
      const list = await Bun.$`ss -tmnH sport = :${port}`.text();
      expect(list).toContain("rb131072,");
      client.socket.destroy();
    },
  );
});
