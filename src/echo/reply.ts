/**
 * The replies of the echo server: the raw bytes of RFC 862, or those of the tutorial's second server. It
 * changes when a reply does. Both send as much as the peer takes, and keep the rest by reference.
 */
import type { Connection } from "../core/connection.ts";
import { UNITS_PER_VISIT, unitsOf } from "../core/turn-budget.ts";

export interface Reply {
  onOpen(connection: Connection): void;
  onData(connection: Connection, chunk: Uint8Array): void;
  onDrain(connection: Connection): void;
}

/** The received bytes (RFC 862), in writes of at most recvSize bytes. Copies nothing. */
function raw(recvSize: number): Reply {
  return {
    onOpen() {},
    onData(connection, chunk) {
      connection.relay(chunk, recvSize);
    },
    onDrain(connection) {
      connection.relayHeld(recvSize);
    },
  };
}

const BANNER = Buffer.from("Welcome to the server. Type something and hit enter\n");
const OK = Buffer.from("OK...");

/** Replies are composed in batches of about this many bytes, each sent by one write. */
const BATCH = 65_536;

/** The cost of composing, as turn-budget.ts counts it. A batch is at most what one visit may cost. */
const REPLIES_PER_UNIT = 16;
const MAX_REPLIES = REPLIES_PER_UNIT * UNITS_PER_VISIT;

/** `OK...` and the bytes, for each slice of at most recvSize bytes. */
function composed(bytes: Uint8Array, recvSize: number): Uint8Array {
  // For one reply of 1 KiB the loop below is 1.1 to 1.6 times slower (bench/reply.bench.ts).
  if (bytes.length <= recvSize) return Buffer.concat([OK, bytes]);
  const replies = Math.ceil(bytes.length / recvSize);
  const batch = Buffer.allocUnsafeSlow(bytes.length + replies * OK.length);
  for (let from = 0, to = 0; from < bytes.length; from += recvSize) {
    batch.set(OK, to);
    const slice = bytes.subarray(from, from + recvSize);
    batch.set(slice, to + OK.length);
    to += OK.length + slice.length;
  }
  return batch;
}

/**
 * The tutorial's second server: a banner, then `OK...` before each recv of at most recvSize bytes. A reply
 * has to be composed, and that is one copy, which is counted.
 */
function tutorial(recvSize: number): Reply {
  const replies = Math.min(MAX_REPLIES, Math.max(1, Math.floor(BATCH / (OK.length + recvSize))));
  const answer = (connection: Connection): void => {
    const { budget } = connection;
    for (let units = 0; connection.writable && connection.held > 0;) {
      if (units >= UNITS_PER_VISIT || budget.exhausted) return connection.yieldTurn();
      const bytes = connection.take(replies * recvSize)!;
      connection.copied += bytes.length;
      const cost = unitsOf(bytes.length) + bytes.length / recvSize / REPLIES_PER_UNIT;
      units += cost;
      budget.spend(cost);
      connection.write(composed(bytes, recvSize));
    }
  };
  return {
    onOpen(connection) {
      connection.write(BANNER);
    },
    onData(connection, chunk) {
      connection.hold(chunk);
      answer(connection);
    },
    onDrain: answer,
  };
}

/** By name, each with its default recv size: a whole chunk, and the tutorial's own. */
const replies = {
  raw: (recvSize = Infinity) => raw(recvSize),
  tutorial: (recvSize = 1024) => tutorial(recvSize),
};

export type ReplyName = keyof typeof replies;
export const REPLIES = Object.keys(replies) as ReplyName[];

/** @param recvSize bytes, from 1 on */
export const replyNamed = (name: ReplyName, recvSize?: number): Reply => replies[name](recvSize);
