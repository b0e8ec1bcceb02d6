/**
 * What Bun does with TCP, as far as this project relies on it. If a new Bun fails here, the
 * engine needs another look.
 */
import { afterEach, describe, expect, test } from "bun:test";
import { connect } from "node:net";
import { AF_INET, SOCK_STREAM } from "../../src/os/constants.ts";
import {
  bindDescriptor,
  closeDescriptor,
  connectDescriptor,
  descriptorName,
  openDescriptor,
} from "../../src/os/descriptor.ts";
import { libc } from "../../src/os/libc.ts";
import { setBacklog, setReceiveBuffer } from "../../src/os/limits.ts";
import { transportOf, type BunSocket } from "../../src/engine/bun/transport.ts";
import { pattern, peer, stalled, until } from "../support/peers.ts";

type Socket = Bun.Socket<undefined> & { readonly fd: number };
type Handlers = Omit<Bun.SocketHandler<undefined>, "data"> & {
  data?: (socket: Socket, chunk: Buffer) => void;
};

const listeners: Bun.TCPSocketListener<undefined>[] = [];

function listen(handlers: Handlers): Bun.TCPSocketListener<undefined> & { readonly fd: number } {
  const listener = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    allowHalfOpen: true,
    socket: { data() {}, ...(handlers as Bun.SocketHandler<undefined>) },
  });
  listeners.push(listener);
  return listener as typeof listener & { readonly fd: number };
}

afterEach(() => {
  for (const listener of listeners.splice(0)) listener.stop(true);
});

test("Bun's write returns what the kernel takes, queues nothing, and drain follows", async () => {
  const writes: number[] = [];
  let drains = 0;
  const big = pattern(32 << 20);
  const { port } = listen({
    data: (socket) => void writes.push(socket.write(big), socket.write(big)),
    drain: () => void drains++,
  });
  const client = await peer(port);
  client.socket.pause();
  client.socket.write("go");
  await until(() => writes.length === 2, "written");
  expect(writes[0]).toBeGreaterThan(0);
  expect(writes[0]).toBeLessThan(big.length);
  expect(writes[1]).toBe(0);
  expect(drains).toBe(0);
  client.socket.resume();
  await until(
    () => drains > 0 && client.count === writes[0],
    "drained, and nothing more came than was taken",
  );
  client.socket.destroy();
});

test("each chunk that Bun hands over has its own memory", async () => {
  const chunks: Buffer[] = [];
  const { port } = listen({ data: (_, chunk) => void chunks.push(chunk) });
  const client = await peer(port);
  const bytes = pattern(4 << 20);
  client.socket.write(bytes);
  await until(() => chunks.reduce((sum, chunk) => sum + chunk.length, 0) === bytes.length, "all came");
  expect(Buffer.concat(chunks).equals(bytes)).toBe(true);
  for (const chunk of chunks) {
    expect(chunk.byteOffset).toBe(0);
    expect(chunk.buffer.byteLength).toBe(chunk.length);
    expect(chunk.length).toBeLessThanOrEqual(524_288);
  }
  client.socket.destroy();
});

test("a pause inside data holds immediately, for a FIN too, and the order is kept", async () => {
  const events: string[] = [];
  let server: Socket | undefined;
  const { port } = listen({
    data(socket, chunk) {
      events.push(chunk.toString());
      socket.pause();
      server = socket;
    },
    end: () => void events.push("FIN"),
  });
  const client = await peer(port);
  client.socket.write("first");
  await until(() => events.length === 1, "the first chunk");
  client.socket.end("second");
  await Bun.sleep(50);
  expect(events).toEqual(["first"]);
  server!.resume();
  await until(() => events.length === 2, "the second chunk");
  await Bun.sleep(20);
  expect(events).toEqual(["first", "second"]);
  server!.resume();
  await until(() => events.length === 3, "the FIN");
  expect(events).toEqual(["first", "second", "FIN"]);
  client.socket.destroy();
});

test("a reset while paused hands over the kernel's buffer despite the pause before it is reported", async () => {
  const events: string[] = [];
  const { port } = listen({
    data(socket) {
      events.push(events.length === 0 ? "data" : "data while paused");
      socket.pause();
    },
    close: (_, error) => void events.push((error as NodeJS.ErrnoException | undefined)?.code ?? "closed"),
  });
  const client = await stalled(port);
  expect(events).toEqual(["data"]);
  client.socket.resetAndDestroy();
  await until(() => events.includes("ECONNRESET"), "the reset is told");
  expect(events).toContain("data while paused");
});

