/** Clients for the tests, on node:net: they share no code with what they test. */
import { connect, type Socket } from "node:net";
import { Random } from "./random.ts";

/** Fails when it is not true after ms milliseconds; looks every 5. */
export async function until(condition: () => boolean, what: string, ms = 10_000): Promise<void> {
  const deadline = performance.now() + ms;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`not within ${ms} ms: ${what}`);
    await Bun.sleep(5);
  }
}

/**
 * Bytes with no short period, so that a lost, repeated or moved piece shows. The same seed gives the same
 * bytes.
 */
export function pattern(length: number, seed = 1): Buffer {
  const words = new Uint32Array(Math.ceil(length / 4));
  let x = new Random(seed).between(1, 2 ** 31);
  for (let i = 0; i < words.length; i++) {
    // Xorshift32 (Marsaglia): fast enough for 64 MiB.
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    words[i] = x;
  }
  return Buffer.from(words.buffer, 0, length);
}

export interface Peer {
  readonly socket: Socket;
  /** All that came back so far. */
  readonly got: Buffer;
  /** Bytes that came back so far. */
  readonly count: number;
  /** How it ended: "FIN" once the other side's FIN is in, or the error's code, or "closed". */
  readonly ended: Promise<string>;
}

/** Connects. With allowHalfOpen, so that it is the test that ends it. */
export async function peer(port: number, host = "127.0.0.1"): Promise<Peer> {
  const socket = connect({ port, host, allowHalfOpen: true });
  const chunks: Buffer[] = [];
  let count = 0;
  let tell: (how: string) => void;
  const ended = new Promise<string>((resolve) => {
    tell = resolve;
  });
  socket.on("data", (chunk: Buffer) => {
    chunks.push(chunk);
    count += chunk.length;
  });
  socket.on("end", () => tell("FIN"));
  socket.on("error", (error: NodeJS.ErrnoException) => tell(error.code ?? String(error)));
  socket.on("close", () => tell("closed"));
  await new Promise<void>((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("error", reject);
  });
  return {
    socket,
    ended,
    get got() {
      return Buffer.concat(chunks);
    },
    get count() {
      return count;
    },
  };
}

/** Sends all bytes, half-closes, and returns the bytes that came back before the other side's FIN. */
export async function exchange(port: number, bytes: Uint8Array, host?: string): Promise<Buffer> {
  const client = await peer(port, host);
  client.socket.end(bytes);
  const how = await client.ended;
  client.socket.destroy();
  if (how !== "FIN") throw new Error(`ended by ${how} after ${client.count} of ${bytes.length} bytes`);
  return client.got;
}

/** A peer that sends without end and never reads, until it is stuck for a quarter of a second. */
export async function stalled(port: number): Promise<Peer> {
  const client = await peer(port);
  client.socket.pause();
  const block = pattern(65_536);
  let quiet = performance.now();
  const send = (): void => {
    while (client.socket.write(block)) quiet = performance.now();
    quiet = performance.now();
  };
  client.socket.on("drain", send);
  send();
  await until(() => performance.now() - quiet > 250, "a peer that reads nothing comes to a stop");
  client.socket.off("drain", send);
  return client;
}
