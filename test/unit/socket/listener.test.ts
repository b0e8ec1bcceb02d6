/** What accept does when nothing waits, and what remains of calls that gave up. */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { closeDescriptor, connectDescriptor, openDescriptor } from "../../../src/os/descriptor.ts";
import * as socket from "../../../src/socket.ts";
import { closeAll, failure, kept, server } from "../../support/sockets.ts";

const { AF_INET, SOCK_STREAM } = socket;

setDefaultTimeout(30_000);
afterEach(closeAll);

/** A client that is connected. */
async function connected(address: socket.InetAddress): Promise<socket.Socket> {
  const one = kept(socket.socket());
  await one.connect(address);
  return one;
}

/** Bytes pass, in both directions. */
async function expectAlive(a: socket.Socket, b: socket.Socket): Promise<void> {
  for (const [from, to] of [[a, b] as const, [b, a] as const]) {
    await from.sendall(Buffer.from("x"));
    expect((await to.recv(9)).toString()).toBe("x");
  }
}

describe("accept", () => {
  test("a non-blocking accept in a busy loop sees what the kernel has", async () => {
    const { listener, address } = server();
    listener.settimeout(0);
    // Not through Bun, whose connect would let the listener's turn come.
    const fd = openDescriptor(AF_INET, SOCK_STREAM, 0);
    kept({ close: () => closeDescriptor(fd) });
    connectDescriptor(fd, AF_INET, address);
    const tryAccept = () => listener.accept().catch(() => undefined);
    let accepted = await tryAccept();
    for (let tries = 0; accepted === undefined && tries < 1000; tries++) accepted = await tryAccept();
    expect(kept(accepted![0]).getpeername()).toEqual(accepted![1]);
  });

  test("1024 accepts may wait, and aborted ones do not count", async () => {
    const { listener, address } = server();
    const wait = (count: number, signal: AbortSignal): Promise<socket.OSError>[] =>
      Array.from({ length: count }, () => failure(() => listener.accept({ signal })));
    for (let round = 0; round < 3; round++) {
      const controller = new AbortController();
      const waiting = wait(round === 0 ? 1024 : 600, controller.signal);
      if (round === 0) expect(await failure(() => listener.accept())).toMatchObject({ code: "ENOBUFS" });
      controller.abort();
      for (const error of await Promise.all(waiting)) expect(error.name).toBe("AbortError");
    }
    const accepting = listener.accept();
    const client = await connected(address);
    await expectAlive(client, kept((await accepting)[0]));
  });
});

test("closing a listener resets the connections that wait for accept()", async () => {
  const { listener, address } = server(5);
  const client = kept(await socket.create_connection(address));
  client.settimeout(3);
  // The event loop accepts it; accept() has not been called.
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  listener.close();
  expect(await failure(() => client.recv(1))).toBeInstanceOf(socket.ConnectionResetError);
});
