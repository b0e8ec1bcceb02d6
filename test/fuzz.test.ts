/**
 * Addresses and the library's calls, given nonsense: it is taken as what it is, or refused as documented, and nothing else.
 *
 * A failing seed is said, with its input. It replays by `FUZZ_SEED=17 bun test test/fuzz.test.ts`; `FUZZ_RUNS=5000`
 * beside it plays those after it as well.
 */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { checkAddress, decodeAddress, encodeAddress, SOCKADDR_MAX } from "../src/net/address.ts";
import * as socket from "../src/socket.ts";
import { anything, fuzz, inputs, oneOf, several, thrown, word } from "./support/fuzz.ts";
import type { Random } from "./support/random.ts";
import { askPython, closeAll, failure, openDescriptors, python } from "./support/sockets.ts";

const { AF_INET, AF_INET6, AF_UNIX, SOCK_DGRAM, SOCK_STREAM } = socket;
const withPython = test.skipIf(python === null);
setDefaultTimeout(30_000);
afterEach(closeAll);

/** Of a text that is nearly an address: parts of addresses, in any order. */
const nearly = (random: Random, parts: readonly string[]): string =>
  several(random, 9, (of) => oneOf(of, parts)).join("");
const V4_PARTS =
  "0 1 7 9 10 127 255 256 0x 0xff 0X1f 01 010 08 00 . . . . . .. - + e 65535 65536 4294967295 4294967296".split(
    " ",
  );
const V6_PARTS =
  "0 1 ff ffff FFFF 0000 00000 12345 g : : : : : :: :: 1.2.3.4 0.0.0.0 01.2.3.4 ::ffff: % / [ ] 1:2:3:4:5:6:7".split(
    " ",
  );

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

