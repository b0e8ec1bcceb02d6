import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { closeSync, constants, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readCommand, UsageError } from "../src/server.ts";
import { exchange, pattern, peer, stalled, until } from "./support/peers.ts";
import { hasProc, killAll, launch, run } from "./support/program.ts";
import { version } from "../package.json";

afterEach(killAll);

// A machine that is busy with something else needs more than Bun's 5 seconds; a hang is one after 30 as well.
setDefaultTimeout(30_000);

describe("the start", () => {
  test("says one line on stdout with the real port, and nothing else", async () => {
    const program = await launch();
    expect((await exchange(program.port, Buffer.from("hello"))).toString()).toBe("hello");
    program.signal("SIGTERM");
    const { stdout, stderr, code } = await program.finished;
    expect(stdout).toBe(`listening on 127.0.0.1:${program.port}\n`);
    expect(stderr).toBe("1 connection, 5 bytes in, 5 bytes out, 0 bytes copied\n");
    expect(code).toBe(0);
  });

  test("on a terminal also says how to try it", async () => {
    let screen = "";
    const child = Bun.spawn([process.execPath, "run", "src/server.ts", "--port", "0"], {
      env: { ...process.env, HOST: "" },
      terminal: { cols: 120, rows: 30, data: (_, bytes) => void (screen += Buffer.from(bytes).toString()) },
    });
    await until(() => screen.includes("Ctrl-C"), "the hint is on the screen");
    const [, port] = /listening on 127\.0\.0\.1:(\d+)/.exec(screen) ?? [];
    expect(screen).toContain(`nc 127.0.0.1 ${port}`);
    child.terminal?.write("\x03");
    expect(await child.exited).toBe(0);
    expect(screen).toContain("0 connections, 0 bytes in");
  });

  test("takes HOST and PORT from the environment when the flags are absent", async () => {
    const busy = await launch();
    const { code, stderr } = await run([], { HOST: "127.0.0.1", PORT: String(busy.port) });
    expect(code).toBe(1);
    expect(stderr).toContain(`127.0.0.1:${busy.port}`);
    const free = await launch([], {
      env: { PORT: String(busy.port), HOST: "192.0.2.1" },
      shell: "unset HOST",
    });
    expect(free.port).not.toBe(busy.port);
  });

  test("--help says every flag with its default, --version the version; both on stdout", async () => {
    const help = await run(["--help"]);
    expect(help).toMatchObject({ code: 0, stderr: "" });
    for (const flag of [
      "--host <address>",
      "--port <number>",
      "--reply <raw|tutorial>",
      "--recv-size <bytes>",
      "--ring <bytes>",
      "--receive-buffer <bytes>",
      "--backlog <number>",
      "--max-connections <number>",
      "--idle-timeout <seconds>",
      "--drain-timeout <seconds>",
      "--stats <seconds>",
      "--help, --version",
    ]) {
      expect(help.stdout).toContain(flag);
    }
    expect(help.stdout.split("\n").every((line) => line.length <= 120)).toBe(true);
    expect(await run(["--version"])).toEqual({ code: 0, stdout: `ringback ${version}\n`, stderr: "" });
  });
});

