import { afterEach, describe, expect, test } from "bun:test";
import * as socket from "../../../src/socket.ts";
import { closeAll, connection, failure, kept, server } from "../../support/sockets.ts";

const { AF_INET, AF_UNIX, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET } = socket;
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString();

afterEach(closeAll);

describe("options", () => {
  test("options are what the kernel reports, before and after connecting", () => {
    const one = kept(socket.socket());
    expect(one.getsockopt(SOL_SOCKET, SO_REUSEADDR)).toBe(0);
    const flags: [number, number][] = [
      [SOL_SOCKET, SO_REUSEADDR],
      [SOL_SOCKET, socket.SO_REUSEPORT],
      [SOL_SOCKET, socket.SO_KEEPALIVE],
      [socket.IPPROTO_TCP, socket.TCP_NODELAY],
    ];
    for (const [level, option] of flags) {
      for (const value of [1, 0, true, false]) {
        one.setsockopt(level, option, value);
        expect(Boolean(one.getsockopt(level, option))).toBe(Boolean(value));
      }
    }
    expect(one.getsockopt(SOL_SOCKET, socket.SO_TYPE)).toBe(SOCK_STREAM);
    expect(one.getsockopt(SOL_SOCKET, socket.SO_ERROR)).toBe(0);
  });

  test("size options can be set as numbers and as packed structs", () => {
    const one = kept(socket.socket());
    const factor = process.platform === "linux" ? 2 : 1;
    one.setsockopt(SOL_SOCKET, socket.SO_RCVBUF, 20_000);
    one.setsockopt(SOL_SOCKET, socket.SO_SNDBUF, new Int32Array([30_000]));
    expect(one.getsockopt(SOL_SOCKET, socket.SO_RCVBUF)).toBe(20_000 * factor);
    expect(one.getsockopt(SOL_SOCKET, socket.SO_SNDBUF)).toBe(30_000 * factor);
    one.setsockopt(SOL_SOCKET, socket.SO_LINGER, new Int32Array([1, 7]));
    const linger = one.getsockopt(SOL_SOCKET, socket.SO_LINGER, 8);
    expect([linger.readInt32LE(0), linger.readInt32LE(4), linger.length]).toEqual([1, 7, 8]);
  });

  test("options survive connecting and a connect that fails", async () => {
    const { listener, address } = server();
    const one = kept(socket.socket());
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1);
    await one.connect(address);
    expect(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)).toBe(1);
    listener.close();
    const two = kept(socket.socket());
    two.setsockopt(SOL_SOCKET, socket.SO_KEEPALIVE, 1);
    await failure(() => two.connect(address));
    expect(two.getsockopt(SOL_SOCKET, socket.SO_KEEPALIVE)).toBe(1);
  });

  test("unknown options and invalid values are errors", async () => {
    const one = kept(socket.socket());
    expect(await failure(() => one.getsockopt(SOL_SOCKET, 9999))).toMatchObject({ code: "ENOPROTOOPT" });
    expect(await failure(() => one.setsockopt(SOL_SOCKET, 9999, 1))).toMatchObject({ code: "ENOPROTOOPT" });
    expect(
      await failure(() => one.setsockopt(SOL_SOCKET, SO_REUSEADDR, "1" as unknown as number)),
    ).toBeInstanceOf(TypeError);
    for (const size of [-1, 1025, 1.5]) {
      expect(await failure(() => one.getsockopt(SOL_SOCKET, SO_REUSEADDR, size))).toBeInstanceOf(RangeError);
    }
  });

  test("SO_LINGER with 0 seconds makes close a reset, and switched off it does not", async () => {
    for (const on of [1, 0]) {
      const { client, conn } = await connection();
      client.setsockopt(SOL_SOCKET, socket.SO_LINGER, new Int32Array([on, 0]));
      client.close();
      conn.settimeout(5);
      if (on) expect(await failure(() => conn.recv(1))).toBeInstanceOf(socket.ConnectionResetError);
      else expect((await conn.recv(1)).length).toBe(0);
    }
  });
});

describe("the descriptor", () => {
  test("detach returns the open descriptor and closes the object", async () => {
    const [a, b] = socket.socketpair();
    kept(b);
    const fd = a.fileno();
    expect(a.detach()).toBe(fd);
    expect(a.fileno()).toBe(-1);
    expect(await failure(() => a.recv(1))).toMatchObject({ code: "EBADF" });
    expect(await failure(() => a.detach())).toMatchObject({ code: "EBADF" });
    a.close();
    const same = kept(socket.socket(undefined, undefined, 0, fd));
    expect([same.fileno(), same.family, same.type]).toEqual([fd, AF_UNIX, SOCK_STREAM]);
    await same.sendall(Buffer.from("there"));
    expect(text(await b.recv(9))).toBe("there");
  });

  test("a listener's descriptor still listens after detach", async () => {
    const { listener, address } = server();
    const same = kept(socket.socket(undefined, undefined, 0, listener.detach()));
    same.settimeout(5);
    const client = kept(await socket.create_connection(address, 5));
    expect((await same.accept())[1]).toEqual(client.getsockname() as [string, number]);
  });

  test("detach is refused while received bytes would be lost", async () => {
    const [a, b] = socket.socketpair();
    kept(a);
    kept(b);
    await b.sendall(Buffer.from("xy"));
    expect(text(await a.recv(1))).toBe("x");
    expect(await failure(() => a.detach())).toMatchObject({ code: "EBUSY" });
    expect(text(await a.recv(1))).toBe("y");
  });

  test("an invalid descriptor is an error", async () => {
    expect(await failure(() => socket.socket(AF_INET, SOCK_STREAM, 0, -1))).toBeInstanceOf(RangeError);
    expect(await failure(() => socket.socket(undefined, undefined, 0, 99_999))).toMatchObject({
      code: "EBADF",
    });
  });
});
