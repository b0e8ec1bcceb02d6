/** The tutorial's second server with what this library adds: `for await`, `await using` and `signal`. */
import * as socket from "../socket.ts";

const PORT = Number(process.argv[2] ?? 8889);
const stop = new AbortController();
const until = { signal: stop.signal };
for (const name of ["SIGINT", "SIGTERM"]) process.once(name, () => stop.abort());

async function clienttask(accepted: socket.Socket): Promise<void> {
  await using conn = accepted;
  await conn.sendall(Buffer.from("Welcome to the server. Type something and hit enter\n"), until);
  for (let data = await conn.recv(1024, until); data.length > 0; data = await conn.recv(1024, until))
    await conn.sendall(Buffer.concat([Buffer.from("OK..."), data]), until);
}
try {
  await using s = socket.create_server(["", PORT], { backlog: 10 });
  stop.signal.addEventListener("abort", () => s.close());
  console.log("Socket now listening");
  if (PORT === 0) console.log(s.getsockname()[1]);
  for await (const [conn, addr] of s) {
    console.log(`Connected with ${addr[0]}:${addr[1]}`);
    clienttask(conn).catch((error: unknown) => stop.signal.aborted || console.error(error));
  }
} catch (msg) {
  if (!(msg instanceof socket.error)) throw msg;
  console.log(`Bind failed. Error Code : ${msg.errno} Message ${msg.strerror}`);
  process.exitCode = 1;
}
