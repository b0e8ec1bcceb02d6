import { describe, expect, test } from "bun:test";
import { replyNamed } from "../../../src/echo/reply.ts";
import { Connection } from "../../../src/core/connection.ts";
import type { ConnectionHandler } from "../../../src/core/handler.ts";
import { RING_SLOTS, RingPool } from "../../../src/core/ring-buffer.ts";
import { TurnBudget } from "../../../src/core/turn-budget.ts";
import { bunTime } from "../../../src/engine/bun/time.ts";
import { CAPACITY, echoing } from "../../support/echoing.ts";
import { FakeSocket } from "../../support/fake-socket.ts";

const bytes = (length: number, first = 0): Buffer =>
  Buffer.from(Array.from({ length }, (_, i) => (first + i) % 251));

describe("a short write", () => {
  test("a short write keeps the tail, offers it once at the next drain, and then nothing more", () => {
    const socket = new FakeSocket(30);
    const { connection } = echoing(socket);
    connection.onData(bytes(100));
    expect(connection).toMatchObject({ received: 100, sent: 30, held: 70 });
    socket.room = 50;
    connection.onDrain();
    expect(connection).toMatchObject({ sent: 80, held: 20 });
    socket.room = Infinity;
    connection.onDrain();
    connection.onDrain();
    expect(connection).toMatchObject({ sent: 100, held: 0 });
    expect(socket.bytes).toEqual(bytes(100));
    expect(socket.calls).toEqual(["write 100 -> 30", "write 70 -> 50", "write 20 -> 20"]);
  });

  test("a write that takes nothing keeps everything", () => {
    const socket = new FakeSocket(0);
    const { connection } = echoing(socket);
    connection.onData(bytes(10));
    expect(connection.held).toBe(10);
    socket.room = Infinity;
    connection.onDrain();
    expect(socket.bytes).toEqual(bytes(10));
  });

  test("after a short write, later chunks wait in order until the drain", () => {
    const socket = new FakeSocket(5);
    const { connection } = echoing(socket);
    connection.onData(bytes(10));
    socket.room = Infinity;
    connection.onData(bytes(10, 10));
    expect(socket.calls).toEqual(["write 10 -> 5"]);
    connection.onDrain();
    expect(socket.bytes).toEqual(bytes(20));
  });

  test("a short write copies nothing: the drain writes the chunk itself", () => {
    const offered: ArrayBufferLike[] = [];
    class Watched extends FakeSocket {
      override write(chunk: Uint8Array, offset: number, length: number): number {
        offered.push(chunk.buffer);
        return super.write(chunk, offset, length);
      }
    }
    const socket = new Watched(1);
    const { connection } = echoing(socket);
    const chunk = bytes(500);
    connection.onData(chunk);
    for (let i = 0; i < 10; i++) {
      socket.room = 50;
      connection.onDrain();
    }
    expect(connection).toMatchObject({ sent: 500, copied: 0 });
    expect(new Set(offered)).toEqual(new Set([chunk.buffer]));
  });
});

describe("the memory of a large chunk", () => {
  test("a large chunk's memory is released as soon as the chunk is written, directly or by a drain", () => {
    const socket = new FakeSocket();
    const { connection } = echoing(socket);
    const atOnce = bytes(40_000);
    connection.onData(atOnce);
    expect(atOnce.length).toBe(0);
    socket.room = 30_000;
    const later = bytes(40_000);
    connection.onData(later);
    expect(later.length).toBe(40_000);
    socket.room = Infinity;
    connection.onDrain();
    expect(later.length).toBe(0);
    expect(socket.bytes).toEqual(Buffer.concat([bytes(40_000), bytes(40_000)]));
  });

  test("a large chunk's memory is released when the connection ends in any way", () => {
    for (const end of ["abort", "close", "drop"] as const) {
      const { connection } = echoing(new FakeSocket(10));
      const held = bytes(40_000);
      connection.onData(held);
      connection[end]();
      expect(held.length).toBe(0);
    }
    const { connection } = echoing(new FakeSocket());
    connection.finish();
    const late = bytes(40_000);
    connection.onData(late);
    expect(late.length).toBe(0);
  });

  test("a large chunk's memory is kept if the user took a slice of it", () => {
    const { connection } = echoing(new FakeSocket());
    const [first, second] = [bytes(40_000), bytes(40_000)];
    connection.hold(first);
    const slice = connection.take(10)!;
    connection.hold(second);
    connection.abort();
    expect(slice).toEqual(bytes(10));
    expect([first.length, second.length]).toEqual([40_000, 0]);
  });

  test("memory is not released early for a small chunk or a part of a larger buffer", () => {
    const { connection } = echoing(new FakeSocket());
    const whole = bytes(100_000);
    connection.onData(whole.subarray(10, 50_000));
    expect(whole.length).toBe(100_000);
    const small = bytes(20_000);
    connection.onData(small);
    expect(small.length).toBe(20_000);
  });
});