describe("addresses", () => {
  const PYTHON = `
import json, socket, sys
def tried(call, text):
    try: return call(text).hex()
    except (OSError, ValueError): return None
def text(family, data):
    try: return socket.inet_ntop(family, bytes.fromhex(data))
    except (OSError, ValueError): return None
given = json.load(sys.stdin)
json.dump({
  "aton": [tried(socket.inet_aton, t) for t in given["texts"]],
  "v4": [tried(lambda x: socket.inet_pton(socket.AF_INET, x), t) for t in given["texts"]],
  "v6": [tried(lambda x: socket.inet_pton(socket.AF_INET6, x), t) for t in given["texts"]],
  "ntop4": [text(socket.AF_INET, b) for b in given["bytes"]],
  "ntop6": [text(socket.AF_INET6, b) for b in given["bytes"]],
}, sys.stdout)
`;

  withPython("thousands that are nearly one are Python's, or none as they are to Python", () => {
    const texts = inputs(8_000, (random) => {
      const dice = random.next();
      if (dice < 0.1) return word(random);
      if (dice < 0.5) return nearly(random, V4_PARTS);
      if (dice < 0.7) return nearly(random, V6_PARTS);
      const size = dice < 0.8 ? 4 : 16;
      const groups = Buffer.from(
        Array.from({ length: size }, () => (random.chance(0.6) ? 0 : random.between(0, 255))),
      );
      const text = socket.inet_ntop(size === 4 ? AF_INET : AF_INET6, groups);
      const at = random.between(0, text.length);
      return random.chance(0.5)
        ? text
        : text.slice(0, at) +
            oneOf(random, [...V4_PARTS, ...V6_PARTS]) +
            text.slice(at + random.between(0, 2));
      // Behind white space the C library reads anything, and a lone surrogate is no text to Python's JSON.
    }).filter((text) => !/\s/.test(text) && text === text.toWellFormed());
    const bytes = inputs(2_000, (random) =>
      hex(random.bytes(oneOf(random, [0, 3, 4, 4, 4, 5, 15, 16, 16, 16, 17]))),
    );
    const or = <T>(call: () => T): T | null => {
      try {
        return call();
      } catch (error) {
        expect(error).toBeInstanceOf(socket.OSError);
        return null;
      }
    };
    const theirs = askPython(PYTHON, { texts, bytes }) as Record<
      "aton" | "v4" | "v6" | "ntop4" | "ntop6",
      (string | null)[]
    >;
    const wrong: unknown[] = [];
    for (const [i, text] of texts.entries()) {
      const ours = {
        aton: or(() => hex(socket.inet_aton(text))),
        v4: or(() => hex(socket.inet_pton(AF_INET, text))),
        v6: or(() => hex(socket.inet_pton(AF_INET6, text))),
      };
      for (const [call, value] of Object.entries(ours)) {
        const python = theirs[call as keyof typeof ours][i];
        if (value !== python) wrong.push({ seed: i + 1, text, call, value, python });
      }
    }
    for (const [i, packed] of bytes.entries()) {
      const all = Buffer.from(packed, "hex");
      const ours = {
        ntop4: or(() => socket.inet_ntop(AF_INET, all)),
        ntop6: or(() => socket.inet_ntop(AF_INET6, all)),
      };
      for (const [call, value] of Object.entries(ours)) {
        const python = theirs[call as keyof typeof ours][i];
        if (value !== python) wrong.push({ seed: i + 1, packed, call, value, python });
      }
    }
    expect(wrong).toEqual([]);
    expect(theirs.aton.filter((one) => one !== null).length).toBeGreaterThan(texts.length / 20);
  });

  test("bytes, as text and as bytes again, are the same", () =>
    fuzz(
      2_000,
      (random) => random.bytes(random.chance(0.5) ? 4 : 16),
      (bytes) => {
        const family = bytes.length === 4 ? AF_INET : AF_INET6;
        expect(hex(socket.inet_pton(family, socket.inet_ntop(family, bytes)))).toBe(hex(bytes));
        if (family === AF_INET) expect(hex(socket.inet_aton(socket.inet_ntoa(bytes)))).toBe(hex(bytes));
      },
    ));

  test("an address, encoded and decoded, is the same", () =>
    fuzz(
      2_000,
      (random): [socket.AddressFamily, socket.AddressLike<typeof AF_INET6> | string] => {
        const port = random.between(0, 65_535);
        const dice = random.next();
        if (dice < 0.3) return [AF_INET, [socket.inet_ntoa(random.bytes(4)), port]];
        const scope = [random.between(0, 0xf_ffff), random.between(0, 0xffff_ffff)] as const;
        if (dice < 0.6) return [AF_INET6, [socket.inet_ntop(AF_INET6, random.bytes(16)), port, ...scope]];
        const path = several(random, 9, word).join("").replaceAll("\0", "").toWellFormed();
        return [AF_UNIX, random.chance(0.2) ? `\0${path}` : path];
      },
      ([family, address]) => {
        checkAddress(family, address, "bind");
        let bytes;
        try {
          bytes = encodeAddress(family, address);
        } catch (error) {
          expect(error).toMatchObject({ code: "ENAMETOOLONG" });
          return expect(Buffer.byteLength(address as string)).toBeGreaterThanOrEqual(108);
        }
        expect(bytes.length).toBeLessThanOrEqual(SOCKADDR_MAX);
        expect(decodeAddress(bytes) as unknown).toEqual(address);
      },
    ));

  test("bytes that are none are an OSError, or what can be read of them", () =>
    fuzz(
      5_000,
      (random) => {
        const bytes = random.bytes(random.between(0, 40));
        if (random.chance(0.8) && bytes.length > 1)
          bytes.writeUInt16LE(oneOf(random, [AF_INET, AF_INET6, AF_UNIX]));
        return bytes;
      },
      (bytes) => {
        try {
          const address = decodeAddress(bytes);
          expect(typeof address === "string" || typeof address[0] === "string").toBe(true);
        } catch (error) {
          expect(error).toBeInstanceOf(socket.OSError);
        }
      },
    ));

  test("anything else is a TypeError or a RangeError to checkAddress", () =>
    fuzz(
      5_000,
      (random) =>
        [
          oneOf(random, [AF_INET, AF_INET6, AF_UNIX]),
          random.chance(0.5) ? anything(random) : ["::1", ...several(random, 4, anything)],
        ] as const,
      ([family, address]) => {
        const error = thrown(() => checkAddress(family, address, "bind"));
        if (error !== undefined)
          return expect(error instanceof TypeError || error instanceof RangeError).toBe(true);
        if (family === AF_UNIX) return expect(typeof address).toBe("string");
        const [, ...numbers] = address as [string, ...number[]];
        for (const number of numbers) expect(number).toSatisfy(Number.isSafeInteger);
      },
    ));
});