test("terminate and end call `close` inside the call, when the descriptor is already cleared", async () => {
  for (const how of ["terminate", "end"] as const) {
    const order: string[] = [];
    const { port } = listen({
      data(socket) {
        void Promise.resolve().then(() => order.push("microtask"));
        socket[how]();
        order.push(`after ${how} ${socket.fd} ${socket.write("x")}`);
      },
      close: (socket) => void order.push(`close ${(socket as Socket).fd} ${socket.write("x")}`),
    });
    const client = await peer(port);
    client.socket.write("go");
    await until(() => order.length === 3, "closed");
    expect(order).toEqual(["close -1 -1", `after ${how} -1 -1`, "microtask"]);
    client.socket.destroy();
  }
});

test("a close from outside has cleared the descriptor when `close` is called", async () => {
  const seen: number[] = [];
  const { port } = listen({ close: (socket) => void seen.push((socket as Socket).fd, socket.write("x")) });
  const client = await peer(port);
  client.socket.resetAndDestroy();
  await until(() => seen.length > 0, "closed");
  expect(seen).toEqual([-1, -1]);
});

test("with allowHalfOpen the peer's FIN leaves our direction open; after our shutdown it is `close`", async () => {
  const events: string[] = [];
  const { port } = listen({
    data(socket, chunk) {
      events.push(chunk.toString());
      if (chunk.toString() === "shutdown") {
        socket.shutdown();
        events.push(`write ${socket.write("x")}`);
      }
    },
    end(socket) {
      events.push("end", `write ${socket.write("late")}`);
      socket.end();
    },
    close: () => void events.push("close"),
  });
  const first = await peer(port);
  first.socket.end("a");
  await until(() => events.includes("close"), "closed");
  expect(events.splice(0)).toEqual(["a", "end", "write 4", "close"]);
  expect(first.got.toString()).toBe("late");

  const second = await peer(port);
  second.socket.write("shutdown");
  expect(await second.ended).toBe("FIN");
  second.socket.write("more");
  await until(() => events.includes("more"), "what comes behind our FIN is still read");
  second.socket.end();
  await until(() => events.includes("close"), "closed");
  expect(events).toEqual(["shutdown", "write -1", "more", "close"]);
});

test("an exception in a handler goes to `error`, and the socket stays open", async () => {
  const events: string[] = [];
  const { port } = listen({
    data(socket, chunk) {
      if (chunk.toString() === "throw") throw new Error("a defect");
      socket.write("alive");
    },
    error: (_, error) => void events.push(error.message),
  });
  const client = await peer(port);
  client.socket.write("throw");
  await until(() => events.length === 1, "told");
  client.socket.write("x");
  await until(() => client.count === 5, "alive");
  expect(events).toEqual(["a defect"]);
  client.socket.destroy();
});

test("a socket that `open` terminates is reset and never has a connection in socket.data", async () => {
  let data: unknown = "not told";
  const { port } = listen({
    open: (socket) => socket.terminate(),
    close: (socket) => void (data = socket.data),
  });
  const socket = connect(port, "127.0.0.1");
  const code = await new Promise((resolve) => {
    socket.on("error", (error: NodeJS.ErrnoException) => resolve(error.code));
    socket.on("close", () => resolve("closed"));
  });
  expect(["ECONNRESET", "closed"]).toContain(code as string);
  expect(data).toBeUndefined();
});

test.skipIf(libc === undefined)(
  "listen(2) and SO_RCVBUF on listener.fd take effect and are inherited",
  async () => {
    const listener = listen({});
    expect(listener.fd).toBeGreaterThan(2);
    setBacklog(listener.fd, 3);
    setReceiveBuffer(listener.fd, 100_000);
    expect(() => setBacklog(9999, 3)).toThrow(expect.objectContaining({ code: "EBADF", syscall: "listen" }));
    expect(() => setReceiveBuffer(9999, 3)).toThrow(
      expect.objectContaining({ code: "EBADF", syscall: "setsockopt" }),
    );
  },
);

