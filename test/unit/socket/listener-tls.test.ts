/**
 * TLS handshakes: how long one may take, what ends it, and which stalled client gives up its
 * place.
 */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import * as socket from "../../../src/socket.ts";
import { backToNow, leap } from "../../support/clock.ts";
import { until } from "../../support/peers.ts";
import { closeAll, failure, kept, server } from "../../support/sockets.ts";
import { cert, key } from "../../support/tls.ts";

setDefaultTimeout(30_000);
afterEach(() => {
  backToNow();
  closeAll();
});

/** A TLS server for one connection that waits. */
function secureServer() {
  const listener = kept(socket.create_server(["127.0.0.1", 0], { backlog: 1, tls: { key, cert } }));
  return { listener, address: listener.getsockname() };
}

type Address = socket.InetAddress;

/** A client that does its handshake. */
const secureClient = async (address: Address) =>
  kept(await socket.create_connection(address, null, null, { tls: { ca: cert } }));

/** A client that is connected, and says nothing. */
async function stalledClient(address: Address): Promise<socket.Socket> {
  const one = kept(socket.socket());
  await one.connect(address);
  return one;
}

/** Knocks until there is a place. */
async function placed(address: Address) {
  for (let tries = 0; ; tries++) {
    try {
      return await secureClient(address);
    } catch (error) {
      if (tries === 500) throw error;
      await new Promise(setImmediate);
    }
  }
}

/** Bytes pass, in both directions. */
async function expectAlive(a: socket.Socket, b: socket.Socket): Promise<void> {
  for (const [from, to] of [[a, b] as const, [b, a] as const]) {
    await from.sendall(Buffer.from("x"));
    expect((await to.recv(9)).toString()).toBe("x");
  }
}

describe("a client that stalls in its handshake", () => {
  test("clients that stall in the TLS handshake take no place in the accept queue", async () => {
    const { listener, address } = secureServer();
    for (let i = 0; i < 20; i++) await stalledClient(address);
    const client = (await secureClient(address)) as socket.Socket;
    await expectAlive(client, kept((await listener.accept())[0]));
  });

  test("of more than 1024 clients stalled in the handshake, the oldest are reset first", async () => {
    const { listener, address } = secureServer();
    const stalled: socket.Socket[] = [];
    for (let i = 0; i < 1025; i++) stalled.push(await stalledClient(address));
    expect(await failure(() => stalled[0]!.recv(1))).toBeInstanceOf(socket.ConnectionResetError);
    stalled[1]!.settimeout(0);
    expect((await failure(() => stalled[1]!.recv(1))).code).toBe("EAGAIN");
    const client = (await secureClient(address)) as socket.Socket;
    await expectAlive(client, kept((await listener.accept())[0]));
  });

  test("a client that stalls in the handshake is reset after ten seconds, not before", async () => {
    const { address } = secureServer();
    const stalled = await stalledClient(address);
    await secureClient(address);
    const ended = failure(() => stalled.recv(1));
    await leap(5000);
    expect(Bun.peek.status(ended)).toBe("pending");
    await leap(5001);
    await until(() => Bun.peek.status(ended) !== "pending", "the reset is seen", 2000);
    expect(await ended).toBeInstanceOf(socket.ConnectionResetError);
  });
});

test("a connection whose handshake is done outlives the ten seconds", async () => {
  const { listener, address } = secureServer();
  const client = (await secureClient(address)) as socket.Socket;
  await leap(5000);
  const [conn] = await listener.accept();
  await leap(10_001);
  await expectAlive(client, kept(conn));
});

test("a client whose handshake fails is reset, is not accepted, and takes no place", async () => {
  const { listener, address } = secureServer();
  const plain = await stalledClient(address);
  await plain.sendall(Buffer.from("GET / HTTP/1.0\r\n\r\n"));
  const read = async (): Promise<void> => {
    while ((await plain.recv(100)).length > 0);
  };
  expect(await failure(read)).toBeInstanceOf(socket.ConnectionResetError);
  const client = (await secureClient(address)) as socket.Socket;
  await expectAlive(client, kept((await listener.accept())[0]));
  listener.settimeout(0);
  expect(await failure(() => listener.accept())).toBeInstanceOf(socket.BlockingIOError);
});

describe("a TLS connect", () => {
  /** A server without TLS, which says or does something once the client's hello is there. */
  async function answered(answer: (conn: socket.Socket) => unknown): Promise<unknown> {
    const { listener, address } = server();
    const connecting = secureClient(address).then(
      () => "connected",
      (error: unknown) => error,
    );
    const [conn] = await listener.accept();
    expect((await kept(conn).recv(65_536)).length).toBeGreaterThan(0);
    await answer(conn);
    return connecting;
  }

  test("a TLS connect that receives anything but a handshake fails", async () => {
    const error = await answered((conn) => conn.sendall(Buffer.from("HTTP/1.0 400 Bad Request\r\n\r\n")));
    expect(error).toBeInstanceOf(socket.SSLError);
  });

  test("a TLS connect that receives a FIN or a reset fails", async () => {
    for (const answer of [
      (conn: socket.Socket) => conn.shutdown(socket.SHUT_WR),
      (conn: socket.Socket) => conn[Symbol.dispose](),
    ]) {
      expect(await answered(answer)).toMatchObject({ syscall: expect.any(String), code: "ECONNRESET" });
    }
  });

  test("a TLS connect to an untrusted server fails, and the server sees the client leave", async () => {
    const { listener, address } = secureServer();
    const error = await failure(() => socket.create_connection(address, null, null, { tls: {} }));
    expect(error).toBeInstanceOf(socket.SSLError);
    expect(error).toBeInstanceOf(socket.SSLCertVerificationError);
    expect(error).toMatchObject({
      code: "DEPTH_ZERO_SELF_SIGNED_CERT",
      syscall: "do_handshake",
      verify_code: 18,
      verify_message: "self signed certificate",
    });
    const client = (await placed(address)) as socket.Socket;
    for (;;) {
      const [conn, from] = await listener.accept();
      kept(conn);
      if (String(from) === String(client.getsockname())) return expectAlive(client, conn);
      expect(await conn.recv(1).catch(() => [])).toHaveLength(0);
      await until(() => conn.fileno() === -1, "it is closed");
    }
  });
});

