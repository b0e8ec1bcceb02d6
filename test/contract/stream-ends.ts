/** The contract of a stream at its end: shutdown, close, detach, and a peer that leaves. */
import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import * as socket from "../../src/socket.ts";
import {
  bytes,
  drain,
  expectSame,
  expectWaiting,
  failure,
  FILL,
  PIECE,
  text,
  turns,
  type End,
  type Pairs,
} from "./stream-support.ts";
import { until } from "../support/peers.ts";
import { hasProc } from "../support/program.ts";

const descriptors = (): number => readdirSync("/proc/self/fd").length;

/**
 * More than the reader's ring takes, in pieces, and less than the kernel: the reader is held back, and has
 * not all.
 */
async function holdBack(a: End): Promise<Buffer> {
  const sent = FILL.subarray(0, 170_000);
  for (const [from, to] of [
    [0, 70_000],
    [70_000, 120_000],
    [120_000, 170_000],
  ] as const) {
    await a.sendall(sent.subarray(from, to));
    await turns();
  }
  return sent;
}

export function checkEnds({ pair, cloggedPair, keep, limits }: Pairs): void {
  describe("shutdown", () => {
    test("shutdown(SHUT_WR) delivers everything sent before, then the FIN, and reading still works", async () => {
      const [a, b, stuck] = await cloggedPair();
      const sending = a.sendall(PIECE);
      a.shutdown(socket.SHUT_WR);
      a.shutdown(socket.SHUT_WR);
      for (const call of [() => a.sendall(bytes("late")), () => a.send(bytes("late"))]) {
        expect(await failure(call())).toBeInstanceOf(socket.BrokenPipeError);
      }
      await expectWaiting(sending);
      expectSame(await drain(b), Buffer.concat([stuck, PIECE]));
      expect(await sending).toBeUndefined();
      await b.sendall(bytes("back"));
      expect(text(await a.recv(10))).toBe("back");
      b.shutdown(socket.SHUT_WR);
      expect(await a.recv(10)).toHaveLength(0);
    });

    test("shutdown(SHUT_RD) ends every read, also a waiting one, and sending still works", async () => {
      const [a, b] = await pair();
      const waiting = b.recv(10);
      await expectWaiting(waiting);
      b.shutdown(socket.SHUT_RD);
      expect(await waiting).toHaveLength(0);
      expect(await b.recv(10)).toHaveLength(0);
      await b.sendall(bytes("x"));
      expect(text(await a.recv(10))).toBe("x");
    });

    test("shutdown(SHUT_RDWR) ends every read and still delivers what was sent before", async () => {
      const [a, b, stuck] = await cloggedPair();
      await b.sendall(bytes("not read"));
      const sending = a.sendall(PIECE);
      a.shutdown(socket.SHUT_RDWR);
      expect(await a.recv(10)).toHaveLength(0);
      expect(await failure(a.sendall(bytes("late")))).toBeInstanceOf(socket.BrokenPipeError);
      expectSame(await drain(b), Buffer.concat([stuck, PIECE]));
      await sending;
    });

    test("shutting down both directions loses nothing that a slow reader has yet to read", async () => {
      const [a, b] = await pair();
      b.shutdown(socket.SHUT_WR);
      expect(await a.recv(1)).toHaveLength(0);
      const sent = await holdBack(a);
      await a[Symbol.asyncDispose]();
      await turns();
      expectSame(await drain(b), sent);
    });
  });

  describe("close", () => {
    test("close delivers what sendall accepted and ends a waiting recv or send with EBADF", async () => {
      const [a, b, stuck] = await cloggedPair();
      const sending = a.sendall(PIECE);
      const receiving = failure(a.recv(10));
      const waiting = failure(a.send(bytes("lost")));
      await expectWaiting(sending);
      a.close();
      a.close();
      expect(await receiving).toMatchObject({ code: "EBADF", syscall: "recv" });
      expect(await waiting).toMatchObject({ code: "EBADF", syscall: "send" });
      expectSame(await drain(b), Buffer.concat([stuck, PIECE]));
      expect(await sending).toBeUndefined();
    });

    test("after close, fileno is -1 and every call is EBADF", async () => {
      const [a, b] = await pair();
      expect(a.fileno()).toBeGreaterThan(2);
      expect(a.fileno()).not.toBe(b.fileno());
      a.close();
      expect(a.fileno()).toBe(-1);
      const calls: (() => unknown)[] = [
        () => a.recv(1),
        () => a.recv_into(new Uint8Array(1)),
        () => a.recvfrom(1),
        () => a.send(bytes("x")),
        () => a.sendall(bytes("x")),
        () => a.accept(),
        () => a.shutdown(socket.SHUT_WR),
        () => a.listen(),
        () => a.getsockname(),
        () => a.getpeername(),
        () => a.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
        () => a.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
      ];
      for (const call of calls) {
        const error = await failure((async () => call())());
        expect(error).toBeInstanceOf(socket.error);
        expect(error).toMatchObject({ code: "EBADF" });
      }
      a.close();
      expect(await b.recv(1)).toHaveLength(0);
    });

    test("close loses nothing that a slow reader has yet to read", async () => {
      const [a, b] = await pair();
      const sent = await holdBack(a);
      a.close();
      await turns();
      expectSame(await drain(b), sent);
    });
  });

  describe("detach", () => {
    const name = "detach returns the open descriptor and leaves the object closed";
    if (limits.noDetach !== undefined) {
      test(`detach is refused: ${limits.noDetach}`, async () => {
        const [a, b] = await pair();
        expect(() => a.detach()).toThrow(expect.objectContaining({ code: "EOPNOTSUPP", syscall: "detach" }));
        await a.sendall(bytes("still open"));
        expect(text(await b.recv(20))).toBe("still open");
      });
    } else {
      test(name, async () => {
        const [a, b] = await pair();
        await a.sendall(bytes("one"));
        const receiving = failure(a.recv(10));
        const fd = a.detach();
        expect(fd).toBeGreaterThan(2);
        expect(a.fileno()).toBe(-1);
        expect(await receiving).toMatchObject({ code: "EBADF" });
        expect(await failure(a.recv(1))).toMatchObject({ code: "EBADF" });
        a.close();
        const again = keep(socket.socket(a.family, a.type, a.proto, fd));
        expect(again.fileno()).toBe(fd);
        await again.sendall(bytes("two"));
        again.shutdown(socket.SHUT_WR);
        expect(text(await drain(b))).toBe("onetwo");
        await b.sendall(bytes("back"));
        expect(text(await again.recv(10))).toBe("back");
      });
    }
  });
}

