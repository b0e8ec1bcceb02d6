/**
 * A call that another one follows within a few microtasks: neither may touch what now belongs to
 * somebody else.
 */
import { afterEach, expect, test } from "bun:test";
import { dlopen } from "bun:ffi";
import { closeSync } from "node:fs";
import * as socket from "../../../src/socket.ts";
import { closeAll, kept } from "../../support/sockets.ts";

afterEach(closeAll);

const TICKS = Array.from({ length: 11 }, (_, i) => i);
const ticks = async (count: number): Promise<void> => {
  for (let i = 0; i < count; i++) await null;
};
const outcome = (call: Promise<unknown>): Promise<string> =>
  call.then(
    () => "done",
    (error: Error) => (error instanceof socket.OSError ? error.code : error.name),
  );

function datagramSocket(): socket.Socket<socket.AF_INET> {
  const one = kept(socket.socket(socket.AF_INET, socket.SOCK_DGRAM));
  one.bind(["127.0.0.1", 0]);
  return one;
}

test("closing a datagram socket while it connects does not connect another socket", async () => {
  const server = datagramSocket();
  for (const count of TICKS) {
    const closed = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);
    const connecting = outcome(closed.connect(server.getsockname()));
    if (count > 0) await ticks(count);
    closed.close();
    const other = datagramSocket();
    await connecting;
    expect(() => other.getpeername()).toThrow("ENOTCONN");
    other.close();
  }
});

test("a sendto whose socket is closed or detached meanwhile does not use another socket", async () => {
  const sink = datagramSocket();
  sink.settimeout(5);
  for (const count of TICKS) {
    for (const end of ["close", "detach"] as const) {
      const sender = datagramSocket();
      const [, port] = sender.getsockname();
      const sending = outcome(sender.sendto(Buffer.from("x"), sink.getsockname()));
      if (count > 0) await ticks(count);
      const fd = sender[end]();
      if (fd !== undefined) closeSync(fd);
      const other = datagramSocket();
      if ((await sending) === "done") expect((await sink.recvfrom(9))[1]![1]).toBe(port);
      other.close();
    }
  }
  sink.settimeout(0);
  expect(await outcome(sink.recv(1))).toBe("EAGAIN");
});

test.if(process.platform === "linux")("a signal or close() ends a connect at any moment", async () => {
  // A queue for one connection, and that is there: the kernel drops the others' SYN.
  const hole = kept(socket.socket());
  hole.bind(["127.0.0.1", 0]);
  const { symbols } = dlopen("libc.so.6", { listen: { args: ["i32", "i32"], returns: "i32" } });
  symbols.listen(hole.fileno(), 0);
  await kept(socket.socket()).connect(hole.getsockname());
  for (const count of TICKS) {
    for (const end of ["abort", "close"] as const) {
      const client = kept(socket.socket());
      const controller = new AbortController();
      const connecting = outcome(client.connect(hole.getsockname(), { signal: controller.signal }));
      await ticks(count);
      if (end === "abort") controller.abort();
      else client.close();
      expect(await connecting).toBe(end === "abort" ? "AbortError" : "EBADF");
      client.close();
      expect(client.fileno()).toBe(-1);
    }
  }
});

async function waitingPair(chunks: string[]): Promise<socket.Socket<socket.AF_INET>> {
  const [a, b] = socket.socketpair().map(kept) as unknown as [
    socket.Socket<socket.AF_INET>,
    socket.Socket<socket.AF_INET>,
  ];
  await b.recv(0);
  for (const chunk of chunks) {
    await a.sendall(Buffer.from(chunk));
    // Datagrams come one by one, and those that come while no recv waits are queued.
    await Bun.sleep(2);
  }
  return b;
}

test("a recv in the microtasks after recv_into returns bytes in order or is refused", async () => {
  for (const count of TICKS) {
    const sock = await waitingPair(["111", "222", "333"]);
    const buffer = Buffer.alloc(6);
    const first = sock.recv_into(buffer);
    if (count > 0) await ticks(count);
    const second = sock.recv(3).then(String, (error: socket.OSError) => error.code);
    expect(await first).toBe(6);
    expect(buffer.toString()).toBe("111222");
    expect(["333", "EBUSY"]).toContain(await second);
  }
});

test("a buffer that is transferred away loses no byte", async () => {
  for (const type of ["waiting", "there"] as const) {
    const [a, b] = socket.socketpair().map(kept) as unknown as [
      socket.Socket<socket.AF_INET>,
      socket.Socket<socket.AF_INET>,
    ];
    await b.recv(0);
    if (type === "there") await a.sendall(Buffer.from("abc"));
    if (type === "there") await new Promise(setImmediate);
    const buffer = new Uint8Array(3);
    const call = outcome(b.recv_into(buffer));
    buffer.buffer.transfer();
    if (type === "waiting") await a.sendall(Buffer.from("abc"));
    expect(await call).toBe("TypeError");
    expect(String(await b.recv(9))).toBe("abc");
  }
  const [sender, receiver] = [datagramSocket(), datagramSocket()];
  const buffer = new Uint8Array(3);
  const call = outcome(receiver.recv_into(buffer));
  buffer.buffer.transfer();
  await sender.sendto(Buffer.from("abc"), receiver.getsockname());
  expect(await call).toBe("TypeError");
  expect(String(await receiver.recv(9))).toBe("abc");
});

test("a string with a zero byte is refused where C would truncate it", async () => {
  const one = kept(socket.socket(socket.AF_UNIX));
  expect(() => one.bind("/tmp/a\0b")).toThrow("embedded null byte");
  expect(() => socket.create_server("/tmp/a\0b", { family: socket.AF_UNIX })).toThrow("embedded null byte");
  const inet = kept(socket.socket());
  for (const call of [
    () => one.connect("/tmp/a\0b"),
    () => inet.connect(["127.0.0.1\0x", 1]),
    () => socket.create_connection(["127.0.0.1\0x", 1]),
    () => socket.getaddrinfo("127.0.0.1\0x", 1),
    () => inet.connect(["127.0.0.1", 1], { tls: { serverName: "a\0b" } }),
  ]) {
    expect(await call().catch(String)).toContain("embedded null byte");
  }
  // An abstract name begins with one.
  if (process.platform === "linux") one.bind(`\0ringback\0${process.pid}`);
});