describe("a server that demands certificates", () => {
  /** What a client with its own self-signed certificate gets from a server that trusts `ca`. */
  async function asked(tls: Partial<socket.TLS>) {
    const listener = kept(
      socket.create_server(["127.0.0.1", 0], { tls: { key, cert, requestCert: true, ...tls } }),
    );
    const own = { ca: cert, key, cert };
    const client = kept(
      await socket.create_connection(listener.getsockname(), null, null, { tls: own }),
    ) as socket.Socket;
    return { listener, client };
  }
  const stranger = { ca: [] };

  test("a server that requires certificates accepts a client that it can verify", async () => {
    const { listener, client } = await asked({ ca: cert });
    await expectAlive(client, kept((await listener.accept())[0]));
  });

  test("a server that requires certificates resets a client that it cannot verify", async () => {
    const { listener, client } = await asked(stranger);
    expect(await failure(() => client.recv(1))).toBeInstanceOf(socket.ConnectionResetError);
    listener.settimeout(0);
    expect(await failure(() => listener.accept())).toBeInstanceOf(socket.BlockingIOError);
  });

  test("a server with rejectUnauthorized false accepts a client that it cannot verify", async () => {
    const { listener, client } = await asked({ ...stranger, rejectUnauthorized: false });
    await expectAlive(client, kept((await listener.accept())[0]));
  });

  test("a client without the required certificate gets an alert, which recv throws as an SSLError", async () => {
    const address = (await asked({ ca: cert })).listener.getsockname();
    const client = kept(await socket.create_connection(address, null, null, { tls: { ca: cert } }));
    const error = await failure(() => client.recv(1));
    expect(error).toBeInstanceOf(socket.SSLError);
    expect(error).toMatchObject({ reason: "TLSV13_ALERT_CERTIFICATE_REQUIRED", errno: 1, syscall: "recv" });
  });
});

test("connect() verifies the name of the host that it connects to, not a preset one", async () => {
  // The certificate is of localhost, 127.0.0.1 and ::1.
  const listener = kept(socket.create_server(["127.0.0.2", 0], { tls: { key, cert } }));
  const one = kept(socket.socket());
  const error = await failure(() => one.connect(listener.getsockname(), { tls: { ca: cert } }));
  expect(error).toMatchObject({
    name: "SSLCertVerificationError",
    code: "ERR_TLS_CERT_ALTNAME_INVALID",
    verify_code: 62,
  });
});

describe("the name that is verified", () => {
  const elsewhere = () => kept(socket.create_server(["127.0.0.2", 0], { tls: { key, cert } })).getsockname();

  test("an undefined or empty serverName means the host's name", async () => {
    const address = elsewhere();
    for (const serverName of [undefined, ""]) {
      const tls = { ca: cert, serverName } as socket.TLS;
      const one = kept(socket.socket());
      expect(await failure(() => one.connect(address, { tls }))).toBeInstanceOf(
        socket.SSLCertVerificationError,
      );
      const error = await failure(() => socket.create_connection(address, null, null, { tls }));
      expect(error).toBeInstanceOf(socket.SSLCertVerificationError);
    }
  });

  test("TLS on a Unix path needs a serverName", async () => {
    const path = `/tmp/ringback-tls-${process.pid}.sock`;
    const one = kept(socket.socket(socket.AF_UNIX));
    expect(await failure(() => one.connect(path, { tls: { ca: cert } }))).toBeInstanceOf(TypeError);
  });

  test("with rejectUnauthorized false, a wrong name connects and is not authorized", async () => {
    const client = kept(
      await socket.create_connection(elsewhere(), null, null, {
        tls: { ca: cert, rejectUnauthorized: false },
      }),
    );
    expect(client.authorized).toBe(false);
    expect(client.authorizationError).toBe("ERR_TLS_CERT_ALTNAME_INVALID");
  });
});

test("authorized tells whether the peer's certificate was verified", async () => {
  const listener = kept(socket.create_server(["127.0.0.1", 0], { tls: { key, cert } }));
  const client = await secureClient(listener.getsockname());
  const [conn] = await listener.accept();
  expect([client.authorized, client.authorizationError]).toEqual([true, undefined]);
  // No certificate was asked for.
  expect(kept(conn).authorized).toBe(false);
});

test("a listening socket counts the clients that it refused", async () => {
  const options = { tls: { key, cert, ca: cert, requestCert: true } };
  const listener = kept(socket.create_server(["127.0.0.1", 0], options));
  const client = await secureClient(listener.getsockname()).catch(() => undefined);
  if (client !== undefined) await failure(() => client.recv(1));
  await until(() => listener.refused === 1, "the client without a certificate is counted");
});