test("the transport over send(2) returns what Bun's write returns: all, a part followed by a drain, or -1", async () => {
  const results: number[] = [];
  let [drains, early] = [0, -1];
  const block = pattern(16_384);
  const { port } = listen({
    data(socket, chunk) {
      const fast = transportOf(socket as unknown as BunSocket, true);
      if (chunk.toString() === "shutdown") {
        fast.shutdown();
        results.push(fast.write(block, 0, 100));
        return;
      }
      results.push(fast.write(block, 10, 100));
      let taken = block.length;
      while (taken === block.length) results.push((taken = fast.write(block, 0, block.length)));
      results.push(fast.write(block, 0, block.length));
      // Later, the kernel may move bytes on to the peer's side, and ask for more by itself.
      early = drains;
    },
    drain: () => void drains++,
  });
  const client = await peer(port);
  client.socket.pause();
  client.socket.write("go");
  await until(() => results.length > 2, "written");
  expect(results[0]).toBe(100);
  expect(results.at(-1)).toBe(0);
  expect(early).toBe(0);
  const total = results.reduce((sum, taken) => sum + taken, 0);
  client.socket.resume();
  await until(() => drains > 0 && client.count === total, "drained, and what came is what was taken");
  expect(client.got.subarray(0, 100).equals(block.subarray(10, 110))).toBe(true);
  client.socket.write("shutdown");
  expect(await client.ended).toBe("FIN");
  expect(results.at(-1)).toBe(-1);
  client.socket.destroy();
});

describe.skipIf(libc === undefined)("a descriptor of ours that Bun is given", () => {
  test("Bun listens on a descriptor that we bound, and closes it", async () => {
    const fd = openDescriptor(AF_INET, SOCK_STREAM, 0);
    bindDescriptor(fd, AF_INET, ["127.0.0.1", 0]);
    const [, port] = descriptorName(fd, "getsockname") as [string, number];
    const options = {
      fd,
      allowHalfOpen: true,
      socket: { data: (socket: Socket, chunk: Buffer) => void socket.write(chunk) },
    };
    const listener = Bun.listen(options as unknown as Bun.TCPSocketListenOptions<undefined>);
    listeners.push(listener);
    const client = await peer(port);
    client.socket.end("hello");
    await until(() => client.got.toString() === "hello", "the echo");
    client.socket.destroy();
    listener.stop(true);
    await until(() => !isOpen(fd), "the descriptor is closed");
  });

  test("Bun opens a descriptor that connect(2) has begun to connect inside the call", async () => {
    const seen: string[] = [];
    const { port } = listen({ data: (socket, chunk) => void socket.write(chunk) });
    const fd = openDescriptor(AF_INET, SOCK_STREAM, 0);
    connectDescriptor(fd, AF_INET, ["127.0.0.1", port]);
    adopt(fd, seen, "hello");
    expect(seen).toEqual(["open"]);
    await until(() => seen.includes("data hello"), "the echo");
  });

  test("Bun reports a refused connect of our descriptor by `close`, or by `end` if a write took the error", async () => {
    const other = openDescriptor(AF_INET, SOCK_STREAM, 0);
    bindDescriptor(other, AF_INET, ["127.0.0.1", 0]);
    // Bound, and nobody listens.
    const [, port] = descriptorName(other, "getsockname") as [string, number];
    for (const [text, expected] of [
      ["", ["open", "close ECONNREFUSED"]],
      ["hello", ["open", "end", "close undefined"]],
    ] as const) {
      const fd = openDescriptor(AF_INET, SOCK_STREAM, 0);
      expect(connectDescriptor(fd, AF_INET, ["127.0.0.1", port])).toBe(false);
      const seen: string[] = [];
      adopt(fd, seen, text);
      await until(() => seen.at(-1)!.startsWith("close"), "the end");
      expect(seen).toEqual(expected as unknown as string[]);
    }
    closeDescriptor(other);
  });

  function isOpen(fd: number): boolean {
    try {
      descriptorName(fd, "getsockname");
      return true;
    } catch {
      return false;
    }
  }

  /** Hands a descriptor to Bun, and records its events. */
  function adopt(fd: number, seen: string[], text: string): void {
    const options = {
      fd,
      allowHalfOpen: true,
      socket: {
        open(socket: Socket) {
          seen.push("open");
          if (text !== "") socket.write(text);
        },
        data(socket: Socket, chunk: Buffer) {
          seen.push(`data ${chunk.toString()}`);
          socket.terminate();
        },
        end: () => void seen.push("end"),
        close: (_: Socket, error?: NodeJS.ErrnoException) => void seen.push(`close ${error?.code}`),
      },
    };
    Bun.connect(options as unknown as Bun.TCPSocketConnectOptions<undefined>).catch(
      (error: NodeJS.ErrnoException) => {
        seen.push(`rejected ${error.code}`);
      },
    );
  }
});
