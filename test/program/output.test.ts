/** The program's output, also to a stdout or stderr that cannot be written. */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { listeningPort } from "../support/listening.ts";
import { exchange, until } from "../support/peers.ts";
import { hasProc, killAll, launch, ROOT } from "../support/program.ts";

afterEach(killAll);

// A machine that is busy with something else needs more than Bun's 5 seconds; a hang is one after 30 as well.
setDefaultTimeout(30_000);

describe("a stream that cannot be written stops nothing", () => {
  test.skipIf(!hasProc)("with stdout on a full disk, the server serves and says so on stderr", async () => {
    const child = Bun.spawn(
      ["sh", "-c", 'exec "$@" >/dev/full', "sh", process.execPath, "run", "src/server.ts", "--port", "0"],
      {
        env: { ...process.env, PORT: "" },
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

  test.skipIf(!hasProc)("--help to a full disk fails with one line and no stack trace", async () => {
    const child = Bun.spawn(
      ["sh", "-c", 'exec "$@" >/dev/full', "sh", process.execPath, "src/server.ts", "--help"],
      { stderr: "pipe" },
    );
    expect(await child.stderr.text()).toMatch(/^ringback: [^\n]*ENOSPC[^\n]*\n$/);
    expect(await child.exited).toBe(1);
  });

  test.skipIf(!hasProc)(
    "with a stderr that nobody reads, the server serves and stops on a signal",
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

  test.skipIf(!hasProc)(
    "with a full stdout, the server serves and announces itself when there is room",
    async () => {
      const folder = mkdtempSync(join(tmpdir(), "ringback-"));
      const path = join(folder, "fifo");
      await Bun.$`mkfifo ${path}`;
      const reader = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
      expect(() => {
        for (;;) writeSync(reader, Buffer.alloc(4096));
      }).toThrow("EAGAIN");
      const stdout = openSync(path, constants.O_RDWR);
      const child = Bun.spawn([process.execPath, "run", join(ROOT, "src/server.ts"), "--port", "0"], {
        ...({ stdin: "ignore", stdout, stderr: "pipe" } as const),
      });
      const port = await listeningPort(child.pid);
      expect((await exchange(port, Buffer.from("still"))).toString()).toBe("still");
      let text = "";
      await until(() => {
        try {
          const inbox = Buffer.alloc(1 << 16);
          text += inbox.toString("latin1", 0, readSync(reader, inbox)).replaceAll("\0", "");
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
        }
        return text.includes("\n");
      }, "the line is there");
      expect(text).toBe(`listening on 127.0.0.1:${port}\n`);
      child.kill();
      expect(await child.stderr.text()).toStartWith(
        `stdout has no room yet; listening on 127.0.0.1:${port}\n`,
      );
      expect(await child.exited).toBe(0);
      for (const fd of [reader, stdout]) closeSync(fd);
      rmSync(folder, { recursive: true });
    },
  );

  test.skipIf(!hasProc || Bun.which("python3") === null)(
    "in the background of a terminal with `stty tostop`, the server serves and writes",
    async () => {
      const child = Bun.spawn(
        ["python3", join(ROOT, "test/support/tostop.py"), process.execPath, join(ROOT, "src/server.ts")],
        {
          stdin: "ignore",
        },
      );
      const text = await child.stdout.text();
      expect(text).toContain("echo: b'hello'");
      expect(text).toContain("1 connection, 5 bytes in, 5 bytes out, 0 bytes copied");
      expect(text).toContain("exit code: 0");
    },
  );
});

test("--stats writes a header and a row per interval to stderr", async () => {
  const program = await launch(["--stats", "0.1", "--reply", "tutorial"]);
  await exchange(program.port, Buffer.alloc(100_000, "x"));
  const row = /\n +0 +1 +0 +0 +100\.0 kB +[\d.]+ k?B +1\d\d\.\d kB +[\d.]+ k?M?B +0 B +100\.0 kB +0 B\n/;
  await until(() => row.test(program.stderr), "a row shows the connection");
  expect(program.stderr).toStartWith("   open  connections  refused ");
  // Twenty rows later it is there again.
  await until(() => program.stderr.split("connections").length === 3, "the header comes again");
  expect(program.stderr.split("\n").findLastIndex((line) => line.includes("connections"))).toBe(21);
});
