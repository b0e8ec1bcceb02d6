import { describe, expect, test } from "bun:test";
import * as socket from "../../../src/socket.ts";
import { Random } from "../../support/random.ts";
import { askPython, failure, python, pythonAddresses } from "../../support/sockets.ts";

const { AF_INET, AF_INET6, AF_UNIX, SOCK_DGRAM, SOCK_STREAM } = socket;
const withPython = test.skipIf(python === null);
if (python === null) console.warn("skipped: python3 is not installed, nothing is compared with it");

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

/** The bytes of each text in hexadecimal, or null where it is refused. */
function tried(call: (text: string) => Uint8Array, texts: readonly string[]): (string | null)[] {
  return texts.map((text) => {
    try {
      return hex(call(text));
    } catch (error) {
      expect(error).toBeInstanceOf(socket.OSError);
      return null;
    }
  });
}

const V4 =
  "127.0.0.1 0.0.0.0 255.255.255.255 127.1 1.2.3 0x7f000001 0x7f.1 010.1.1.1 256.1.1.1 1.2.3.4.5 1..2 1.2.3.".split(
    " ",
  );
V4.push(
  "",
  ".",
  "a",
  "08.1.1.1",
  "4294967295",
  "4294967296",
  "1.16777215",
  "1.16777216",
  "0x",
  "-1",
  "1.2.3.-4",
);
V4.push("1.2.65535", "1.2.65536", "01.2.3.4", "1.2.3.04", "+1.2.3.4", "1.2.3.0x10");
const V6 =
  ":: ::1 1:: 1::8 1:2:3:4:5:6:7:8 1:2:3:4:5:6:7:: ::2:3:4:5:6:7:8 ::ffff:1.2.3.4 1:2:3:4:5:6:7:8:9 ::1::".split(
    " ",
  );
V6.push(
  "",
  ":",
  ":::",
  "1",
  "12345::",
  "g::",
  "1:2:3:4:5:6:7",
  "::1.2.3",
  "::1.2.3.256",
  "1.2.3.4",
  "1.2.3.4::",
);
V6.push(
  "1:2:3:4:5:6:1.2.3.4",
  "1:2:3:4:5:6:7:1.2.3.4",
  "::01.2.3.4",
  "FE80::A",
  ":1:2:3:4:5:6:7:8",
  "1:2:3:4:5:6:7:",
);
V6.push("1:2:3:4:5:6:7::8", "::1.2.3.4:5", "0001:02::", "::%1", " ::1", "::1 ");

describe("the texts and bytes of addresses are Python's", () => {
  withPython("for forms of every kind, and for those that seeded chance makes and breaks", () => {
    const random = new Random(20);
    const [v4, v6, bytes4, bytes6] = [[...V4], [...V6], [] as string[], [] as string[]];
    for (let i = 0; i < 1000; i++) {
      bytes4.push(hex(random.bytes(4)));
      const groups = Buffer.alloc(16);
      // Many zero groups, so that there is something to shorten.
      for (let at = 0; at < 16; at += 2) {
        const small = random.chance(0.2) ? 0xffff : random.between(0, 300);
        groups.writeUInt16BE(
          random.chance(0.5) ? 0 : random.chance(0.5) ? small : random.between(0, 65_535),
          at,
        );
      }
      bytes6.push(hex(groups));
      const parts = Array.from({ length: random.between(1, 5) }, () => random.between(0, 300));
      v4.push(parts.map((part) => (random.chance(0.2) ? `0x${part.toString(16)}` : part)).join("."));
      const text = socket.inet_ntop(AF_INET6, groups);
      const at = random.between(0, text.length);
      const broken = random.chance(0.5)
        ? text
        : text.slice(0, at) + ":.0f%g"[random.between(0, 5)] + text.slice(at);
      v6.push(broken);
    }
    const ours = {
      aton: tried(socket.inet_aton, v4),
      v4: tried((text) => socket.inet_pton(AF_INET, text), v4),
      v6: tried((text) => socket.inet_pton(AF_INET6, text), v6),
      text4: bytes4.map((bytes) => socket.inet_ntoa(Buffer.from(bytes, "hex"))),
      text6: bytes6.map((bytes) => socket.inet_ntop(AF_INET6, Buffer.from(bytes, "hex"))),
    };
    const theirs = pythonAddresses({ aton: v4, v4, v6, text4: bytes4, text6: bytes6 });
    const named = (results: ReturnType<typeof pythonAddresses>) => ({
      ...results,
      aton: results.aton.map((result, i) => `${v4[i]} ${result}`),
      v4: results.v4.map((result, i) => `${v4[i]} ${result}`),
      v6: results.v6.map((result, i) => `${v6[i]} ${result}`),
    });
    expect(named(ours)).toEqual(named(theirs));
  });

  test("random addresses survive the way to text and back", () => {
    const random = new Random(6);
    for (let i = 0; i < 1000; i++) {
      const [four, six] = [random.bytes(4), random.bytes(16)];
      expect(hex(socket.inet_aton(socket.inet_ntoa(four)))).toBe(hex(four));
      expect(hex(socket.inet_pton(AF_INET6, socket.inet_ntop(AF_INET6, six)))).toBe(hex(six));
    }
  });

  test("a wrong number of bytes or a wrong family is an error that says so", async () => {
    expect(await failure(() => socket.inet_ntoa(Buffer.alloc(5)))).toMatchObject({ code: "EINVAL" });
    expect(await failure(() => socket.inet_ntop(AF_INET6, Buffer.alloc(4)))).toMatchObject({
      code: "EINVAL",
    });
    expect(await failure(() => socket.inet_ntop(AF_UNIX, Buffer.alloc(4)))).toMatchObject({
      code: "EAFNOSUPPORT",
    });
    expect(await failure(() => socket.inet_pton(AF_UNIX, "::1"))).toMatchObject({ code: "EAFNOSUPPORT" });
  });
});

