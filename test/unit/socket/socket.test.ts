import { afterEach, describe, expect, test } from "bun:test";
import { existsSync, unlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as socket from "../../../src/socket.ts";
import { hasProc } from "../../support/program.ts";
import { askPython, closeAll, connection, failure, kept, python, server } from "../../support/sockets.ts";
import { run } from "../../support/tutorial.ts";

const { AF_INET, AF_INET6, AF_UNIX, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET } = socket;
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString();

afterEach(() => {
  socket.setdefaulttimeout(null);
  closeAll();
});

describe("the surface", () => {
  test("the library exports every promised name", () => {
    const module = (
      "create_connection getaddrinfo socket create_server socketpair getdefaulttimeout setdefaulttimeout gethostname " +
      "inet_aton inet_ntoa inet_pton inet_ntop htons ntohs htonl ntohl"
    ).split(" ");
    const names = socket as unknown as Record<string, unknown>;
    for (const name of module) expect([name, typeof names[name]]).toEqual([name, "function"]);
    expect(socket.has_ipv6).toBe(true);
    expect(socket.error).toBe(socket.OSError);
    expect(socket.timeout).toBe(socket.TimeoutError);
    expect(socket.gethostname()).not.toBe("");
    const methods = (
      "accept connect connect_ex recv recv_into recvfrom recvfrom_into send sendall sendto bind listen close detach " +
      "shutdown fileno getpeername getsockname setsockopt getsockopt settimeout gettimeout setblocking getblocking"
    ).split(" ");
    const one = kept(new socket.socket()) as unknown as Record<string, unknown>;
    for (const name of methods) expect([name, typeof one[name]]).toEqual([name, "function"]);
    // As in Python, for programs that list them.
    expect(Object.getOwnPropertyNames(socket.socket.prototype)).toEqual(expect.arrayContaining(methods));
    expect([one["family"], one["type"], one["proto"]]).toEqual([AF_INET, SOCK_STREAM, 0]);
    expect(one).toBeInstanceOf(socket.socket as unknown as new () => unknown);
  });

  test.skipIf(python === null)("the library has the platform's constants and none that Python lacks", () => {
    const program = `
import json, socket, sys
json.dump({n: int(v) for n, v in vars(socket).items() if n.isupper() and isinstance(v, int)}, sys.stdout)`;
    const theirs = askPython(program, null) as Record<string, number>;
    const ours = Object.fromEntries(
      Object.entries(socket).filter(
        ([name, value]) => name === name.toUpperCase() && typeof value === "number",
      ),
    );
    // A Python that was built without bluetooth.h lacks these.
    const bluetooth = /^(AF_BLUETOOTH|BTPROTO_|BDADDR_|SOL_(HCI|L2CAP|SCO|RFCOMM)|HCI_)/;
    const names = Object.keys(ours).filter((name) => name in theirs || !bluetooth.test(name));
    const shared = (from: Record<string, unknown>) => Object.fromEntries(names.map((n) => [n, from[n]]));
    expect(shared(ours)).toEqual(shared(theirs));
    const families =
      /^(SO|TCP|EAI|SHUT|INADDR)_(?!J1939|VM_)|^AF_(INET6?|UNIX)$|^SOCK_(STREAM|DGRAM)$|^(SOL_SOCKET|SOMAXCONN|IPPROTO_TCP)$/;
    const missing = Object.keys(theirs).filter((name) => families.test(name) && !(name in ours));
    expect(missing).toEqual([]);
  });

  test("unsupported calls and flags are refused by name", async () => {
    const { client } = await connection();
    for (const name of ["recvmsg", "recvmsg_into", "sendmsg", "dup", "ioctl"] as const) {
      const error = await failure(() => client[name]());
      expect(error).toMatchObject({ code: "EOPNOTSUPP", message: expect.stringContaining(`${name}()`) });
    }
    const flagged: [string, (flags: number) => Promise<unknown>][] = [
      ["recv", (flags) => client.recv(1, flags)],
      ["recvfrom", (flags) => client.recvfrom(1, flags)],
      ["recv_into", (flags) => client.recv_into(Buffer.alloc(1), 1, flags)],
      ["send", (flags) => client.send(Buffer.from("x"), flags)],
      ["sendall", (flags) => client.sendall(Buffer.from("x"), flags)],
    ];
    for (const [name, call] of flagged) {
      const error = await failure(() => call(socket.MSG_OOB));
      expect(error).toMatchObject({
        code: "EOPNOTSUPP",
        syscall: name,
        message: expect.stringContaining("MSG_OOB"),
      });
      expect((await failure(() => call(0x40_0000))).message).toContain("0x400000");
    }
    expect((await failure(() => socket.socket(AF_INET, socket.SOCK_RAW))).message).toContain("SOCK_RAW");
    expect(await failure(() => socket.socket(99 as socket.AF_INET))).toMatchObject({ code: "EAFNOSUPPORT" });
    expect(await failure(() => socket.socketpair(AF_INET))).toMatchObject({ syscall: "socketpair" });
  });
});

describe("bind", () => {
  test("bind to port 0 gives a real port before listen, and connections reach it", async () => {
    const one = kept(socket.socket());
    one.bind(["127.0.0.1", 0]);
    const address = one.getsockname();
    expect(address[1]).toBeGreaterThan(0);
    one.listen();
    expect(one.getsockname()).toEqual(address);
    const client = kept(await socket.create_connection(address, 5));
    expect(client.getpeername()).toEqual(address);
  });

  test("bind to a taken port or a foreign address, or a second bind, fails", async () => {
    const { address } = server();
    const taken = await failure(() => kept(socket.socket()).bind(address));
    expect(taken).toMatchObject({ code: "EADDRINUSE", syscall: "bind", address: address.join(":") });
    const foreign = await failure(() => kept(socket.socket()).bind(["203.0.113.77", 0]));
    expect(foreign).toMatchObject({ code: "EADDRNOTAVAIL", syscall: "bind" });
    const one = kept(socket.socket());
    one.bind(["127.0.0.1", 0]);
    expect(await failure(() => one.bind(["127.0.0.1", 0]))).toMatchObject({
      code: "EINVAL",
      syscall: "bind",
    });
  });

  // Even root is refused once it cannot have the capability.
  const asRoot = process.getuid?.() === 0 ? ["setpriv", "--bounding-set=-net_bind_service"] : [];
  test.skipIf(!hasProc || Bun.which("setpriv") === null)(
    "bind to a port below 1024 without the privilege is EACCES",
    async () => {
      const program = `import * as socket from "${import.meta.dir}/../../../src/socket.ts";
        try { socket.socket().bind(["127.0.0.1", 80]); } catch (error) {
          console.log(error instanceof socket.PermissionError, error.message); }`;
      const { stdout } = await run([...asRoot, process.execPath, "-e", program]);
      expect(stdout.toString()).toBe("true bind 127.0.0.1:80: Permission denied (EACCES)\n");
    },
  );
});

describe("listen and accept", () => {
  test("a backlog of ten holds ten in order and resets the eleventh", async () => {
    const { listener, address } = server(10);
    const clients: socket.Socket<socket.AF_INET>[] = [];
    for (let i = 0; i < 11; i++) {
      const client = kept(socket.socket());
      client.settimeout(5);
      await client.connect(address);
      clients.push(client);
    }
    expect(await failure(() => clients[10]!.recv(1))).toBeInstanceOf(socket.ConnectionResetError);
    for (let i = 0; i < 10; i++) {
      const [conn, peer] = await listener.accept();
      kept(conn);
      expect(peer).toEqual(clients[i]!.getsockname());
      await conn.sendall(Buffer.from([i]));
      expect([...(await clients[i]!.recv(1))]).toEqual([i]);
    }
    listener.settimeout(0);
    expect(await failure(() => listener.accept())).toBeInstanceOf(socket.BlockingIOError);
  });

  test("listen passes the backlog to the kernel", async () => {
    const { listener } = server(7);
    // For a listener, TCP_INFO's tcpi_sacked (at 28, after eight bytes and five words) is its backlog
    // (tcp(7)).
    if (process.platform !== "linux") return;
    const backlog = () => listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104).readUInt32LE(28);
    expect(backlog()).toBe(7);
    listener.listen(3);
    expect(backlog()).toBe(3);
  });

  test("listen works without a backlog and with 0 or less", async () => {
    for (const backlog of [[], [0], [-1]]) {
      const one = kept(socket.socket());
      one.bind(["127.0.0.1", 0]);
      one.listen(...backlog);
      const client = kept(await socket.create_connection(one.getsockname(), 5));
      const [conn] = await one.accept();
      await kept(conn).sendall(Buffer.from("x"));
      expect(text(await client.recv(1))).toBe("x");
    }
    expect(await failure(() => kept(socket.socket()).listen(1.5))).toBeInstanceOf(TypeError);
  });

  test("accept before listen and listen on a connection are EINVAL", async () => {
    const one = kept(socket.socket());
    one.bind(["127.0.0.1", 0]);
    expect(await failure(() => one.accept())).toMatchObject({ code: "EINVAL", syscall: "accept" });
    const { client } = await connection();
    expect(await failure(() => client.listen())).toMatchObject({ code: "EINVAL", syscall: "listen" });
  });

  test("a listen that fails leaves the socket open and closes no other descriptor", async () => {
    const [a, b] = [kept(socket.socket()), kept(socket.socket())];
    for (const one of [a, b]) one.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1);
    a.bind(["127.0.0.1", 0]);
    const address = a.getsockname();
    b.bind(address);
    a.listen();
    expect(await failure(() => b.listen())).toMatchObject({ code: "EADDRINUSE", syscall: "listen" });
    expect(b.getsockname()).toEqual(address);
    const other = kept(socket.socket());
    b.close();
    expect(other.getsockname()).toEqual(["0.0.0.0", 0]);
    a.close();
  });

  test("accept returns a socket of the listener's kind and the peer's address", async () => {
    const { client, conn, peer, listener } = await connection();
    expect([conn.family, conn.type]).toEqual([AF_INET, SOCK_STREAM]);
    expect(peer).toEqual(client.getsockname());
    expect(conn.getpeername()).toEqual(client.getsockname());
    expect(conn.getsockname()).toEqual(listener.getsockname());
    expect(conn.fileno()).toBeGreaterThan(2);
  });

  test("closing a listener ends pending accepts and frees the port immediately", async () => {
    const { listener, address } = server();
    const pending = [failure(() => listener.accept()), failure(() => listener.accept())];
    listener.close();
    for (const error of await Promise.all(pending))
      expect(error).toMatchObject({ code: "EBADF", syscall: "accept" });
    const again = kept(socket.socket());
    again.bind(address);
    again.listen();
    expect(await failure(() => listener.accept())).toMatchObject({ code: "EBADF" });
    expect(listener.fileno()).toBe(-1);
  });

  test("for await yields connections until the listener is closed", async () => {
    const { listener, address } = server();
    const clients: socket.Socket<socket.AF_INET>[] = [];
    const next = async () =>
      void clients.push(kept(await socket.create_connection(address)) as socket.Socket<socket.AF_INET>);
    await next();
    let served = 0;
    for await (const [conn, peer] of listener) {
      kept(conn);
      expect(peer).toEqual(clients[served]!.getsockname());
      if (++served === 3) listener.close();
      else await next();
    }
    expect(served).toBe(3);
  });
});

