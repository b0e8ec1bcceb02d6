/** One connection, many messages at once: how long until all of them are back. */
import { exchanges, runWithServers } from "./suite.ts";

await runWithServers((compare) => {
  compare("a burst of 100 messages of 64 bytes", (port) => exchanges(port, 64, 100));
  compare("a burst of 16 messages of 4096 bytes", (port) => exchanges(port, 4096, 16));
});
