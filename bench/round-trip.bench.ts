/** One connection, one message at a time: how long until it is back. */
import { exchanges, runWithServers } from "./suite.ts";

await runWithServers((compare) => {
  for (const size of [64, 1024, 65_536]) {
    compare(`round trip of ${size} bytes`, (port) => exchanges(port, size));
  }
});
