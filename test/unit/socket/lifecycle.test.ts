/** A socket's life in difficult moments: signals, TLS, detach, lingering, transferred buffers. */
import { dlopen, ptr } from "bun:ffi";
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { closeSync, fstatSync, openSync, unlinkSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import {
  bindDescriptor,
  closeDescriptor,
  descriptorName,
  listenDescriptor,
} from "../../../src/os/descriptor.ts";
import { requireLibc } from "../../../src/os/libc.ts";
import * as socket from "../../../src/socket.ts";
import { until } from "../../support/peers.ts";
import { hasProc } from "../../support/program.ts";
import {
  closeAll,
  connection,
  failure,
  freeAddress,
  kept,
  openDescriptors,
  server,
} from "../../support/sockets.ts";
import { run } from "../../support/tutorial.ts";
import { cert, key } from "../../support/tls.ts";

const { AF_INET, AF_UNIX, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET, SO_LINGER, SO_RCVBUF } = socket;
const bytes = (text: string): Buffer => Buffer.from(text);

setDefaultTimeout(30_000);
afterEach(closeAll);

/** struct linger. */
const linger = (on: number, seconds: number): Uint8Array =>
  new Uint8Array(new Int32Array([on, seconds]).buffer);

/** What nobody handled, while something runs, and for a turn of the loop after it. */
async function unhandled(something: () => Promise<unknown>): Promise<unknown[]> {
  const seen: unknown[] = [];
  const note = (reason: unknown): void => void seen.push(reason);
  process.on("unhandledRejection", note);
  try {
    await something();
    await Bun.sleep(20);
  } finally {
    process.off("unhandledRejection", note);
  }
  return seen;
}

describe.skipIf(!hasProc)("a connect that fails when no descriptor is left", () => {
  test("a connect without a free descriptor says why it failed, and close() closes no other descriptor", async () => {
    const { setrlimit, getrlimit } = dlopen("libc.so.6", {
      setrlimit: { args: ["i32", "ptr"], returns: "i32" },
      getrlimit: { args: ["i32", "ptr"], returns: "i32" },
    }).symbols;
    const NOFILE = 7;
    const limits = new BigUint64Array(2);
    getrlimit(NOFILE, ptr(limits));
    const one = socket.socket();
    const fd = one.fileno();
    const connecting = failure(() => one.connect(freeAddress()));
    await Promise.resolve();
    setrlimit(NOFILE, ptr(new BigUint64Array([BigInt(fd), limits[1]!])));
    const error = await connecting;
    setrlimit(NOFILE, ptr(limits));
    expect(error.code).toBe("ECONNREFUSED");
    const files: number[] = [];
    while (files.at(-1) !== fd && files.length < 64) files.push(openSync("/dev/zero", "r"));
    one.close();
    for (const file of files) expect(() => fstatSync(file)).not.toThrow();
    for (const file of files) closeSync(file);
  });
});

test("bytes sent with a timeout are released when sent, not at the deadline", async () => {
  // A process of its own: another test's timer would hide it.
  const program = `import * as socket from "${import.meta.dir}/../../../src/socket.ts";
    const [a, b] = socket.socketpair();
    a.settimeout(600);
    const MIB = 1 << 20;
    const round = async (value) => {
      const sending = a.sendall(new Uint8Array(4 * MIB).fill(value));
      for (let left = 4 * MIB; left > 0; ) left -= (await b.recv(MIB)).length;
      await sending;
    };
    for (let i = 0; i < 20; i++) await round(i);
    Bun.gc(true);
    const before = process.memoryUsage.rss();
    for (let i = 0; i < 60; i++) await round(i);
    Bun.gc(true);
    console.log((process.memoryUsage.rss() - before) / MIB);
    process.exit(0);`;
  const { stdout } = await run([process.execPath, "-e", program]);
  // All of it would be 240 MiB.
  expect(Number(stdout.toString())).toBeLessThan(100);
});

describe("a signal that is aborted already", () => {
  test("an aborted signal leaves no unhandled rejection, whatever name resolution returns", async () => {
    const signal = AbortSignal.abort();
    const seen = await unhandled(async () => {
      const one = kept(socket.socket());
      const calls = [
        () => socket.getaddrinfo("127.0.0.1", "http", 0, 0, 0, 0, { signal }),
        () => socket.create_connection(["nonexistent.invalid", 80], { signal }),
        () => one.connect(["::1", 80], { signal }),
      ];
      for (const call of calls) expect((await failure(call)).name).toBe("AbortError");
    });
    expect(seen).toEqual([]);
  });

  test("a signal passed after the flags ends recv and sendall", async () => {
    const { client, conn } = await connection();
    const soon = () => ({ signal: AbortSignal.timeout(20) });
    expect((await failure(() => client.recv(10, 0, soon()))).name).toBe("TimeoutError");
    const much = Buffer.alloc(64 << 20);
    expect((await failure(() => conn.sendall(much, 0, soon()))).name).toBe("TimeoutError");
  });
});

describe("TLS", () => {
  test.skipIf(!hasProc)("invalid TLS options are an SSLError and leave nothing behind", async () => {
    const { address } = server();
    const descriptors = openDescriptors();
    const seen = await unhandled(async () => {
      for (const tls of [{ ca: "garbage" }, { key: "garbage", cert: "garbage" }]) {
        const one = socket.socket();
        one.settimeout(5);
        const error = await failure(() => one.connect(address, { tls }));
        expect(error).toBeInstanceOf(socket.SSLError);
        expect(error).toMatchObject({ syscall: "connect", address: address.join(":") });
        one.close();
      }
      await until(() => openDescriptors() <= descriptors, "the descriptors are closed");
    });
    expect(seen).toEqual([]);
  });

  test("TLS works on a Unix connection, where only the given name is verified", async () => {
    const path = join(tmpdir(), `ringback-tls-${process.pid}`);
    const listener = kept(socket.create_server(path, { family: AF_UNIX, tls: { key, cert } }));
    try {
      const one = kept(socket.socket(AF_UNIX));
      one.settimeout(10);
      // The certificate is nobody's that is known: the handshake fails, but it took place.
      expect(await failure(() => one.connect(path, { tls: { serverName: "localhost" } }))).toBeInstanceOf(
        socket.SSLError,
      );
      const trusting = kept(socket.socket(AF_UNIX));
      trusting.settimeout(10);
      await trusting.connect(path, { tls: { ca: cert, serverName: "localhost" } });
      const [conn] = await listener.accept();
      await kept(conn).sendall(bytes("x"));
      expect((await trusting.recv(1)).toString()).toBe("x");
    } finally {
      unlinkSync(path);
    }
  });

  test("a reset instead of a handshake is ConnectionResetError, or its errno from connect_ex", async () => {
    const { listener, address } = server();
    for (let i = 0; i < 2; i++) {
      const one = kept(socket.socket());
      const connecting = one.connect_ex(address, { tls: {} });
      const [conn] = await listener.accept();
      // Once with its hello unread, once without.
      if (i === 1) await conn.recv(65_536);
      conn[Symbol.dispose]();
      expect(await connecting).toBe(constants.errno.ECONNRESET);
    }
  });

  test("closing a listener resets clients in their handshake", async () => {
    const listener = kept(socket.create_server(["127.0.0.1", 0], { tls: { key, cert } }));
    const one = kept(await socket.create_connection(listener.getsockname(), 5));
    await one.sendall(bytes("\x16\x03"));
    await Bun.sleep(20);
    listener.close();
    expect(await failure(() => one.recv(1))).toBeInstanceOf(socket.ConnectionResetError);
  });
});

test.skipIf(!hasProc)("a blocking descriptor given to a socket does not block the process", async () => {
  const c = requireLibc("socket");
  // A listener of the kernel's whose queue is full: connect(2) would wait for minutes.
  const listener = c.socket(AF_INET, SOCK_STREAM, 0);
  bindDescriptor(listener, AF_INET, ["127.0.0.1", 0]);
  listenDescriptor(listener, 0);
  const address = descriptorName(listener, "getsockname") as [string, number];
  const fillers = Array.from({ length: 4 }, () => kept(socket.socket()));
  for (const filler of fillers) {
    filler.setblocking(false);
    await filler.connect_ex(address);
  }
  const one = kept(socket.socket(undefined, undefined, undefined, c.socket(AF_INET, SOCK_STREAM, 0)));
  one.settimeout(0.1);
  const began = performance.now();
  expect(await failure(() => one.connect(address))).toBeInstanceOf(socket.TimeoutError);
  expect(performance.now() - began).toBeLessThan(10_000);
  closeDescriptor(listener);
});

describe("detach", () => {
  test("detach is refused while connections wait", async () => {
    const { listener, address } = server();
    const client = kept(await socket.create_connection(address, 5));
    await until(() => {
      try {
        closeDescriptor(listener.detach());
        return false;
      } catch (error) {
        expect(error).toMatchObject({ code: "EBUSY", strerror: expect.stringContaining("accept") });
        return true;
      }
    }, "the connection has come");
    kept((await listener.accept())[0]);
    closeDescriptor(listener.detach());
    client.close();
  });

  test("detach is refused while datagrams wait", async () => {
    const one = kept(socket.socket(AF_INET, SOCK_DGRAM));
    one.bind(["127.0.0.1", 0]);
    for (const text of ["a", "b", "c"]) await one.sendto(bytes(text), one.getsockname());
    expect((await one.recv(9)).toString()).toBe("a");
    // What Bun has read with the first is here by now.
    await new Promise((resolve) => setImmediate(resolve));
    expect(await failure(() => one.detach())).toMatchObject({ code: "EBUSY" });
    expect((await one.recv(9)).toString() + (await one.recv(9)).toString()).toBe("bc");
    closeDescriptor(one.detach());
  });
});

describe("SO_LINGER", () => {
  test("SO_LINGER of 0 seconds inherited from the listener makes close() a reset", async () => {
    const { listener, address } = server();
    listener.setsockopt(SOL_SOCKET, SO_LINGER, linger(1, 0));
    const client = kept(await socket.create_connection(address, 5));
    const [conn] = await listener.accept();
    conn.close();
    expect(await failure(() => client.recv(1))).toBeInstanceOf(socket.ConnectionResetError);
  });

  test("SO_LINGER of some seconds delivers what sendall accepted and does not block the process", async () => {
    const { client, conn } = await connection();
    conn.setsockopt(SOL_SOCKET, SO_LINGER, linger(1, 3));
    const much = Buffer.alloc(16 << 20, "linger");
    const sending = conn.sendall(much);
    const began = performance.now();
    conn.close();
    expect(performance.now() - began).toBeLessThan(1000);
    const hash = new Bun.CryptoHasher("sha256");
    for await (const part of client) hash.update(part);
    await sending;
    expect(hash.digest("hex")).toBe(new Bun.CryptoHasher("sha256").update(much).digest("hex"));
  });
});

test("SO_RCVBUF bounds the waiting datagrams before and after the first recv", async () => {
  const one = kept(socket.socket(AF_INET, SOCK_DGRAM));
  one.setsockopt(SOL_SOCKET, SO_RCVBUF, 1 << 20);
  one.bind(["127.0.0.1", 0]);
  const to = one.getsockname();
  await one.sendto(bytes("first"), to);
  await one.recv(9);
  const count = 400;
  for (let i = 0; i < count; i++) await one.sendto(Buffer.alloc(1000, i), to);
  // Bun hands over what the kernel has.
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  one.settimeout(2);
  for (let i = 0; i < count; i++) expect((await one.recv(2000))[0]).toBe(i & 255);
});

test("connect waits for a Unix listener's full queue until the deadline", async () => {
  const path = `\0ringback-queue-${process.pid}`;
  const c = requireLibc("socket");
  const listener = c.socket(AF_UNIX, SOCK_STREAM, 0);
  bindDescriptor(listener, AF_UNIX, path);
  listenDescriptor(listener, 0);
  kept(socket.socket(AF_UNIX)).connect_ex(path);
  const one = kept(socket.socket(AF_UNIX));
  one.settimeout(0.05);
  expect(await failure(() => one.connect(path))).toBeInstanceOf(socket.TimeoutError);
  one.settimeout(0);
  expect(await failure(() => one.connect(path))).toBeInstanceOf(socket.BlockingIOError);
  one.settimeout(null);
  const connecting = one.connect(path);
  await Bun.sleep(20);
  const adopted = kept(socket.socket(undefined, undefined, undefined, listener));
  for (let i = 0; i < 2; i++) kept((await adopted.accept())[0]);
  await connecting;
});

describe("a buffer that is transferred away", () => {
  test("transferring recv_into's buffer while it waits is a TypeError and loses no byte", async () => {
    const [a, b] = socket.socketpair();
    (kept(a), kept(b));
    const buffer = new Uint8Array(10);
    const receiving = failure(() => a.recv_into(buffer));
    buffer.buffer.transfer();
    await b.sendall(bytes("hello"));
    expect(await receiving).toBeInstanceOf(TypeError);
    expect((await a.recv(2)).toString() + (await a.recv(9)).toString()).toBe("hello");
  });

  test("after recv_into's buffer is transferred, shutting down reading discards what it had taken", async () => {
    const [a, b] = socket.socketpair();
    (kept(a), kept(b));
    const buffer = new Uint8Array(10);
    const receiving = failure(() => a.recv_into(buffer));
    buffer.buffer.transfer();
    await b.sendall(bytes("hello"));
    expect(await receiving).toBeInstanceOf(TypeError);
    a.shutdown(socket.SHUT_RD);
    expect((await a.recv(9)).length).toBe(0);
  });

  test("transferring sendall's buffer while it waits is a TypeError, and nothing else is sent", async () => {
    const [a, b] = socket.socketpair();
    (kept(a), kept(b));
    const much = new Uint8Array(8 << 20);
    const sending = failure(() => a.sendall(much));
    const next = a.sendall(bytes("next"));
    much.buffer.transfer();
    let all = Buffer.alloc(0);
    while (!all.toString().endsWith("next")) all = Buffer.concat([all.subarray(-4), await b.recv(1 << 20)]);
    expect(await sending).toBeInstanceOf(TypeError);
    await next;
  });
});

test("a datagram web stream does not end at an empty datagram, and cancelling it ends reading", async () => {
  const one = kept(socket.socket(AF_INET, SOCK_DGRAM));
  one.bind(["127.0.0.1", 0]);
  const reader = one.readable.getReader();
  await one.sendto(bytes(""), one.getsockname());
  await one.sendto(bytes("x"), one.getsockname());
  const seen = [await reader.read(), await reader.read()];
  expect(seen.map(({ done, value }) => [done, value?.length])).toEqual([
    [false, 0],
    [false, 1],
  ]);
  const pending = reader.read();
  await reader.cancel();
  expect((await pending).done).toBe(true);
  const next = one.recv(9);
  await one.sendto(bytes("mine"), one.getsockname());
  expect((await next).toString()).toBe("mine");
});