describe("wrong input is one line that names what is wrong, and exit code 2", () => {
  const cases: [args: string[], line: string][] = [
    [["--bakclog", "3"], "Unknown option '--bakclog'"],
    [["8101"], "Unexpected argument '8101'"],
    [["--port"], "--port: its value is missing"],
    [["--port", "-1"], "--port: its value is missing, or looks like a flag"],
    [["--port=-1"], '--port: "-1" is not a whole number from 0 to 65535'],
    [["--port", "65536"], '--port: "65536" is not a whole number from 0 to 65535'],
    [["--port", "http"], '--port: "http" is not a whole number from 0 to 65535'],
    [["--port", ""], '--port: "" is not a whole number'],
    [["--port", "0x50"], '--port: "0x50" is not a whole number'],
    [["--port", "1e3"], '--port: "1e3" is not a whole number'],
    [["--ring", "12k"], '--ring: "12k" is not a whole number of bytes from 1 to 1073741824'],
    [["--ring", "0"], '--ring: "0" is not'],
    [["--ring", "1.5"], '--ring: "1.5" is not'],
    [["--recv-size", "0"], '--recv-size: "0" is not'],
    [["--receive-buffer", "x"], '--receive-buffer: "x" is not'],
    [["--backlog", "many"], '--backlog: "many" is not a whole number of connections'],
    [["--max-connections", "0"], '--max-connections: "0" is not'],
    [
      ["--max-connections", "2000000000"],
      "--max-connections: 2000000000 is more than the descriptor limit allows",
    ],
    [["--idle-timeout", "1m"], '--idle-timeout: "1m" is not a number of seconds'],
    [["--drain-timeout=-5"], '--drain-timeout: "-5" is not a number of seconds'],
    [["--stats", "often"], '--stats: "often" is not a number of seconds'],
    [["--reply", "loud"], '--reply: "loud" is neither raw nor tutorial'],
    [["--help=3"], "--help: it takes no value"],
    [["--host", "a\nb"], '--host: "a\\nb" is neither an address nor a name'],
    [["--host", "x".repeat(300)], '--host: "xxx'],
  ];
  for (const [args, line] of cases) {
    test(args.join(" "), async () => {
      const { code, stdout, stderr } = await run(args);
      expect(stderr).toStartWith(`ringback: ${line}`);
      expect(stderr.split("\n").length).toBe(2);
      expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    });
  }

  test("the environment's PORT as well, by its name", () => {
    expect(() => readCommand([], { PORT: "http" })).toThrow(UsageError);
    expect(() => readCommand([], { PORT: "http" })).toThrow('PORT: "http" is not a whole number');
    expect(readCommand(["--port", "1"], { PORT: "http" })).toMatchObject({ serve: { port: 1 } });
    expect(readCommand([], { PORT: "", HOST: "" })).toMatchObject({
      serve: { port: 8101, host: "127.0.0.1" },
    });
  });
});

describe("a start that fails is one line that names the address, and exit code 1", () => {
  const failed = async (args: string[], ...parts: string[]): Promise<void> => {
    const { code, stdout, stderr } = await run(args);
    for (const part of parts) expect(stderr).toContain(part);
    expect(stderr.split("\n").length).toBe(2);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
  };

  test("a busy port", async () => {
    const { port } = await launch();
    await failed(["--port", String(port)], `listen 127.0.0.1:${port}`, "in use", "choose another --port");
  });

  test("an unknown host", () =>
    failed(["--host", "nosuch.invalid"], "nosuch.invalid: unknown host", "--host"));

  test("another machine's address", () =>
    failed(["--host", "192.0.2.1"], "192.0.2.1:8101", "choose another --host"));

  test.skipIf(!hasProc)("a descriptor limit that leaves no connection", async () => {
    for (const more of [[], ["--max-connections", "2"]]) {
      const child = Bun.spawn(
        ["sh", "-c", 'ulimit -n 34 && exec "$@"', "sh", process.execPath, "src/server.ts", ...more],
        {
          env: { ...process.env, HOST: "", PORT: "0" },
          stderr: "pipe",
        },
      );
      expect(await child.stderr.text()).toMatch(
        /^ringback: listen 127\.0\.0\.1:0: .* raise it with ulimit -n \(EMFILE\)\n$/,
      );
      expect(await child.exited).toBe(1);
    }
  });

  test.skipIf(!hasProc)("a receive buffer that the kernel does not grant", () =>
    failed(["--port", "0", "--receive-buffer", "1073741824"], "SO_RCVBUF 1073741824", "net.core.rmem_max"),
  );

  test.skipIf(!hasProc)("a backlog that the kernel does not grant", () =>
    failed(["--port", "0", "--backlog", "2147483647"], "backlog 2147483647", "net.core.somaxconn"),
  );

  test.skipIf(!hasProc || Bun.which("setpriv") === null)("a privileged port", async () => {
    // Even root is refused once it cannot have the capability.
    const asRoot = process.getuid?.() === 0 ? ["setpriv", "--bounding-set=-net_bind_service"] : [];
    const child = Bun.spawn([...asRoot, process.execPath, "run", "src/server.ts", "--port", "80"], {
      stderr: "pipe",
    });
    const stderr = await child.stderr.text();
    expect(stderr).toStartWith(
      "ringback: listen 127.0.0.1:80: Permission denied (EACCES); port 80 is reserved",
    );
    expect(await child.exited).toBe(1);
  });
});

