/**
 * Arguments of calls: flags, timeouts, addresses, packed options. What cannot be done is refused
 * before it begins.
 */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { decodeAddress, encodeAddress } from "../../../src/os/address.ts";
import {
  closeDescriptor,
  duplicateDescriptor,
  openDescriptor,
  openPair,
} from "../../../src/os/descriptor.ts";
import * as socket from "../../../src/socket.ts";
import { hasProc } from "../../support/program.ts";
import { closeAll, connection, failure, kept } from "../../support/sockets.ts";

const { AF_INET, AF_INET6, AF_UNIX, SO_LINGER, SO_REUSEADDR, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET } = socket;
const linux = process.platform === "linux";

setDefaultTimeout(30_000);
afterEach(closeAll);

describe("the kernel's form of an address", () => {
  test.skipIf(!linux)(
    "an IPv6 sockaddr has port and flowinfo in network order and the scope id in host order",
    () => {
      const bytes = encodeAddress(AF_INET6, ["::1", 0x0102, 0x00050607, 7]);
      const hex = "0a00" + "0102" + "00050607" + "0".repeat(31) + "1" + "07000000";
      expect(Buffer.from(bytes).toString("hex")).toBe(hex);
      expect(decodeAddress(bytes)).toEqual(["::1", 0x0102, 0x00050607, 7]);
      const small = encodeAddress(AF_INET6, ["::1", 1, 5, 7]);
      expect([...small.subarray(2, 8), ...small.subarray(24)]).toEqual([0, 1, 0, 0, 0, 5, 7, 0, 0, 0]);
      expect(decodeAddress(small)).toEqual(["::1", 1, 5, 7]);
    },
  );

  test.skipIf(!linux)(
    "a sockaddr without a Unix name is the family alone, and the kernel picks a name",
    () => {
      expect([...encodeAddress(AF_UNIX, "")]).toEqual([1, 0]);
      expect([...encodeAddress(AF_UNIX, "a")]).toEqual([1, 0, 97, 0]);
      expect([...encodeAddress(AF_UNIX, "\0a")]).toEqual([1, 0, 0, 97]);
      const [one, two] = [kept(socket.socket(AF_UNIX)), kept(socket.socket(AF_UNIX))];
      one.bind("");
      two.bind("");
      // An abstract name of five hexadecimal digits (unix(7), autobind).
      const names = [one, two].map((each) => Buffer.from(each.getsockname() as Uint8Array).toString());
      for (const name of names) expect(name).toMatch(/^\0[\da-f]{5}$/);
      expect(names[0]).not.toBe(names[1]!);
    },
  );

  test("an IPv4 address with a fifth part is refused, even if that part is 0", async () => {
    for (const text of ["1.2.3.4.5", "1.2.3.4.0", "1.2.3.4.5.0"]) {
      expect(await failure(() => socket.inet_aton(text))).toBeInstanceOf(socket.OSError);
    }
  });
});