describe("a drain", () => {
  test("a drain with nothing pending does nothing", () => {
    const socket = new FakeSocket();
    const { connection } = echoing(socket);
    connection.onDrain();
    connection.onData(bytes(3));
    connection.onDrain();
    expect(socket.calls).toEqual(["write 3 -> 3"]);
  });

  test("a drain after the close does nothing", () => {
    const socket = new FakeSocket(1);
    const { connection, ends } = echoing(socket);
    connection.onData(bytes(10));
    connection.onClose(undefined);
    socket.gone = "end";
    connection.onDrain();
    connection.onData(bytes(10));
    connection.onEnd();
    expect(ends).toEqual([undefined]);
  });
});

describe("a peer that does not read", () => {
  test("a peer is paused when the ring's bytes are used up and resumed at half", () => {
    const socket = new FakeSocket(0);
    const { connection } = echoing(socket);
    connection.onData(bytes(400));
    connection.onData(bytes(400));
    expect(socket.paused).toBe(false);
    connection.onData(bytes(400));
    expect(socket.paused).toBe(true);
    socket.room = 699;
    connection.onDrain();
    // 101 and 400 bytes wait, but their chunks still keep 800 bytes of memory.
    expect(connection).toMatchObject({ held: 501, paused: true });
    socket.room = 101;
    connection.onDrain();
    expect(connection).toMatchObject({ held: 400, paused: false });
    expect(socket.paused).toBe(false);
  });

  test("a peer is paused when the ring's slots are used up", () => {
    const socket = new FakeSocket(0);
    const { connection } = echoing(socket);
    for (let i = 0; i < RING_SLOTS; i++) connection.onData(bytes(1));
    expect(socket.paused).toBe(true);
    socket.room = RING_SLOTS / 2;
    connection.onDrain();
    expect(socket.paused).toBe(false);
  });

  test("a peer that does not read costs at most the ring and one chunk", () => {
    const socket = new FakeSocket(0);
    const { connection } = echoing(socket);
    connection.onData(bytes(CAPACITY - 1));
    connection.onData(bytes(524_288));
    expect(connection).toMatchObject({ held: CAPACITY - 1 + 524_288, paused: true });
  });
});

describe("the peer's FIN", () => {
  test("the peer's FIN with nothing held is answered immediately by shutdown, then close", () => {
    const socket = new FakeSocket();
    const { connection, ends } = echoing(socket);
    connection.onData(bytes(3));
    connection.onEnd();
    expect(socket.calls).toEqual(["write 3 -> 3", "shutdown", "end"]);
    expect(ends).toEqual([undefined]);
  });

  test("after the peer's FIN, our FIN waits for the held bytes", () => {
    const socket = new FakeSocket(1);
    const { connection, ends } = echoing(socket);
    connection.onData(bytes(3));
    connection.onEnd();
    expect(socket.calls).toEqual(["write 3 -> 1"]);
    socket.room = 1;
    connection.onDrain();
    socket.room = 1;
    connection.onDrain();
    expect(socket.calls).toEqual(["write 3 -> 1", "write 2 -> 1", "write 1 -> 1", "shutdown", "end"]);
    expect(socket.bytes).toEqual(bytes(3));
    expect(ends).toEqual([undefined]);
  });
});

describe("finish", () => {
  test("finish flushes, sends a FIN, drops what still arrives, and closes at the peer's FIN", () => {
    const socket = new FakeSocket(1);
    const { connection, ends } = echoing(socket);
    connection.onData(bytes(3));
    connection.finish();
    connection.onData(bytes(2, 3));
    expect(socket.shutDown).toBe(false);
    socket.room = Infinity;
    connection.onDrain();
    expect(socket.bytes).toEqual(bytes(5));
    expect(socket.shutDown).toBe(true);
    connection.onData(bytes(7));
    expect(connection).toMatchObject({ received: 5, dropped: 7, sent: 5, lingering: true });
    expect(ends).toEqual([]);
    connection.finish();
    connection.onEnd();
    expect(socket.gone).toBe("end");
    expect(ends).toEqual([undefined]);
  });

  test("finish twice, or together with the peer's FIN, happens once", () => {
    const socket = new FakeSocket();
    const { connection, ends } = echoing(socket);
    connection.finish();
    connection.finish();
    connection.onEnd();
    connection.finish();
    expect(socket.calls).toEqual(["shutdown", "end"]);
    expect(ends).toEqual([undefined]);
  });
});

describe("a write that says -1", () => {
  for (const at of ["the first chunk", "a drain"] as const) {
    test(`a write that fails at ${at} terminates immediately and reports its error once`, () => {
      const socket = new FakeSocket(at === "a drain" ? 1 : Infinity);
      const { connection, ends } = echoing(socket);
      if (at === "a drain") connection.onData(bytes(3));
      socket.broken = true;
      if (at === "a drain") connection.onDrain();
      else connection.onData(bytes(3));
      expect(socket.calls.slice(-2)).toEqual([expect.stringContaining("-> -1"), "terminate"]);
      connection.onClose(undefined);
      expect(ends).toEqual([expect.objectContaining({ code: "EPIPE", syscall: "send" })]);
      expect(connection).toMatchObject({ closed: true, held: 0 });
    });
  }
});

