/** The contract of a stream, where a call waits: its deadline, and its signal. */
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
    test("ends recv with a TimeoutError, and the bytes come to the next one", async () => {
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

    test("of 0 and two concurrent recv: the second is refused, and takes nothing from the first", async () => {
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

    test("of 0, and the socket is closed in the turn that the call has: an error, and no end of the stream", async () => {
      for (const how of ["close", Symbol.dispose] as const) {
        const [, b] = await pair();
        b.settimeout(0);
        const reading = failure(b.recv(10));
        b[how]();
        expect(await reading).toMatchObject({ code: "EBADF", syscall: "recv" });
      }
    });

    test("of sendall is for the whole call, however often bytes move; none is lost", async () => {
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

    test("ends a send, none of whose bytes arrive", async () => {
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

    test("of 0 does not wait: what cannot be done now is a BlockingIOError", async () => {
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

    test("of null waits for ever", async () => {
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

    test("below 0 is a RangeError, and changes nothing", async () => {
      const [a] = await pair();
      a.settimeout(2);
      for (const wrong of [-1, -0.001, NaN]) expect(() => a.settimeout(wrong)).toThrow(RangeError);
      expect(a.gettimeout()).toBe(2);
    });
  });
}

export function checkSignals({ cloggedPair }: Pairs): void {
  describe("a signal", () => {
    test("ends recv, send and sendall that wait, and the socket stays usable", async () => {
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

    test("that is aborted already lets nothing begin", async () => {
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
