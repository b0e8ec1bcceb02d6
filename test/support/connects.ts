/**
 * Run as a program: ten thousand connects and closes after as many, in a process of their own, whose memory
 * no other test shares.
 * Prints, as JSON, what the second half left: descriptors, and bytes of resident memory.
 */
import * as socket from "../../src/socket.ts";
import { openDescriptors } from "./sockets.ts";

const listener = socket.create_server(["127.0.0.1", 0]);
const address = listener.getsockname();

async function cycles(count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const client = socket.socket();
    await client.connect(address);
    const [conn] = await listener.accept();
    await conn.sendall(Buffer.from("x"));
    await client.recv(1);
    await Promise.all([client[Symbol.asyncDispose](), conn[Symbol.asyncDispose]()]);
  }
  // The work that the last ones left to a later turn is done, and can be collected.
  await Bun.sleep(100);
  Bun.gc(true);
}

const memory = (): number => process.memoryUsage.rss();

// At first the allocator and the collector are looking for their working size, and find more than they need.
await cycles(5000);
let most = memory();
await cycles(5000);
most = Math.max(most, memory());
const descriptors = openDescriptors();
await cycles(10_000);
console.log(
  JSON.stringify({
    descriptors: openDescriptors() - descriptors,
    bytes: memory() - most,
  }),
);
listener.close();