test("a chunk that arrives despite a pause means a reset: the connection ends within its bound", () => {
  const socket = new FakeSocket(0);
  const { connection, ends } = echoing(socket);
  connection.onData(bytes(CAPACITY));
  expect(socket.paused).toBe(true);
  connection.onData(bytes(524_288));
  expect(socket.gone).toBe("terminate");
  expect(ends).toEqual([expect.objectContaining({ code: "ECONNRESET", syscall: "recv" })]);
  connection.onData(bytes(524_288));
  connection.onEnd();
  connection.onClose(new Error("ECONNRESET"));
  expect(ends.length).toBe(1);
});

describe("closing", () => {
  test("closing twice is closing once, in every combination", () => {
    const ways: ((connection: Connection) => void)[] = [
      (c) => c.close(),
      (c) => c.abort(),
      (c) => c.onClose(undefined),
    ];
    for (const first of ways) {
      for (const second of ways) {
        const socket = new FakeSocket();
        const { connection, ends } = echoing(socket);
        first(connection);
        second(connection);
        expect(ends).toEqual([undefined]);
        expect(socket.calls.length).toBeLessThanOrEqual(1);
      }
    }
  });

  test("a close releases the socket before it calls the handler", () => {
    const socket = new FakeSocket();
    let heldAtEnd = -1;
    const user: ConnectionHandler = {
      onData: (connection, chunk) => connection.relay(chunk, Infinity),
      onDrain() {},
      onEnd() {},
      onClose(connection) {
        heldAtEnd = connection.held;
        connection.relay(bytes(3), Infinity);
        connection.write(bytes(3));
        connection.hold(bytes(3));
        connection.finish();
        connection.abort();
        connection.close();
      },
    };
    const connection = new Connection(socket, user, new RingPool(CAPACITY), new TurnBudget(bunTime));
    connection.onClose(new Error("reset"));
    expect(heldAtEnd).toBe(0);
    expect(socket.calls).toEqual([]);
    expect(connection.held).toBe(0);
  });

  test("closing a paused connection returns its ring to the pool, empty", () => {
    const pool = new RingPool(CAPACITY);
    const ring = pool.borrow();
    pool.giveBack(ring);
    const reply = replyNamed("raw");
    const user: ConnectionHandler = { ...reply, onEnd() {}, onClose() {} };
    const connection = new Connection(new FakeSocket(1), user, pool, new TurnBudget(bunTime));
    connection.onData(bytes(10));
    expect(ring.held).toBe(9);
    connection.onClose(undefined);
    expect(connection.take(4)).toHaveLength(4);
    expect(ring.held).toBe(5);
    connection.drop();
    expect(ring.held).toBe(0);
    expect(pool.borrow()).toBe(ring);
  });
});

test("a connection without backlog owns no ring", () => {
  const pool = new RingPool(CAPACITY);
  const ring = pool.borrow();
  pool.giveBack(ring);
  const user: ConnectionHandler = { ...replyNamed("raw"), onEnd() {}, onClose() {} };
  const socket = new FakeSocket(5);
  const connection = new Connection(socket, user, pool, new TurnBudget(bunTime));
  connection.onData(bytes(5));
  expect(pool.borrow()).toBe(ring);
  pool.giveBack(ring);
  connection.onData(bytes(5));
  expect(pool.borrow()).not.toBe(ring);
  socket.room = Infinity;
  connection.onDrain();
  expect(pool.borrow()).toBe(ring);
});

test("writing past waiting bytes is an error", () => {
  const { connection } = echoing(new FakeSocket(1));
  connection.write(bytes(3));
  expect(() => connection.write(bytes(3))).toThrow("still queued");
});

describe("handOver", () => {
  test("handOver gives the rest of a chunk and all later events to the new handler", () => {
    const socket = new FakeSocket();
    const events: string[] = [];
    const served: ConnectionHandler = {
      onData: (_, chunk) => void events.push(`data ${chunk}`),
      onDrain: () => void events.push("drain"),
      onEnd: () => void events.push("end"),
      onClose: () => void events.push("close"),
    };
    const header: ConnectionHandler = {
      onData: (connection, chunk) => connection.handOver(served, chunk.subarray(3)),
      onDrain: () => void events.push("not the old one"),
      onEnd: () => void events.push("not the old one"),
      onClose: () => void events.push("not the old one"),
    };
    const connection = new Connection(socket, header, new RingPool(CAPACITY), new TurnBudget(bunTime));
    connection.onData(Buffer.from("HDRfirst"));
    connection.onData(Buffer.from("second"));
    connection.onEnd();
    connection.onClose(undefined);
    expect(events).toEqual(["data first", "data second", "end", "close"]);
    expect(connection.received).toBe(14);
  });

  test("handOver calls no handler when nothing is left or the connection is closed", () => {
    const { connection } = echoing(new FakeSocket());
    const never = (): void => {
      throw new Error("called");
    };
    const handler = { onData: never, onDrain: never, onEnd: never, onClose: never };
    connection.handOver(handler, new Uint8Array());
    const other = echoing(new FakeSocket()).connection;
    other.close();
    other.handOver(handler, Buffer.from("late"));
  });
});
