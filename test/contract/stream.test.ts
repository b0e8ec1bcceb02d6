/** Runs the contract of a connected stream over every carrier, in both directions. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as socket from "../../src/socket.ts";
import { checkStream } from "./stream-contract.ts";
import {
  bytes,
  failure,
  FILL,
  type End,
  type Limits,
  type MakeCloggedPair,
  type MakePair,
} from "./stream-support.ts";
import { cert, key } from "../support/tls.ts";

const directory = mkdtempSync(join(tmpdir(), "ringback-"));
afterAll(() => rmSync(directory, { recursive: true }));
let paths = 0;

/** A client and the connection that its server accepted. */
async function tcpPair(host: string, family: socket.AddressFamily, secure: boolean): Promise<[End, End]> {
  const options = { family, backlog: 1, ...(secure ? { tls: { key, cert } } : {}) };
  const server = socket.create_server([host, 0], options);
  try {
    const [, port] = server.getsockname() as socket.Inet6Address;
    const [client, [accepted]] = await Promise.all([
      socket.create_connection([host, port], null, null, secure ? { tls: { ca: cert } } : {}),
      server.accept(),
    ]);
    return [client as End, accepted as End];
  } finally {
    server.close();
  }
}

async function unixPair(): Promise<[End, End]> {
  const path = join(directory, String(paths++));
  const server = socket.create_server(path, { family: socket.AF_UNIX });
  const client = socket.socket(socket.AF_UNIX);
  try {
    const [, [accepted]] = await Promise.all([client.connect(path), server.accept()]);
    return [client as End, accepted as End];
  } finally {
    server.close();
  }
}

/** Sends until nothing has been taken for a while, three times. */
async function clog(a: End): Promise<Buffer> {
  let sent = 0;
  a.settimeout(0.005);
  for (let misses = 0; misses < 3;) {
    try {
      sent += await a.send(FILL.subarray(sent));
      misses = 0;
      if (sent === FILL.length) throw new Error("it takes everything: the peer reads without being asked");
    } catch (error) {
      if (!(error instanceof socket.timeout)) throw error;
      misses++;
    }
  }
  a.settimeout(null);
  return FILL.subarray(0, sent);
}

const noReset =
  "a Unix domain socket has no RST: its peer is told of bytes that were not read, and otherwise of the end";
const noDetach = "the keys of the session are in the object, and the descriptor alone carries ciphertext";

const transports: [name: string, makePair: MakePair, limits: Limits][] = [
  ["TCP v4", () => tcpPair("127.0.0.1", socket.AF_INET, false), {}],
  ["TCP v6", () => tcpPair("::1", socket.AF_INET6, false), {}],
  ["AF_UNIX", unixPair, { noReset }],
  ["TLS", () => tcpPair("127.0.0.1", socket.AF_INET, true), { noDetach }],
  ["socketpair", async () => socket.socketpair() as [End, End], { noReset }],
];

for (const [name, makePair, limits] of transports) {
  const turned: MakePair = async () => {
    const [client, server] = await makePair();
    return [server, client];
  };
  for (const [direction, make] of [
    ["client to server", makePair],
    ["server to client", turned],
  ] as const) {
    // 128 MiB once: the code between the calls and the engine is the same for every carrier.
    const bulkBytes = (name === "TCP v4" && make === makePair ? 128 : 8) << 20;
    const makeClogged: MakeCloggedPair = async () => {
      const [a, b] = await make();
      return [a, b, await clog(a)];
    };
    describe(`${name}, ${direction}`, () => checkStream(make, makeClogged, { ...limits, bulkBytes }));
  }
}

test("a write to a peer that has closed and no longer reads fails within seconds", async () => {
  const began = performance.now();
  const write = async (makePair: MakePair): Promise<void> => {
    const [a, b] = await makePair();
    using end = a;
    b.close();
    const error = await failure(
      (async () => {
        for (;;) await end.sendall(bytes("x")).then(() => Bun.sleep(5));
      })(),
    );
    expect(error).toBeInstanceOf(socket.ConnectionError);
  };
  await Promise.all(transports.map(([, makePair]) => write(makePair)));
  expect(performance.now() - began).toBeLessThan(5000);
});

test("an accepted socket gets the default timeout, not the listener's", async () => {
  const server = socket.create_server(["127.0.0.1", 0]);
  server.settimeout(7);
  socket.setdefaulttimeout(5);
  try {
    const client = socket.create_connection(server.getsockname(), 3);
    const [accepted] = await server.accept();
    using a = await client;
    using b = accepted;
    expect([a.gettimeout(), b.gettimeout(), server.gettimeout()]).toEqual([3, 5, 7]);
  } finally {
    socket.setdefaulttimeout(null);
    server.close();
  }
});
