/** The tutorial's first server: one client after the other, one reply each. An empty client ends it. */
import * as socket from "../socket.ts";

const PORT = Number(process.argv[2] ?? 5000);
const s = socket.socket(socket.AF_INET, socket.SOCK_STREAM);
console.log("Socket created");
try {
  s.bind(["", PORT]);
} catch (msg) {
  if (!(msg instanceof socket.error)) throw msg;
  console.log(`Bind failed. Error Code : ${msg.errno} Message ${msg.strerror}`);
  process.exit(1);
}
console.log("Socket bind complete");
s.listen(10);
console.log("Socket now listening");
if (PORT === 0) console.log(s.getsockname()[1]);

while (true) {
  const [conn, addr] = await s.accept();
  console.log(`Connected with ${addr[0]}:${addr[1]}`);
  const data = await conn.recv(1024);
  if (data.length > 0) await conn.sendall(Buffer.concat([Buffer.from("OK..."), data]));
  // Python closes it when the name stands for the next client; nothing does so here.
  conn.close();
  if (data.length === 0) break;
}
s.close();
