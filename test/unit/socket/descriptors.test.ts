/**
 * The edges of a socket's life: how it is made, how its connect ends, what close and detach
 * leave behind.
 */
import { afterEach, describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { closeDescriptor, descriptorName, openDescriptor } from "../../../src/os/descriptor.ts";
import * as socket from "../../../src/socket.ts";
import { until } from "../../support/peers.ts";
import { hasProc } from "../../support/program.ts";
import { nothingNew, silent } from "../../support/silent.ts";
import {
  closeAll,
  connection,
  failure,
  freeAddress,
  kept,
  openDescriptors,
  server,
} from "../../support/sockets.ts";

const { AF_INET, AF_INET6, SO_KEEPALIVE, SO_LINGER, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET } = socket;

setDefaultTimeout(30_000);
afterEach(closeAll);

/** More than the kernel takes while nobody reads. */
const MUCH = 8 << 20;

/** The sum of what comes before the end, in bytes. */
async function count(end: socket.Socket<socket.AddressFamily>): Promise<number> {
  let sum = 0;
  for await (const bytes of end) sum += bytes.length;
  return sum;
}

/** A socket whose connect is under way, and stays so. */
async function connecting(): Promise<socket.Socket> {
  const one = kept(socket.socket());
  one.setblocking(false);
  expect(await failure(() => one.connect(silent()))).toMatchObject({ code: "EINPROGRESS" });
  return one;
}

describe("a socket", () => {
  test.skipIf(socket.SOCK_NONBLOCK === undefined)(
    "a socket created with SOCK_NONBLOCK does not wait",
    async () => {
      const one = kept(socket.socket(AF_INET, SOCK_STREAM | socket.SOCK_NONBLOCK!));
      expect([one.type, one.gettimeout(), one.getblocking()]).toEqual([SOCK_STREAM, 0, false]);
      expect(await failure(() => one.connect(server().address))).toMatchObject({ code: "EINPROGRESS" });
    },
  );

  test("a socket on a given descriptor has the given family and type, or else the kernel's", () => {
    const fd = openDescriptor(AF_INET, SOCK_STREAM, 0);
    const its = socket.socket(undefined, undefined, 0, fd);
    expect([its.family, its.type]).toEqual([AF_INET, SOCK_STREAM]);
    expect(its.detach()).toBe(fd);
    const told = kept(socket.socket(AF_INET6, SOCK_DGRAM, 0, fd));
    expect([told.family, told.type]).toEqual([AF_INET6, SOCK_DGRAM]);
  });

  test.skipIf(process.platform !== "linux")("listen with a negative backlog is listen with 0", () => {
    const { listener } = server(-1);
    // For a listener, tcpi_sacked is its backlog (tcp(7)).
    expect(listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104).readUInt32LE(28)).toBe(0);
  });

  test("an option keeps its value when the caller's buffer changes", async () => {
    const one = kept(socket.socket());
    const value = new Int32Array([1]);
    one.setsockopt(SOL_SOCKET, SO_KEEPALIVE, value);
    value[0] = 0;
    // What is refused gets a new descriptor, which is set as the old one was.
    expect(await failure(() => one.connect(freeAddress()))).toMatchObject({ code: "ECONNREFUSED" });
    expect(one.getsockopt(SOL_SOCKET, SO_KEEPALIVE)).toBe(1);
  });

  test("sendto on TCP sends to the peer whatever the address, and is ENOTCONN without a peer", async () => {
    const { client, conn, listener } = await connection();
    const [bytes, address] = [Buffer.from("x"), listener.getsockname()];
    expect(await client.sendto(bytes, address)).toBe(1);
    expect(await client.sendto(bytes, 0, ["127.0.0.1", 9])).toBe(1);
    client.shutdown(socket.SHUT_WR);
    expect(String(await conn.recv(2, socket.MSG_WAITALL))).toBe("xx");
    const fresh = kept(socket.socket());
    expect(await failure(() => fresh.sendto(bytes, address))).toMatchObject({ code: "ENOTCONN" });
    const [one] = socket.socketpair().map(kept);
    expect(await failure(() => one!.sendto(bytes, "x"))).toMatchObject({ code: "EISCONN" });
  });

  test("sendto resolves a name for no longer than its timeout", async () => {
    const lookup = spyOn(Bun.dns, "lookup").mockImplementation(() => new Promise<never>(() => undefined));
    try {
      const one = kept(socket.socket(AF_INET, SOCK_DGRAM));
      one.settimeout(0.02);
      const error = await failure(() => one.sendto(Buffer.from("x"), ["a.name", 9]));
      expect(error).toBeInstanceOf(socket.TimeoutError);
      expect(error).toMatchObject({ code: "ETIMEDOUT", syscall: "sendto" });
      expect(lookup).toHaveBeenCalledTimes(1);
    } finally {
      lookup.mockRestore();
    }
  });

  test("for await on a listener throws when its timeout is over", async () => {
    const { listener } = server();
    listener.settimeout(0.02);
    const loop = async (): Promise<void> => {
      for await (const [conn] of listener) kept(conn);
    };
    expect(await failure(loop)).toBeInstanceOf(socket.TimeoutError);
  });

  test("every call on a disposed socket is EBADF", async () => {
    const { client, conn } = await connection();
    client[Symbol.dispose]();
    expect(client.fileno()).toBe(-1);
    const calls = [
      () => client.recv(1),
      () => client.send(Buffer.from("x")),
      () => client.sendall(Buffer.from("x")),
      () => client.getsockname(),
      () => client.settimeout(1),
      () => client.detach(),
    ];
    for (const call of calls) expect(await failure(call)).toMatchObject({ code: "EBADF" });
    expect(await failure(() => conn.recv(1))).toBeInstanceOf(socket.ConnectionResetError);
  });
});

