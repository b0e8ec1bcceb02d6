/**
 * The library's calls, given nonsense: it is taken as what it is, or refused as documented, and nothing else.
 *
 * A failing seed is said, with its input. It replays by `FUZZ_SEED=17 bun test test/fuzz/calls.test.ts`;
 * `FUZZ_RUNS=5000` beside it plays those after it as well.
 */
import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkAddress } from "../../src/os/address.ts";
import * as socket from "../../src/socket.ts";
import { anything, fuzz, oneOf, several } from "../support/fuzz.ts";
import type { Random } from "../support/random.ts";
import { closeAll, failure, kept, openDescriptors } from "../support/sockets.ts";
import { cert, key } from "../support/tls.ts";

const { AF_INET, AF_INET6, AF_UNIX, SOCK_DGRAM, SOCK_STREAM } = socket;
setDefaultTimeout(30_000);
afterEach(closeAll);

// A nonsense path may be bound, and leaves a socket file behind: here, and not in the repository.
const home = process.cwd();
const folder = mkdtempSync(join(tmpdir(), "ringback-"));
beforeAll(() => process.chdir(folder));
afterAll(() => {
  process.chdir(home);
  rmSync(folder, { recursive: true });
});

/** Calls take what their types forbid. */
type Given = readonly unknown[];
type Loose = (...given: Given) => unknown;
const loosely = (call: unknown): Loose => call as Loose;

/** The runtime's words for what cannot even be shown, when the library would say what it has been given. */
const HAS_NO_TEXT = /^(No default value|Cannot convert a symbol to a string)$/;

/**
 * The library says which call has refused what; the runtime's own words for a wrong argument say nothing of
 * the call.
 */
function documented(error: unknown): void {
  if (error instanceof socket.OSError) return;
  const known = error instanceof TypeError || error instanceof RangeError;
  if (!known || !(HAS_NO_TEXT.test(error.message) || /^[a-z]+(_[a-z]+)*: /.test(error.message))) throw error;
}

/** Nonsense that looks up no name. */
function noName(random: Random): unknown {
  const one = anything(random);
  return typeof one === "string" ? oneOf(random, ["127.0.0.1", "::1", ""]) : one;
}

