import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import * as socket from "../../../src/socket.ts";
import { until } from "../../support/peers.ts";
import { hasProc } from "../../support/program.ts";
import { nothingNew, silent } from "../../support/silent.ts";
import { closeAll, failure, kept, server } from "../../support/sockets.ts";

setDefaultTimeout(30_000);

afterEach(closeAll);

/** The socket was not harmed by a connect that failed. */
async function works(one: socket.Socket): Promise<void> {
  const { listener, address } = server();
  await one.connect(address);
  const [conn] = await listener.accept();
  await kept(conn).sendall(Buffer.from("x"));
  expect((await one.recv(1)).toString()).toBe("x");
}

describe.skipIf(!hasProc)("a connect that nobody answers", () => {
  test("an unanswered connect is a TimeoutError at its deadline, and the socket can try again", async () => {
    const address = silent();
    const one = kept(socket.socket());
    one.settimeout(0.1);
    const began = performance.now();
    const error = await failure(() => one.connect(address));
    expect(performance.now() - began).toBeWithin(99, 5000);
    expect(error).toBeInstanceOf(socket.TimeoutError);
    expect(error).toMatchObject({ code: "ETIMEDOUT", syscall: "connect", strerror: "timed out" });
    one.settimeout(null);
    await works(one);
  });

  test("connect_ex returns the errno of an unanswered connect", async () => {
    const one = kept(socket.socket());
    one.settimeout(0.05);
    expect(await one.connect_ex(silent())).toBe((await failure(() => one.connect(silent()))).errno);
  });

  test("a signal ends an unanswered connect, and the socket can try again", async () => {
    const one = kept(socket.socket());
    const error = await failure(() => one.connect(silent(), { signal: AbortSignal.timeout(20) }));
    expect(error.name).toBe("TimeoutError");
    expect(error).not.toBeInstanceOf(socket.OSError);
    await works(one);
  });

  test("close ends an unanswered connect and releases its descriptor", async () => {
    const address = silent();
    const closed = nothingNew();
    const one = socket.socket();
    const connecting = failure(() => one.connect(address));
    await Bun.sleep(5);
    expect(closed()).toBe(false);
    one.close();
    expect(await connecting).toMatchObject({ code: "EBADF", syscall: "connect" });
    await until(closed, "the descriptor is closed");
  });

  test("an unanswered non-blocking connect delays nothing and can be closed", async () => {
    const address = silent();
    const closed = nothingNew();
    const one = socket.socket();
    one.setblocking(false);
    expect(await failure(() => one.connect(address))).toMatchObject({ code: "EINPROGRESS" });
    expect(await failure(() => one.connect(address))).toMatchObject({ code: "EALREADY" });
    expect(one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)).toBe(0);
    expect(closed()).toBe(false);
    one.close();
    await until(closed, "the descriptor is closed");
  });

  test("create_connection gives up an unanswered connect after its timeout, with the last error", async () => {
    const address = silent();
    const closed = nothingNew();
    expect(await failure(() => socket.create_connection(address, 0.05))).toBeInstanceOf(socket.TimeoutError);
    await until(closed, "nothing is left open");
  });
});

test("an unanswered TLS handshake ends at the deadline and leaves nothing open", async () => {
  const { listener, address } = server();
  const accepted = listener.accept();
  const error = await failure(() => socket.create_connection(address, 0.1, { tls: {} }));
  expect(error).toBeInstanceOf(socket.TimeoutError);
  const [conn] = await accepted;
  kept(conn);
  // The client's hello, and then its end, however that looks.
  while ((await conn.recv(65_536).catch(() => "")).length > 0);
});

test("SO_REUSEPORT lets two sockets listen on one port; without it the second is EADDRINUSE", async () => {
  const first = kept(socket.create_server(["127.0.0.1", 0], { reuse_port: true }));
  const address = first.getsockname();
  const second = kept(socket.create_server(address, { reuse_port: true }));
  expect(second.getsockname()).toEqual(address);
  expect(await failure(() => socket.create_server(address))).toMatchObject({ code: "EADDRINUSE" });
  // Each connection comes to one of the two.
  for (let i = 0; i < 8; i++) {
    const client = kept(await socket.create_connection(address, 5));
    const ended = new AbortController();
    const { signal } = ended;
    const [conn] = await Promise.any([first.accept({ signal }), second.accept({ signal })]);
    ended.abort();
    await kept(conn).sendall(Buffer.from([i]));
    expect([...(await client.recv(1))]).toEqual([i]);
  }
});
