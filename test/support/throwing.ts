/**
 * Loaded before the program: a peer that sends "throw" meets a defect in the middle of the
 * server.
 */
import { Connection } from "../../src/core/connection.ts";

const { relay } = Connection.prototype;
Connection.prototype.relay = function (this: Connection, chunk: Uint8Array, limit: number) {
  if (Buffer.from(chunk.subarray(0, 5)).toString() === "throw") throw new TypeError("a defect");
  return relay.call(this, chunk, limit);
};
