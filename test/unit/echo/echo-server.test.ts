import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync } from "node:fs";
import { CHUNK, heldWhole, RING, start } from "../../support/echo.ts";
import { exchange, pattern, peer, stalled, until } from "../../support/peers.ts";

// A machine that is busy with something else needs more than Bun's 5 seconds; a hang is one after 30 as well.
setDefaultTimeout(30_000);

const sha = (bytes: Uint8Array): string => new Bun.CryptoHasher("sha256").update(bytes).digest("hex");

describe.concurrent("everything comes back, then FIN, when the peer half-closes", () => {
  for (const size of [0, 1, 1000, 100_000, 8 << 20]) {
    test(`${size} bytes come back, then the FIN, when the peer half-closes`, async () => {
      const { port } = await start();
      const bytes = pattern(size);
      const got = await exchange(port, bytes);
      expect(got.equals(bytes)).toBe(true);
    });
  }

  test("64 MiB come back with the same hash, and our code copies none of them", async () => {
    const server = await start();
    const bytes = pattern(64 << 20);
    const got = await exchange(server.port, bytes);
    expect(sha(got)).toBe(sha(bytes));
    await until(() => server.figures.open === 0, "the connection is closed");
    expect(server.figures).toMatchObject({
      bytesIn: 64 << 20,
      bytesOut: 64 << 20,
      bytesCopied: 0,
      held: 0,
      broken: 0,
    });
  });

  test("a peer that reads nothing for two seconds still gets all of its 8 MiB", async () => {
    const server = await start();
    const bytes = pattern(8 << 20);
    const client = await peer(server.port);
    client.socket.pause();
    client.socket.end(bytes);
    await until(() => server.figures.held > 0, "the server holds bytes for the peer");
    // Two seconds are what is tested: time in which nothing may be given up.
    await Bun.sleep(2000);
    const { held, open } = server.figures;
    expect(open).toBe(1);
    expect(held).toBeGreaterThan(0);
    expect(held).toBeLessThanOrEqual(RING + CHUNK);
    client.socket.resume();
    expect(await client.ended).toBe("FIN");
    expect(sha(client.got)).toBe(sha(bytes));
    expect(server.figures.bytesCopied).toBe(0);
    client.socket.destroy();
  });

  test("bytes that are held when the FIN arrives are delivered before ours", async () => {
    const { server, client, bytes } = await heldWhole();
    client.socket.end();
    // The FIN is in the kernel; one turn of the event loop and the server has seen it.
    await Bun.sleep(50);
    expect(server.figures.held).toBeGreaterThan(0);
    client.socket.resume();
    expect(await client.ended).toBe("FIN");
    expect(client.got.equals(bytes)).toBe(true);
    client.socket.destroy();
  });

  test("each of 50 concurrent peers gets its own bytes", async () => {
    const { port } = await start();
    const all = await Promise.all(
      Array.from({ length: 50 }, async (_, i) => {
        const bytes = pattern(200_000 + i, i + 1);
        return (await exchange(port, bytes)).equals(bytes);
      }),
    );
    expect(all.every(Boolean)).toBe(true);
  });

  test("a recv size of 1000 changes no byte", async () => {
    const { port } = await start({ recvSize: 1000 });
    const bytes = pattern(1 << 20);
    expect((await exchange(port, bytes)).equals(bytes)).toBe(true);
  });
});

describe("a peer that does not read", () => {
  test("a peer that does not read is paused: we hold at most the ring and one chunk for it", async () => {
    const server = await start();
    const client = await stalled(server.port);
    const { held, bytesIn } = server.figures;
    expect(held).toBeGreaterThan(0);
    expect(held).toBeLessThanOrEqual(RING + CHUNK);
    client.socket.write(pattern(4 << 20));
    await Bun.sleep(300);
    expect(server.figures).toMatchObject({ held, bytesIn });
    client.socket.destroy();
  });

  test("a peer that did not read gets every byte once it does", async () => {
    const server = await start();
    const client = await stalled(server.port);
    client.socket.end();
    client.socket.resume();
    expect(await client.ended).toBe("FIN");
    expect(client.count).toBe(client.socket.bytesWritten);
    const block = pattern(65_536);
    const { got } = client;
    for (let at = 0; at < got.length; at += block.length) {
      if (!got.subarray(at, at + block.length).equals(block)) throw new Error(`a wrong byte behind ${at}`);
    }
    client.socket.destroy();
    expect(server.figures.bytesCopied).toBe(0);
  });

  test("when a peer that did not read resets, its descriptor and held bytes are released", async () => {
    const server = await start();
    const before = readdirSync("/dev/fd").length;
    const clients = await Promise.all(Array.from({ length: 20 }, () => stalled(server.port)));
    expect(server.figures.open).toBe(20);
    for (const client of clients) client.socket.resetAndDestroy();
    await until(() => server.figures.open === 0, "every connection is closed");
    expect(server.figures).toMatchObject({ held: 0, broken: 20 });
    await until(() => readdirSync("/dev/fd").length <= before, "every descriptor is back");
  });

  test("a peer that does not read does not delay another peer", async () => {
    const server = await start();
    const stuck = await stalled(server.port);
    const bytes = pattern(1 << 20);
    expect((await exchange(server.port, bytes)).equals(bytes)).toBe(true);
    stuck.socket.destroy();
  });
});

