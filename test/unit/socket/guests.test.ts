/**
 * Foreign descriptors keep their options, addresses can be read until close(), and small slices
 * keep little memory alive.
 */
import { afterEach, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import * as socket from "../../../src/socket.ts";
import { until } from "../../support/peers.ts";
import { closeAll, kept } from "../../support/sockets.ts";

afterEach(closeAll);

const pair = async () => {
  const listener = kept(socket.create_server(["127.0.0.1", 0]));
  const client = kept(await socket.create_connection(listener.getsockname())) as socket.Socket;
  return { listener, client, conn: kept((await listener.accept())[0]) };
};

const O_NONBLOCK = 0o4000;
const flagsOf = (fd: number): number =>
  Number.parseInt(/flags:\s+(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))![1]!, 8);

test.if(process.platform === "linux")("a listening descriptor keeps its flags and its backlog", async () => {
  const { dlopen } = await import("bun:ffi");
  const int = "i32" as const;
  const { symbols: c } = dlopen("libc.so.6", {
    fcntl: { args: [int, int, int], returns: int },
    listen: { args: [int, int], returns: int },
  });
  const own = socket.socket();
  own.bind(["127.0.0.1", 0]);
  const address = own.getsockname();
  const fd = own.detach();
  c.listen(fd, 77);
  c.fcntl(fd, 4, 0o2);
  const guest = kept(socket.socket(undefined, undefined, undefined, fd));
  const unchanged = (): void => {
    expect(flagsOf(fd) & O_NONBLOCK).toBe(0);
    // tcpi_sacked of a listening socket is its backlog.
    expect(guest.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104).readUInt32LE(28)).toBe(77);
  };
  unchanged();
  const accepting = guest.accept();
  unchanged();
  const first = kept(await socket.create_connection(address)) as socket.Socket;
  const [conn, peer] = await accepting;
  kept(conn);
  expect(peer).toEqual(first.getsockname());
  unchanged();
  await first.sendall(Buffer.from("x"));
  expect(String(await conn.recv(9))).toBe("x");
  // One that waits already, a call that does not wait, one that is aborted, and a close.
  const second = kept(await socket.create_connection(address)) as socket.Socket;
  expect(kept((await guest.accept())[0]).getpeername()).toEqual(second.getsockname());
  guest.settimeout(0);
  expect(guest.accept()).rejects.toThrow("EAGAIN");
  guest.settimeout(null);
  expect(guest.accept({ signal: AbortSignal.timeout(1) })).rejects.toThrow();
  const ended = guest.accept();
  guest.close();
  expect(ended).rejects.toThrow("EBADF");
});

test.if(process.platform === "linux")("a stream and a datagram descriptor keep their flags", async () => {
  const { dlopen } = await import("bun:ffi");
  const { symbols: c } = dlopen("libc.so.6", { fcntl: { args: ["i32", "i32", "i32"], returns: "i32" } });
  const { client, conn } = await pair();
  const fd = conn.detach();
  c.fcntl(fd, 4, 0o2);
  const guest = kept(socket.socket(undefined, undefined, undefined, fd));
  const waiting = guest.recv(9);
  await client.sendall(Buffer.from("x"));
  expect(String(await waiting)).toBe("x");
  expect(flagsOf(guest.fileno()) & O_NONBLOCK).toBe(0);
  const own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);
  own.bind(["127.0.0.1", 0]);
  const udp = own.detach();
  c.fcntl(udp, 4, 0o2);
  const datagrams = kept(socket.socket(undefined, undefined, undefined, udp));
  const coming = datagrams.recv(9);
  await datagrams.sendto(Buffer.from("y"), datagrams.getsockname());
  expect(String(await coming)).toBe("y");
  expect(flagsOf(udp) & O_NONBLOCK).toBe(0);
});

test("TCP_NODELAY keeps the value that was set", async () => {
  const { listener, client, conn } = await pair();
  const noDelay = (one: { getsockopt(level: number, option: number): number }): number =>
    one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY);
  expect([client, conn].map(noDelay)).toEqual([0, 0]);
  listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1);
  const next = kept(socket.socket());
  next.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1);
  await next.connect(listener.getsockname());
  expect([next, kept((await listener.accept())[0])].map((one) => noDelay(one) !== 0)).toEqual([true, true]);
});

test("after both FINs, addresses and options can be read until close()", async () => {
  const { client, conn } = await pair();
  const name = conn.getsockname();
  conn.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1);
  client.shutdown(socket.SHUT_WR);
  expect((await conn.recv(1)).length).toBe(0);
  conn.shutdown(socket.SHUT_WR);
  expect((await client.recv(1)).length).toBe(0);
  await until(() => {
    try {
      conn.getpeername();
      return false;
    } catch (error) {
      return (error as socket.OSError).code === "ENOTCONN";
    }
  }, "the connection has ended");
  for (const one of [client, conn]) expect(one.fileno()).toBeGreaterThanOrEqual(0);
  expect(conn.getsockname()).toEqual(name);
  expect(conn.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)).toBe(1);
  conn.close();
  expect(conn.fileno()).toBe(-1);
});

test.if(process.platform === "linux")(
  "accept() returns the address of a peer that has already reset",
  async () => {
    for (const [family, host] of [
      [socket.AF_INET, "127.0.0.1"],
      [socket.AF_INET6, "::1"],
    ] as const) {
      const listener = kept(socket.create_server([host, 0] as never, { family })) as socket.ListeningSocket;
      const python = `import socket,struct
c=socket.create_connection(("${host}",${listener.getsockname()[1]}));print(c.getsockname()[1])
c.setsockopt(1,13,struct.pack("ii",1,0));c.close()`;
      const { stdout } = Bun.spawnSync(["python3", "-c", python]);
      const [conn, address] = await listener.accept();
      kept(conn);
      expect(address.slice(0, 2) as unknown).toEqual([host, Number(String(stdout))]);
    }
  },
);

test("a slice far smaller than its chunk is a copy", async () => {
  const { client, conn } = await pair();
  await client.sendall(Buffer.alloc(65_536, 7));
  const pinned = async (size: number): Promise<number> => (await conn.recv(size)).buffer.byteLength;
  expect(await pinned(16)).toBe(16);
  expect(await pinned(20_000)).toBeGreaterThan(20_000);
  expect(await pinned(100)).toBe(100);
  const one = kept(socket.socket(socket.AF_INET, socket.SOCK_DGRAM));
  one.bind(["127.0.0.1", 0]);
  await one.sendto(Buffer.alloc(60_000), one.getsockname());
  expect((await one.recv(5)).buffer.byteLength).toBe(5);
});
