/** The tutorial's client: `bun run src/examples/http-client.ts HOST [PORT]` prints what answers GET /. */
import * as socket from "../socket.ts";

const [host, port = "80"] = process.argv.slice(2);
if (host === undefined) {
  console.error("Usage: bun run src/examples/http-client.ts HOST [PORT]");
  process.exit(2);
}

// Create a socket: IPv4 and TCP. Connect it to the remote server.
const sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM);
await sock.connect([host, Number(port)]);

// Send the request. HTTP/1.1 wants a Host, and without "close" the server would not end the reply.
await sock.send(Buffer.from(`GET / HTTP/1.1\r\nHost: ${host}:${port}\r\nConnection: close\r\n\r\n`));

// Receive the reply until its end, and print the bytes as they are.
const stdout = Bun.stdout.writer();
for (let data = await sock.recv(4096); data.length > 0; data = await sock.recv(4096)) {
  stdout.write(data);
  await stdout.flush();
}

// Close the socket.
sock.close();
