/**
 * node-net-write.mjs PORT: an echo server on node:net by hand, without a pipe between data and write. Runs on Node
 * and on Bun.
 *
 * Tried and left out, for the same reason as in node-net-pipe.mjs: a highWaterMark of 64 KiB, 256 KiB or 1 MiB, a
 * `drain` listener only while paused, and Node's --max-semi-space-size=64 (medians of 5 starts, 8 connections of
 * 64 KiB, 4 in flight: 85 µs of CPU a message as it is, 97 to 103 with these).
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
