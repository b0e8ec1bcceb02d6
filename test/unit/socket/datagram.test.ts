import { afterEach, describe, expect, test } from "bun:test";
import * as socket from "../../../src/socket.ts";
import { closeAll, failure, freeAddress, kept, openDescriptors } from "../../support/sockets.ts";
import { hasProc } from "../../support/program.ts";

const { AF_INET, AF_INET6, SOCK_DGRAM } = socket;
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString();

afterEach(closeAll);

/** A datagram socket with an address of its own. */
function bound(timeout: number | null = 5) {
  const one = kept(socket.socket(AF_INET, SOCK_DGRAM));
  one.bind(["127.0.0.1", 0]);
  one.settimeout(timeout);
  return one;
}

describe("a datagram", () => {
  test("a datagram arrives whole, with its sender's address", async () => {
    const [a, b] = [bound(), bound()];
    expect(await a.sendto(Buffer.from("one"), b.getsockname())).toBe(3);
    expect(await a.sendto(Buffer.from("two"), 0, b.getsockname())).toBe(3);
    const [bytes, from] = await b.recvfrom(100);
    expect([text(bytes), from]).toEqual(["one", a.getsockname()]);
    expect(text(await b.recv(100))).toBe("two");
  });

  test("a datagram can be sent to a host name", async () => {
    const [a, b] = [bound(), bound()];
    await a.sendto(Buffer.from("x"), ["localhost", b.getsockname()[1]]);
    expect(text(await b.recv(10))).toBe("x");
  });

  test("a datagram that waits in the kernel before the first recv is not lost", async () => {
    const [a, b] = [bound(), bound()];
    for (let i = 0; i < 50; i++) await a.sendto(Buffer.from(`${i}`), b.getsockname());
    for (let i = 0; i < 50; i++) expect(text(await b.recv(10))).toBe(`${i}`);
  });

  test("a datagram longer than bufsize loses its rest, and the next one is whole", async () => {
    const [a, b] = [bound(), bound()];
    for (const each of ["abcdef", "ghijkl"]) await a.sendto(Buffer.from(each), b.getsockname());
    expect(text(await b.recv(2))).toBe("ab");
    expect(text((await b.recvfrom(100))[0])).toBe("ghijkl");
  });

  test("an empty datagram is a datagram, not the end", async () => {
    const [a, b] = [bound(), bound()];
    expect(await a.sendto(Buffer.alloc(0), b.getsockname())).toBe(0);
    await a.sendto(Buffer.from("x"), b.getsockname());
    const seen: string[] = [];
    for await (const bytes of b) {
      seen.push(text(bytes));
      if (seen.length === 2) break;
    }
    expect(seen).toEqual(["", "x"]);
  });

  test("a datagram of 65507 bytes arrives whole, and one more byte is EMSGSIZE", async () => {
    const [a, b] = [bound(), bound()];
    const most = Buffer.alloc(65_507, 7);
    await a.sendto(most, b.getsockname());
    expect((await b.recv(70_000)).equals(most)).toBe(true);
    const error = await failure(() => a.sendto(Buffer.alloc(65_508), b.getsockname()));
    expect(error).toMatchObject({ code: "EMSGSIZE", syscall: "sendto" });
  });

  test("recvfrom_into fills the start of a buffer and leaves the rest untouched", async () => {
    const [a, b] = [bound(), bound()];
    const buffer = Buffer.from("........");
    for (const each of ["abc", "defgh", "ij"]) await a.sendto(Buffer.from(each), b.getsockname());
    expect(await b.recvfrom_into(buffer)).toEqual([3, a.getsockname()]);
    expect(text(buffer)).toBe("abc.....");
    expect(await b.recvfrom_into(buffer, 2)).toEqual([2, a.getsockname()]);
    expect(text(buffer)).toBe("dec.....");
    expect(await b.recv_into(buffer)).toBe(2);
    expect(text(buffer)).toBe("ijc.....");
    expect(await failure(() => b.recvfrom_into(buffer, 9))).toBeInstanceOf(RangeError);
    expect(await failure(() => b.recvfrom_into(buffer, -1))).toBeInstanceOf(RangeError);
  });

  test("a datagram over IPv6 has an IPv6 address", async () => {
    const [a, b] = [0, 1].map(() => {
      const one = kept(socket.socket(AF_INET6, SOCK_DGRAM));
      one.bind(["::1", 0]);
      one.settimeout(5);
      return one;
    }) as [socket.Socket<socket.AF_INET6>, socket.Socket<socket.AF_INET6>];
    await a.sendto(Buffer.from("six"), b.getsockname());
    const [bytes, from] = await b.recvfrom(10);
    expect([text(bytes), from]).toEqual(["six", a.getsockname()]);
    expect(from).toEqual(["::1", expect.any(Number), 0, 0]);
  });

  test("a string as a datagram is a TypeError, and a negative size a RangeError", async () => {
    const one = bound();
    expect(await failure(() => one.sendto("x" as unknown as Buffer, one.getsockname()))).toBeInstanceOf(
      TypeError,
    );
    expect(await failure(() => one.recvfrom(-1))).toBeInstanceOf(RangeError);
  });
});

