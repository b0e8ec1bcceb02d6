/** Datagram sockets at their limits: a full queue, a full kernel buffer, a reused descriptor. */
import { afterEach, describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { readSync } from "node:fs";
import { DatagramSocket } from "../../../src/socket/datagram.ts";
import { closeDescriptor, openPair, setOption } from "../../../src/os/descriptor.ts";
import { requireLibc } from "../../../src/os/libc.ts";
import * as socket from "../../../src/socket.ts";
import { closeAll, failure, freeAddress, kept } from "../../support/sockets.ts";

const { AF_INET, AF_INET6, AF_UNIX, SO_SNDBUF, SOCK_DGRAM, SOL_SOCKET } = socket;
const linux = process.platform === "linux";

setDefaultTimeout(30_000);
afterEach(closeAll);

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A datagram socket of the loopback interface that Bun has adopted: what comes waits in our queue. */
async function adopted(): Promise<socket.Socket<socket.AF_INET>> {
  const one = kept(socket.socket(AF_INET, SOCK_DGRAM));
  one.bind(["127.0.0.1", 0]);
  one.settimeout(0);
  expect(await failure(() => one.recv(1))).toBeInstanceOf(socket.BlockingIOError);
  return one;
}

/** What a call comes to that says BlockingIOError until something happens. */
async function outcome<T>(call: () => Promise<T>): Promise<T | socket.OSError> {
  const deadline = performance.now() + 5000;
  for (;;) {
    try {
      return await call();
    } catch (error) {
      const waits = error instanceof socket.BlockingIOError && performance.now() < deadline;
      if (!waits) return error as socket.OSError;
    }
  }
}

describe("the queue of what has come", () => {
  test("the receive queue frees its space: ten times its bytes pass through it in portions", async () => {
    const one = await adopted();
    const [portion, size] = [16, 8000];
    for (let round = 0; round < 20; round++) {
      for (let i = 0; i < portion; i++) {
        await one.sendto(Buffer.alloc(size, i), one.getsockname());
        await turn();
      }
      for (let i = 0; i < portion; i++) {
        const got = await outcome(() => one.recv(size));
        expect([round, (got as Buffer)[0], (got as Buffer).length]).toEqual([round, i, size]);
      }
    }
  });

  test("the receive queue holds the first 4096 datagrams, however small", async () => {
    const one = await adopted();
    const to = one.getsockname();
    for (let i = 0; i < 5000; i++) {
      await one.sendto(Buffer.alloc(i < 4096 ? 0 : 1), to);
      // So many have room in the kernel, from where each turn takes them.
      if (i % 32 === 31) await turn();
    }
    await turn();
    let count = 0;
    try {
      for (; ; count++) expect((await one.recv(1)).length).toBe(0);
    } catch (error) {
      expect(error).toBeInstanceOf(socket.BlockingIOError);
    }
    expect(count).toBe(4096);
  });
});

test("an unreachable peer is reported once, to the next recv if none waits", async () => {
  const one = await adopted();
  await one.connect(freeAddress());
  await one.send(Buffer.from("x"));
  expect(await outcome(() => one.recv(1))).toMatchObject({ code: "ECONNREFUSED", syscall: "recv" });
  expect(await failure(() => one.recv(1))).toBeInstanceOf(socket.BlockingIOError);
});

test("a socket closed during name resolution sends nothing, even if its descriptor's number is reused", async () => {
  const found = Promise.withResolvers<Bun.DNSLookup[]>();
  const lookup = spyOn(Bun.dns, "lookup").mockReturnValue(found.promise);
  try {
    const receiver = await adopted();
    const one = socket.socket(AF_INET, SOCK_DGRAM);
    const sending = failure(() => one.sendto(Buffer.from("lost"), ["a.name", receiver.getsockname()[1]]));
    const fd = one.fileno();
    one.close();
    const other = kept(socket.socket(AF_INET, SOCK_DGRAM));
    expect(other.fileno()).toBe(fd);
    found.resolve([{ address: "127.0.0.1", family: 4, ttl: 0 }]);
    expect(await sending).toMatchObject({ code: "EBADF", syscall: "sendto" });
    await turn();
    expect(await failure(() => receiver.recv(9))).toBeInstanceOf(socket.BlockingIOError);
  } finally {
    lookup.mockRestore();
  }
});

/**
 * The loopback interface takes every datagram at once, so that a send would never wait on it. One of a pair
 * of Unix datagram descriptors is full when its peer does not read.
 */
async function full() {
  const [fd, peer] = openPair(AF_UNIX, SOCK_DGRAM, 0);
  const one = kept(new DatagramSocket(fd, AF_INET));
  kept({ close: () => closeDescriptor(peer) });
  let sent = 0;
  const fill = async (): Promise<void> => {
    for (; ; sent++) await one.send(Buffer.from([sent]), undefined, 0);
  };
  expect(await failure(fill)).toBeInstanceOf(socket.BlockingIOError);
  return { one, fd, peer, sent };
}

/** How long a send in the kernel would wait that must not, by SO_SNDTIMEO. */
const STUCK_MS = 4000;

describe.skipIf(!linux)("a send for which the kernel has no room", () => {
  test("a send without room at a timeout of 0 is BlockingIOError", async () => {
    const { one } = await full();
    const error = await failure(() => one.send(Buffer.from("x"), undefined, 0));
    expect(error).toBeInstanceOf(socket.BlockingIOError);
    expect(error).toMatchObject({ code: "EAGAIN", syscall: "sendto" });
  });

  test("a send without room is a TimeoutError at its deadline", async () => {
    const { one } = await full();
    const began = performance.now();
    const error = await failure(() => one.send(Buffer.from("x"), undefined, 30));
    expect(performance.now() - began).toBeGreaterThanOrEqual(30);
    expect(error).toBeInstanceOf(socket.TimeoutError);
    expect(error).toMatchObject({ code: "ETIMEDOUT", syscall: "sendto" });
  });

  test("a send without room completes when there is room", async () => {
    const { one, peer, sent } = await full();
    const sending = one.send(Buffer.from([255]), undefined, null);
    await turn();
    expect(Bun.peek.status(sending)).toBe("pending");
    const memory = Buffer.alloc(9);
    for (let i = 0; i < sent; i++) expect([readSync(peer, memory), memory[0]]).toEqual([1, i & 255]);
    expect(await sending).toBe(1);
    expect([readSync(peer, memory), memory[0]]).toEqual([1, 255]);
  });

  test("a send without room is ended by its signal", async () => {
    const { one } = await full();
    const controller = new AbortController();
    const sending = failure(() => one.send(Buffer.from("x"), undefined, null, controller.signal));
    await turn();
    controller.abort();
    expect(await sending).toMatchObject({ name: "AbortError" });
  });

  test("a send without room is ended by close and never uses a reused descriptor number", async () => {
    const { one, fd } = await full();
    const sending = failure(() => one.send(Buffer.from("lost"), undefined, null));
    await turn();
    one.close();
    let pair: [number, number];
    do {
      pair = openPair(AF_UNIX, SOCK_DGRAM, 0);
      for (const end of pair) kept({ close: () => closeDescriptor(end) });
    } while (!pair.includes(fd) && Math.max(...pair) < fd + 100);
    expect(pair).toContain(fd);
    expect(await sending).toMatchObject({ code: "EBADF", syscall: "sendto" });
    const other = pair[0] === fd ? pair[1] : pair[0];
    expect(() => readSync(other, Buffer.alloc(9))).toThrow("EAGAIN");
  });

  test("a send does not block in the kernel even if another owner made the descriptor blocking", async () => {
    const { one, fd } = await full();
    const F_SETFL = 4;
    expect(requireLibc("fcntl").fcntl(fd, F_SETFL, 0)).toBe(0);
    const timeval = new BigInt64Array([BigInt(STUCK_MS / 1000), 0n]);
    setOption(fd, SOL_SOCKET, socket.SO_SNDTIMEO!, new Uint8Array(timeval.buffer));
    const began = performance.now();
    expect(await failure(() => one.send(Buffer.from("x"), undefined, 0))).toMatchObject({ code: "EAGAIN" });
    expect(performance.now() - began).toBeLessThan(STUCK_MS - 1000);
  });

  test("a send that gets ENOBUFS is tried again until there is room", async () => {
    const [one, other] = [0, 1].map(() => {
      const six = kept(socket.socket(AF_INET6, SOCK_DGRAM));
      six.bind(["::1", 0]);
      return six;
    }) as [socket.Socket<socket.AF_INET6>, socket.Socket<socket.AF_INET6>];
    // In fragments, a datagram has to wait for room for each but the first, and the kernel does not wait.
    const IPV6_MTU = 24;
    one.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU, 1280);
    one.setsockopt(SOL_SOCKET, SO_SNDBUF, 1);
    const big = Buffer.alloc(20_000, 7);
    one.settimeout(0);
    expect(await failure(() => one.sendto(big, other.getsockname()))).toBeInstanceOf(socket.BlockingIOError);
    one.settimeout(0.02);
    expect(await failure(() => one.sendto(big, other.getsockname()))).toBeInstanceOf(socket.TimeoutError);
    one.settimeout(null);
    const sending = one.sendto(big, other.getsockname());
    await turn();
    expect(Bun.peek.status(sending)).toBe("pending");
    one.setsockopt(SOL_SOCKET, SO_SNDBUF, 100_000);
    expect(await sending).toBe(big.length);
    expect((await other.recv(big.length)).equals(big)).toBe(true);
  });
});