describe("a Unix domain listener", () => {
  test("a Unix listener has a path, which remains after close", async () => {
    const path = join(tmpdir(), `ringback-${process.pid}.sock`);
    const listener = kept(socket.create_server(path, { family: AF_UNIX }));
    try {
      const client = kept(socket.socket(AF_UNIX));
      await client.connect(path);
      const [conn, peer] = await listener.accept();
      expect([peer, kept(conn).getsockname(), client.getpeername()]).toEqual(["", path, path]);
      await conn.sendall(Buffer.from("x"));
      expect(text(await client.recv(9))).toBe("x");
      expect(await failure(() => kept(socket.socket(AF_UNIX)).bind(path))).toMatchObject({
        code: "EADDRINUSE",
      });
      listener.close();
      expect(existsSync(path)).toBe(true);
      expect(await failure(() => kept(socket.socket(AF_UNIX)).connect(path))).toBeInstanceOf(
        socket.ConnectionRefusedError,
      );
    } finally {
      unlinkSync(path);
    }
    const gone = await failure(() => kept(socket.socket(AF_UNIX)).connect(path));
    expect(gone).toBeInstanceOf(socket.FileNotFoundError);
  });
});

test("every call on a closed socket is EBADF, and closing again does nothing", async () => {
  const { client, address } = { ...(await connection()), address: ["127.0.0.1", 1] as [string, number] };
  client.close();
  client.close();
  expect(client.fileno()).toBe(-1);
  const bytes = Buffer.from("x");
  const calls: (() => unknown)[] = [
    () => client.recv(1),
    () => client.recv_into(Buffer.alloc(1)),
    () => client.recvfrom(1),
    () => client.send(bytes),
    () => client.sendall(bytes),
    () => client.sendto(bytes, address),
    () => client.accept(),
    () => client.listen(),
    () => client.bind(address),
    () => client.connect(address),
    () => client.shutdown(socket.SHUT_WR),
    () => client.getsockname(),
    () => client.getpeername(),
    () => client.getsockopt(SOL_SOCKET, SO_REUSEADDR),
    () => client.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1),
    () => client.detach(),
  ];
  for (const call of calls) expect(await failure(call)).toMatchObject({ code: "EBADF", errno: 9 });
  expect(await client.connect_ex(address)).toBe(9);
});

test("IPv6 listens and connects, alone or with IPv4", async () => {
  const six = kept(socket.create_server(["::1", 0], { family: AF_INET6 }));
  const client = kept(socket.socket(AF_INET6));
  await client.connect(six.getsockname());
  expect((await six.accept())[1]).toEqual(client.getsockname());
  const both = kept(socket.create_server(["", 0], { family: AF_INET6, dualstack_ipv6: true }));
  const four = kept(await socket.create_connection(["127.0.0.1", both.getsockname()[1]], 5));
  const [conn, peer] = await both.accept();
  kept(conn);
  expect(peer).toEqual(["::ffff:127.0.0.1", four.getsockname()[1], 0, 0]);
});
