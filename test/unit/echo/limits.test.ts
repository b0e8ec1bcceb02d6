import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { connectionLimit, type EchoOptions } from "../../../src/echo/echo-server.ts";
import { addressText } from "../../../src/os/address.ts";
import { heldWhole, start } from "../../support/echo.ts";
import { exchange, pattern, peer, stalled, until } from "../../support/peers.ts";

// A machine that is busy with something else needs more than Bun's 5 seconds; a hang is one after 30 as well.
setDefaultTimeout(30_000);

describe("the limit of connections", () => {
  test("connections beyond the limit are reset immediately, others are served, and a freed place is reused", async () => {
    const server = await start({ maxConnections: 2 });
    const first = await peer(server.port);
    const second = await peer(server.port);
    await until(() => server.figures.open === 2, "two are open");
    const third = await peer(server.port).then(
      (client) => client.ended,
      (error: NodeJS.ErrnoException) => error.code,
    );
    expect(["ECONNRESET", "closed"]).toContain(third!);
    expect(server.figures).toMatchObject({ connections: 2, refused: 1 });
    first.socket.write("still here");
    await until(() => first.count === 10, "the first one is served");
    first.socket.end();
    second.socket.end();
    await until(() => server.figures.open === 0, "both are closed");
    expect((await exchange(server.port, Buffer.from("next"))).toString()).toBe("next");
  });

  test("a connection limit beyond the descriptor limit is refused before anything listens", async () => {
    await expect(start({ maxConnections: connectionLimit() + 1 })).rejects.toThrow(RangeError);
  });
});

// These wait for real timers, side by side.
describe.concurrent("the idle timeout", () => {
  test("the idle timeout sends a FIN to a silent peer and closes the connection even if it stays", async () => {
    const server = await start({ idleTimeout: 0.2 });
    const client = await peer(server.port);
    client.socket.write("x");
    expect(await client.ended).toBe("FIN");
    expect(client.got.toString()).toBe("x");
    expect(server.figures.open).toBe(1);
    await until(() => server.figures.open === 0, "the lingering connection is closed", 4000);
    client.socket.destroy();
  });

  test("the idle timeout resets a peer for which bytes are held, so that it cannot mistake them for all", async () => {
    const server = await start({ idleTimeout: 0.5 });
    const client = await stalled(server.port);
    await until(() => server.figures.open === 0, "the stalled connection is closed", 4000);
    expect(server.figures.broken).toBe(1);
    client.socket.resume();
    expect(await client.ended).toBe("ECONNRESET");
  });

  test("bytes that arrive after the idle timeout's FIN are counted as dropped", async () => {
    const server = await start({ idleTimeout: 0.2 });
    const client = await peer(server.port);
    expect(await client.ended).toBe("FIN");
    client.socket.end("too late");
    await until(() => server.figures.open === 0, "the connection is closed");
    expect(server.figures).toMatchObject({ bytesIn: 0, bytesDropped: 8 });
  });

  test("the idle timeout spares a peer that sends a byte now and then", async () => {
    const server = await start({ idleTimeout: 0.4 });
    const client = await peer(server.port);
    for (let i = 0; i < 8; i++) {
      client.socket.write("x");
      await until(() => client.count === i + 1, "the byte comes back");
      await Bun.sleep(100);
    }
    expect(server.figures.open).toBe(1);
    client.socket.destroy();
  });
});

// Alone, since this process is the slow peer, and must not be slower than it means to be.
test.skipIf(process.platform !== "linux")(
  "the idle timeout spares a slow peer to which the kernel still delivers",
  async () => {
    const server = await start({ idleTimeout: 0.5 });
    const client = await stalled(server.port);
    // Far less than a third of what the kernel holds: it asks us for nothing, and still the peer reads all
    // the while.
    const began = performance.now();
    client.socket.on("data", () => {
      client.socket.pause();
      setTimeout(() => client.socket.resume(), 100);
    });
    client.socket.resume();
    await until(
      () => performance.now() - began > 2000 || server.figures.open === 0,
      "four times the timeout",
    );
    expect(server.figures.open).toBe(1);
    client.socket.destroy();
  },
);