describe("byte order", () => {
  test("network byte order is big-endian on every machine", () => {
    const short = new Uint8Array(new Uint16Array([socket.htons(0x1234)]).buffer);
    const long = new Uint8Array(new Uint32Array([socket.htonl(0x12345678)]).buffer);
    expect([hex(short), hex(long)]).toEqual(["1234", "12345678"]);
    for (const x of [0, 1, 0x80, 0xff80, 0xffff]) expect(socket.ntohs(socket.htons(x))).toBe(x);
    for (const x of [0, 1, 0x80, 0x80000000, 0xff000000, 0xffffffff])
      expect(socket.ntohl(socket.htonl(x))).toBe(x);
  });

  test("a number that does not fit its byte order call is an error", () => {
    for (const x of [-1, 65_536, 1.5, NaN]) expect(() => socket.htons(x)).toThrow(RangeError);
    for (const x of [-1, 2 ** 32, 1.5, NaN]) expect(() => socket.ntohl(x)).toThrow(RangeError);
  });
});

describe("the form of an address", () => {
  const ports = [-1, 65_536, 1.5, NaN, 1e9];

  test("a port outside 0..65535 is an error before any system call is made", async () => {
    const two = socket.socket(AF_INET, SOCK_DGRAM);
    for (const port of ports) {
      const fresh = socket.socket();
      expect(() => fresh.bind(["127.0.0.1", port])).toThrow(RangeError);
      expect(await failure(() => fresh.connect(["127.0.0.1", port]))).toBeInstanceOf(RangeError);
      expect(await failure(() => fresh.connect_ex(["127.0.0.1", port]))).toBeInstanceOf(RangeError);
      expect(await failure(() => two.sendto(Buffer.from("x"), ["127.0.0.1", port]))).toBeInstanceOf(
        RangeError,
      );
      expect(await failure(() => socket.create_connection(["127.0.0.1", port]))).toBeInstanceOf(RangeError);
      expect(await failure(() => socket.getaddrinfo("127.0.0.1", port))).toBeInstanceOf(RangeError);
      expect(() => socket.create_server(["127.0.0.1", port])).toThrow(RangeError);
      // Nothing was bound by a number that wrapped round.
      expect(fresh.getsockname()).toEqual(["0.0.0.0", 0]);
      fresh.close();
    }
    two.close();
  });

  test("an address of another family is a TypeError that shows the right form", async () => {
    const wrong: [socket.AddressFamily, unknown][] = [
      [AF_INET, "127.0.0.1"],
      [AF_INET, ["127.0.0.1"]],
      [AF_INET, ["127.0.0.1", "80"]],
      [AF_INET, ["127.0.0.1", 80, 0, 0]],
      [AF_INET, [0, 80]],
      [AF_INET, null],
      [AF_INET6, ["::1", 80, 0, 0, 0]],
      [AF_INET6, ["::1", 80, "0"]],
      [AF_UNIX, ["127.0.0.1", 80]],
    ];
    for (const [family, address] of wrong) {
      using one = socket.socket(family);
      expect(() => one.bind(address as string)).toThrow(TypeError);
      expect(await failure(() => one.connect(address as string))).toBeInstanceOf(TypeError);
    }
  });

  test("an address is [host, port], [host, port, flowinfo, scopeid] or a Unix address", () => {
    using four = socket.socket();
    four.bind(["127.0.0.1", 0]);
    expect(four.getsockname()).toEqual(["127.0.0.1", expect.any(Number)]);
    using six = socket.socket(AF_INET6);
    six.bind(["::1", 0]);
    expect(six.getsockname()).toEqual(["::1", expect.any(Number), 0, 0]);
    using local = socket.socket(AF_UNIX);
    expect(local.getsockname()).toBe("");
    const name = `\0ringback-${process.pid}`;
    if (process.platform !== "linux") return;
    local.bind(name);
    // An abstract name comes back as bytes, as in Python.
    expect(local.getsockname()).toEqual(Buffer.from(name));
  });

  test('"" is every interface, "localhost" the loopback one, and another name is not looked up by bind', async () => {
    const bound = (family: socket.AddressFamily, host: string): unknown => {
      using one = socket.socket(family as socket.AF_INET);
      one.bind([host, 0]);
      return one.getsockname()[0];
    };
    expect([bound(AF_INET, ""), bound(AF_INET6, "")]).toEqual(["0.0.0.0", "::"]);
    expect([bound(AF_INET, "localhost"), bound(AF_INET6, "localhost")]).toEqual(["127.0.0.1", "::1"]);
    expect(bound(AF_INET, "127.1")).toBe("127.0.0.1");
    const error = await failure(() => bound(AF_INET, "example.com"));
    expect(error).toBeInstanceOf(socket.gaierror);
    expect(error.message).toContain("bind example.com: bind() does not look up names");
  });

  test("a path that is too long is ENAMETOOLONG and is not cut", async () => {
    using one = socket.socket(AF_UNIX);
    expect(await failure(() => one.bind(`/tmp/${"x".repeat(200)}`))).toMatchObject({ code: "ENAMETOOLONG" });
  });
});

