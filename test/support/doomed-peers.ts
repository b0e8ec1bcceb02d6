/**
 * doomed-peers.ts PORT COUNT sending|reading: peers that are in the middle of sending and reading, or of
 * reading slowly what they have sent; says so in one line, and goes on until it is killed.
 */
import { pattern, peer, until } from "./peers.ts";

const [port, count, doing] = [Number(process.argv[2]), Number(process.argv[3]), process.argv[4]];
const block = pattern(1 << 20);

async function sending(): Promise<void> {
  const client = await peer(port);
  const send = (): void => {
    while (client.socket.write(block));
  };
  client.socket.on("drain", send);
  send();
  await until(() => client.count > 4 << 20, "the stream runs");
}

async function reading(): Promise<void> {
  const client = await peer(port);
  client.socket.on("data", () => {
    client.socket.pause();
    setTimeout(() => client.socket.resume(), 50);
  });
  for (let i = 0; i < 16; i++) client.socket.write(block);
  client.socket.end();
  await until(() => client.count > 1 << 18, "some of it is back");
  if (client.count >= 16 << 20) throw new Error("all of it is back already");
}

await Promise.all(Array.from({ length: count }, doing === "sending" ? sending : reading));
console.log("in the middle");
