/**
 * What a connected stream means, whatever carries it: one contract, run over every transport and in both
 * directions. `a` is the end that sends, `b` the one that reads.
 */
import { afterEach, describe, expect, test } from "bun:test";
import * as socket from "../../src/socket.ts";
import { checkEnds, checkLoss } from "./stream-ends.ts";
import {
  bytes,
  drain,
  expectSame,
  expectWaiting,
  failure,
  FILL,
  PIECE,
  text,
  type Limits,
  type MakeCloggedPair,
  type MakePair,
  type Pairs,
} from "./stream-support.ts";
import { checkSignals, checkTimeouts } from "./stream-waits.ts";
import { checkWeb } from "./stream-web.ts";
import { pattern } from "../support/peers.ts";
import { Random } from "../support/random.ts";

/**
 * Registers the contract's tests.
 * @param makePair two connected sockets
 * @param makeCloggedPair two connected sockets, of which the first cannot send because the second does not
 *   read
 */
export function checkStream(makePair: MakePair, makeCloggedPair: MakeCloggedPair, limits: Limits = {}): void {
  const open: { [Symbol.dispose](): void }[] = [];
  const keep: Pairs["keep"] = (end) => {
    open.push(end);
    return end;
  };
  const pairs: Pairs = {
    async pair() {
      const [a, b] = await makePair();
      return [keep(a), keep(b)];
    },
    async cloggedPair() {
      const [a, b, stuck] = await makeCloggedPair();
      return [keep(a), keep(b), stuck];
    },
    keep,
    limits,
  };
  afterEach(() => {
    for (const end of open.splice(0)) end[Symbol.dispose]();
  });
  checkRecv(pairs);
  checkRecvInto(pairs);
  checkSend(pairs);
  checkBulk(pairs);
  checkTimeouts(pairs);
  checkSignals(pairs);
  checkEnds(pairs);
  checkLoss(pairs);
  checkWeb(pairs);
}

function checkRecv({ pair }: Pairs): void {
  describe("recv", () => {
    test("recv waits for a byte, returns at most bufsize bytes, and keeps the rest in order", async () => {
      const [a, b] = await pair();
      const first = b.recv(100);
      await expectWaiting(first);
      await a.sendall(bytes("hello"));
      expect(text(await first)).toBe("hello");
      await a.sendall(bytes("0123456789"));
      expect(text(await b.recv(3))).toBe("012");
      expect(text(await b.recv(3))).toBe("345");
      expect(text(await b.recv(100))).toBe("6789");
      await expectWaiting(failure(b.recv(100)));
    });

    test("recv with random sizes returns every byte in order", async () => {
      const [a, b] = await pair();
      const sent = pattern(300_000);
      const sending = a.sendall(sent).then(() => a.shutdown(socket.SHUT_WR));
      const random = new Random(7);
      const pieces: Buffer[] = [];
      for (;;) {
        const size = random.between(1, random.chance(0.5) ? 100 : 20_000);
        const piece = await b.recv(size);
        expect(piece.length).toBeLessThanOrEqual(size);
        if (piece.length === 0) break;
        pieces.push(piece);
      }
      await sending;
      expectSame(Buffer.concat(pieces), sent);
    });

    test("recv returns everything sent before the peer's FIN, then an empty buffer on every call", async () => {
      const [a, b] = await pair();
      await a.sendall(bytes("last"));
      a.shutdown(socket.SHUT_WR);
      expect(text(await b.recv(2))).toBe("la");
      expect(text(await b.recv(2))).toBe("st");
      for (let i = 0; i < 3; i++) expect(await b.recv(10)).toHaveLength(0);
      expect(await b.recv_into(new Uint8Array(3))).toBe(0);
    });

    test("a waiting recv returns an empty buffer when the FIN arrives", async () => {
      const [a, b] = await pair();
      const waiting = b.recv(10);
      await expectWaiting(waiting);
      a.shutdown(socket.SHUT_WR);
      expect(await waiting).toHaveLength(0);
    });

    test("recv(0) returns an empty buffer immediately and does not mean the end", async () => {
      const [a, b] = await pair();
      expect(await b.recv(0)).toHaveLength(0);
      await a.sendall(bytes("x"));
      expect(await b.recv(0)).toHaveLength(0);
      expect(text(await b.recv(1))).toBe("x");
    });

    test("recv with a negative size is a RangeError", async () => {
      const [, b] = await pair();
      expect(await failure(b.recv(-1))).toBeInstanceOf(RangeError);
    });

    test("a second recv is refused with EBUSY while the first keeps waiting", async () => {
      const [a, b] = await pair();
      const first = b.recv(10);
      const second = await failure(b.recv(10));
      expect(second).toBeInstanceOf(socket.error);
      expect(second).toMatchObject({ code: "EBUSY", message: expect.stringContaining("another recv") });
      expect(await failure(b.recv_into(new Uint8Array(3)))).toMatchObject({ code: "EBUSY" });
      await a.sendall(bytes("x"));
      expect(text(await first)).toBe("x");
    });
  });
}