describe("an argument", () => {
  test("every call refuses unsupported flags before it sends or receives anything", async () => {
    const { client, conn } = await connection();
    const datagrams = kept(socket.socket(AF_INET, SOCK_DGRAM));
    datagrams.bind(["127.0.0.1", 0]);
    const [x, memory, own] = [Buffer.from("x"), Buffer.alloc(1), datagrams.getsockname()];
    const calls: [string, (flags: number) => Promise<unknown>][] = [
      ["recv", (flags) => client.recv(1, flags)],
      ["recv_into", (flags) => client.recv_into(memory, 1, flags)],
      ["recvfrom_into", (flags) => datagrams.recvfrom_into(memory, 1, flags)],
      ["send", (flags) => client.send(x, flags)],
      ["sendall", (flags) => client.sendall(x, flags)],
      ["sendto", (flags) => datagrams.sendto(x, flags, own)],
    ];
    client.settimeout(0);
    datagrams.settimeout(0);
    for (const [syscall, call] of calls) {
      for (const flags of [socket.MSG_PEEK, socket.MSG_OOB]) {
        expect(await failure(() => call(flags))).toMatchObject({ code: "EOPNOTSUPP", syscall });
      }
    }
    conn.settimeout(0);
    expect(await failure(() => conn.recv(1))).toBeInstanceOf(socket.BlockingIOError);
    expect(await failure(() => datagrams.recv(1))).toBeInstanceOf(socket.BlockingIOError);
  });

  test("undefined is refused where a number is required and changes nothing", async () => {
    const none = undefined as unknown as number;
    const one = kept(socket.socket());
    one.settimeout(3);
    for (const call of [
      () => one.settimeout(none),
      () => one.listen(none),
      () => socket.socket(none as socket.AF_INET),
      () => socket.socket(AF_INET, none),
      () => socket.socketpair(none as socket.AF_UNIX),
    ]) {
      expect(await failure(call)).toBeInstanceOf(TypeError);
    }
    expect(one.gettimeout()).toBe(3);
    const [a, b] = socket.socketpair();
    kept(a);
    kept(b);
    for (const call of [
      () => a.recv(1, none),
      () => a.recv(1, 0, 5 as never),
      () => a.recvfrom(1, none),
      () => a.recv_into(Buffer.alloc(1), none),
      () => a.recv_into(Buffer.alloc(1), 1, none),
      () => a.send(Buffer.from("x"), none),
      () => a.sendall(Buffer.from("x"), none),
      () => a.sendall(Buffer.from("x"), 0, 5 as never),
    ]) {
      expect(await failure(call)).toBeInstanceOf(TypeError);
    }
    await a.sendall(Buffer.from("the first byte"));
    expect((await b.recv(100)).toString()).toBe("the first byte");
  });

  test('"<broadcast>" is every host of IPv4, and of IPv6 no address', async () => {
    const one = kept(socket.socket(AF_INET, SOCK_DGRAM));
    one.bind(["<broadcast>", 0]);
    expect(one.getsockname()).toEqual(["255.255.255.255", expect.any(Number)]);
    const six = kept(socket.socket(AF_INET6, SOCK_DGRAM));
    const error = await failure(() => six.bind(["<broadcast>", 0]));
    expect(error).toBeInstanceOf(socket.gaierror);
    expect(error.address).toBe("<broadcast>");
  });

  test("binding to a literal of the other family is a gaierror", async () => {
    const error = await failure(() => kept(socket.socket()).bind(["::1", 0]));
    expect(error).toBeInstanceOf(socket.gaierror);
    expect(error).toMatchObject({ code: "EAI_NONAME", syscall: "bind", address: "::1" });
    const six = kept(socket.socket(AF_INET6));
    expect(await failure(() => six.bind(["127.0.0.1", 0]))).toBeInstanceOf(socket.gaierror);
  });

  test("an option without bytes is the kernel's EINVAL", async () => {
    const one = kept(socket.socket());
    for (const none of [new Uint8Array(0), new ArrayBuffer(0)]) {
      const error = await failure(() => one.setsockopt(SOL_SOCKET, SO_REUSEADDR, none));
      expect(error).toBeInstanceOf(socket.OSError);
      expect(error).toMatchObject({ code: "EINVAL", syscall: "setsockopt" });
    }
  });

  test("getsockopt with a longer buffer returns the bytes that the option has", () => {
    const one = kept(socket.socket());
    one.setsockopt(SOL_SOCKET, SO_LINGER, new Int32Array([1, 3]));
    const linger = one.getsockopt(SOL_SOCKET, SO_LINGER, 64);
    expect([linger.length, linger.readInt32LE(4)]).toEqual([8, 3]);
  });
});

test.skipIf(!hasProc)("a program that is started inherits no descriptor of ours", async () => {
  // Bun's own spawn closes what it does not pass on; others in the process, such as a native library, do not.
  const O_CLOEXEC = 0o2000000;
  const flags = (fd: number): number => {
    const [, octal] = /^flags:\s+(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))!;
    return Number.parseInt(octal!, 8);
  };
  const own = [openDescriptor(AF_INET, SOCK_STREAM, 0), ...openPair(AF_UNIX, SOCK_STREAM, 0)];
  own.push(duplicateDescriptor(own[0]!, 0));
  const { listener, client, conn } = await connection();
  const [left, right] = socket.socketpair();
  kept(right);
  const given = [listener.fileno(), client.fileno(), conn.fileno(), right.fileno(), left.detach()];
  own.push(given.at(-1)!);
  const inherited = [...own, ...given].filter((fd) => (flags(fd) & O_CLOEXEC) === 0);
  for (const fd of own) closeDescriptor(fd);
  expect(inherited).toEqual([]);
});
