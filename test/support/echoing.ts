/** A connection with the echo server's handler, on a fake socket. */
import { replyNamed, type ReplyName } from "../../src/echo/reply.ts";
import { Connection } from "../../src/core/connection.ts";
import type { ConnectionHandler } from "../../src/core/handler.ts";
import { RingPool } from "../../src/core/ring-buffer.ts";
import { TurnBudget } from "../../src/core/turn-budget.ts";
import { bunTime } from "../../src/engine/bun/time.ts";
import type { FakeSocket } from "./fake-socket.ts";

export const CAPACITY = 1000;

/** A connection as the echo server makes it, on a fake socket; `ends` are the errors it was closed with. */
export function echoing(socket: FakeSocket, name: ReplyName = "raw", recvSize?: number) {
  const reply = replyNamed(name, recvSize);
  const ends: unknown[] = [];
  const user: ConnectionHandler = {
    onData: reply.onData,
    onDrain: reply.onDrain,
    onEnd: (connection) => connection.finish(),
    onClose: (connection, error) => {
      ends.push(error);
      connection.drop();
    },
  };
  const connection = new Connection(socket, user, new RingPool(CAPACITY), new TurnBudget(bunTime));
  return { connection, ends, reply };
}
