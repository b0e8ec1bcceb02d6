/** A connection for each message: connect, send 64 bytes, have them back, FIN both ways. */
import { Client } from "./client.ts";
import { runWithServers } from "./suite.ts";

const MESSAGE = new Uint8Array(64).fill(120);

async function lap(port: number): Promise<number> {
  const began = Bun.nanoseconds();
  const client = await Client.connect(port);
  await client.exchange(MESSAGE);
  await client.close();
  return Bun.nanoseconds() - began;
}

await runWithServers((compare) => {
  compare("connect, echo 64 bytes, close", async (port) => ({
    lap: () => lap(port),
    close: () => undefined,
  }));
});
