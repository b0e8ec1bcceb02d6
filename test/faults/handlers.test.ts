/**
 * Code that throws: a task beside an accept loop, the loop itself, a connection's handler, the
 * echo server's own reply.
 */
import { afterEach, describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import * as socket from "../../src/socket.ts";
import { Connection } from "../../src/core/connection.ts";
import type { ConnectionHandler } from "../../src/core/handler.ts";
import type { TransportEvents } from "../../src/core/transport.ts";
import { RingPool } from "../../src/core/ring-buffer.ts";
import { TurnBudget } from "../../src/core/turn-budget.ts";
import { bunTime } from "../../src/engine/bun/time.ts";
import { socketEvents, transportOf } from "../../src/engine/bun/transport.ts";
import { start } from "../support/echo.ts";
import { steady } from "../support/faults.ts";
import { exchange, pattern, peer, until } from "../support/peers.ts";
import { hasProc } from "../support/program.ts";
import { closeAll, kept } from "../support/sockets.ts";

setDefaultTimeout(30_000);
afterEach(closeAll);

const BYTES = pattern(200_000, 3);

/** What this process uses, and shall give back: the server is in it, and so is the test. */
const steadyHere = (port: number, check?: () => Promise<void>) =>
  steady({ pid: process.pid, port }, check === undefined ? {} : { check });

describe.skipIf(!hasProc)("in the library", () => {
  /** Echoes until it is asked to throw. */
  async function task(accepted: socket.Socket): Promise<void> {
    await using conn = accepted;
    for (let data = await conn.recv(65_536); data.length > 0; data = await conn.recv(65_536)) {
      if (data.toString() === "throw") throw new Error("a defect");
      await conn.sendall(data);
    }
  }

  test("a task that throws ends its own connection; the accept loop and other connections continue", async () => {
    const listener = kept(socket.create_server(["127.0.0.1", 0]));
    const [, port] = listener.getsockname();
    const defects: unknown[] = [];
    const loop = (async () => {
      for await (const [conn] of listener) void task(conn).catch((error: unknown) => defects.push(error));
    })();
    const after = await steadyHere(port);
    const other = await peer(port);
    for (let round = 0; round < 20; round++) {
      const doomed = await peer(port);
      doomed.socket.write("throw");
      expect(await doomed.ended).toBe("FIN");
      expect(doomed.count).toBe(0);
      doomed.socket.destroy();
      other.socket.write("go on");
      await until(() => other.count === 5 * (round + 1), "the other one is served");
      expect((await exchange(port, BYTES)).equals(BYTES)).toBe(true);
    }
    expect(defects).toHaveLength(20);
    other.socket.destroy();
    await after();
    listener.close();
    await loop.catch((error: unknown) => expect(error).toBeInstanceOf(socket.error));
  });

  test("an accept loop that throws leaves the listener usable by another loop", async () => {
    const listener = kept(socket.create_server(["127.0.0.1", 0]));
    const [, port] = listener.getsockname();
    let accepted: socket.Socket | undefined;
    const loop = async (): Promise<void> => {
      for await (const [conn] of listener) {
        accepted = conn;
        throw new Error("a defect");
      }
    };
    const once = async (): Promise<void> => {
      const back = exchange(port, BYTES);
      const [conn] = await listener.accept();
      await task(conn);
      expect((await back).equals(BYTES)).toBe(true);
    };
    const after = await steadyHere(port, once);
    for (let round = 0; round < 20; round++) {
      const looping = loop();
      const client = await peer(port);
      await expect(looping).rejects.toThrow("a defect");
      client.socket.destroy();
      // Nobody else has it.
      accepted!.close();
    }
    await after();
  });
});

describe.skipIf(!hasProc)("a connection's user that throws", () => {
  /** A server whose handler throws in one of its calls when asked to. */
  function throwing(where: keyof ConnectionHandler) {
    const told = new WeakSet<Connection>();
    const ends: unknown[] = [];
    const check = (connection: Connection, at: keyof ConnectionHandler): void => {
      if (at === where && told.has(connection)) throw new Error(`a defect in ${at}`);
    };
    const user: ConnectionHandler = {
      onData(connection, chunk) {
        if (chunk.subarray(0, 5).toString() === "throw") told.add(connection);
        check(connection, "onData");
        connection.relay(chunk, Infinity);
      },
      onDrain(connection) {
        check(connection, "onDrain");
        connection.relayHeld(Infinity);
      },
      onEnd(connection) {
        check(connection, "onEnd");
        connection.finish();
      },
      onClose(connection, error) {
        ends.push((error as Error | undefined)?.message);
        check(connection, "onClose");
      },
    };
    const rings = new RingPool(65_536);
    const listener = Bun.listen<TransportEvents | undefined>({
      hostname: "127.0.0.1",
      port: 0,
      allowHalfOpen: true,
      socket: {
        ...socketEvents,
        open: (one) =>
          void (one.data = new Connection(transportOf(one, true), user, rings, new TurnBudget(bunTime))),
      },
    });
    kept({ close: () => listener.stop(true) });
    return { port: listener.port, ends };
  }

  for (const where of ["onData", "onDrain", "onEnd", "onClose"] as const) {
    test(`a handler that throws in ${where}() loses only its own connection and learns why`, async () => {
      const { port, ends } = throwing(where);
      const after = await steadyHere(port);
      const served = ends.length;
      const other = await peer(port);
      const doomed = await peer(port);
      if (where === "onDrain") doomed.socket.pause();
      doomed.socket.write(
        Buffer.concat([Buffer.from("throw"), where === "onDrain" ? pattern(16 << 20) : BYTES]),
      );
      if (where === "onDrain") setTimeout(() => doomed.socket.resume(), 300);
      if (where === "onEnd" || where === "onClose") doomed.socket.end();
      const how = await doomed.ended;
      expect(how).toBe(where === "onClose" ? "FIN" : "ECONNRESET");
      await until(() => ends.length === served + 1, "its end is told");
      expect(ends[served]).toBe(where === "onClose" ? undefined : `a defect in ${where}`);
      other.socket.end("unharmed");
      expect(await other.ended).toBe("FIN");
      expect(other.got.toString()).toBe("unharmed");
      expect((await exchange(port, BYTES)).equals(BYTES)).toBe(true);
      expect(ends).toHaveLength(served + 3);
      for (const { socket } of [other, doomed]) socket.destroy();
      await after();
    });
  }
});

test.skipIf(!hasProc)(
  "a defect in the echo server ends that connection, is reported to onDefect, and counts as broken",
  async () => {
    const defects: unknown[] = [];
    const server = await start({ onDefect: (error) => defects.push(error) });
    const { relay } = Connection.prototype;
    const spy = spyOn(Connection.prototype, "relay").mockImplementation(function (
      this: Connection,
      chunk: Uint8Array,
      limit: number,
    ) {
      if (chunk.subarray(0, 5).toString() === "throw") throw new TypeError("a defect");
      relay.call(this, chunk, limit);
    });
    try {
      const after = await steadyHere(server.port);
      const other = await peer(server.port);
      for (let i = 1; i <= 10; i++) {
        const doomed = await peer(server.port);
        doomed.socket.write("throw");
        expect(await doomed.ended).toBe("ECONNRESET");
        expect(server.figures).toMatchObject({ broken: i, open: 1 });
      }
      other.socket.end("unharmed");
      expect(await other.ended).toBe("FIN");
      expect(other.got.toString()).toBe("unharmed");
      expect(defects.map((error) => (error as Error).message)).toEqual(new Array(10).fill("a defect"));
      expect((await exchange(server.port, BYTES)).equals(BYTES)).toBe(true);
      other.socket.destroy();
      await after();
    } finally {
      spy.mockRestore();
    }
  },
);
