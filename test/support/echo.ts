/**
 * An echo server in the test's own process, stopped after the file's last test, since some run
 * side by side.
 */
import { afterAll, expect } from "bun:test";
import { EchoServer, type EchoOptions } from "../../src/echo/echo-server.ts";
import { pattern, peer, until } from "./peers.ts";

export const CHUNK = 524_288;
export const RING = 65_536;

const servers: EchoServer[] = [];

export async function start(options: Partial<EchoOptions> = {}): Promise<EchoServer> {
  const server = await EchoServer.listen({
    host: "127.0.0.1",
    port: 0,
    reply: "raw",
    ring: RING,
    idleTimeout: 0,
    onDefect: (error) => {
      throw error;
    },
    ...options,
  });
  servers.push(server);
  return server;
}

afterAll(async () => {
  await Promise.all(servers.splice(0).map((server) => server.stop(0)));
});

/**
 * A peer whose 6 MiB are all here: what its kernel could not take back is held in a ring that is not full.
 */
export async function heldWhole() {
  const server = await start({ ring: 64 << 20 });
  const client = await peer(server.port);
  client.socket.pause();
  const bytes = pattern(6 << 20);
  client.socket.write(bytes);
  await until(() => server.figures.bytesIn === bytes.length, "all is with the server");
  expect(server.figures.held).toBeGreaterThan(0);
  return { server, client, bytes };
}