describe.concurrent("a stop", () => {
  test("a stop ends an idle peer with a FIN and does not wait for its timeout", async () => {
    const server = await start();
    const client = await peer(server.port);
    client.socket.write("x");
    await until(() => client.count === 1, "the byte comes back");
    const began = performance.now();
    const stopped = server.stop(10);
    expect(await client.ended).toBe("FIN");
    client.socket.end();
    await stopped;
    expect(performance.now() - began).toBeLessThan(3000);
  });

  test("a stop returns everything a slow peer had sent before the FIN", async () => {
    const server = await start();
    const client = await peer(server.port);
    client.socket.pause();
    const bytes = pattern(8 << 20);
    client.socket.write(bytes);
    await until(() => server.figures.held > 0, "the server holds bytes for the peer");
    const stopped = server.stop(15);
    await Bun.sleep(500);
    client.socket.resume();
    expect(await client.ended).toBe("FIN");
    expect(client.got.equals(bytes)).toBe(true);
    client.socket.end();
    await stopped;
  });

  test("a stop resets a peer that keeps sending, after everything echoed; a FIN would claim completeness", async () => {
    const server = await start();
    const client = await peer(server.port);
    const block = pattern(65_536);
    const send = (): void => {
      while (!client.socket.destroyed && client.socket.write(block));
    };
    client.socket.on("drain", send);
    send();
    await until(() => client.count > 1 << 20, "the stream runs");
    const stopped = server.stop(1);
    expect(await client.ended).toBe("ECONNRESET");
    await stopped;
    expect(server.figures).toMatchObject({ broken: 1, bytesDropped: 0, bytesOut: client.count });
    const { got } = client;
    for (let at = 0; at + block.length <= got.length; at += block.length) {
      if (!got.subarray(at, at + block.length).equals(block)) throw new Error(`a wrong byte after ${at}`);
    }
    client.socket.destroy();
  });

  test("a stop resets a peer that waits for each answer, because its last message has none", async () => {
    const server = await start();
    const client = await peer(server.port);
    // It thinks for a moment before each message.
    client.socket.on("data", () => setTimeout(() => client.socket.write("x"), 5));
    client.socket.write("x");
    await until(() => client.count > 10, "it is served");
    const stopped = server.stop(1);
    expect(await client.ended).toBe("ECONNRESET");
    await stopped;
    expect(server.figures).toMatchObject({ broken: 1, bytesDropped: 0, bytesOut: client.count });
  });

  test("a stop at its timeout resets a peer for which bytes are held", async () => {
    const { server, client } = await heldWhole();
    await server.stop(0.2);
    client.socket.resume();
    expect(await client.ended).toBe("ECONNRESET");
  });

  test("a stop at its timeout closes quiet peers and resets those for which bytes are held", async () => {
    const server = await start();
    const quiet = await peer(server.port);
    const stuck = await stalled(server.port);
    const began = performance.now();
    await server.stop(1);
    const took = performance.now() - began;
    expect(took).toBeGreaterThan(900);
    expect(took).toBeLessThan(1500);
    expect(await quiet.ended).toBe("FIN");
    stuck.socket.resume();
    expect(await stuck.ended).toBe("ECONNRESET");
    quiet.socket.destroy();
  });

  test("a stop keeps serving a peer whose FIN has arrived after it stops reading from others", async () => {
    const server = await start();
    const client = await peer(server.port);
    client.socket.pause();
    const bytes = pattern(5 << 20);
    client.socket.end(bytes);
    await until(() => server.figures.held > 0, "the server holds bytes for the peer");
    const stopped = server.stop(2);
    // From a second on, nothing more is read of peers that may go on.
    await Bun.sleep(1300);
    client.socket.resume();
    expect(await client.ended).toBe("FIN");
    expect(client.got.equals(bytes)).toBe(true);
    await stopped;
    expect(server.figures.broken).toBe(0);
  });

  test("a stop accepts no new connection, and a second stop is the same stop", async () => {
    const server = await start();
    const client = await peer(server.port);
    const stopped = server.stop(5);
    expect(server.stop(0)).toBe(stopped);
    expect(await client.ended).toBe("FIN");
    const refused = await peer(server.port).then(
      () => "connected",
      (error: NodeJS.ErrnoException) => error.code,
    );
    expect(refused).toBe("ECONNREFUSED");
    client.socket.end();
    await stopped;
  });
});

describe("a peer that resets", () => {
  test("a peer that has everything and resets, as health checks do, does not count as broken", async () => {
    const server = await start();
    const silent = await peer(server.port);
    const asks = await peer(server.port);
    asks.socket.write("PING");
    await until(() => asks.count === 4, "it has its echo");
    silent.socket.resetAndDestroy();
    asks.socket.resetAndDestroy();
    await until(() => server.figures.open === 0, "both are gone");
    expect(server.figures).toMatchObject({ connections: 2, broken: 0 });
  });

  test("a peer that resets while bytes are held for it counts as broken", async () => {
    const { server, client } = await heldWhole();
    client.socket.resetAndDestroy();
    await until(() => server.figures.open === 0, "it is gone");
    expect(server.figures).toMatchObject({ connections: 1, broken: 1 });
  });
});

describe("where it listens", () => {
  test('"" is every interface, by IPv4 and by IPv6', async () => {
    const { port, host } = await start({ host: "" });
    expect((await exchange(port, Buffer.from("four"), "127.0.0.1")).toString()).toBe("four");
    if (host === "::") expect((await exchange(port, Buffer.from("six"), "::1")).toString()).toBe("six");
  });

  test("the server resolves a host name and shows an IPv6 address in brackets", async () => {
    const server = await start({ host: "localhost" });
    expect(["127.0.0.1", "::1"]).toContain(server.host);
    expect(addressText(["::1", 80])).toBe("[::1]:80");
    expect(addressText(["127.0.0.1", 80])).toBe("127.0.0.1:80");
  });

  test("a busy port, an unknown host and another machine's address are errors with a code", async () => {
    const { port } = await start();
    const code = (options: Partial<EchoOptions>): Promise<object> =>
      start(options).then(
        () => ({}),
        ({ name, code, errno, syscall, address }) => ({ name, code, errno, syscall, address }),
      );
    expect(await code({ port })).toEqual({
      name: "OSError",
      code: "EADDRINUSE",
      errno: process.platform === "linux" ? 98 : 48,
      syscall: "listen",
      address: `127.0.0.1:${port}`,
    });
    expect(await code({ host: "nosuch.invalid" })).toMatchObject({
      syscall: "getaddrinfo",
      address: "nosuch.invalid",
    });
    expect(await code({ host: "192.0.2.1" })).toMatchObject({
      code: "EADDRNOTAVAIL",
      address: "192.0.2.1:0",
    });
  });
});