describe("slices of one byte", () => {
  for (const reply of ["raw", "tutorial"] as const) {
    test(`with --reply ${reply} and slices of one byte, a large chunk does not delay other peers`, async () => {
      const server = await start({ reply, recvSize: 1 });
      const small = await peer(server.port);
      await until(() => reply === "raw" || small.count > 0, "the banner");
      const large = await peer(server.port);
      large.socket.write(pattern(512 << 10));
      await until(() => server.figures.bytesIn > 0, "the server is at it");
      let worst = 0;
      for (let i = 0; i < 20; i++) {
        const before = small.count;
        const began = performance.now();
        small.socket.write("x");
        await until(() => small.count > before, "the small one is answered");
        worst = Math.max(worst, performance.now() - began);
      }
      // All at once, a chunk of this size took two seconds in raw.
      expect(worst).toBeLessThan(reply === "raw" ? 200 : 90);
      small.socket.destroy();
      large.socket.destroy();
    });
  }
});

describe("resets mid-stream", () => {
  test("300 resets in mid-stream leave no connection and no descriptor behind", async () => {
    const server = await start();
    const before = readdirSync("/dev/fd").length;
    const block = pattern(200_000);
    for (let round = 0; round < 30; round++) {
      await Promise.all(
        Array.from({ length: 10 }, async () => {
          const client = await peer(server.port);
          client.socket.write(block);
          client.socket.once("data", () => client.socket.resetAndDestroy());
          await client.ended;
        }),
      );
    }
    await until(() => server.figures.open === 0, "every connection is closed");
    expect(server.figures.connections).toBe(300);
    expect(server.figures.held).toBe(0);
    await until(() => readdirSync("/dev/fd").length <= before, "every descriptor is back");
  });

  test("no byte of a connection reaches the next connection on the same descriptor", async () => {
    // Every peer sends its own byte only; half of them reset while replies are under way, so that descriptor
    // numbers are reused at once. A write that follows a close would show as a foreign byte.
    const { port } = await start();
    let foreign = 0;
    const visit = async (id: number): Promise<void> => {
      const mine = 1 + (id % 255);
      const client = await peer(port);
      client.socket.removeAllListeners("data");
      let count = 0;
      client.socket.on("data", (chunk: Buffer) => {
        foreign += chunk.reduce((wrong, byte) => wrong + Number(byte !== mine), 0);
        count += chunk.length;
        if (count >= 5000 && id % 2 === 0) client.socket.resetAndDestroy();
        else if (count === 20_000) client.socket.end();
      });
      for (let i = 0; i < 20; i++) client.socket.write(Buffer.alloc(1000, mine));
      await client.ended;
      client.socket.destroy();
    };
    for (let round = 0; round < 20; round++) {
      await Promise.all(Array.from({ length: 40 }, (_, i) => visit(round * 40 + i)));
    }
    expect(foreign).toBe(0);
  });
});

describe("the tutorial's replies", () => {
  test("the tutorial's reply is a banner, then OK... and the bytes", async () => {
    const server = await start({ reply: "tutorial" });
    const got = await exchange(server.port, Buffer.from("hello\n"));
    expect(got.toString()).toBe("Welcome to the server. Type something and hit enter\nOK...hello\n");
    await until(() => server.figures.open === 0, "the connection is closed");
    expect(server.figures.bytesCopied).toBe(6);
  });

  test("the tutorial's replies to a long stream have at most 1024 bytes each, in order", async () => {
    const server = await start({ reply: "tutorial" });
    const bytes = Buffer.alloc(1 << 20, "0123456789abcdef");
    const got = await exchange(server.port, bytes);
    const [banner, ...replies] = got.toString().split("OK...");
    expect(banner).toBe("Welcome to the server. Type something and hit enter\n");
    expect(replies.every((reply) => reply.length >= 1 && reply.length <= 1024)).toBe(true);
    expect(replies.join("") === bytes.toString()).toBe(true);
    expect(server.figures.bytesCopied).toBe(1 << 20);
  });

  test("a peer that does not read the tutorial's replies is paused as well", async () => {
    const server = await start({ reply: "tutorial", recvSize: 10 });
    const client = await stalled(server.port);
    expect(server.figures.held).toBeLessThanOrEqual(RING + CHUNK + 66_000);
    client.socket.destroy();
  });

  test("a reply as large as a chunk counts as one chunk beyond the ring", async () => {
    const server = await start({ reply: "tutorial", recvSize: 1 << 30 });
    const client = await stalled(server.port);
    expect(server.figures.held).toBeGreaterThan(0);
    expect(server.figures.held).toBeLessThanOrEqual(RING + CHUNK + 5);
    client.socket.destroy();
  });
});