describe("getaddrinfo", () => {
  test("getaddrinfo returns literal addresses immediately, for streams and datagrams, in standard form", async () => {
    expect(await socket.getaddrinfo("127.1", "80")).toEqual([
      [AF_INET, SOCK_STREAM, socket.IPPROTO_TCP, "", ["127.0.0.1", 80]],
      [AF_INET, SOCK_DGRAM, socket.IPPROTO_UDP, "", ["127.0.0.1", 80]],
    ]);
    expect(await socket.getaddrinfo("0:0::1", 80, AF_INET6, SOCK_STREAM)).toEqual([
      [AF_INET6, SOCK_STREAM, socket.IPPROTO_TCP, "", ["::1", 80, 0, 0]],
    ]);
    expect(await socket.getaddrinfo("::1", null, 0, 0, socket.IPPROTO_UDP)).toEqual([
      [AF_INET6, SOCK_DGRAM, socket.IPPROTO_UDP, "", ["::1", 0, 0, 0]],
    ]);
  });

  test("getaddrinfo without a host returns this machine", async () => {
    const found = await socket.getaddrinfo(null, 80, 0, SOCK_STREAM);
    expect(found.map(([, , , , [host]]) => host).sort()).toEqual(["127.0.0.1", "::1"]);
  });

  withPython("of localhost and of literals is Python's", async () => {
    const asked = [
      ["localhost", 80, AF_INET, SOCK_STREAM],
      ["127.0.0.1", "8080", 0, 0],
      ["::1", 80, 0, SOCK_DGRAM],
      [null, 80, AF_INET, SOCK_STREAM],
    ] as const;
    const program = `
import json, socket, sys
for ask in [json.load(sys.stdin)]:
    json.dump([[r for r in socket.getaddrinfo(*a) if r[1] in (1, 2)] for a in ask], sys.stdout)
`;
    const ours = await Promise.all(asked.map((ask) => socket.getaddrinfo(ask[0], ask[1], ask[2], ask[3])));
    expect(ours as unknown).toEqual(askPython(program, asked));
  });

  test("getaddrinfo with an unknown host, family, type or service is a gaierror with Python's number", async () => {
    const cases: [() => Promise<unknown>, string, number][] = [
      [() => socket.getaddrinfo("no.such.host.invalid", 80), "EAI_NONAME", socket.EAI_NONAME],
      [() => socket.getaddrinfo("::1", 80, AF_INET), "EAI_ADDRFAMILY", socket.EAI_ADDRFAMILY],
      [() => socket.getaddrinfo("::1", 80, AF_UNIX), "EAI_FAMILY", socket.EAI_FAMILY],
      [() => socket.getaddrinfo("::1", 80, 0, socket.SOCK_RAW), "EAI_SOCKTYPE", socket.EAI_SOCKTYPE],
      [() => socket.getaddrinfo("::1", "http"), "EAI_SERVICE", socket.EAI_SERVICE],
    ];
    for (const [call, code, errno] of cases) {
      const error = await failure(call);
      expect(error).toBeInstanceOf(socket.gaierror);
      expect(error).toBeInstanceOf(socket.OSError);
      expect(error).toMatchObject({ code, errno });
    }
    expect(await failure(() => socket.getaddrinfo("::1", 80, 0, 0, 0, 1))).toMatchObject({
      code: "EOPNOTSUPP",
    });
  });

  test("getaddrinfo is ended by its signal", async () => {
    const controller = new AbortController();
    const asked = socket.getaddrinfo("no.such.host.invalid", 80, 0, 0, 0, 0, { signal: controller.signal });
    controller.abort();
    expect(await failure(() => asked)).toMatchObject({ name: "AbortError" });
  });
});
