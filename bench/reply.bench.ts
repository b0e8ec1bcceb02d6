/**
 * The tutorial's reply, `OK...` before each recv of 1024 bytes: how the server composes it, against how it is
 * usually written. Everything around it is the same: a connection, its ring, and a socket that takes all and
 * does nothing.
 */
import { do_not_optimize } from "mitata";
import { replyNamed, type Reply } from "../src/echo/reply.ts";
import { Connection } from "../src/core/connection.ts";
import { RingPool } from "../src/core/ring-buffer.ts";
import { TurnBudget } from "../src/core/turn-budget.ts";
import { bunTime } from "../src/engine/bun/time.ts";
import { closedTransport, type Transport } from "../src/core/transport.ts";
import { bench, group, runSuite, summary } from "./suite.ts";

const RECV_SIZE = 1024;
const OK = Buffer.from("OK...");

type Received = Reply["onData"];

/** A write for each reply, as the tutorial has it. */
const oneByOne =
  (compose: (slice: Uint8Array) => Uint8Array): Received =>
  (connection, chunk) => {
    connection.hold(chunk);
    for (let slice = connection.take(RECV_SIZE); slice !== undefined; slice = connection.take(RECV_SIZE)) {
      connection.write(compose(slice));
    }
  };

const decoder = new TextDecoder();
const contenders: Record<string, Received> = {
  "ringback --reply tutorial": replyNamed("tutorial", RECV_SIZE).onData,
  "Buffer.concat": oneByOne((slice) => Buffer.concat([OK, slice])),
  "template string": oneByOne((slice) => Buffer.from(`OK...${decoder.decode(slice)}`)),
};
const names = Object.keys(contenders);

const nobody = { onData() {}, onDrain() {}, onEnd() {}, onClose() {} };
const rings = new RingPool(65_536);
/** No turn of the event loop comes between two laps, so that a real budget would be used up for good. */
const budget = new TurnBudget(bunTime);
budget.spend = () => {};

function connectionTo(write: (bytes: Uint8Array, offset: number, length: number) => void): Connection {
  const socket: Transport = {
    ...closedTransport,
    write(bytes, offset, length) {
      write(bytes, offset, length);
      return length;
    },
  };
  return new Connection(socket, nobody, rings, budget);
}

/** What a peer gets for the chunk. */
function answer(onData: Received, chunk: Uint8Array): string {
  const written: Uint8Array[] = [];
  onData(
    connectionTo((bytes, offset, length) => void written.push(bytes.slice(offset, offset + length))),
    chunk,
  );
  return Buffer.concat(written).toString("latin1");
}

for (const length of [64, 1024, 65_536]) {
  // Text: a template string would spoil anything else.
  const chunk = Buffer.alloc(length, "abcdefghijklmnopqrstuvwxyz\n");
  const expected = answer(contenders[names[1]!]!, chunk);
  group(`replies to a chunk of ${length} bytes`, () => {
    summary(() => {
      for (const name of names) {
        const onData = contenders[name]!;
        if (answer(onData, chunk) !== expected) throw new Error(`${name}: another answer than the others`);
        const connection = connectionTo(do_not_optimize);
        bench(name, () => onData(connection, chunk)).baseline(name === names[0]);
      }
    });
  });
}

await runSuite();
