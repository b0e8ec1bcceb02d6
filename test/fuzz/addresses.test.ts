/**
 * Addresses, given nonsense: it is taken as what it is, or refused as documented, and nothing else.
 *
 * A failing seed is said, with its input. It replays by `FUZZ_SEED=17 bun test test/fuzz/addresses.test.ts`;
 * `FUZZ_RUNS=5000` beside it plays those after it as well.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { checkAddress, decodeAddress, encodeAddress, SOCKADDR_MAX } from "../../src/os/address.ts";
import * as socket from "../../src/socket.ts";
import { allSeeds, anything, fuzz, inputs, oneOf, several, thrown, word } from "../support/fuzz.ts";
import type { Random } from "../support/random.ts";
import { python, pythonAddresses } from "../support/sockets.ts";

const { AF_INET, AF_INET6, AF_UNIX } = socket;
const withPython = test.skipIf(python === null);
setDefaultTimeout(30_000);

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
    }).filter(([, text]) => !/\s/.test(text) && text === text.toWellFormed());
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
    const inputOf = ([, input]: [number, string]): string => input;
    const [asked, packed] = [texts.map(inputOf), bytes.map(inputOf)];
    const theirs = pythonAddresses({ aton: asked, v4: asked, v6: asked, text4: packed, text6: packed });
    const wrong: unknown[] = [];
    for (const [i, [seed, text]] of texts.entries()) {
      const ours = {
        aton: or(() => hex(socket.inet_aton(text))),
        v4: or(() => hex(socket.inet_pton(AF_INET, text))),
        v6: or(() => hex(socket.inet_pton(AF_INET6, text))),
      };
      for (const [call, value] of Object.entries(ours)) {
        const python = theirs[call as keyof typeof ours][i];
        if (value !== python) wrong.push({ seed, text, call, value, python });
      }
    }
    for (const [i, [seed, packed]] of bytes.entries()) {
      const all = Buffer.from(packed, "hex");
      const ours = {
        text4: or(() => socket.inet_ntop(AF_INET, all)),
        text6: or(() => socket.inet_ntop(AF_INET6, all)),
      };
      for (const [call, value] of Object.entries(ours)) {
        const python = theirs[call as keyof typeof ours][i];
        if (value !== python) wrong.push({ seed, packed, call, value, python });
      }
    }
    expect(wrong).toEqual([]);
    // Of all, enough are addresses.
    const addresses = theirs.aton.filter((one) => one !== null).length;
    if (allSeeds) expect(addresses).toBeGreaterThan(texts.length / 20);
  });

  test("address bytes survive the way to text and back", () =>
    fuzz(
      2_000,
      (random) => random.bytes(random.chance(0.5) ? 4 : 16),
      (bytes) => {
        const family = bytes.length === 4 ? AF_INET : AF_INET6;
        expect(hex(socket.inet_pton(family, socket.inet_ntop(family, bytes)))).toBe(hex(bytes));
        if (family === AF_INET) expect(hex(socket.inet_aton(socket.inet_ntoa(bytes)))).toBe(hex(bytes));
      },
    ));

  test("an address survives encoding and decoding", () =>
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
        const abstract = typeof address === "string" && address.startsWith("\0");
        expect(decodeAddress(bytes) as unknown).toEqual(abstract ? Buffer.from(address) : address);
      },
    ));

  test("bytes that are not an address are an OSError or what can be read of them", () =>
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
          const unix = typeof address === "string" || address instanceof Uint8Array;
          expect(unix || typeof address[0] === "string").toBe(true);
        } catch (error) {
          expect(error).toBeInstanceOf(socket.OSError);
        }
      },
    ));

  test("checkAddress throws a TypeError or a RangeError for anything else", () =>
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
        if (family === AF_UNIX)
          return expect(typeof address === "string" || address instanceof Uint8Array).toBe(true);
        const [, ...numbers] = address as [string, ...number[]];
        const most = family === AF_INET ? [65_535] : [65_535, 0xf_ffff, 0xffff_ffff];
        expect(numbers.length).toBeWithin(1, most.length + 1);
        for (const [i, number] of numbers.entries()) {
          expect(number).toSatisfy(Number.isInteger);
          expect(number).toBeWithin(0, most[i]! + 1);
        }
      },
    ));
});
