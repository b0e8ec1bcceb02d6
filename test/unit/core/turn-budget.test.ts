import { describe, expect, test } from "bun:test";
import { replyNamed, type ReplyName } from "../../../src/echo/reply.ts";
import { Connection } from "../../../src/core/connection.ts";
import type { ConnectionHandler } from "../../../src/core/handler.ts";
import { RingPool } from "../../../src/core/ring-buffer.ts";
import { TurnBudget } from "../../../src/core/turn-budget.ts";
import { bunTime } from "../../../src/engine/bun/time.ts";
import { FakeSocket } from "../../support/fake-socket.ts";

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Connections of one server, which write `recvSize` bytes at a time, or answer so many. */
function connections(count: number, recvSize: number, reply: ReplyName = "raw") {
  const budget = new TurnBudget(bunTime);
  const rings = new RingPool(1 << 20);
  const user: ConnectionHandler = { ...replyNamed(reply, recvSize), onEnd() {}, onClose() {} };
  return Array.from({ length: count }, () => {
    const socket = new FakeSocket();
    return { socket, connection: new Connection(socket, user, rings, budget) };
  });
}

const writes = (all: { socket: FakeSocket }[]): number =>
  all.reduce((sum, { socket }) => sum + socket.calls.length, 0);

describe("the budget of a turn", () => {
  test("the turn's budget bounds the writes of all connections together", async () => {
    const all = connections(300, 1);
    for (const { connection } of all) connection.onData(Buffer.alloc(1000));
    expect(writes(all)).toBeLessThanOrEqual(2 * 1024);
    for (let turn = 1; turn < 20; turn++) {
      const before = writes(all);
      await nextTurn();
      expect(writes(all) - before).toBeLessThanOrEqual(1024 + 16);
    }
    while (writes(all) < 300_000) await nextTurn();
    expect(all.every(({ socket }) => socket.bytes.length === 1000)).toBe(true);
  });

  test("the turn's budget is dealt out round robin: no connection is more than a visit ahead", async () => {
    const all = connections(100, 1);
    for (const { connection } of all) connection.onData(Buffer.alloc(1000));
    for (let turn = 0; turn < 10; turn++) {
      await nextTurn();
      const counts = all.map(({ socket }) => socket.calls.length);
      expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(2 * 16);
    }
  });

  test("the turn's budget leaves room for a small message beside a long queue", async () => {
    const all = connections(300, 1);
    const one = all.pop()!;
    for (const { connection } of all) connection.onData(Buffer.alloc(10_000));
    for (let turn = 0; turn < 5; turn++) {
      await nextTurn();
      one.connection.onData(Buffer.from("x"));
      expect(one.socket.calls.length).toBe(turn + 1);
    }
  });

  test("the turn's budget counts bytes too: whole chunks wait for the next turn, in order", async () => {
    const all = connections(200, Infinity);
    for (const { connection } of all) connection.onData(Buffer.alloc(524_288));
    const first = writes(all);
    expect(first).toBeLessThan(100);
    expect(all.at(-1)!.connection.held).toBe(524_288);
    while (writes(all) < 200) await nextTurn();
    expect(all.every(({ connection }) => connection.held === 0)).toBe(true);
  });

  test("small messages never use up a turn's budget", async () => {
    const all = connections(50, Infinity);
    for (let turn = 0; turn < 100; turn++) {
      for (const { connection } of all) connection.onData(Buffer.from("x"));
      expect(writes(all)).toBe(50 * (turn + 1));
      await nextTurn();
    }
  });

  test("a connection that waits for its turn does not write before it, whatever arrives", async () => {
    const [first] = connections(1, 1);
    const { socket, connection } = first!;
    connection.onData(Buffer.alloc(100));
    expect(socket.calls.length).toBe(16);
    connection.onData(Buffer.alloc(100));
    connection.onDrain();
    expect(socket.calls.length).toBe(16);
    await nextTurn();
    expect(socket.bytes.length).toBe(200);
  });

  test("a connection that ends while it waits for its turn is skipped", async () => {
    const [first, second] = connections(2, 1);
    for (const { connection } of [first!, second!]) connection.onData(Buffer.alloc(100));
    first!.connection.abort();
    const before = first!.socket.calls.length;
    while (second!.socket.bytes.length < 100) await nextTurn();
    expect(first!.socket.calls.length).toBe(before);
  });
});

describe("the tutorial's replies", () => {
  const answered = (all: { connection: Connection }[]): number[] =>
    all.map(({ connection }) => connection.copied);
  const total = (all: { connection: Connection }[]): number => answered(all).reduce((a, b) => a + b, 0);
  /** 1024 units of 16 replies, and a visit more. */
  const REPLIES_PER_TURN = (1024 + 17) * 16;

  test("the tutorial's replies are bounded per turn over all connections, and all are sent", async () => {
    const all = connections(100, 1, "tutorial");
    for (const { connection } of all) connection.onData(Buffer.alloc(1000));
    expect(total(all)).toBeLessThanOrEqual(2 * REPLIES_PER_TURN);
    for (let before = total(all); before < 100_000; before = total(all)) {
      await nextTurn();
      expect(total(all) - before).toBeLessThanOrEqual(REPLIES_PER_TURN);
    }
    expect(all.every(({ socket }) => socket.bytes.length === 6 * 1000)).toBe(true);
  });

  test("the tutorial's replies are dealt out round robin, even beside a connection with a large chunk", async () => {
    const all = connections(10, 1, "tutorial");
    for (const { connection } of all) connection.onData(Buffer.alloc(20_000));
    for (let turn = 0; turn < 5; turn++) {
      const counts = answered(all);
      expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(2 * 256);
      await nextTurn();
    }
  });
});
