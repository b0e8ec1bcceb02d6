import { describe, expect, test } from "bun:test";
import type { ReplyName } from "../src/echo/reply.ts";
import { CAPACITY, echoing } from "./support/echoing.ts";
import { FakeSocket } from "./support/fake-socket.ts";
import { Random, withSeed } from "./support/random.ts";

/** What a peer should have got for what it sent, were everything out. */
function expected(name: ReplyName, sent: readonly Buffer[], recvSize: number): Buffer {
  if (name === "raw") return Buffer.concat(sent);
  const replies: Buffer[] = [Buffer.from("Welcome to the server. Type something and hit enter\n")];
  for (const chunk of sent) {
    for (let at = 0; at < chunk.length; at += recvSize) {
      replies.push(Buffer.from("OK..."), chunk.subarray(at, at + recvSize));
    }
  }
  return Buffer.concat(replies);
}

/** Random events, the way Bun may send them, until the connection is closed; the invariants after each. */
function live(seed: number, name: ReplyName): void {
  const random = new Random(seed);
  const recvSize = random.between(1, 200);
  const socket = new FakeSocket(random.between(0, 2000));
  const { connection, ends, reply } = echoing(socket, name, recvSize);
  const chunks: Buffer[] = [];
  let largest = 0;
  let fin = false;
  let graceful = true;
  reply.opened(connection);
  const check = (): void => {
    const whole = expected(name, chunks, recvSize);
    const got = socket.bytes;
    expect(got.equals(whole.subarray(0, got.length))).toBe(true);
    if (connection.closed) return;
    if (name === "raw") {
      expect(connection.received).toBe(connection.sent + connection.held);
      expect(connection.copied).toBe(0);
    }
    expect(connection.held).toBeLessThanOrEqual(CAPACITY + largest + 65_536 + 1029);
    expect(connection.paused).toBe(socket.paused);
    if (connection.held === 0) expect(socket.paused).toBe(false);
    if (socket.shutDown) expect(connection.held).toBe(0);
  };
  for (let step = 0; step < 300 && !connection.closed; step++) {
    const dice = random.between(0, 99);
    if (dice < 45 && !socket.paused && !fin) {
      const chunk = random.bytes(random.chance(0.1) ? random.between(1, 3000) : random.between(1, 100));
      largest = Math.max(largest, chunk.length);
      if (!socket.shutDown) chunks.push(chunk);
      connection.onData(chunk);
    } else if (dice < 85) {
      if (random.chance(0.8)) socket.room += random.between(0, 500);
      connection.onDrain();
    } else if (dice < 87 && !fin && !socket.paused) {
      fin = true;
      connection.onEnd();
    } else if (dice < 88) {
      connection.finish();
    } else if (dice < 89 && random.chance(0.3)) {
      socket.broken = true;
      graceful = false;
    } else if (dice < 90 && random.chance(0.3)) {
      // Bun's own close: the descriptor is gone before the event.
      graceful = false;
      socket.gone = "terminate";
      connection.onClose(random.chance(0.5) ? new Error("ECONNRESET") : undefined);
    } else if (dice < 91 && random.chance(0.3) && socket.paused) {
      // The peer resets while it is paused: Bun hands over what the kernel has, then the end, then the error.
      graceful = false;
      socket.broken = true;
      for (let i = 0; i < 3; i++) connection.onData(random.bytes(3000));
      connection.onEnd();
      connection.onClose(new Error("ECONNRESET"));
    } else connection.age(1);
    check();
  }
  // Whatever happened: let the kernel take everything and the peer end, and it is over, with every byte out.
  for (let step = 0; !connection.closed && step < 10_000; step++) {
    socket.room += 1000;
    connection.onDrain();
    if (!socket.paused && !fin) {
      fin = true;
      connection.onEnd();
    }
    check();
  }
  expect(connection.closed).toBe(true);
  expect(connection.held).toBe(0);
  expect(ends.length).toBe(1);
  if (graceful) expect(socket.bytes.equals(expected(name, chunks, recvSize))).toBe(true);
}

describe("whatever the peer and the kernel do, the invariants hold", () => {
  for (const name of ["raw", "tutorial"] as const) {
    test(`${name}, 300 seeds`, () => {
      for (let seed = 1; seed <= 300; seed++) withSeed(seed, () => live(seed, name));
    });
  }
});
