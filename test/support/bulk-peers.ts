/**
 * bulk-peers.ts PORT COUNT: peers that send and read as fast as they can, in a process of their own, until
 * killed.
 */
import { pattern, peer } from "./peers.ts";

const block = pattern(65_536);
for (let i = 0; i < Number(process.argv[3]); i++) {
  const { socket } = await peer(Number(process.argv[2]));
  socket.removeAllListeners("data").resume();
  const send = (): void => {
    while (socket.write(block));
  };
  socket.on("drain", send);
  send();
}
