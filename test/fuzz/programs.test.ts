/**
 * Command lines and files, given nonsense: it is taken as what it is, or refused as documented, and nothing
 * else.
 *
 * A failing seed is said, with its input. It replays by `FUZZ_SEED=17 bun test test/fuzz/programs.test.ts`;
 * `FUZZ_RUNS=5000` beside it plays those after it as well.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readCommand as readComparison } from "../../bench/compare.ts";
import { readCommand as readLoad } from "../../bench/load.ts";
import { parseServer } from "../../bench/servers.ts";
import { readCommand, type ServerOptions } from "../../src/cli/command.ts";
import { UsageError } from "../../src/cli/flags.ts";
import { readCommand as readSoak } from "../soak/soak.ts";
import { commandLine, fuzz, inputs, oneOf, several, thrown, word } from "../support/fuzz.ts";
import { run } from "../support/program.ts";
import type { Random } from "../support/random.ts";

setDefaultTimeout(30_000);

const directory = mkdtempSync(join(tmpdir(), "ringback-fuzz-"));
afterAll(() => rmSync(directory, { recursive: true }));

/** A refusal is one line that a terminal shows as it is, and names what it is about. */
function expectLine({ message }: Error, names: RegExp): void {
  expect(message).toMatch(names);
  expect(message).not.toMatch(/\p{C}/u);
}

