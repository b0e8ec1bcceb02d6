import { describe, expect, test } from "bun:test";
import { echoing } from "../../support/echoing.ts";
import { FakeSocket } from "../../support/fake-socket.ts";

const bytes = (length: number, first = 0): Buffer =>
  Buffer.from(Array.from({ length }, (_, i) => (first + i) % 251));

describe("recv-sized slicing", () => {
  test("with --reply raw, no write is larger than the recv size, and the bytes are unchanged", () => {
    const socket = new FakeSocket(25);
    const { connection } = echoing(socket, "raw", 10);
    connection.onData(bytes(32));
    expect(socket.calls).toEqual(["write 10 -> 10", "write 10 -> 10", "write 10 -> 5"]);
    socket.room = Infinity;
    connection.onDrain();
    expect(socket.calls.slice(3)).toEqual(["write 7 -> 7"]);
    expect(socket.bytes).toEqual(bytes(32));
    expect(connection).toMatchObject({ copied: 0, held: 0 });
  });

  test("with --reply tutorial, OK... precedes each slice, and each byte is copied once", () => {
    const socket = new FakeSocket();
    const { connection, reply } = echoing(socket, "tutorial", 4);
    reply.onOpen(connection);
    connection.onData(Buffer.from("abcdefghij"));
    connection.onData(Buffer.from("k"));
    expect(socket.bytes.toString()).toBe(
      "Welcome to the server. Type something and hit enter\nOK...abcdOK...efghOK...ijOK...k",
    );
    expect(connection.copied).toBe(11);
  });

  test("with --reply tutorial, 1024 bytes make one reply and 1025 make two", () => {
    const socket = new FakeSocket();
    const { connection } = echoing(socket, "tutorial");
    connection.onData(bytes(1024));
    expect(socket.bytes).toEqual(Buffer.concat([Buffer.from("OK..."), bytes(1024)]));
    connection.onData(bytes(1025));
    expect(connection.sent).toBe(1029 + 1025 + 10);
  });

  test("with --reply raw, a tiny recv size has bounded writes per event and continues in the next turn", async () => {
    const socket = new FakeSocket();
    const { connection } = echoing(socket, "raw", 1);
    connection.onData(bytes(1000));
    expect(connection.sent).toBeLessThan(300);
    while (connection.held > 0) await new Promise((resolve) => setImmediate(resolve));
    expect(socket.bytes).toEqual(bytes(1000));
  });

  test("with --reply tutorial, a small recv size does not multiply the bytes held", () => {
    const socket = new FakeSocket(0);
    const { connection } = echoing(socket, "tutorial", 1);
    connection.onData(bytes(524_288));
    expect(connection.held).toBeLessThan(524_288 + 65_536 + 6);
  });
});
