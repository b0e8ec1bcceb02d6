/**
 * The library's TLS echo server as a program: prints its port, and how many it has accepted when a signal
 * ends that. A connection that fails ends its own task only.
 */
import * as socket from "../../src/socket.ts";
import { cert, key } from "./tls.ts";

async function echo(accepted: socket.Socket): Promise<void> {
  await using conn = accepted;
  for (let bytes = await conn.recv(65_536); bytes.length > 0; bytes = await conn.recv(65_536)) {
    await conn.sendall(bytes);
  }
}

const server = socket.create_server(["127.0.0.1", 0], { tls: { key, cert } });
console.log(server.getsockname()[1]);
// What is under way goes on; then nothing keeps the process.
for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => server.close());
let accepted = 0;
for await (const [conn] of server) {
  accepted++;
  void echo(conn).catch((error: unknown) => {
    if (!(error instanceof socket.error)) throw error;
  });
}
console.log(accepted);