describe("calls that are given anything", () => {
  test("getaddrinfo, given anything, returns literal addresses and a port or refuses", () =>
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

  test("socket() and socketpair(), given anything, create what was requested or nothing", async () => {
    const before = openDescriptors();
    let played = 0;
    await fuzz(
      2_000,
      (random) => {
        const family = random.chance(0.6) ? oneOf(random, [AF_INET, AF_INET6, AF_UNIX]) : anything(random);
        const type = random.chance(0.6) ? oneOf(random, [SOCK_STREAM, SOCK_DGRAM]) : anything(random);
        // A number that may be somebody's descriptor is no nonsense.
        const fileno = [null, -1, 1.5, NaN, "3", {}, 2 ** 32, 2 ** 53][random.between(0, 20)];
        const name = random.chance(0.3) ? "socketpair" : "socket";
        return { name, given: [family, type, random.chance(0.5) ? 0 : anything(random), fileno] } as const;
      },
      async ({ name, given }) => {
        try {
          const made = loosely(socket[name])(...given);
          for (const one of (name === "socket" ? [made] : made) as socket.Socket<socket.AddressFamily>[]) {
            one.close();
            expect([AF_INET, AF_INET6, AF_UNIX] as number[]).toContain(one.family);
            for (const number of [one.type, one.proto]) expect(number).toSatisfy(Number.isSafeInteger);
          }
        } catch (error) {
          documented(error);
        }
        // What is closed leaves a little later: to wait for each one would be seconds.
        if (++played % 100 === 0) await atRest(before);
      },
    );
    await atRest(before);
  });

  test("the module's small calls, given anything, answer or refuse", () =>
    fuzz(
      4_000,
      (random) => ({
        name: oneOf(random, [
          ...(["htons", "ntohs", "htonl", "ntohl", "setdefaulttimeout"] as const),
          ...(["inet_aton", "inet_ntoa", "inet_pton", "inet_ntop"] as const),
        ]),
        given: several(random, 3, anything),
      }),
      ({ name, given }) => {
        try {
          const answer = loosely(socket[name])(...given);
          if (name === "setdefaulttimeout") {
            expect(socket.getdefaulttimeout()).toBe((given[0] as number | undefined) ?? null);
          } else if (/^inet_(aton|pton)$/.test(name)) {
            expect(answer).toBeInstanceOf(Uint8Array);
          } else if (name.startsWith("inet")) {
            expect(answer).toBeString();
          } else {
            expect(answer).toBeWithin(0, name.endsWith("s") ? 2 ** 16 : 2 ** 32);
            // There and back.
            expect(loosely(socket[name])(answer) === given[0]).toBe(true);
          }
        } catch (error) {
          documented(error);
        } finally {
          socket.setdefaulttimeout(null);
        }
      },
    ));

  /** Half of the TLS options may be valid. */
  const tlsOptions = (random: Random): unknown =>
    random.chance(0.2)
      ? anything(random)
      : Object.fromEntries(
          Object.entries({ key, cert, ca: cert, serverName: "localhost" }).map(([name, right]) => [
            name,
            random.chance(0.5) ? right : anything(random),
          ]),
        );

  test("create_connection, given anything, connects to an address or refuses", async () => {
    const listener = kept(socket.create_server(["127.0.0.1", 0], { backlog: 8 }));
    const [, open] = listener.getsockname();
    void (async () => {
      // Every client is sent away with something that is not TLS, and may have gone already.
      for await (const [conn] of listener) {
        void conn
          .sendall(Buffer.from("none"))
          .catch(documented)
          .finally(() => conn.close());
      }
    })().catch(() => undefined);
    const before = openDescriptors();
    await fuzz(
      800,
      (random): Given => {
        const address = [random.chance(0.7) ? "127.0.0.1" : noName(random), oneOf(random, [1, open])];
        if (random.chance(0.3)) address[1] = anything(random) as number;
        const options = random.chance(0.5)
          ? { signal: random.chance(0.7) ? undefined : anything(random), tls: tlsOptions(random) }
          : noName(random);
        return [
          random.chance(0.8) ? address : noName(random),
          random.chance(0.7) ? 1 : anything(random),
          random.chance(0.6) ? undefined : random.chance(0.5) ? ["127.0.0.1", 0] : noName(random),
          options,
        ].slice(0, random.between(0, 6));
      },
      async (given) => {
        try {
          const conn = (await loosely(socket.create_connection)(...given)) as socket.Socket;
          expect(conn.getpeername()[1]).toBe(open);
          conn[Symbol.dispose]();
          // Nobody speaks TLS there: who has asked for it, however wrongly, must not get a plain connection.
          const isOptions = (one: unknown): one is { tls?: unknown } =>
            typeof one === "object" && one !== null && !Array.isArray(one);
          expect(given.slice(1).find(isOptions)?.tls).toBeUndefined();
        } catch (error) {
          documented(error);
        }
      },
    );
    await atRest(before);
  });

  test("create_server, given anything, listens where it was asked to or refuses", () =>
    fuzz(
      1_000,
      (random) => {
        const family = oneOf(random, [undefined, AF_INET, AF_INET6, anything(random)]);
        // A path would be one of this machine's.
        const address =
          family === AF_UNIX
            ? "\0"
            : oneOf(random, [
                ["127.0.0.1", 0],
                ["::1", 0],
              ]);
        const options = {
          ...{ family, backlog: random.chance(0.5) ? 5 : anything(random) },
          ...(random.chance(0.4) && { reuse_port: anything(random), dualstack_ipv6: anything(random) }),
          ...(random.chance(0.5) && { tls: tlsOptions(random) }),
        };
        const nonsense = family === AF_UNIX ? 5 : noName(random);
        return [
          random.chance(0.7) ? address : random.chance(0.5) ? [nonsense, anything(random)] : nonsense,
          random.chance(0.9) ? options : anything(random),
        ].slice(0, random.between(1, 4));
      },
      (given) => {
        const before = openDescriptors();
        try {
          const made = loosely(socket.create_server)(...given) as socket.Socket;
          expect(made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)).toBe(1);
          made.close();
          // Without both, nobody's handshake could succeed.
          const { tls } = (given[1] ?? {}) as { tls?: { key?: unknown; cert?: unknown } };
          if (tls !== undefined) expect(tls).toMatchObject({ key, cert });
        } catch (error) {
          documented(error);
        }
        expect(openDescriptors()).toBe(before);
      },
    ));
});

/** Waits until the runtime has closed the descriptors, too. */
async function atRest(before: number): Promise<void> {
  const began = performance.now();
  while (openDescriptors() > before && performance.now() - began < 2000) await new Promise(setImmediate);
  expect(openDescriptors()).toBe(before);
}

