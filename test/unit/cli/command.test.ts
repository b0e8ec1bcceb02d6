import { describe, expect, test } from "bun:test";
import { readCommand } from "../../../src/cli/command.ts";
import { UsageError } from "../../../src/cli/flags.ts";
import { helpText } from "../../../src/cli/help.ts";
import { programName } from "../../../src/cli/main.ts";

const served = (...args: string[]) => {
  const command = readCommand(args);
  if (!("serve" in command)) throw new Error("it shows something");
  return command.serve;
};

describe("a wrong command line is one line that names what is wrong", () => {
  const cases: [args: string[], line: string][] = [
    [["--bakclog", "3"], `Unknown option '--bakclog'; try "ringback --help"`],
    [["--constructor"], "Unknown option '--constructor'"],
    [["-x"], "Unknown option '-x'"],
    [["8101"], "Unexpected argument '8101'"],
    [["--", "8101"], "Unexpected argument '8101'"],
    [["--port"], "--port: its value is missing"],
    [["-p"], "-p: its value is missing"],
    [["--port", "-1"], "--port: its value is missing, or looks like a flag"],
    [["--port", "--ring"], "--port: its value is missing, or looks like a flag"],
    [["--port=-1"], '--port: "-1" is not a whole number from 0 to 65535'],
    [["--port", "65536"], '--port: "65536" is not a whole number from 0 to 65535'],
    [["-p65536"], '-p: "65536" is not a whole number from 0 to 65535'],
    [["--port", "http", "--port", "1"], '--port: "http" is not a whole number from 0 to 65535'],
    [["--port", ""], '--port: "" is not a whole number'],
    [["--port", "0x50"], '--port: "0x50" is not a whole number'],
    [["--port", "1e3"], '--port: "1e3" is not a whole number'],
    [["--port", "1k"], '--port: "1k" is not a whole number'],
    [["--ring", "12q"], '--ring: "12q" is not a size from 1 to 1G (bytes, or k, M, G of 1024)'],
    [["--ring", "0k"], '--ring: "0k" is not'],
    [["--ring", "1.5"], '--ring: "1.5" is not'],
    [["--ring", "1.5M"], '--ring: "1.5M" is not'],
    [["--ring", "64 k"], '--ring: "64 k" is not'],
    [["--ring", "64kib/s"], '--ring: "64kib/s" is not'],
    [["--ring", "k"], '--ring: "k" is not'],
    [["--ring", "1T"], '--ring: "1T" is not'],
    [["--ring", "1025M"], '--ring: "1025M" is not'],
    [["--recv-size", "0"], '--recv-size: "0" is not'],
    [["--receive-buffer", "x"], '--receive-buffer: "x" is not'],
    [["--backlog", "many"], '--backlog: "many" is not a whole number of connections'],
    [["--max-connections", "0"], '--max-connections: "0" is not'],
    [["--keepalive", "0.5"], '--keepalive: "0.5" is not a whole number of seconds from 0 to 32767'],
    [["--idle-timeout", "1m"], '--idle-timeout: "1m" is not a number of seconds'],
    [["--drain-timeout=-5"], '--drain-timeout: "-5" is not a number of seconds'],
    [["--stats", "often"], '--stats: "often" is not a number of seconds'],
    [["--reply", "loud"], '--reply: "loud" is not raw or tutorial'],
    [["--help=3"], "--help: it takes no value"],
    [["--host", "a\nb"], '--host: "a\\nb" is not an address or a name'],
    [["--host", "x".repeat(300)], '--host: "xxx'],
  ];
  for (const [args, line] of cases) {
    test(args.join(" ").slice(0, 60), () => {
      let said: unknown;
      try {
        readCommand(args);
      } catch (error) {
        said = error;
      }
      expect(said).toBeInstanceOf(UsageError);
      expect((said as Error).message).toStartWith(line);
      expect((said as Error).message.length).toBeLessThan(100);
    });
  }
});

describe("a command line is read", () => {
  test("an empty command line gives the defaults", () => {
    expect(served()).toEqual({
      ...{ host: "127.0.0.1", port: 8101, reply: "raw", ring: 65_536, keepalive: 60 },
      ...{ idleTimeout: 0, drainTimeout: 10, stats: 0 },
    });
  });

  test("short flags are read", () => {
    expect(served("-p", "9")).toMatchObject({ port: 9 });
    expect(served("-p9")).toMatchObject({ port: 9 });
    expect(readCommand(["-h"])).toEqual({ show: "help" });
    expect(readCommand(["-V"])).toEqual({ show: "version" });
  });

  test("sizes are read in units of 1024", () => {
    for (const [text, bytes] of [
      ...([
        ["4096", 4096],
        ["64k", 65_536],
        ["64K", 65_536],
        ["64KB", 65_536],
        ["64KiB", 65_536],
      ] as const),
      ...([
        ["1M", 1 << 20],
        ["1MB", 1 << 20],
        ["1mib", 1 << 20],
        ["1G", 1 << 30],
      ] as const),
    ]) {
      expect(served("--ring", text, "--recv-size", text, "--receive-buffer", text)).toMatchObject({
        ...{ ring: bytes, recvSize: bytes, receiveBuffer: bytes },
      });
    }
  });

  test("a repeated flag's last value counts, and times may be fractional", () => {
    expect(served("--stats", "1", "--stats=.5")).toMatchObject({ stats: 0.5 });
  });
});

test("PORT replaces --port and is named in its error; HOST is ignored", () => {
  expect(() => readCommand([], { PORT: "http" })).toThrow('PORT: "http" is not a whole number');
  expect(readCommand([], { PORT: "99" })).toMatchObject({ serve: { port: 99 } });
  expect(readCommand(["--port", "1"], { PORT: "http" })).toMatchObject({ serve: { port: 1 } });
  const env = { PORT: "", HOST: "0.0.0.0" };
  expect(readCommand([], env)).toMatchObject({ serve: { port: 8101, host: "127.0.0.1" } });
});

test("--help shows every flag, its default and every column of --stats, within 100 columns", () => {
  const help = helpText("bun run src/server.ts");
  for (const part of [
    ...["--host <address> ", "-p, --port <number> ", "--reply <raw|tutorial> ", "--recv-size <size> "],
    ...["--ring <size> ", "--receive-buffer <size> ", "--backlog <number> ", "--max-connections <number> "],
    ...["--keepalive <seconds> ", "--idle-timeout <seconds> ", "--drain-timeout <seconds> "],
    ...["--stats <seconds> ", "-h, --help ", "-V, --version ", "(default: 8101)", "(default: 64k)"],
    ..."open connections refused broken in in/s out out/s held copied dropped"
      .split(" ")
      .map((name) => `\n  ${name} `),
    "Usage: bun run src/server.ts [options]",
  ]) {
    expect(help).toContain(part);
  }
  expect(help.split("\n").filter((line) => line.length > 100)).toEqual([]);
});

test("the program calls itself by the way it was started", () => {
  expect(programName("/repo/src/server.ts", "/repo", "/usr/bin/bun")).toBe("bun run src/server.ts");
  expect(programName("/repo/src/server.ts", "/elsewhere")).toBe("bun run /repo/src/server.ts");
  expect(programName("/repo/src/server.ts", "/repo", "./node_modules/.bin/ringback")).toBe("ringback");
  expect(programName("/usr/lib/node_modules/ringback/src/server.ts", "/repo")).toBe("ringback");
});
