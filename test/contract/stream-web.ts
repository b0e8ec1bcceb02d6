/** The contract of a stream beyond Python's: disposal, iteration, web streams. */
import { describe, expect, test } from "bun:test";
import * as socket from "../../src/socket.ts";
import { bytes, drain, expectSame, failure, FILL, PIECE, text, turns, type Pairs } from "./stream-support.ts";

export function checkWeb({ pair, cloggedPair, limits }: Pairs): void {
  test("await using delivers what was sent, then closes the socket", async () => {
    const [a, b, stuck] = await cloggedPair();
    const reading = drain(b).finally(() => b.close());
    let sending: Promise<void>;
    {
      await using end = a;
      sending = end.sendall(PIECE);
    }
    expect(Bun.peek.status(sending)).toBe("fulfilled");
    expect(a.fileno()).toBe(-1);
    expectSame(await reading, Buffer.concat([stuck, PIECE]));
  });

  test("using closes the socket immediately, fails waiting calls, and resets the peer", async () => {
    const [a, b, stuck] = await cloggedPair();
    let sending: Promise<unknown>;
    let receiving: Promise<unknown>;
    {
      using end = a;
      sending = failure(end.sendall(PIECE));
      receiving = failure(end.recv(1));
    }
    expect(a.fileno()).toBe(-1);
    expect(await sending).toMatchObject({
      code: "EBADF",
      syscall: "sendall",
      strerror: "the socket is closed",
    });
    expect(await receiving).toMatchObject({ code: "EBADF", syscall: "recv" });
    const end = await drain(b).catch((error: unknown) => error);
    if (limits.noReset === undefined) expect(end).toBeInstanceOf(socket.ConnectionResetError);
    else expectSame(end as Buffer, stuck);
  });

  test("for await yields every byte until the FIN, and leaving the loop keeps the socket open", async () => {
    const [a, b] = await pair();
    await a.sendall(bytes("first"));
    for await (const piece of b) {
      expect(text(piece)).toBe("first");
      break;
    }
    const sending = a.sendall(FILL);
    void sending.then(() => a.shutdown(socket.SHUT_WR));
    const pieces: Buffer[] = [];
    for await (const piece of b) {
      expect(piece.length).toBeGreaterThan(0);
      pieces.push(piece);
    }
    await sending;
    expectSame(Buffer.concat(pieces), FILL);
    await b.sendall(bytes("back"));
    expect(text(await a.recv(10))).toBe("back");
  });

  describe("web streams", () => {
    test("web streams carry every byte both ways, and closing the writable sends a FIN", async () => {
      const [a, b] = await pair();
      expect(a.writable).toBe(a.writable);
      expect(a.readable).toBe(a.readable);
      const echoing = b.readable.pipeTo(b.writable);
      const reading = Bun.readableStreamToBytes(a.readable);
      const writer = a.writable.getWriter();
      for (let at = 0; at < 4 << 20; at += 1 << 20) await writer.write(FILL.subarray(at, at + (1 << 20)));
      await writer.close();
      expectSame(await reading, FILL.subarray(0, 4 << 20));
      await echoing;
    });

    test("a web stream's write waits as sendall does, and nothing is read before it is requested", async () => {
      const [a, b, stuck] = await cloggedPair();
      const { readable } = b;
      const writing = a.writable.getWriter().write(PIECE);
      await turns();
      expect(Bun.peek.status(writing)).toBe("pending");
      expectSame(await b.recv(10), stuck.subarray(0, 10));
      const reader = readable.getReader();
      const { value } = await reader.read();
      expectSame(value!, stuck.subarray(10, 10 + value!.length));
      reader.releaseLock();
      const reading = drain(b);
      await writing;
      a.shutdown(socket.SHUT_WR);
      expectSame(await reading, Buffer.concat([stuck, PIECE]).subarray(10 + value!.length));
    });

    test("cancelling the readable ends reads, and aborting the writable closes the socket", async () => {
      const [a, b] = await pair();
      await b.readable.cancel();
      expect(await b.recv(1)).toHaveLength(0);
      await b.sendall(bytes("x"));
      expect(text(await a.recv(1))).toBe("x");
      await b.writable.abort();
      expect(b.fileno()).toBe(-1);
    });

    test("web streams fail with the same errors as the calls", async () => {
      const [a, b] = await cloggedPair();
      const reading = failure(a.readable.getReader().read());
      const writing = failure(a.writable.getWriter().write(PIECE));
      b[Symbol.dispose]();
      expect(await reading).toBeInstanceOf(socket.ConnectionResetError);
      expect(await writing).toBeInstanceOf(socket.ConnectionError);
    });
  });
}