describe("a refusal changes nothing", () => {
  type One = socket.Socket<socket.AddressFamily>;
  type Call = readonly [name: string, call: (on: Record<string, Loose>, given: Given) => unknown];
  const CALLS: readonly Call[] = [
    ...[
      ...["setsockopt", "getsockopt", "settimeout", "listen", "bind", "connect", "connect_ex", "shutdown"],
      ...["recv", "recv_into", "recvfrom", "recvfrom_into", "send", "sendall", "sendto", "accept"],
    ].map((name): Call => [name, (on, given) => on[name]!(...given)]),
    ["bind to", (on, given) => on["bind"]!(["127.0.0.1", ...given])],
    ["connect to", (on, given) => on["connect"]!(["127.0.0.1", 1], ...given)],
    ["connect by", (on, [signal, tls]) => on["connect"]!(["127.0.0.1", 1], { signal, tls })],
    ["sendto there", (on, given) => on["sendto"]!(Buffer.from("x"), ["127.0.0.1", 1], ...given)],
    ["sendto there by", (on, [signal]) => on["sendto"]!(Buffer.from("x"), ["127.0.0.1", 1], { signal })],
    ["send x", (on, given) => on["send"]!(Buffer.from("x"), ...given)],
    ["sendall x", (on, given) => on["sendall"]!(Buffer.from("x"), ...given)],
    ["recv one", (on, given) => on["recv"]!(1, ...given)],
    ["recv_into one", (on, given) => on["recv_into"]!(Buffer.alloc(1), ...given)],
    ["recv by", (on, [signal]) => on["recv"]!(1, { signal })],
    ["send by", (on, [signal]) => on["send"]!(Buffer.from("x"), { signal })],
    ["sendall by", (on, [signal]) => on["sendall"]!(Buffer.from("x"), { signal })],
    ["accept by", (on, [signal]) => on["accept"]!({ signal })],
    ["set of the socket", (on, given) => on["setsockopt"]!(socket.SOL_SOCKET, ...given)],
  ];
  const NAMES = ["SO_REUSEADDR", "SO_KEEPALIVE", "SO_RCVBUF", "SO_SNDBUF", "SO_BROADCAST"] as const;
  const state = (one: One): unknown[] => [
    // A connect that was tried may have another number.
    ...[one.getsockname(), one.gettimeout(), one.fileno() >= 0, one.family, one.type, one.proto],
    ...NAMES.map((name) => one.getsockopt(socket.SOL_SOCKET, socket[name])),
    one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN),
  ];

  /** Bytes both ways. */
  async function exchange(a: One, b: One): Promise<void> {
    for (const one of [a, b]) one.settimeout(1);
    for (const [from, to] of [[a, b] as const, [b, a] as const]) {
      await from.sendall(Buffer.from("as before"));
      let got = "";
      while (got.length < 9) {
        const bytes = await to.recv(9 - got.length);
        expect(bytes.length).toBeGreaterThan(0);
        got += bytes.toString();
      }
      expect(got).toBe("as before");
    }
  }

  interface Kind {
    make: () => Promise<One[]>;
    /** It is as usable as before. */
    use: (all: One[]) => Promise<unknown>;
  }
  const kinds: Record<string, Kind> = {
    "of a new socket": {
      make: async () => [socket.socket()],
      // Nobody listens there.
      use: async ([one]) =>
        expect(await failure(() => one!.connect(["127.0.0.1", 1]))).toMatchObject({ code: "ECONNREFUSED" }),
    },
    "of a connected pair": {
      make: async () => socket.socketpair(),
      use: ([a, b]) => exchange(a!, b!),
    },
    "of a TCP connection": {
      async make() {
        const listener = socket.create_server(["127.0.0.1", 0]);
        const client = await socket.create_connection(listener.getsockname());
        const [conn] = await listener.accept();
        listener.close();
        return [client, conn] as One[];
      },
      use: ([a, b]) => exchange(a!, b!),
    },
    "of a listener": {
      make: async () => [socket.create_server(["127.0.0.1", 0]) as unknown as One],
      async use([listener]) {
        const client = (await socket.create_connection(listener!.getsockname() as [string, number])) as One;
        const [conn] = await listener!.accept();
        await exchange(client, conn);
        for (const one of [client, conn]) one[Symbol.dispose]();
      },
    },
    "of a datagram socket": {
      async make() {
        const pair = [socket.socket(AF_INET, SOCK_DGRAM), socket.socket(AF_INET, SOCK_DGRAM)];
        for (const one of pair) one.bind(["127.0.0.1", 0]);
        return pair as One[];
      },
      async use([a, b]) {
        for (const one of [a!, b!]) one.settimeout(1);
        await a!.sendto(Buffer.from("as before"), b!.getsockname() as [string, number]);
        expect((await b!.recv(99)).toString()).toBe("as before");
      },
    },
  };

  for (const [what, { make, use }] of Object.entries(kinds)) {
    test(what, () =>
      fuzz(
        1_500,
        (random) => [oneOf(random, CALLS), several(random, 4, anything), oneOf(random, [0, 0.001])] as const,
        async ([[, call], given, wait]) => {
          const all = await make();
          const [one] = all as [One];
          // What waits would wait for ever; but what it waits with must be seen, too.
          if (what !== "of a new socket") one.settimeout(wait);
          try {
            const before = state(one);
            try {
              await call(one as never, given);
            } catch (error) {
              documented(error);
              // A connect that the kernel has tried has given the socket a name and taken it again.
              expect(state(one)).toEqual(before);
              one.settimeout(null);
              await use(all);
            }
          } finally {
            for (const each of all) each[Symbol.dispose]();
          }
        },
      ),
    );
  }
});
