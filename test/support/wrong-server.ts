/** Echo servers that each do one thing wrong, for the soak's tests: `wrong-server.ts <what> <port>`. */
import { openSync } from "node:fs";

interface Peer {
  waiting: Buffer[];
  ended: boolean;
}

const [what, port] = process.argv.slice(2);
const kept: unknown[] = [];
let seen = 0;

if (what === "spins") {
  setInterval(() => {
    for (const until = performance.now() + 1; performance.now() < until;);
  }, 10);
}

function alter(chunk: Buffer): void {
  if (what === "leaks") kept.push(Buffer.from(chunk));
  if (what === "alters" && seen < 1e6 && seen + chunk.length >= 1e6) chunk[chunk.length >> 1]! ^= 1;
  if (what === "crashes" && seen > 1e6) {
    console.error("out of luck");
    process.exit(3);
  }
  seen += chunk.length;
}

function flush(socket: Bun.Socket<Peer>): void {
  const { waiting } = socket.data;
  for (let first = waiting.shift(); first !== undefined; first = waiting.shift()) {
    const sent = socket.write(first);
    if (sent < 0) return void socket.terminate();
    if (sent === first.length) continue;
    waiting.unshift(first.subarray(sent));
    return void socket.pause();
  }
  socket.resume();
  if (socket.data.ended) socket.shutdown();
}

Bun.listen<Peer>({
  hostname: "127.0.0.1",
  port: Number(port),
  allowHalfOpen: true,
  socket: {
    open(socket) {
      socket.data = { waiting: [], ended: false };
      if (what === "opens") kept.push(openSync("/dev/null", "r"));
    },
    data(socket, chunk) {
      alter(chunk);
      socket.data.waiting.push(chunk);
      flush(socket);
    },
    drain: flush,
    end(socket) {
      socket.data.ended = true;
      flush(socket);
    },
    error: (socket) => void socket.terminate(),
  },
});