describe("calls that are given anything", () => {
  const documented = (error: unknown): void => {
    const known =
      error instanceof TypeError || error instanceof RangeError || error instanceof socket.OSError;
    // The runtime's own words for a wrong argument of its own say nothing of the call.
    if (!known || /bun:ffi|undefined is not|is not a function/.test(error.message)) throw error;
  };

  test("getaddrinfo answers with literal addresses and a port, or refuses", () =>
    fuzz(
      2_000,
      (random) => {
        // A name would be looked up.
        const host = oneOf(random, ["127.0.0.1", "::1", "127.1", "0x7f.1", "", null, "1:2:3:4:5:6:7:8"]);
        const port = random.chance(0.3) ? random.between(-9, 70_000) : anything(random);
        const more = several(random, 3, (of) => (of.chance(0.6) ? of.between(0, 20) : anything(of)));
        return [host, port, ...more] as Parameters<typeof socket.getaddrinfo>;
      },
      async (given) => {
        try {
          for (const [family, type, proto, name, address] of await socket.getaddrinfo(...given)) {
            expect([AF_INET, AF_INET6]).toContain(family);
            expect([SOCK_STREAM, SOCK_DGRAM]).toContain(type);
            expect([socket.IPPROTO_TCP, socket.IPPROTO_UDP]).toContain(proto);
            expect(name).toBe("");
            checkAddress(family, address, "getaddrinfo");
          }
        } catch (error) {
          documented(error);
        }
      },
    ));

  test("socket() makes one that is what was asked for, or none", () =>
    fuzz(
      1_500,
      (random) => {
        const family = random.chance(0.6) ? oneOf(random, [AF_INET, AF_INET6, AF_UNIX]) : anything(random);
        const type = random.chance(0.6) ? oneOf(random, [SOCK_STREAM, SOCK_DGRAM]) : anything(random);
        // A number that may be somebody's descriptor is no nonsense.
        const fileno = [null, -1, 1.5, NaN, "3", {}, 2 ** 32, 2 ** 53][random.between(0, 20)];
        return [family, type, random.chance(0.5) ? 0 : anything(random), fileno] as unknown[];
      },
      (given) => {
        const before = openDescriptors();
        try {
          const made = (socket.socket as (...all: unknown[]) => socket.Socket<socket.AddressFamily>)(
            ...given,
          );
          made.close();
          expect([AF_INET, AF_INET6, AF_UNIX] as number[]).toContain(made.family);
          for (const number of [made.type, made.proto]) expect(number).toSatisfy(Number.isSafeInteger);
        } catch (error) {
          documented(error);
        }
        expect(openDescriptors()).toBe(before);
      },
    ));

  type Call = [
    name: string,
    call: (on: Record<string, (...given: unknown[]) => unknown>, given: unknown[]) => unknown,
  ];
  const CALLS: readonly Call[] = [
    ...[
      "setsockopt",
      "getsockopt",
      "settimeout",
      "listen",
      "bind",
      "connect",
      "shutdown",
      "recv",
      "recv_into",
      "send",
    ].map((name): Call => [name, (on, given) => on[name]!(...given)]),
    ["bind to", (on, given) => on["bind"]!(["127.0.0.1", ...given])],
    ["connect to", (on, given) => on["connect"]!(["127.0.0.1", 1], ...given)],
    ["connect by", (on, [signal, tls]) => on["connect"]!(["127.0.0.1", 1], { signal, tls })],
    ["set of the socket", (on, given) => on["setsockopt"]!(socket.SOL_SOCKET, ...given)],
  ];

  test("a refusal changes nothing", () =>
    fuzz(
      3_000,
      (random) => [oneOf(random, CALLS), several(random, 4, anything)] as const,
      async ([[, call], given]) => {
        const one = socket.socket();
        try {
          const names = ["SO_REUSEADDR", "SO_KEEPALIVE", "SO_RCVBUF", "SO_SNDBUF", "SO_BROADCAST"] as const;
          const state = () => [
            ...[one.getsockname(), one.gettimeout(), one.fileno(), one.family, one.type, one.proto],
            ...names.map((name) => one.getsockopt(socket.SOL_SOCKET, socket[name])),
            one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN),
          ];
          const before = state();
          try {
            await call(one as never, given);
          } catch (error) {
            documented(error);
            // A connect that the kernel has tried has given the socket a name and taken it again.
            expect(state()).toEqual(before);
            one.settimeout(null);
            // It is as usable as before: nobody listens there.
            expect(await failure(() => one.connect(["127.0.0.1", 1]))).toMatchObject({
              code: "ECONNREFUSED",
            });
          }
        } finally {
          one.close();
        }
      },
    ));
});