describe("the kernel is told", () => {
  test.skipIf(Bun.which("ss") === null)("the backlog", async () => {
    const { port } = await launch(["--backlog", "7"]);
    const list = await Bun.$`ss -ltnH sport = :${port}`.text();
    expect(list.trim().split(/\s+/)[2]).toBe("7");
  });

  test.skipIf(Bun.which("ss") === null)("the receive buffer, of every connection", async () => {
    const { port } = await launch(["--receive-buffer", "65536"]);
    const client = await peer(port);
    const list = await Bun.$`ss -tmnH sport = :${port}`.text();
    expect(list).toContain("rb131072,");
    client.socket.destroy();
  });
});

describe("a stream that cannot be written stops nothing", () => {
  test.skipIf(!hasProc)("stdout on a full disk: the server serves, and says so on stderr", async () => {
    const child = Bun.spawn(
      ["sh", "-c", 'exec "$@" >/dev/full', "sh", process.execPath, "run", "src/server.ts", "--port", "0"],
      {
        env: { ...process.env, HOST: "" },
        stderr: "pipe",
      },
    );
    let text = "";
    for await (const bytes of child.stderr) {
      text += Buffer.from(bytes).toString();
      if (text.includes("\n")) break;
    }
    const [, port] =
      /stdout cannot be written \(ENOSPC\); listening on 127\.0\.0\.1:(\d+)\n/.exec(text) ?? [];
    expect((await exchange(Number(port), Buffer.from("still"))).toString()).toBe("still");
    child.kill();
    expect(await child.exited).toBe(0);
  });

  test.skipIf(!hasProc)("--help to a full disk is one line, without a trace", async () => {
    const child = Bun.spawn(
      ["sh", "-c", 'exec "$@" >/dev/full', "sh", process.execPath, "src/server.ts", "--help"],
      { stderr: "pipe" },
    );
    expect(await child.stderr.text()).toMatch(/^ringback: [^\n]*ENOSPC[^\n]*\n$/);
    expect(await child.exited).toBe(1);
  });

  test.skipIf(!hasProc)(
    "a stderr that nobody reads: the server serves, and stops when it is told to",
    async () => {
      const folder = mkdtempSync(join(tmpdir(), "ringback-"));
      const path = join(folder, "fifo");
      await Bun.$`mkfifo ${path}`;
      const filler = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
      expect(() => {
        for (;;) writeSync(filler, Buffer.alloc(4096));
      }).toThrow("EAGAIN");
      const stderr = openSync(path, constants.O_RDWR);
      const program = await launch(["--stats", "0.01"], { stderr });
      expect((await exchange(program.port, Buffer.from("still"))).toString()).toBe("still");
      program.signal("SIGTERM");
      expect(await program.exited).toBe(0);
      for (const fd of [filler, stderr]) closeSync(fd);
      rmSync(folder, { recursive: true });
    },
  );
});

test("--stats says a line of figures at its interval, on stderr", async () => {
  const program = await launch(["--stats", "0.1", "--reply", "tutorial"]);
  await exchange(program.port, Buffer.alloc(100_000, "x"));
  await until(() => program.stderr.includes("open 0  connections 1  "), "a line shows the connection");
  expect(program.stderr).toMatch(
    /in 0\.1 MB \([\d.]+ MB\/s\)  out 0\.1 MB .* held 0 bytes  copied 100000 bytes  dropped 0 bytes\n/,
  );
});

