/**
 * node-net-write.mjs PORT: an echo server on node:net by hand, without a pipe between data and write. Runs on Node
 * and on Bun.
 *
 * Tried and left out. CPU a message, 8 connections of 64 KiB, 4 in flight, median of 5 starts, on Node: 85 µs as it
 * is, 103 µs with a highWaterMark of 64 KiB, 97 µs with a `drain` listener only while paused, 102 µs with
 * --max-semi-space-size=64; in another series 95 µs as it is, 103 µs with 256 KiB, 117 µs with 1 MiB. On Bun: 47 µs,
 * 49 µs with 64 KiB, 44 µs with the listener only while paused (single starts 37 to 55 µs).
 */
import { createServer } from "node:net";

const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
  socket.on("data", (chunk) => {
    if (!socket.write(chunk)) socket.pause();
  });
  socket.on("drain", () => socket.resume());
  socket.on("end", () => socket.end());
  // A reset peer ends its own connection; without a listener it would end the program.
  socket.on("error", () => socket.destroy());
});
server.listen(Number(process.argv[2]), "127.0.0.1");
