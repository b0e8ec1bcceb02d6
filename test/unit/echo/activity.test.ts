import { describe, expect, test } from "bun:test";
import { Activity } from "../../../src/echo/activity.ts";
import { servedMs } from "../../../src/echo/drain.ts";
import { echoing } from "../../support/echoing.ts";
import { FakeSocket } from "../../support/fake-socket.ts";

describe("quiet time", () => {
  test("quiet time grows while no byte moves and restarts when one moves in either direction", () => {
    const socket = new FakeSocket(1);
    const { connection } = echoing(socket);
    const activity = new Activity(connection, 10);
    const quiet = (): number => {
      activity.tick(10);
      return activity.quietMs;
    };
    // The period in which a connection comes was not a whole one.
    expect([quiet(), quiet(), quiet()]).toEqual([0, 10, 20]);
    connection.onData(Buffer.from("abc"));
    expect([quiet(), quiet()]).toEqual([0, 10]);
    socket.room = 1;
    connection.onDrain();
    expect(quiet()).toBe(0);
  });

  test("quiet time restarts when a byte is dropped, because a peer that sends after our FIN is not quiet", () => {
    const { connection } = echoing(new FakeSocket());
    const activity = new Activity(connection, 10);
    connection.finish();
    for (let i = 0; i < 3; i++) activity.tick(10);
    expect(activity.quietMs).toBe(20);
    connection.onData(Buffer.from("late"));
    activity.tick(10);
    expect(activity.quietMs).toBe(0);
  });
});

describe("an idle peer", () => {
  /**
   * A peer that was sent 100 bytes, and then polled ten times in a second.
   * @param taken what it acknowledges each time
   */
  function idle(taken: number) {
    const socket = new FakeSocket();
    const { connection } = echoing(socket);
    connection.onData(Buffer.alloc(100));
    socket.unacked = 100;
    const activity = new Activity(connection, 100);
    for (let i = 0; i < 40; i++) {
      if (socket.gone !== undefined) return { socket, ms: i * 100 };
      activity.tick(100);
      socket.unacked = Math.max(0, socket.unacked - taken);
      activity.endIfIdle(300, 100);
    }
    return { socket, ms: Infinity };
  }

  test("an idle peer that takes nothing is closed without a FIN, which its next bytes would miss", () => {
    const { socket, ms } = idle(0);
    expect(socket.gone).toBe("end");
    expect(socket.calls).not.toContain("shutdown");
    expect(ms).toBeGreaterThan(2300);
  });

  test("a peer that still acknowledges what the kernel holds for it is not idle", () => {
    expect(idle(1).ms).toBe(Infinity);
  });

  test("an idle peer that has acknowledged everything gets a FIN", () => {
    expect(idle(100).socket.calls).toContain("shutdown");
  });
});

describe("after our FIN", () => {
  test("a peer that keeps sending after our FIN is reset two seconds later", () => {
    for (const [sends, how] of [
      [false, "end"],
      [true, "terminate"],
    ] as const) {
      const socket = new FakeSocket();
      const { connection } = echoing(socket);
      const activity = new Activity(connection, 1000);
      connection.finish();
      activity.tick(1000);
      activity.endIfLingering();
      expect(socket.gone).toBeUndefined();
      if (sends) connection.onData(Buffer.from("late"));
      activity.tick(1000);
      activity.endIfLingering();
      expect(socket.gone).toBe(how);
    }
  });
});

describe("the time that a stop has given its peers", () => {
  test("a stop counts all the time in which the process works or wakes as often as it should", () => {
    expect(servedMs(50, 0)).toBe(50);
    expect(servedMs(5000, 4900)).toBe(5000);
    // Four processes share the core.
    expect(servedMs(5000, 1250)).toBe(5000);
  });

  test("a stop counts at most two periods of the time in which the process was suspended", () => {
    expect(servedMs(60_000, 0)).toBe(100);
    expect(servedMs(60_000, 10)).toBe(140);
  });
});
