/** Preloaded: a peer that sends "throw" causes an internal error in the server. */
import { Connection } from "../../src/core/connection.ts";

const { relay } = Connection.prototype;
Connection.prototype.relay = function (this: Connection, chunk: Uint8Array, limit: number) {
  if (Buffer.from(chunk.subarray(0, 5)).toString() === "throw") throw new TypeError("a defect");
  return relay.call(this, chunk, limit);
};
