/**
 * small-peer.ts PORT [LAPS]: three windows of 300 (or LAPS) round trips of 4 bytes; prints the p99 of each,
 * in milliseconds, as JSON.
 */
import { peer } from "./peers.ts";

const LAPS = Number(process.argv[3] ?? 300);
const client = await peer(Number(process.argv[2]));
const p99s: number[] = [];
for (let window = 0; window < 3; window++) {
  const laps: number[] = [];
  while (laps.length < LAPS) {
    const began = performance.now();
    const before = client.count;
    client.socket.write("ping");
    await new Promise<void>((resolve) => {
      client.socket.on("data", function check() {
        if (client.count < before + 4) return;
        client.socket.off("data", check);
        resolve();
      });
    });
    laps.push(performance.now() - began);
  }
  p99s.push(laps.sort((a, b) => a - b)[Math.floor(laps.length * 0.99)]!);
}
console.log(JSON.stringify(p99s));
client.socket.destroy();
