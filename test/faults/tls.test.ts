/** Bytes that are not TLS, sent to a TLS port of the library. */
import { afterEach, expect, setDefaultTimeout, test } from "bun:test";
import { connect } from "node:tls";
import { steady } from "../support/faults.ts";
import { pattern } from "../support/peers.ts";
import { ROOT } from "../support/program.ts";
import { connected, hasRaw, type RawPeer } from "../support/raw-peer.ts";
import { cert } from "../support/tls.ts";

setDefaultTimeout(30_000);

let child: Bun.Subprocess<"ignore", "pipe", "pipe"> | undefined;
afterEach(() => child?.kill("SIGKILL"));

const BYTES = pattern(300_000, 8);

/** What a real client gets back. */
function exchange(port: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let count = 0;
    const client = connect({ port, host: "127.0.0.1", ca: cert, servername: "localhost" });
    client.on("secureConnect", () => client.write(BYTES));
    client.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      count += chunk.length;
      if (count >= BYTES.length) client.end();
    });
    client.on("error", reject);
    client.on("close", () => resolve(Buffer.concat(chunks)));
  });
}

/** A ClientHello as a real client sends it: the first thing that comes to a plain listener. */
async function clientHello(): Promise<Buffer> {
  const { promise, resolve } = Promise.withResolvers<Buffer>();
  const listener = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: { data: (_, bytes) => resolve(bytes) },
  });
  const client = connect({ port: listener.port, host: "127.0.0.1" }).on("error", () => undefined);
  const hello = await promise;
  client.destroy();
  listener.stop(true);
  return hello;
}

test.skipIf(!hasRaw)(
  "beside garbage, plain HTTP, half a ClientHello and immediate closes, real TLS clients are served",
  async () => {
    child = Bun.spawn([process.execPath, "run", `${ROOT}/test/support/tls-echo.ts`], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    const output = child.stdout.getReader();
    const says = async (): Promise<number> => Number(Buffer.from((await output.read()).value!).toString());
    const port = await says();
    const hello = await clientHello();
    expect(hello[0]).toBe(22);
    let clients = 0;
    const check = async (): Promise<void> => {
      clients++;
      expect((await exchange(port)).equals(BYTES)).toBe(true);
    };
    const after = await steady({ pid: child.pid, port }, { check });

    const garbage: Record<string, Uint8Array> = {
      "random bytes": pattern(20_000, 4),
      "plain HTTP": Buffer.from("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
      "a record of the greatest length with nothing in it": Buffer.concat([
        hello.subarray(0, 3),
        pattern(40_000, 6),
      ]),
    };
    const silent: RawPeer[] = [];
    for (let i = 0; i < 20; i++) {
      const one = await connected(port);
      one.send(hello.subarray(0, hello.length >> 1));
      silent.push(one);
    }
    for (let round = 0; round < 5; round++) {
      for (const [what, bytes] of Object.entries(garbage)) {
        const peers = await Promise.all(Array.from({ length: 20 }, () => connected(port)));
        for (const one of peers) one.send(bytes);
        await check();
        // An alert may come first, and ends the connection.
        for (const one of peers) {
          await one.rest();
          expect(`${what}: ${one.ended}`).toMatch(/: (FIN|ECONNRESET)$/);
          one.close();
        }
      }
      for (let i = 0; i < 100; i++) {
        const one = await connected(port);
        if (i % 4 > 1) one.send(hello.subarray(0, 1 + ((i * 7) % (hello.length - 1))));
        if (i % 2 === 0) one.close();
        else one.reset();
        if (i % 50 === 49) await check();
      }
    }
    await check();
    // Who begins a handshake and says no more has ten seconds for it; these are gone before.
    for (const one of silent) {
      one.recv();
      expect(one.ended).toBeUndefined();
      one.close();
    }
    await after();
    child.kill("SIGTERM");
    // accept() has given nobody else.
    expect(await says()).toBe(clients);
  },
);