/** What every error of the family has. */
function expectConnectionError(error: unknown, codes: string[], syscall: string): void {
  expect(error).toBeInstanceOf(socket.ConnectionError);
  expect(error).toBeInstanceOf(socket.error);
  const { code, errno, strerror, syscall: call } = error as socket.error;
  expect(codes).toContain(code);
  expect(errno).toBeGreaterThan(0);
  expect(strerror).not.toBe("");
  expect(call).toBe(syscall);
}

export function checkLoss({ pair, cloggedPair, limits }: Pairs): void {
  describe("a peer that goes away", () => {
    test("a peer's reset ends waiting calls with ConnectionResetError, once; later reads see the end", async () => {
      const [a, b] = await cloggedPair();
      const receiving = failure(a.recv(1));
      const sending = failure(a.sendall(PIECE));
      await expectWaiting(receiving);
      b[Symbol.dispose]();
      expectConnectionError(await receiving, ["ECONNRESET"], "recv");
      expect(await receiving).toBeInstanceOf(socket.ConnectionResetError);
      expectConnectionError(await sending, ["ECONNRESET", "EPIPE"], "sendall");
      for (let i = 0; i < 3; i++) expect(await a.recv(1)).toHaveLength(0);
      expectConnectionError(await failure(a.sendall(bytes("x"))), ["EPIPE"], "sendall");
    });

    test("writing to a peer that has gone soon fails with BrokenPipeError or ConnectionResetError", async () => {
      const [a, b] = await pair();
      b[Symbol.dispose]();
      const write = async (call: "send" | "sendall"): Promise<void> => {
        for (;;) {
          await a[call](bytes("x"));
          await turns();
        }
      };
      for (const call of ["send", "sendall"] as const) {
        expectConnectionError(await failure(write(call)), ["ECONNRESET", "EPIPE"], call);
      }
    });

    test("a write that fails does not lose what the peer sent before it left", async () => {
      const [a, b] = await pair();
      // The reset below would throw away what Nagle's algorithm holds back.
      if (a.family !== socket.AF_UNIX) a.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1);
      await a.sendall(bytes("my reply"));
      a[Symbol.dispose]();
      expectConnectionError(await failure(b.sendall(bytes("x"))), ["EPIPE", "ECONNRESET"], "sendall");
      expect(text(await b.recv(100))).toBe("my reply");
    });

    const count = hasProc ? descriptors : () => 0;

    test("a sendall of 64 MiB to a peer that leaves immediately fails and releases its memory", async () => {
      const before = count();
      const [a, b] = await pair();
      const freed = await (async () => {
        const big = new Uint8Array(64 << 20);
        const sending = failure(a.sendall(big));
        b[Symbol.dispose]();
        expectConnectionError(await sending, ["ECONNRESET", "EPIPE"], "sendall");
        return new WeakRef(big);
      })();
      a.close();
      await until(() => count() <= before, "the descriptors are closed");
      await until(() => {
        Bun.gc(true);
        return freed.deref() === undefined;
      }, "the bytes are let go");
    });

    test("a sendall of 64 MiB fails when the peer leaves in the middle of it", async () => {
      const [a, b] = await pair();
      const sending = failure(a.sendall(new Uint8Array(64 << 20)));
      expect((await b.recv(1000)).length).toBeGreaterThan(0);
      b[Symbol.dispose]();
      expectConnectionError(await sending, ["ECONNRESET", "EPIPE"], "sendall");
    });

    test("a FIN and then an RST while reading is paused end the stream once and cost no CPU", async () => {
      const [a, b] = await pair();
      const sent = await holdBack(a);
      a.shutdown(socket.SHUT_WR);
      await turns();
      a[Symbol.dispose]();
      if (limits.noReset === undefined) await until(() => b.fileno() === -1, "the reset is seen");
      const cpu = process.cpuUsage();
      const began = performance.now();
      await Bun.sleep(40);
      const { user, system } = process.cpuUsage(cpu);
      expect((user + system) / 1000).toBeLessThan((performance.now() - began) / 2);
      const pieces: Buffer[] = [];
      const errors: unknown[] = [];
      for (let ends = 0; ends < 3 && errors.length < 3;) {
        const piece = await b.recv(1000).catch((error: unknown) => void errors.push(error));
        if (piece?.length === 0) ends++;
        else if (piece !== undefined) pieces.push(piece);
      }
      const got = Buffer.concat(pieces);
      // What was taken out of the kernel is not lost by the reset.
      expect(got.length).toBeGreaterThanOrEqual(65_536);
      expectSame(got, sent.subarray(0, got.length));
      if (limits.noReset === undefined) {
        expect(errors).toHaveLength(1);
        expectConnectionError(errors[0], ["ECONNRESET"], "recv");
      } else {
        expect(errors).toEqual([]);
        expect(got.length).toBe(sent.length);
      }
      expectConnectionError(await failure(b.sendall(bytes("x"))), ["EPIPE", "ECONNRESET"], "sendall");
    });
  });
}