describe("a connected datagram socket", () => {
  test("a connected datagram socket sends to its peer and receives only from it", async () => {
    const [a, b, stranger] = [bound(), bound(), bound()];
    await a.connect(b.getsockname());
    expect(a.getpeername()).toEqual(b.getsockname());
    expect(await a.send(Buffer.from("hello"))).toBe(5);
    await a.sendall(Buffer.from("again"));
    expect([text(await b.recv(10)), text(await b.recv(10))]).toEqual(["hello", "again"]);
    await stranger.sendto(Buffer.from("not me"), a.getsockname());
    await b.sendto(Buffer.from("me"), a.getsockname());
    expect(text(await a.recv(10))).toBe("me");
  });

  test("a connected datagram socket reports an unreachable peer and stays usable", async () => {
    const one = bound();
    await one.connect(freeAddress());
    await one.send(Buffer.from("x"));
    const error = await failure(() => one.recv(10));
    expect(error).toBeInstanceOf(socket.ConnectionRefusedError);
    expect(error).toMatchObject({ code: "ECONNREFUSED", syscall: "recv" });
    const other = bound();
    await one.connect(other.getsockname());
    await one.send(Buffer.from("y"));
    expect(text(await other.recv(10))).toBe("y");
    await other.sendto(Buffer.from("z"), one.getsockname());
    expect(text(await one.recv(10))).toBe("z");
  });

  test("send on an unconnected datagram socket is an error", async () => {
    expect(await failure(() => bound().send(Buffer.from("x")))).toMatchObject({ code: "EDESTADDRREQ" });
    expect(await failure(() => bound().getpeername())).toMatchObject({ code: "ENOTCONN" });
  });
});

describe("a recv of datagrams that waits", () => {
  test("a datagram recv ends at its deadline, and the next one gets what arrives", async () => {
    const one = bound(0.03);
    const began = performance.now();
    const error = await failure(() => one.recvfrom(10));
    expect(error).toBeInstanceOf(socket.timeout);
    expect(performance.now() - began).toBeGreaterThan(25);
    one.settimeout(5);
    await one.sendto(Buffer.from("x"), one.getsockname());
    expect(text(await one.recv(10))).toBe("x");
  });

  test("a datagram recv with a timeout of 0 returns what is there or throws BlockingIOError", async () => {
    const one = bound(0);
    expect(await failure(() => one.recv(10))).toBeInstanceOf(socket.BlockingIOError);
    await one.sendto(Buffer.from("x"), one.getsockname());
    expect(text(await one.recv(10))).toBe("x");
  });

  test("a datagram recv is ended by its signal, and the socket stays usable", async () => {
    const one = bound();
    const controller = new AbortController();
    const pending = one.recvfrom(10, { signal: controller.signal });
    controller.abort();
    expect(await failure(() => pending)).toMatchObject({ name: "AbortError" });
    expect(await failure(() => one.recv(10, { signal: controller.signal }))).toMatchObject({
      name: "AbortError",
    });
    await one.sendto(Buffer.from("x"), one.getsockname());
    expect(text(await one.recv(10))).toBe("x");
  });

  test("a second concurrent datagram recv is refused", async () => {
    const one = bound();
    const first = one.recv(10);
    const error = await failure(() => one.recvfrom(10));
    expect(error).toMatchObject({ code: "EBUSY" });
    await one.sendto(Buffer.from("x"), one.getsockname());
    expect(text(await first)).toBe("x");
  });

  test("close ends a waiting datagram recv, and every later call is EBADF", async () => {
    const one = bound();
    const to = one.getsockname();
    const pending = failure(() => one.recv(10));
    one.close();
    one.close();
    expect(await pending).toMatchObject({ code: "EBADF" });
    expect(one.fileno()).toBe(-1);
    const calls = [() => one.recv(1), () => one.recvfrom(1), () => one.sendto(Buffer.from("x"), to)];
    for (const call of [
      ...calls,
      () => one.send(Buffer.from("x")),
      () => one.connect(to),
      () => one.getsockname(),
    ]) {
      expect(await failure(call)).toMatchObject({ code: "EBADF" });
    }
    const again = kept(socket.socket(AF_INET, SOCK_DGRAM));
    again.bind(to);
  });
});