describe.skipIf(!hasProc)("close while a connect is under way", () => {
  test("close during a connect settles the connect immediately and leaks no descriptor", async () => {
    const address = silent();
    const cycle = async (waits: boolean): Promise<void> => {
      const one = socket.socket();
      if (!waits) one.setblocking(false);
      const ended = failure(() => one.connect(address));
      await new Promise(setImmediate);
      one.close();
      expect(await ended).toMatchObject({ code: waits ? "EBADF" : "EINPROGRESS", syscall: "connect" });
    };
    await cycle(true);
    await cycle(false);
    const closed = nothingNew();
    const before = openDescriptors();
    for (let i = 0; i < 20; i++) await cycle(i % 2 === 0);
    await until(closed, "every descriptor is closed");
    // Fewer, if another test had not closed all of its own by then.
    expect(openDescriptors()).toBeLessThanOrEqual(before);
  });

  test("close during a connect closes the descriptor once, so that its number can be reused", async () => {
    const one = await connecting();
    const closed = nothingNew();
    one.close();
    const others = [0, 1, 2].map(() => openDescriptor(AF_INET, SOCK_STREAM, 0));
    try {
      for (let i = 0; i < 5; i++) await new Promise(setImmediate);
      for (const fd of others) expect(descriptorName(fd, "getsockname")).toEqual(["0.0.0.0", 0]);
    } finally {
      for (const fd of others) closeDescriptor(fd);
    }
    await until(closed, "the descriptors are closed");
  });
});

describe("detach", () => {
  test.skipIf(!hasProc)("detach during a connect is EALREADY and closes nothing", async () => {
    const one = await connecting();
    const fd = one.fileno();
    expect(await failure(() => one.detach())).toMatchObject({ code: "EALREADY", syscall: "detach" });
    expect(one.fileno()).toBe(fd);
    expect(one.getsockopt(SOL_SOCKET, socket.SO_TYPE)).toBe(SOCK_STREAM);
  });

  test("detach after a non-blocking connect returns the descriptor", async () => {
    const { listener, address } = server();
    const one = kept(socket.socket());
    one.setblocking(false);
    expect(await failure(() => one.connect(address))).toMatchObject({ code: "EINPROGRESS" });
    const [conn] = await listener.accept();
    kept(conn);
    let fd = -1;
    await until(() => {
      try {
        fd = one.detach();
      } catch (error) {
        if ((error as socket.OSError).code !== "EALREADY") throw error;
      }
      return fd >= 0;
    }, "the connect is over");
    const same = kept(socket.socket(undefined, undefined, 0, fd));
    await same.sendall(Buffer.from("x"));
    expect((await conn.recv(9)).toString()).toBe("x");
  });

  test("detach while a sendall waits is EBUSY, and the sendall continues", async () => {
    const [a, b] = socket.socketpair();
    kept(a);
    kept(b);
    const sending = a.sendall(Buffer.alloc(MUCH));
    expect(await failure(() => a.detach())).toMatchObject({ code: "EBUSY", syscall: "detach" });
    const counting = count(b);
    await sending;
    const same = kept(socket.socket(undefined, undefined, 0, a.detach()));
    same.shutdown(socket.SHUT_WR);
    expect(await counting).toBe(MUCH);
  });

  test.skipIf(!hasProc)("detach leaves one descriptor open and no other", async () => {
    const cycle = async (): Promise<void> => {
      const { listener, address } = server();
      const client = kept(await socket.create_connection(address, 5));
      const [conn] = await listener.accept();
      const datagrams = socket.socket(AF_INET, SOCK_DGRAM);
      datagrams.settimeout(0);
      await datagrams.recv(1).catch(() => undefined);
      for (const one of [client, conn, datagrams, listener]) closeDescriptor(one.detach());
      closeAll();
    };
    await cycle();
    const before = openDescriptors();
    for (let i = 0; i < 10; i++) await cycle();
    await until(() => openDescriptors() <= before, "no descriptor is left", 2000);
  });
});

describe("close with SO_LINGER", () => {
  test("close with SO_LINGER off delivers everything, whatever its seconds", async () => {
    const { client, conn } = await connection();
    client.setsockopt(SOL_SOCKET, SO_LINGER, new Int32Array([0, 5]));
    const sending = client.sendall(Buffer.alloc(MUCH));
    client.close();
    expect(await count(conn)).toBe(MUCH);
    expect(await sending).toBeUndefined();
  });
});
