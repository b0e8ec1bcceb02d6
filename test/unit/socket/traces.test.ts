/**
 * An error's stack shows the caller's line, although an event raised the error long after the
 * call.
 */
import { afterEach, expect, test } from "bun:test";
import * as socket from "../../../src/socket.ts";
import { closeAll, connection, freeAddress, kept, server } from "../../support/sockets.ts";

const { AF_INET, SOCK_DGRAM } = socket;

afterEach(closeAll);

/** A connection on which nothing comes, whose calls wait for 10 ms. */
async function silent(): Promise<socket.Socket> {
  const { client } = await connection();
  client.settimeout(0.01);
  return client;
}

const CALLS: Record<string, () => Promise<unknown>> = {
  connect: async () => await kept(socket.socket()).connect(freeAddress()),
  create_connection: async () => await socket.create_connection(freeAddress()),
  getaddrinfo: async () => await socket.getaddrinfo("fe80::1%nosuch", 80),
  async accept() {
    const { listener } = server();
    listener.settimeout(0.01);
    await listener.accept();
  },
  async recv() {
    const one = await silent();
    await one.recv(1, { signal: new AbortController().signal });
  },
  async recvfrom() {
    const one = await silent();
    await one.recvfrom(1);
  },
  async recv_into() {
    const one = await silent();
    await one.recv_into(new Uint8Array(1));
  },
  async send() {
    const one = await silent();
    one.shutdown(socket.SHUT_WR);
    await one.send(new Uint8Array(1));
  },
  async sendto() {
    const one = kept(socket.socket(AF_INET, SOCK_DGRAM));
    await one.sendto(new Uint8Array(70_000), ["127.0.0.1", 9]);
  },
};

for (const [name, call] of Object.entries(CALLS)) {
  test(`the stack trace of a failed ${name} leads to the caller`, async () => {
    const error = (await call().catch((error: unknown) => error)) as socket.error;
    expect(error).toBeInstanceOf(socket.error);
    const [, first] = error.stack!.split("\n    at ");
    expect(first).toContain("traces.test.ts");
  });
}
