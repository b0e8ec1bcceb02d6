import { afterEach, describe, expect, test } from "bun:test";
import { constants } from "node:os";
import * as socket from "../../../src/socket.ts";
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
import { until } from "../../support/peers.ts";

const { AF_INET, AF_INET6, AF_UNIX, SOL_SOCKET } = socket;
const { ECONNREFUSED, ENOTCONN } = constants.errno;
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString();

afterEach(() => {
  socket.setdefaulttimeout(null);
  closeAll();
});

/** A try, on the same socket, shows that it is usable. */
async function works(one: socket.Socket): Promise<void> {
  const { listener, address } = server();
  await one.connect(address);
  const [conn] = await listener.accept();
  await kept(conn).sendall(Buffer.from("x"));
  expect(text(await one.recv(1))).toBe("x");
}

describe("connect", () => {
  test("connect to a closed port is ConnectionRefusedError with the address, and the socket can try again", async () => {
    const one = kept(socket.socket());
    const address = freeAddress();
    const error = await failure(() => one.connect(address));
    expect(error).toBeInstanceOf(socket.ConnectionRefusedError);
    expect(error).toBeInstanceOf(socket.ConnectionError);
    expect(error).toBeInstanceOf(socket.OSError);
    expect(error).toMatchObject({ code: "ECONNREFUSED", syscall: "connect", address: address.join(":") });
    expect(error.errno).toBeGreaterThan(0);
    expect(error.strerror).toBe("Connection refused");
    expect(error.message).toBe(`connect ${address.join(":")}: Connection refused (ECONNREFUSED)`);
    await works(one);
  });

  test("connect keeps the bound address, even after it fails", async () => {
    const one = kept(socket.socket());
    one.bind(["127.0.0.1", 0]);
    const own = one.getsockname();
    await failure(() => one.connect(freeAddress()));
    const { listener, address } = server();
    await one.connect(address);
    expect((await listener.accept())[1]).toEqual(own);
  });

  test("a second connect is EISCONN, and one during the first is EALREADY", async () => {
    const { address } = server();
    const one = kept(socket.socket());
    const first = one.connect(address);
    expect(await failure(() => one.connect(address))).toMatchObject({ code: "EALREADY" });
    await first;
    expect(await failure(() => one.connect(address))).toMatchObject({ code: "EISCONN" });
  });

  test("connect to an unknown host is a gaierror every time", async () => {
    for (const timeout of [null, 0]) {
      const one = kept(socket.socket());
      one.settimeout(timeout);
      for (let i = 0; i < 2; i++) {
        const error = await failure(() => one.connect(["no.such.host.invalid", 80]));
        expect(error).toBeInstanceOf(socket.gaierror);
        expect(error).toMatchObject({ code: "EAI_NONAME", address: "no.such.host.invalid" });
      }
    }
    const other = await failure(() => kept(socket.socket(AF_INET6)).connect(["127.0.0.1", 80]));
    expect(other).toMatchObject({ code: "EAI_ADDRFAMILY" });
  });

  test("connect resolves a host name", async () => {
    const { address } = server();
    const one = kept(socket.socket());
    await one.connect(["localhost", address[1]]);
    expect(one.getpeername()).toEqual(address);
  });

  test("recv, send and shutdown before connect are ENOTCONN", async () => {
    const one = kept(socket.socket());
    const calls = [() => one.recv(1), () => one.recvfrom(1), () => one.send(Buffer.from("x"))];
    for (const call of [...calls, () => one.sendall(Buffer.from("x")), () => one.shutdown(socket.SHUT_WR)]) {
      expect(await failure(call)).toMatchObject({ code: "ENOTCONN" });
    }
    expect(await failure(() => one.getpeername())).toMatchObject({ code: "ENOTCONN" });
  });

  test("a non-blocking connect is EINPROGRESS and then completes", async () => {
    const { listener, address } = server();
    const one = kept(socket.socket());
    one.setblocking(false);
    const error = await failure(() => one.connect(address));
    expect(error).toBeInstanceOf(socket.BlockingIOError);
    expect(error.code).toBe("EINPROGRESS");
    kept((await listener.accept())[0]);
    // As with connect(2): EALREADY while it is under way, 0 once when it is established, then EISCONN.
    const { EALREADY, EISCONN } = constants.errno;
    const told: number[] = [];
    while (told.at(-1) !== EISCONN) {
      told.push(await one.connect_ex(address));
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(told.filter((errno) => errno !== EALREADY)).toEqual([0, EISCONN]);
  });

  test("a failed non-blocking connect is reported once, by SO_ERROR or by the next call", async () => {
    const began = async (): Promise<socket.Socket> => {
      const one = kept(socket.socket());
      one.settimeout(0);
      expect((await failure(() => one.connect(freeAddress()))).code).toBe("EINPROGRESS");
      return one;
    };
    const asked = await began();
    let told = 0;
    await until(() => (told = asked.getsockopt(SOL_SOCKET, socket.SO_ERROR)) !== 0, "SO_ERROR tells");
    expect(told).toBe(ECONNREFUSED);
    expect(asked.getsockopt(SOL_SOCKET, socket.SO_ERROR)).toBe(0);
    asked.settimeout(5);
    await works(asked);
    const calls: [string, (one: socket.Socket) => unknown][] = [
      ["EAGAIN", (one) => one.recv(1)],
      ["EAGAIN", (one) => one.send(Buffer.from("x"))],
      ["EALREADY", (one) => one.connect(freeAddress())],
    ];
    for (const [meanwhile, call] of calls) {
      const one = await began();
      let code = meanwhile;
      while (code === meanwhile) {
        ({ code } = await failure(() => call(one)));
        await new Promise((resolve) => setImmediate(resolve));
      }
      expect(code).toBe("ECONNREFUSED");
      one.settimeout(5);
      await works(one);
    }
  });

  test.skipIf(!hasProc)(
    "a connect that fails or is closed or aborted leaves no descriptor behind",
    async () => {
      const address = freeAddress();
      const cycle = async (): Promise<void> => {
        const refused = socket.socket();
        await failure(() => refused.connect(address));
        refused.close();
        const looking = socket.socket();
        const pending = failure(() => looking.connect(["localhost", address[1]]));
        looking.close();
        expect(await pending).toMatchObject({ code: "EBADF" });
        const local = socket.socket(AF_UNIX);
        await failure(() => local.connect("/nowhere/at/all"));
        local.close();
      };
      for (let i = 0; i < 20; i++) await cycle();
      const before = openDescriptors();
      for (let i = 0; i < 100; i++) await cycle();
      await until(() => openDescriptors() === before, "every descriptor is closed");
    },
  );
});

test("connect_ex throws for an unknown host, as in Python", async () => {
  const one = kept(socket.socket());
  const error = await failure(() => one.connect_ex(["no.such.host.invalid", 1]));
  expect(error).toBeInstanceOf(socket.gaierror);
  expect(error.errno).toBe(socket.EAI_NONAME);
});

test("connect_ex returns 0 or the errno", async () => {
  const { address } = server();
  const one = kept(socket.socket());
  expect(await one.connect_ex(freeAddress())).toBe((await failure(() => one.connect(freeAddress()))).errno);
  expect(await one.connect_ex(address)).toBe(0);
  expect(await one.connect_ex(address)).toBe((await failure(() => one.connect(address))).errno);
});

describe("create_connection", () => {
  test("create_connection tries every address and throws the last error", async () => {
    const { address } = server();
    const six = kept(socket.create_server(["::1", 0], { family: AF_INET6 }));
    for (const port of [address[1], six.getsockname()[1]]) {
      const conn = kept(await socket.create_connection([null, port], 5));
      expect(conn.getpeername()[1]).toBe(port);
      expect(conn.gettimeout()).toBe(5);
    }
    const [, port] = freeAddress();
    const error = await failure(() => socket.create_connection([null, port], 5));
    expect(error).toBeInstanceOf(socket.ConnectionRefusedError);
    expect(error.address).toBe(`127.0.0.1:${port}`);
  });

  test("create_connection binds to the source address first", async () => {
    const { listener, address } = server();
    const source = freeAddress();
    kept(await socket.create_connection(address, 5, source));
    expect((await listener.accept())[1]).toEqual(source);
  });

  test("create_connection is ended by its signal", async () => {
    const { address } = server();
    const signal = AbortSignal.abort();
    expect(await failure(() => socket.create_connection(address, { signal }))).toMatchObject({
      name: "AbortError",
    });
  });
});

test("create_server sets SO_REUSEADDR and names options that contradict each other", async () => {
  const { listener } = server();
  expect(listener.getsockopt(SOL_SOCKET, socket.SO_REUSEADDR)).not.toBe(0);
  const both = socket.create_server(["127.0.0.1", 0], { reuse_port: true });
  kept(both);
  const second = kept(socket.create_server(both.getsockname(), { reuse_port: true }));
  expect(second.getsockname()).toEqual(both.getsockname());
  expect(() => socket.create_server(["127.0.0.1", 0], { dualstack_ipv6: true })).toThrow(TypeError);
  expect(await failure(() => socket.create_server(listener.getsockname()))).toMatchObject({
    code: "EADDRINUSE",
  });
});

test("socketpair returns two connected sockets", async () => {
  const [a, b] = socket.socketpair();
  kept(a);
  kept(b);
  expect([a.family, b.family]).toEqual([AF_UNIX, AF_UNIX]);
  await a.sendall(Buffer.from("one"));
  await b.sendall(Buffer.from("two"));
  expect([text(await b.recv(9)), text(await a.recv(9))]).toEqual(["one", "two"]);
  a.close();
  expect((await b.recv(1)).length).toBe(0);
});

describe("a timeout", () => {
  test("a timeout is null, a number from 0, or an error", async () => {
    const one = kept(socket.socket());
    expect([one.gettimeout(), one.getblocking()]).toEqual([null, true]);
    one.settimeout(2.5);
    expect([one.gettimeout(), one.getblocking()]).toEqual([2.5, true]);
    one.setblocking(false);
    expect([one.gettimeout(), one.getblocking()]).toEqual([0, false]);
    one.setblocking(true);
    expect(one.gettimeout()).toBe(null);
    for (const call of [(t: number) => one.settimeout(t), socket.setdefaulttimeout]) {
      for (const wrong of [-1, NaN]) expect(() => call(wrong)).toThrow(RangeError);
      expect(() => call("1" as unknown as number)).toThrow(TypeError);
    }
    expect(one.gettimeout()).toBe(null);
  });

  test("an accept that times out is TimeoutError, which is socket.timeout, and the next accept works", async () => {
    const { listener, address } = server();
    listener.settimeout(0.03);
    const began = performance.now();
    const error = await failure(() => listener.accept());
    expect(performance.now() - began).toBeGreaterThan(25);
    expect(error).toBeInstanceOf(socket.timeout);
    expect(error).toBeInstanceOf(socket.OSError);
    expect(error).toMatchObject({ code: "ETIMEDOUT", syscall: "accept" });
    const client = kept(await socket.create_connection(address, 5));
    listener.settimeout(5);
    const [conn, peer] = await listener.accept();
    expect(kept(conn) && peer).toEqual(client.getsockname() as [string, number]);
  });

  test("accept with a timeout of 0 returns a waiting connection or throws BlockingIOError immediately", async () => {
    const { listener, address } = server();
    listener.settimeout(0);
    expect(await failure(() => listener.accept())).toBeInstanceOf(socket.BlockingIOError);
    const client = kept(await socket.create_connection(address, 5));
    expect((await listener.accept())[1]).toEqual(client.getsockname() as [string, number]);
  });

  test("an accepted socket gets the default timeout, not the listener's", async () => {
    for (const preset of [null, 7]) {
      const { listener, address } = server();
      listener.settimeout(3);
      socket.setdefaulttimeout(preset);
      const client = kept(await socket.create_connection(address));
      const [conn] = await listener.accept();
      expect([kept(conn).gettimeout(), client.gettimeout(), socket.getdefaulttimeout()]).toEqual([
        preset,
        preset,
        preset,
      ]);
    }
  });

  test("a recv that times out loses no byte", async () => {
    const { client, conn } = await connection();
    client.settimeout(0.02);
    expect(await failure(() => client.recv(9))).toBeInstanceOf(socket.TimeoutError);
    await conn.sendall(Buffer.from("late"));
    client.settimeout(5);
    expect(text(await client.recv(9))).toBe("late");
  });
});

describe("a signal", () => {
  test("a signal ends a pending accept with AbortError, and the listener keeps working", async () => {
    const { listener, address } = server();
    const controller = new AbortController();
    const [ended, stays] = [failure(() => listener.accept({ signal: controller.signal })), listener.accept()];
    controller.abort();
    expect(await ended).toMatchObject({ name: "AbortError" });
    const client = kept(await socket.create_connection(address, 5));
    // The accept beside it was not ended, and gets the connection: none is lost to the one that gave up.
    expect((await stays)[1]).toEqual(client.getsockname() as [string, number]);
    expect(await failure(() => listener.accept({ signal: controller.signal }))).toMatchObject({
      name: "AbortError",
    });
  });

  test("a signal ends a connect, and the socket can try again", async () => {
    const one = kept(socket.socket());
    const controller = new AbortController();
    const { address } = server();
    const pending = failure(() => one.connect(["localhost", address[1]], { signal: controller.signal }));
    controller.abort();
    expect(await pending).toMatchObject({ name: "AbortError" });
    await works(one);
  });

  test("a signal's own reason is what the call throws", async () => {
    const { listener } = server();
    const reason = new Error("enough");
    expect((await failure(() => listener.accept({ signal: AbortSignal.abort(reason) }))) as Error).toBe(
      reason,
    );
  });
});

test("a reset is ConnectionResetError, and writing to a closed peer fails in bounded time", async () => {
  const { client, conn } = await connection();
  conn[Symbol.dispose]();
  client.settimeout(5);
  expect(await failure(() => client.recv(1))).toBeInstanceOf(socket.ConnectionResetError);
  const error = await failure(async () => {
    for (let i = 0; i < 1000; i++) await client.sendall(Buffer.alloc(1000));
  });
  expect(error).toBeInstanceOf(socket.ConnectionError);
  expect(["EPIPE", "ECONNRESET"]).toContain(error.code);
});

test("the errors are Python's classes, with errno, code and strerror", async () => {
  const family = [
    [socket.ConnectionRefusedError, socket.ConnectionError],
    [socket.ConnectionResetError, socket.ConnectionError],
    [socket.BrokenPipeError, socket.ConnectionError],
    [socket.ConnectionAbortedError, socket.ConnectionError],
    [socket.ConnectionError, socket.OSError],
    [socket.TimeoutError, socket.OSError],
    [socket.BlockingIOError, socket.OSError],
    [socket.PermissionError, socket.OSError],
    [socket.FileNotFoundError, socket.OSError],
    [socket.gaierror, socket.OSError],
    [socket.OSError, Error],
  ] as const;
  for (const [one, parent] of family) expect(Object.getPrototypeOf(one)).toBe(parent);
  const one = kept(socket.socket(AF_INET));
  const error = await failure(() => one.recv(1));
  expect([error.errno, error.code, error.strerror]).toEqual([
    ENOTCONN,
    "ENOTCONN",
    "the socket is not connected",
  ]);
});
