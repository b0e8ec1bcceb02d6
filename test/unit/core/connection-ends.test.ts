import { describe, expect, test } from "bun:test";
import { Connection } from "../../../src/core/connection.ts";
import { RingPool } from "../../../src/core/ring-buffer.ts";
import { TurnBudget } from "../../../src/core/turn-budget.ts";
import { bunTime } from "../../../src/engine/bun/time.ts";
import { FakeSocket } from "../../support/fake-socket.ts";

/** A connection whose handler holds chunks, as the library does, and a log of its events. */
function holding(socket: FakeSocket) {
  const seen: string[] = [];
  const user = {
    onData(connection: Connection, chunk: Uint8Array): void {
      seen.push(`received ${chunk.length}`);
      connection.hold(chunk);
    },
    onDrain: (): void => void seen.push("onDrain"),
    onEnd: (): void => void seen.push("onEnd"),
    onClose: (_: Connection, error: unknown): void => void seen.push(`closed ${String(error)}`),
  };
  return { connection: new Connection(socket, user, new RingPool(1000), new TurnBudget(bunTime)), seen };
}

test("a failed send ends writing, and reading continues", () => {
  const socket = new FakeSocket();
  const { connection, seen } = holding(socket);
  socket.broken = true;
  expect(connection.send(Buffer.from("abc"), 0)).toBe(-1);
  expect(connection).toMatchObject({ writable: false, closed: false, sent: 0 });
  expect(connection.send(Buffer.from("abc"), 0)).toBe(-1);
  connection.shutdown();
  expect(socket.calls).toEqual(["write 3 -> -1"]);
  connection.onData(Buffer.from("last words"));
  expect(connection.take(100)).toEqual(Buffer.from("last words"));
  connection.onEnd();
  expect(seen).toEqual(["received 10", "onEnd"]);
});

describe("drop", () => {
  test("drop counts the held bytes and those that arrive later", () => {
    const { connection, seen } = holding(new FakeSocket());
    connection.onData(Buffer.alloc(30));
    connection.take(10);
    expect(connection.complete).toBe(false);
    connection.drop();
    expect(connection).toMatchObject({ received: 30, held: 0, dropped: 20, complete: false });
    connection.onData(Buffer.alloc(5));
    expect(connection).toMatchObject({ received: 30, held: 0, dropped: 25 });
    expect(seen).toEqual(["received 30"]);
  });

  test("after drop and our FIN, the peer's FIN closes the connection", () => {
    const socket = new FakeSocket();
    const { connection, seen } = holding(socket);
    connection.shutdown();
    connection.drop();
    connection.onEnd();
    expect(socket.calls).toEqual(["shutdown", "end"]);
    expect(seen).toEqual(["closed undefined"]);
  });
});

describe("shutdown", () => {
  test("shutdown ends writing, and a second call does nothing", () => {
    const socket = new FakeSocket();
    const { connection } = holding(socket);
    connection.shutdown();
    connection.shutdown();
    expect(connection).toMatchObject({ writable: false, lingering: true });
    expect(() => connection.write(Buffer.from("abc"))).toThrow("shut down");
    expect(socket.calls).toEqual(["shutdown"]);
  });

  test("shutdown is refused while bytes wait, because the FIN would overtake them", () => {
    const socket = new FakeSocket(1);
    const { connection } = holding(socket);
    connection.write(Buffer.from("abc"));
    expect(() => connection.shutdown()).toThrow("still queued");
    expect(connection.send(Buffer.from("d"), 0)).toBe(0);
    socket.room = Infinity;
    connection.onDrain();
    connection.shutdown();
    expect(socket.bytes.toString()).toBe("abc");
    expect(socket.shutDown).toBe(true);
  });
});

test("a chunk that arrives after the close reaches nobody and is not counted", () => {
  const { connection, seen } = holding(new FakeSocket());
  connection.close();
  connection.onData(Buffer.alloc(3));
  connection.onEnd();
  expect(connection).toMatchObject({ received: 0, held: 0, dropped: 0 });
  expect(seen).toEqual(["closed undefined"]);
});

test("stopped reading is resumed by readOn(), not by held bytes that go out", () => {
  const socket = new FakeSocket();
  const { connection } = holding(socket);
  connection.onData(Buffer.alloc(1000));
  expect(socket.paused).toBe(true);
  connection.stopReading();
  expect(connection.take(1000)).toHaveLength(1000);
  expect(socket.paused).toBe(true);
  connection.readOn();
  expect(socket.paused).toBe(false);
});
