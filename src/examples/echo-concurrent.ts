/** The tutorial's second server: a task for each connection, where the tutorial takes a thread. */
import * as socket from "../socket.ts";

const PORT = Number(process.argv[2] ?? 8889);
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

async function clientthread(conn: socket.Socket): Promise<void> {
  await conn.send(Buffer.from("Welcome to the server. Type something and hit enter\n"));
  for (let data = await conn.recv(1024); data.length > 0; data = await conn.recv(1024))
    await conn.sendall(Buffer.concat([Buffer.from("OK..."), data]));
  conn.close();
}
while (true) {
  const [conn, addr] = await s.accept();
  console.log(`Connected with ${addr[0]}:${addr[1]}`);
  void clientthread(conn).catch(console.error); // A failure ends this connection's task only.
}