describe("SIGTERM and SIGINT", () => {
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    test(`${signal} under load loses no byte that a peer had sent`, async () => {
      const program = await launch();
      const peers = await Promise.all(Array.from({ length: 20 }, () => peer(program.port)));
      const block = pattern(300_000);
      // Some read all the while, some do not read at all before the signal.
      for (const [i, { socket }] of peers.entries()) {
        if (i % 3 === 0) socket.pause();
        for (let n = 0; n < 8; n++) socket.write(block);
      }
      // "Sent" is what a peer's kernel has; what a busy test process has not handed over yet is not.
      await until(() => peers.every(({ socket }) => socket.writableLength === 0), "all is with the kernel");
      program.signal(signal);
      await until(() => program.stderr.includes(`${signal}: stopping, 20 connections`), "the stop has begun");
      for (const { socket } of peers) socket.resume();
      const ends = await Promise.all(peers.map(({ ended }) => ended));
      expect(new Set(ends)).toEqual(new Set(["FIN"]));
      const whole = Buffer.concat(new Array<Buffer>(8).fill(block));
      for (const { got } of peers) expect(got.equals(whole)).toBe(true);
      for (const { socket } of peers) socket.end();
      const { code, stderr } = await program.finished;
      expect(code).toBe(0);
      const total = 20 * whole.length;
      expect(stderr).toEndWith(`\n20 connections, ${total} bytes in, ${total} bytes out, 0 bytes copied\n`);
    });
  }

  test.skipIf(!hasProc)("what the kernel had accepted before the signal is served too", async () => {
    const program = await launch();
    // While the process is stopped, connections and their bytes pile up in the kernel, and so does the signal.
    program.signal("SIGSTOP");
    const peers = await Promise.all(Array.from({ length: 100 }, () => peer(program.port)));
    for (const { socket } of peers) socket.end("ping");
    await Promise.all(peers.map(({ socket }) => until(() => socket.bytesWritten === 4, "sent")));
    program.signal("SIGTERM");
    program.signal("SIGCONT");
    expect(new Set(await Promise.all(peers.map(({ ended }) => ended)))).toEqual(new Set(["FIN"]));
    for (const { got } of peers) expect(got.toString()).toBe("ping");
    for (const { socket } of peers) socket.destroy();
    expect((await program.finished).code).toBe(0);
  });

  test("peers that stay are closed at --drain-timeout, exit code 0", async () => {
    const program = await launch(["--drain-timeout", "1"]);
    const [quiet, stuck] = [await peer(program.port), await stalled(program.port)];
    const began = performance.now();
    program.signal("SIGTERM");
    const { code } = await program.finished;
    const took = performance.now() - began;
    expect(code).toBe(0);
    expect(took).toBeGreaterThan(900);
    expect(took).toBeLessThan(2500);
    expect(await quiet.ended).toBe("FIN");
    for (const { socket } of [quiet, stuck]) socket.destroy();
  });

  test("Ctrl-C that comes twice, as under `bun run start`, is one", async () => {
    const program = await launch();
    const client = await peer(program.port);
    client.socket.write("before");
    await until(() => client.count === 6, "the echo is there");
    program.signal("SIGINT");
    await until(() => program.stderr.includes("stopping"), "the stop has begun");
    program.signal("SIGINT");
    client.socket.write("after");
    await until(() => client.count === 11, "it still serves");
    client.socket.end();
    expect((await program.finished).code).toBe(0);
  });

  test("a second signal ends it at once, with the totals", async () => {
    const program = await launch();
    const stuck = await stalled(program.port);
    program.signal("SIGTERM");
    await until(() => program.stderr.includes("stopping"), "the stop has begun");
    const began = performance.now();
    program.signal("SIGTERM");
    const { code, stderr } = await program.finished;
    expect(performance.now() - began).toBeLessThan(1000);
    expect(code).toBe(128 + 15);
    expect(stderr).toMatch(/\n1 connection, \d+ bytes in, \d+ bytes out, 0 bytes copied\n$/);
    stuck.socket.destroy();
  });
});