describe("command lines", () => {
  const SERVER =
    "host port reply recv-size ring receive-buffer backlog max-connections keepalive idle-timeout drain-timeout stats help version".split(
      " ",
    );
  /** Where the value of each flag is found. */
  const OPTIONS = {
    ...({ host: "host", port: "port", reply: "reply", "recv-size": "recvSize", ring: "ring" } as const),
    ...({ "receive-buffer": "receiveBuffer", backlog: "backlog" } as const),
    ...({
      "max-connections": "maxConnections",
      keepalive: "keepalive",
      "idle-timeout": "idleTimeout",
    } as const),
    ...({ "drain-timeout": "drainTimeout", stats: "stats" } as const),
  };
  /** As a user would write it. Every number is one that each flag takes. */
  const sensible = (random: Random): string[] =>
    several(random, 5, (of) => {
      const flag = oneOf(of, Object.keys(OPTIONS));
      const value = { host: "localhost", reply: "tutorial" }[flag] ?? String(of.between(1, 32_767));
      return of.chance(0.5) ? [`--${flag}=${value}`] : [`--${flag}`, value];
    }).flat();
  const PRESETS = readCommand([], {}) as { serve: ServerOptions };

  /** The last value of each flag on a command line that was accepted: "--flag value" or "--flag=value". */
  function lastGiven(args: readonly string[]): Map<string, string> {
    const given = new Map<string, string>();
    for (let i = 0; i < args.length; i++) {
      const [, flag, text] = /^--([a-z-]+)(?:=(.*))?$/s.exec(args[i]!) ?? [];
      if (flag !== undefined) given.set(flag, text ?? args[++i]!);
    }
    return given;
  }

  const LOAD =
    "host port connections bytes depth seconds warmup rate pid churn verify no-verify json help".split(" ");

  test("a random command line gives the server's complete options or is refused by the flag's name", () =>
    fuzz(
      6_000,
      (random) => ({
        args: random.chance(0.3) ? sensible(random) : commandLine(random, SERVER),
        env: {
          HOST: random.chance(0.2) ? word(random) : undefined,
          PORT: random.chance(0.2) ? word(random) : undefined,
        },
      }),
      ({ args, env }) => {
        let command;
        try {
          command = readCommand(args, env);
        } catch (error) {
          expect(error).toBeInstanceOf(UsageError);
          return expectLine(
            error as Error,
            /^(--[a-z-]+|-[hpV]|PORT): |^(Unknown option|Unexpected argument) /,
          );
        }
        if ("show" in command) return expect(command.show).not.toBe("");
        const {
          host,
          port,
          reply,
          recvSize,
          ring,
          receiveBuffer,
          backlog,
          maxConnections,
          keepalive,
          ...times
        } = command.serve;
        expect(host).toMatch(/^\S{0,255}$/);
        expect(["raw", "tutorial"]).toContain(reply);
        const whole = { port, ring, recvSize, receiveBuffer, backlog, maxConnections, keepalive };
        const last = lastGiven(args);
        for (const [flag, option] of Object.entries(OPTIONS)) {
          const text = last.get(flag) ?? (flag === "port" ? env.PORT || undefined : undefined);
          const value = command.serve[option];
          // What nobody has said may have a default, or be absent.
          if (text === undefined) expect(value).toBe(PRESETS.serve[option]);
          else expect(value).toBe(typeof value === "number" ? Number(text) : text);
        }
        for (const value of Object.values(whole)) expect(value ?? 0).toSatisfy(Number.isSafeInteger);
        expect(Object.keys(times).sort()).toEqual(["drainTimeout", "idleTimeout", "stats"]);
        for (const value of Object.values({ ...whole, ...times })) expect(value ?? 0).toBeWithin(0, 2 ** 31);
        expect(port).toBeLessThan(65_536);
      },
    ));

  test("the server refuses a command line with exit code 2, one sentence on stderr and no stack trace", async () => {
    const refused = inputs(400, (random) => commandLine(random, SERVER))
      .filter(([, args]) => !args.some((one) => one.includes("\0") || one !== one.toWellFormed()))
      .filter(([, args]) => thrown(() => readCommand(args, {})) !== undefined)
      .slice(0, 24);
    for (let i = 0; i < refused.length; i += 6) {
      const some = refused.slice(i, i + 6);
      for (const [j, { code, stdout, stderr }] of (
        await Promise.all(some.map(([, args]) => run(args)))
      ).entries()) {
        const [seed, args] = some[j]!;
        expect({ seed, args, code, stdout }).toEqual({ seed, args, code: 2, stdout: "" });
        // One sentence, which is folded where it is longer than 100 columns.
        expect(stderr).toMatch(/^ringback: .{1,90}\n(  .{1,98}\n)?$/);
      }
    }
  });

  test("the load generator refuses a command line in the same way", () =>
    fuzz(
      4_000,
      (random) => [...(random.chance(0.8) ? ["--port", "8101"] : []), ...commandLine(random, LOAD)],
      (args) => {
        const error = thrown(() => readLoad(args));
        if (error === undefined) return;
        expect(error).toBeInstanceOf(UsageError);
        expectLine(error as Error, /^--[a-z-]+: |^(Unknown option|Unexpected argument|Option) /);
      },
    ));

  /** What they write is opened as soon as it is named: a name is always below a directory of their own. */
  const inside = (args: string[]): string[] =>
    args.map((one, i) => {
      if (["--json", "--html"].includes(args[i - 1] ?? ""))
        return join(directory, "no such", one.slice(0, 9));
      return one.replace(/^(--(?:json|html)=).*/s, `$1${directory}/no such/file`);
    });

  test("the comparison and the soak refuse a command line in the same way", () =>
    fuzz(
      3_000,
      (random) =>
        inside(
          commandLine(random, [
            "quick",
            "case",
            "server",
            "rounds",
            "seconds",
            "help",
            "json",
            "minutes",
            "seed",
            "command",
          ]),
        ),
      (args) => {
        for (const read of [readComparison, readSoak]) {
          const error = thrown(() => read([...args]));
          if (error === undefined) continue;
          expect(error).toBeInstanceOf(UsageError);
          expectLine(error as Error, /^--[a-z]+: |^(Unknown option|Unexpected argument|Option) /);
        }
      },
    ));

  test("the words of --server give exactly the server's name and command", () =>
    fuzz(
      6_000,
      (random) =>
        several(random, 9, (of) => oneOf(of, ["=", " ", "'", '"', "\\", "{port}", word(of), word(of)])).join(
          "",
        ),
      (text) => {
        let server;
        try {
          server = parseServer(text);
        } catch (error) {
          return expectLine(
            new UsageError((error as Error).message),
            /^a server is written name='command with \{port\}'; ".*" (has|does|ends)/,
          );
        }
        expect(server.name).not.toBe("");
        expect(server.command[0]).not.toBe("");
        expect(server.command.some((one) => one.includes("{port}"))).toBe(true);
        // Written as one quoted word each, they are the same words.
        const quoted = server.command.map((one) => `'${one.replaceAll("'", `'\\''`)}'`).join(" ");
        expect(parseServer(`x=${quoted}`).command).toEqual(server.command);
      },
    ));
});
