/**
 * Calls that wait: what finished ones leave behind, deadlines far away, and how long a close
 * waits for the peer.
 */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { getEventListeners } from "node:events";
import { readSync } from "node:fs";
import { closeDescriptor, openPair, setOption } from "../../../src/os/descriptor.ts";
import { requireLibc } from "../../../src/os/libc.ts";
import * as socket from "../../../src/socket.ts";
import { backToNow, leap } from "../../support/clock.ts";
import { pattern, until } from "../../support/peers.ts";
import { closeAll, connection, failure, kept } from "../../support/sockets.ts";
import { run } from "../../support/tutorial.ts";

const { AF_UNIX, SO_SNDBUF, SOCK_STREAM, SOL_SOCKET } = socket;

setDefaultTimeout(30_000);
afterEach(() => {
  backToNow();
  closeAll();
});

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/**
 * A socket with a sendall that the kernel has begun and cannot end, and its peer, a bare descriptor that
 * nobody reads.
 */
function stuck() {
  const [fd, peer] = openPair(AF_UNIX, SOCK_STREAM, 0);
  setOption(fd, SOL_SOCKET, SO_SNDBUF, 100_000);
  const one = kept(socket.socket(AF_UNIX, SOCK_STREAM, 0, fd));
  kept({ close: () => closeDescriptor(peer) });
  const sent = pattern(4 << 20);
  return { one, fd, peer, sent, sending: one.sendall(sent) };
}

/** Reads exactly this many bytes. */
async function take(fd: number, length: number): Promise<Buffer> {
  const memory = Buffer.alloc(length);
  for (let got = 0; got < length;) {
    try {
      const count = readSync(fd, memory, got, length - got, null);
      if (count === 0) throw new Error(`the end came after ${got} of ${length} bytes`);
      got += count;
    } catch (error) {
      if ((error as socket.OSError).code !== "EAGAIN") throw error;
      await turn();
    }
  }
  return memory;
}

describe("a call that is over", () => {
  test("a finished call leaves no listener on its signal", async () => {
    const { client, conn } = await connection();
    const { signal } = new AbortController();
    for (let i = 0; i < 1000; i++) {
      const receiving = client.recv(1, { signal });
      expect(getEventListeners(signal, "abort").length).toBe(1);
      await conn.sendall(Buffer.from([i]));
      expect([...(await receiving)]).toEqual([i & 255]);
    }
    expect(getEventListeners(signal, "abort").length).toBe(0);
    client.settimeout(0.001);
    expect(await failure(() => client.recv(1, { signal }))).toBeInstanceOf(socket.TimeoutError);
    expect(getEventListeners(signal, "abort").length).toBe(0);
  });

  test("1024 sendall calls may wait, and aborted ones do not count", async () => {
    const { one, peer, sent, sending } = stuck();
    const x = Buffer.from("x");
    for (const count of [1023, 600, 600]) {
      const controller = new AbortController();
      const options = { signal: controller.signal };
      const waiting = Array.from({ length: count }, () => failure(() => one.sendall(x, options)));
      if (count === 1023) expect(await failure(() => one.sendall(x))).toMatchObject({ code: "ENOBUFS" });
      controller.abort();
      for (const error of await Promise.all(waiting)) expect(error.name).toBe("AbortError");
    }
    const last = one.sendall(Buffer.from("last"));
    expect((await take(peer, sent.length)).equals(sent)).toBe(true);
    expect((await take(peer, 4)).toString()).toBe("last");
    await Promise.all([sending, last]);
  });
});

test("a deadline beyond a timer's range is not due immediately and costs no CPU", async () => {
  // In a process of its own, whose shared timer no other test has armed.
  const program = `
    import * as socket from ${JSON.stringify(`${import.meta.dir}/../../../src/socket.ts`)};
    const delays = [];
    const arm = globalThis.setTimeout;
    globalThis.setTimeout = (call, ms) => (delays.push(ms), arm(call, ms));
    const [a, b] = socket.socketpair();
    a.settimeout(3e6);
    const receiving = a.recv(9);
    await Bun.sleep(30);
    await b.sendall(Buffer.from("here"));
    console.log(JSON.stringify([(await receiving).toString(), delays]));
    process.exit();`;
  const { stdout, stderr } = await run([process.execPath, "-e", program]);
  expect(stderr).toBe("");
  expect(JSON.parse(stdout.toString())).toEqual(["here", [2 ** 31 - 1]]);
});

describe("a close that still owes bytes", () => {
  test("a close with unsent bytes waits for a peer that takes some every ten seconds", async () => {
    const { one, peer, sent, sending } = stuck();
    one.close();
    const pieces: Buffer[] = [];
    for (let i = 0; i < 5; i++) {
      // More than the kernel holds, so that the socket has sent more.
      pieces.push(await take(peer, 300_000));
      await turn();
      await leap(10_001);
      expect(Bun.peek.status(sending)).toBe("pending");
    }
    pieces.push(await take(peer, sent.length - 5 * 300_000));
    expect(Buffer.concat(pieces).equals(sent)).toBe(true);
    expect(await sending).toBeUndefined();
    expect((await failure(() => take(peer, 1))).message).toBe("the end came after 0 of 1 bytes");
  });

  test("a close with unsent bytes gives up a peer that takes nothing for ten seconds", async () => {
    for (const before of [0, 300_000]) {
      const { one, peer, sending } = stuck();
      const ended = failure(() => sending);
      const gone = one[Symbol.asyncDispose]();
      await take(peer, before);
      // What has room by that is sent.
      for (let i = 0; i < 5; i++) await turn();
      if (before > 0) await leap(10_001);
      await leap(5000);
      expect(Bun.peek.status(ended)).toBe("pending");
      await leap(5001);
      await until(() => Bun.peek.status(ended) !== "pending", "it is given up", 2000);
      expect(await ended).toMatchObject({ name: "TimeoutError", code: "ETIMEDOUT", syscall: "sendall" });
      await gone;
    }
  });
});

test.skipIf(process.platform !== "linux")(
  "a sendall does not block in the kernel even if another owner made the descriptor blocking",
  async () => {
    const { one, fd, peer, sent, sending } = stuck();
    const F_SETFL = 4;
    // How long the kernel would wait, in seconds.
    const timeval = new BigInt64Array([4n, 0n]);
    setOption(fd, SOL_SOCKET, socket.SO_SNDTIMEO!, new Uint8Array(timeval.buffer));
    expect(await take(peer, sent.length)).toHaveLength(sent.length);
    await sending;
    expect(requireLibc("fcntl").fcntl(fd, F_SETFL, 0)).toBe(0);
    one.settimeout(0);
    const began = performance.now();
    const fill = async (): Promise<void> => {
      for (;;) await one.sendall(Buffer.alloc(8192));
    };
    expect(await failure(fill)).toBeInstanceOf(socket.BlockingIOError);
    expect(performance.now() - began).toBeLessThan(3000);
  },
);
