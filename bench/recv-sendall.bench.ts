/**
 * A message there and back between two sockets of one process: recv and sendall, awaited, against the
 * handlers of bare Bun sockets. There is no server here whose time could hide what the library costs.
 */
import { unlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as socket from "../src/socket.ts";
import { compareLaps, runSuite, type Laps } from "./suite.ts";

type Conn = Pick<socket.Socket, "recv" | "sendall" | "close">;

async function echo(conn: Conn): Promise<void> {
  for (let data = await conn.recv(65_536); data.length > 0; data = await conn.recv(65_536)) {
    await conn.sendall(data);
  }
  conn.close();
}

function awaited(near: Conn, far: Conn, size: number): Laps {
  const message = Buffer.alloc(size, "x");
  const echoing = echo(far);
  return {
    async lap() {
      const began = Bun.nanoseconds();
      await near.sendall(message);
      for (let left = size; left > 0;) {
        const data = await near.recv(65_536);
        if (data.length === 0) throw new Error(`the end came ${left} bytes too early`);
        left -= data.length;
      }
      return Bun.nanoseconds() - began;
    },
    async close() {
      near.close();
      await echoing;
    },
  };
}

async function tcpPair(): Promise<[Conn, Conn]> {
  using listener = socket.create_server(["127.0.0.1", 0]);
  const [near, [far]] = await Promise.all([
    socket.create_connection(listener.getsockname()),
    listener.accept(),
  ]);
  return [near, far];
}

type Address = { hostname: string; port: number } | { unix: string };

/** Handlers on both sides; a short write's rest is kept. */
async function bare(address: Address, size: number): Promise<Laps> {
  const message = Buffer.alloc(size, "x");
  const unsent = new WeakMap<object, Uint8Array>();
  const send = (to: Bun.Socket, bytes: Uint8Array): void => {
    const sent = to.write(bytes);
    if (sent < bytes.length) unsent.set(to, bytes.subarray(Math.max(sent, 0)));
  };
  const drain = (to: Bun.Socket): void => {
    const rest = unsent.get(to);
    unsent.delete(to);
    if (rest !== undefined) send(to, rest);
  };
  // Bun's types want to know which kind of address it is, and both are served alike.
  const listener = Bun.listen({ ...address, socket: { data: send, drain } } as Bun.TCPSocketListenOptions);
  let left = 0;
  let arrived = (): void => {};
  const counting = {
    drain,
    data(_: Bun.Socket, chunk: Uint8Array) {
      left -= chunk.length;
      if (left === 0) arrived();
    },
  };
  const to = "unix" in address ? address : { ...address, port: listener.port };
  const near = await Bun.connect({ ...to, socket: counting } as Bun.TCPSocketConnectOptions);
  // Nobody else is to connect, and whichever way this ends, no file is left.
  if ("unix" in address) unlinkSync(address.unix);
  return {
    async lap() {
      const began = Bun.nanoseconds();
      const back = new Promise<void>((resolve) => (arrived = resolve));
      left = size;
      send(near, message);
      await back;
      return Bun.nanoseconds() - began;
    },
    close() {
      near.end();
      listener.stop(true);
    },
  };
}

const path = join(tmpdir(), `ringback-bench-${process.pid}`);

for (const size of [64, 65_536]) {
  compareLaps(`there and back over Unix sockets, ${size} bytes`, [
    { name: "recv/sendall", open: async () => awaited(...socket.socketpair(), size) },
    { name: "bare Bun sockets", open: () => bare({ unix: path }, size) },
  ]);
  compareLaps(`there and back over TCP, ${size} bytes`, [
    { name: "recv/sendall", open: async () => awaited(...(await tcpPair()), size) },
    { name: "bare Bun sockets", open: () => bare({ hostname: "127.0.0.1", port: 0 }, size) },
  ]);
}

await runSuite();