function checkRecvInto({ pair }: Pairs): void {
  describe("recv_into", () => {
    test("recv_into fills the buffer from its start, returns the count, and leaves the rest untouched", async () => {
      const [a, b] = await pair();
      const memory = Buffer.from("..........");
      await a.sendall(bytes("abcdef"));
      expect(await b.recv_into(memory.subarray(2, 6), 3)).toBe(3);
      expect(memory.toString()).toBe("..abc.....");
      expect(await b.recv_into(memory)).toBe(3);
      expect(memory.toString()).toBe("defbc.....");
    });

    test("recv_into refuses a size above the buffer's or below 0 and loses no byte", async () => {
      const [a, b] = await pair();
      await a.sendall(bytes("abc"));
      expect(await failure(b.recv_into(new Uint8Array(3), 4))).toBeInstanceOf(RangeError);
      expect(await failure(b.recv_into(new Uint8Array(3), -1))).toBeInstanceOf(RangeError);
      expect(text(await b.recv(10))).toBe("abc");
    });

    test("recv_into with an empty buffer returns 0 immediately", async () => {
      const [, b] = await pair();
      expect(await b.recv_into(new Uint8Array(0))).toBe(0);
    });
  });
}

function checkSend({ pair, cloggedPair }: Pairs): void {
  describe("send", () => {
    test("send returns how much the kernel took, and a FIN after it loses none of those bytes", async () => {
      const [a, b] = await pair();
      const taken = await a.send(FILL);
      expect(taken).toBeGreaterThan(0);
      expect(taken).toBeLessThan(FILL.length);
      a.shutdown(socket.SHUT_WR);
      expectSame(await drain(b), FILL.subarray(0, taken));
    });

    test("send waits while the kernel takes nothing", async () => {
      const [a, b, stuck] = await cloggedPair();
      const waiting = a.send(PIECE);
      await expectWaiting(waiting);
      const reading = drain(b);
      const taken = await waiting;
      expect(taken).toBeGreaterThan(0);
      a.shutdown(socket.SHUT_WR);
      expectSame(await reading, Buffer.concat([stuck, PIECE.subarray(0, taken)]));
    });

    test("send and sendall take every kind of buffer and reject a string", async () => {
      const [a, b] = await pair();
      const memory = Buffer.from("..abcdefgh..");
      const at = memory.byteOffset + 2;
      expect(await a.send(new DataView(memory.buffer, at, 2))).toBe(2);
      await a.sendall(new Uint8Array(memory.buffer, at + 2, 2));
      await a.sendall(new Uint8Array(bytes("ef")).buffer);
      await a.sendall(new Uint16Array(new Uint8Array(bytes("gh")).buffer));
      for (const call of ["send", "sendall"] as const) {
        // @ts-expect-error: a string is no bytes.
        expect(await failure((async () => a[call]("text"))())).toBeInstanceOf(TypeError);
      }
      await a.sendall(bytes("."));
      a.shutdown(socket.SHUT_WR);
      expect(text(await drain(b))).toBe("abcdefgh.");
    });

    test("send of an empty buffer returns 0, and sendall of one resolves", async () => {
      const [a] = await cloggedPair();
      expect(await a.send(new Uint8Array(0))).toBe(0);
      expect(await a.sendall(new Uint8Array(0))).toBeUndefined();
    });
  });

  describe("sendall", () => {
    test("sendall delivers everything and resolves to undefined once the kernel has it all", async () => {
      const [a, b] = await pair();
      const sending = a.sendall(FILL);
      await expectWaiting(sending);
      const reading = drain(b);
      expect(await sending).toBeUndefined();
      expect(await a.sendall(bytes("tail"))).toBeUndefined();
      a.shutdown(socket.SHUT_WR);
      expectSame(await reading, Buffer.concat([FILL, bytes("tail")]));
    });

    test("concurrent sendall and send calls do not interleave their bytes", async () => {
      const [a, b, stuck] = await cloggedPair();
      const pieces = Array.from({ length: 6 }, (_, i) => pattern(300_000 + i, i + 2));
      const sending = pieces.map((piece) => a.sendall(piece));
      const last = a.send(bytes("!"));
      const reading = drain(b);
      await Promise.all(sending);
      expect(await last).toBe(1);
      a.shutdown(socket.SHUT_WR);
      expectSame(await reading, Buffer.concat([stuck, ...pieces, bytes("!")]));
    });
  });
}

function checkBulk({ pair, limits }: Pairs): void {
  test("a chunk larger than Bun's receive buffer arrives complete, in pieces", async () => {
    const [a, b] = await pair();
    const sent = FILL.subarray(0, 2 << 20);
    const sending = a.sendall(sent);
    const pieces: Buffer[] = [];
    for (let got = 0; got < sent.length; got += pieces.at(-1)!.length) pieces.push(await b.recv(sent.length));
    await sending;
    expect(pieces.length).toBeGreaterThan(1);
    expectSame(Buffer.concat(pieces), sent);
  });

  const size = limits.bulkBytes ?? 8 << 20;
  test(`${size >> 20} MiB arrive with the same hash, the FIN right after the last byte`, async () => {
    const [a, b] = await pair();
    const send = async (): Promise<void> => {
      for (let sent = 0; sent < size; sent += BULK_PIECE.length) await a.sendall(BULK_PIECE);
      a.shutdown(socket.SHUT_WR);
    };
    const sending = send();
    const [sent, hash] = [new Bun.CryptoHasher("sha1"), new Bun.CryptoHasher("sha1")];
    for (let at = 0; at < size; at += BULK_PIECE.length) sent.update(BULK_PIECE);
    let count = 0;
    for await (const piece of b) {
      hash.update(piece);
      count += piece.length;
    }
    await sending;
    expect(count).toBe(size);
    expect(hash.digest("hex")).toBe(sent.digest("hex"));
  });
}

/** Larger than what any kernel takes from one call. */
const BULK_PIECE = FILL.subarray(0, 8 << 20);