test("the first datagrams that nobody receives wait in a bounded queue", async () => {
  const [a, b] = [bound(), bound(0)];
  // From here on Bun takes them out of the kernel.
  expect(await failure(() => b.recv(1))).toBeInstanceOf(socket.BlockingIOError);
  const size = 8000;
  const count = 200;
  for (let i = 0; i < count; i++) {
    await a.sendto(Buffer.alloc(size, i), b.getsockname());
    // Each turn of the event loop empties the kernel's queue into ours.
    await new Promise((resolve) => setImmediate(resolve));
  }
  const seen: number[] = [];
  try {
    for (;;) seen.push((await b.recv(size))[0]!);
  } catch (error) {
    expect(error).toBeInstanceOf(socket.BlockingIOError);
  }
  expect(seen).toEqual(seen.map((_, i) => i));
  expect(seen.length).toBeGreaterThan(10);
  // The queue and the kernel's own hold no more than this; without a bound all would be here.
  expect(seen.length * size).toBeLessThan(500_000);
});

test("options, listen and shutdown of datagram sockets behave as the kernel's or name what is unsupported", async () => {
  const one = bound();
  one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1);
  expect(one.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)).not.toBe(0);
  expect(one.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)).toBe(SOCK_DGRAM);
  expect(await failure(() => one.listen())).toMatchObject({ code: "EOPNOTSUPP", syscall: "listen" });
  expect(await failure(() => one.accept())).toMatchObject({ code: "EOPNOTSUPP", syscall: "accept" });
  expect((await failure(() => one.shutdown(socket.SHUT_RD))).message).toContain(
    "shutdown() of a datagram socket",
  );
  const local = await failure(() => socket.socket(socket.AF_UNIX, SOCK_DGRAM));
  expect(local.message).toContain("SOCK_DGRAM of AF_UNIX cannot be had");
});

test("detach of a datagram socket returns the descriptor, still bound", async () => {
  for (const adopted of [false, true]) {
    const one = bound(0);
    if (adopted) await one.recv(1).catch(() => undefined);
    const [fd, address] = [one.fileno(), one.getsockname()];
    expect(one.detach()).toBe(fd);
    expect(one.fileno()).toBe(-1);
    const same = kept(socket.socket(undefined, undefined, 0, fd));
    expect([same.family, same.type, same.getsockname()]).toEqual([AF_INET, SOCK_DGRAM, address]);
    same.settimeout(5);
    await same.sendto(Buffer.from("x"), address);
    expect(text(await same.recv(10))).toBe("x");
  }
});

test.skipIf(!hasProc)("a thousand datagram sockets leave no descriptor open", async () => {
  const cycle = async (): Promise<void> => {
    const one = socket.socket(AF_INET, SOCK_DGRAM);
    one.bind(["127.0.0.1", 0]);
    one.settimeout(0);
    await one.sendto(Buffer.from("x"), one.getsockname());
    await one.recv(1).catch(() => undefined);
    one.close();
  };
  await cycle();
  const before = openDescriptors();
  for (let i = 0; i < 1000; i++) await cycle();
  expect(openDescriptors()).toBe(before);
});
