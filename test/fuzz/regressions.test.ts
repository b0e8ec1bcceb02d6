/** Inputs that fuzzing found to be treated wrongly, each with the right result. */
import { afterEach, describe, expect, test } from "bun:test";
import { readCommand as readComparison } from "../../bench/compare.ts";
import { cases } from "../../bench/comparison/cases.ts";
import type { Result } from "../../bench/comparison/result.ts";
import { table } from "../../bench/comparison/table.ts";
import { readCommand as readLoad } from "../../bench/load.ts";
import { decodeAddress } from "../../src/os/address.ts";
import { readCommand } from "../../src/cli/command.ts";
import * as socket from "../../src/socket.ts";
import { readCommand as readSoak } from "../soak/soak.ts";
import { thrown } from "../support/fuzz.ts";
import { closeAll, failure, kept, openDescriptors } from "../support/sockets.ts";
import { cert, key } from "../support/tls.ts";

const { AF_INET, AF_INET6, AF_UNIX, SOCK_DGRAM, SOCK_STREAM } = socket;
afterEach(closeAll);

describe("found by fuzzing", () => {
  test("a connect with an invalid signal leaves the socket usable", async () => {
    const one = kept(socket.socket());
    const signal = 5 as unknown as AbortSignal;
    expect(await failure(() => one.connect(["127.0.0.1", 1], { signal }))).toBeInstanceOf(TypeError);
    expect(await failure(() => one.connect(["127.0.0.1", 1]))).toMatchObject({ code: "ECONNREFUSED" });
  });

  test("numbers beyond a C int and other values are refused, not truncated", () => {
    const one = kept(socket.socket());
    const before = openDescriptors();
    const wrapped = 2 ** 32;
    expect(thrown(() => one.setsockopt(wrapped + socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1))).toBeInstanceOf(
      RangeError,
    );
    expect(thrown(() => one.setsockopt(socket.SOL_SOCKET, wrapped + socket.SO_KEEPALIVE, 1))).toBeInstanceOf(
      RangeError,
    );
    expect(thrown(() => one.setsockopt(undefined as never, socket.SO_KEEPALIVE, 1))).toBeInstanceOf(
      TypeError,
    );
    expect(one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)).toBe(0);
    expect(thrown(() => one.getsockopt(1.5, socket.SO_KEEPALIVE))).toBeInstanceOf(TypeError);
    expect(thrown(() => socket.socket((wrapped + AF_INET) as never))).toBeInstanceOf(RangeError);
    expect(thrown(() => socket.socket((AF_INET + 0.5) as never))).toBeInstanceOf(TypeError);
    expect(thrown(() => socket.socket(AF_INET, "1" as never))).toBeInstanceOf(TypeError);
    expect(thrown(() => socket.socketpair((wrapped + AF_UNIX) as never))).toBeInstanceOf(RangeError);
    // This was another object for a descriptor that has one.
    expect(thrown(() => socket.socket(AF_INET, SOCK_STREAM, 0, wrapped + one.fileno()))).toBeInstanceOf(
      RangeError,
    );
    expect(openDescriptors()).toBe(before);
  });

  test("a family other than the three is refused, even if the kernel has it", () => {
    expect(thrown(() => socket.socket(16 as never))).toMatchObject({ code: "EAFNOSUPPORT" });
  });

  test("a datagram socket that has received does not set SO_REUSEADDR", async () => {
    const one = kept(socket.socket(AF_INET, SOCK_DGRAM));
    one.bind(["127.0.0.1", 0]);
    one.settimeout(0);
    expect(await failure(() => one.recv(1))).toMatchObject({ code: "EAGAIN" });
    expect(one.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)).toBe(0);
    const other = kept(socket.socket(AF_INET, SOCK_DGRAM));
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1);
    expect(thrown(() => other.bind(one.getsockname()))).toMatchObject({ code: "EADDRINUSE" });
  });

  test("a TLS server without a key or certificate is refused", () => {
    const before = openDescriptors();
    for (const tls of [true, {}, { key }, { cert }, { key, cert: [] }] as socket.TLS[]) {
      const error = thrown(() => socket.create_server(["127.0.0.1", 0], { tls }));
      expect(error).toMatchObject({
        name: "TypeError",
        message: expect.stringMatching(
          /^create_server: tls is (\{ key, cert \} at least, and has no|an object)/,
        ),
      });
    }
    expect(openDescriptors()).toBe(before);
  });

  test("a size that is not a number rejects the promise and throws nothing", async () => {
    const [a, b] = socket.socketpair();
    for (const one of [a, b]) kept(one);
    const pending = a.recv(Symbol("s") as never);
    expect(await failure(() => pending)).toBeInstanceOf(TypeError);
  });

  test("invalid options of a server are refused with the library's own error", () => {
    for (const options of [null, 5, "x"] as never[]) {
      const error = thrown(() => socket.create_server(["127.0.0.1", 0], options));
      expect((error as Error).message).toStartWith("create_server: options are an object, not ");
    }
  });

  test("the inet_ calls refuse what is neither text nor bytes with the library's own error", () => {
    for (const [call, given] of [
      [() => socket.inet_aton(5 as never), "inet_aton: an address is a string, not number"],
      [
        () => socket.inet_pton(AF_INET, ["127.0.0.1"] as never),
        "inet_pton: an address is a string, not object",
      ],
      [
        () => socket.inet_ntoa(undefined as never),
        "inet_ntoa: a packed address is a Uint8Array, not undefined",
      ],
      [
        () => socket.inet_ntop(AF_INET, "abcd" as never),
        "inet_ntop: a packed address is a Uint8Array, not string",
      ],
    ] as const) {
      expect(thrown(call)).toMatchObject({ name: "TypeError", message: given });
    }
  });

  test("a truncated IPv6 sockaddr is an OSError", () => {
    const bytes = Buffer.alloc(26);
    bytes.writeUInt16LE(AF_INET6);
    expect(thrown(() => decodeAddress(bytes))).toMatchObject({ code: "EINVAL" });
  });

  const refusal = (args: string[]): string => String((thrown(() => readCommand(args, {})) as Error).message);

  test("the server quotes a wrong argument completely and escapes control characters", () => {
    expect(refusal(["--\x1b[31mred"])).toBe("Unknown option '--\\u{1b}[31mred'; try \"ringback --help\"");
    expect(refusal(["a. b\r\nc"])).toBe("Unexpected argument 'a. b\\u{d}\\u{a}c'; try \"ringback --help\"");
    expect(refusal(["--port=\u202e1"])).toBe('--port: "\\u{202e}1" is not a whole number from 0 to 65535');
  });

  test("the load generator and the comparison escape what they quote as well", () => {
    for (const read of [readLoad, readComparison, readSoak]) {
      const { message } = thrown(() => read(["--a. \x07b"])) as Error;
      expect(message).toMatch(/^Unknown option '--a\. \\u\{7\}b'; try "bun run [a-z/.]+ --help"$/);
    }
  });

  test("a table of nothing but zeros shows empty bars", () => {
    const [one] = cases;
    const shares = { limited: false, cpuShare: 0, waitShare: null, reason: null };
    const load = {
      messagesPerSecond: 0,
      latency: { p50: 0, p90: 0, p99: 0, p999: 0 },
      generator: shares,
      schedule: null,
      server: { cpuMicrosPerMessage: 0 },
    };
    const measured = { round: 1, server: "x", case: one!.name, at: 0, firstEchoMs: 1, load };
    const result = {
      settings: { rounds: 1, seconds: 1 },
      baseline: "x",
      servers: [{ name: "x" }],
      cases: [one],
      notMeasured: [],
    };
    expect(table({ ...result, measurements: [measured] } as unknown as Result)).not.toContain("undefined");
  });
});
