/**
 * An echo server that probes silent peers after a second; it prints its port, and later how many
 * peers are left.
 */
import { EchoServer } from "../../src/echo/echo-server.ts";

const host = process.argv[2]!;
const base = { host, port: 0, reply: "raw", ring: 65_536, idleTimeout: 0 } as const;
const server = await EchoServer.listen({ ...base, keepalive: 1 });
console.log(`port ${server.port}`);
let before = 0;
setInterval(() => {
  const { open, broken } = server.figures;
  if (before > 0 && open === 0) console.log(`gone, ${broken} broken`);
  before = open;
}, 20);
