/** The contract of a call that waits: its deadline and its signal. */
import { describe, expect, test } from "bun:test";
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
  type Pairs,
} from "./stream-support.ts";

const unlessBlocking = (error: unknown): undefined => {
  if (!(error instanceof socket.BlockingIOError)) throw error;
};

export function checkTimeouts({ pair, cloggedPair }: Pairs): void {
  describe("a timeout", () => {
    test("a timeout ends recv with a TimeoutError, and the next recv gets the bytes", async () => {
      const [a, b] = await pair();
      b.settimeout(0.03);
      expect(b.gettimeout()).toBe(0.03);
      const began = performance.now();
      const error = await failure(b.recv(10));
      expect(performance.now() - began).toBeGreaterThan(25);
      expect(error).toBeInstanceOf(socket.timeout);
      expect(error).toMatchObject({ name: "TimeoutError", code: "ETIMEDOUT", syscall: "recv" });
      await a.sendall(bytes("late"));
      expect(text(await b.recv(10))).toBe("late");
    });

    test("with a timeout of 0, a second concurrent recv is EBUSY and takes nothing from the first", async () => {
      const [a, b] = await pair();
      b.settimeout(0);
      const first = failure(b.recv(10));
      const second = failure(b.recv(10));
      expect(await second).toMatchObject({ code: "EBUSY", syscall: "recv" });
      expect(await first).toBeInstanceOf(socket.BlockingIOError);
      // Neither is left over.
      b.settimeout(null);
      await a.sendall(bytes("x"));
      expect(text(await b.recv(10))).toBe("x");
    });

    test("with a timeout of 0, a close during recv's turn is EBADF, not the end of the stream", async () => {
      for (const how of ["close", Symbol.dispose] as const) {
        const [, b] = await pair();
        b.settimeout(0);
        const reading = failure(b.recv(10));
        b[how]();
        expect(await reading).toMatchObject({ code: "EBADF", syscall: "recv" });
      }
    });

    test("sendall's timeout covers the whole call, however often bytes move, and loses no byte", async () => {
      const [a, b, stuck] = await cloggedPair();
      a.settimeout(0.06);
      const sending = failure(a.sendall(FILL));
      const pieces: Buffer[] = [];
      while (Bun.peek.status(sending) === "pending") {
        pieces.push(await b.recv(65_536));
        // The pace of a reader that would need longer than the timeout.
        await Bun.sleep(1);
      }
      expect(await sending).toMatchObject({ name: "TimeoutError", syscall: "sendall" });
      a.settimeout(null);
      const reading = drain(b);
      await a.sendall(bytes("tail"));
      a.shutdown(socket.SHUT_WR);
      const got = Buffer.concat([...pieces, await reading]);
      const most = Buffer.concat([stuck, FILL]);
      expect(got.length - 4).toBeGreaterThanOrEqual(stuck.length);
      expect(got.length - 4).toBeLessThan(most.length);
      expectSame(got, Buffer.concat([most.subarray(0, got.length - 4), bytes("tail")]));
    });

    test("a send that times out delivers none of its bytes", async () => {
      const [a, b, stuck] = await cloggedPair();
      a.settimeout(0.02);
      // The kernel may find room for some more, a little later: then the next one waits.
      const taken: Buffer[] = [];
      let error: unknown;
      while (error === undefined) {
        const count = await a.send(bytes("lost")).catch((reason: unknown) => void (error = reason));
        if (count !== undefined) taken.push(bytes("lost").subarray(0, count));
      }
      expect(error).toMatchObject({ name: "TimeoutError", syscall: "send" });
      const reading = drain(b);
      a.settimeout(null);
      await a.sendall(bytes("tail"));
      a.shutdown(socket.SHUT_WR);
      expectSame(await reading, Buffer.concat([stuck, ...taken, bytes("tail")]));
    });

    test("with a timeout of 0, a call that would have to wait is a BlockingIOError", async () => {
      const [a, b, stuck] = await cloggedPair();
      for (const end of [a, b]) end.setblocking(false);
      expect([a.gettimeout(), a.getblocking()]).toEqual([0, false]);
      for (const call of [() => a.recv(1), () => a.send(PIECE), () => a.sendall(PIECE)]) {
        const error = await failure(call());
        expect(error).toBeInstanceOf(socket.BlockingIOError);
        expect(error).toMatchObject({ code: "EAGAIN" });
      }
      let got = 0;
      while (got < stuck.length) {
        // What the kernel still has comes within some turns of the event loop.
        const piece = await b.recv(1 << 20).catch(unlessBlocking);
        if (piece !== undefined) expectSame(piece, stuck.subarray(got, (got += piece.length)));
      }
      expect(await failure(b.recv(1))).toBeInstanceOf(socket.BlockingIOError);
      await a.sendall(bytes("more"));
    });

    test("a timeout of null waits forever", async () => {
      const [a, b] = await pair();
      b.settimeout(0.01);
      b.settimeout(null);
      expect([b.gettimeout(), b.getblocking()]).toEqual([null, true]);
      const waiting = b.recv(10);
      a.settimeout(0.05);
      await failure(a.recv(1));
      await expectWaiting(waiting);
      await a.sendall(bytes("x"));
      expect(text(await waiting)).toBe("x");
    });

    test("a negative or NaN timeout is a RangeError and changes nothing", async () => {
      const [a] = await pair();
      a.settimeout(2);
      for (const wrong of [-1, -0.001, NaN]) expect(() => a.settimeout(wrong)).toThrow(RangeError);
      expect(a.gettimeout()).toBe(2);
    });
  });
}

export function checkSignals({ cloggedPair }: Pairs): void {
  describe("a signal", () => {
    test("a signal aborts a waiting recv, send or sendall, and the socket stays usable", async () => {
      const [a, b, stuck] = await cloggedPair();
      for (const call of ["recv", "send", "sendall"] as const) {
        const controller = new AbortController();
        const { signal } = controller;
        const waiting = call === "recv" ? a.recv(9, { signal }) : a[call](bytes("lost"), { signal });
        const failing = failure(waiting);
        await expectWaiting(failing);
        controller.abort();
        expect(await failing).toMatchObject({ name: "AbortError" });
      }
      const reading = drain(b);
      await a.sendall(bytes("tail"));
      a.shutdown(socket.SHUT_WR);
      expectSame(await reading, Buffer.concat([stuck, bytes("tail")]));
      await b.sendall(bytes("back"));
      expect(text(await a.recv(9, { signal: new AbortController().signal }))).toBe("back");
    });

    test("with a signal that is already aborted, no call starts", async () => {
      const [a, b, stuck] = await cloggedPair();
      const options = { signal: AbortSignal.abort() };
      for (const call of [
        () => a.recv(1, options),
        () => a.send(PIECE, options),
        () => a.sendall(PIECE, options),
      ]) {
        expect(await failure(call())).toMatchObject({ name: "AbortError" });
      }
      const reading = drain(b);
      a.shutdown(socket.SHUT_WR);
      expectSame(await reading, stuck);
    });
  });
}
