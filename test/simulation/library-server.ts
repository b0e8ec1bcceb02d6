/**
 * A listening socket of the library, with the connections that wait in it. It changes when its queue does.
 */
import * as socket from "../../src/socket.ts";
import { End } from "./library-end.ts";
import type { World } from "./world.ts";

export class Server {
  readonly listening: socket.ListeningSocket<socket.AF_INET>;
  readonly port: number;
  readonly backlog: number;
  /** Stands for the listening socket where calls are followed. */
  readonly end: End;
  /** Open and not accepted, in order. */
  readonly queue: End[] = [];
  closed = false;

  constructor(world: World, id: number, port: number, backlog: number) {
    this.listening = socket.create_server(["127.0.0.1", port], { backlog });
    this.port = this.listening.getsockname()[1];
    this.backlog = Math.max(1, backlog);
    this.end = new End(world, id);
  }

  /** How many accept calls wait; one that does not wait only has its turn of the event loop. */
  get accepts(): number {
    let waiting = 0;
    for (const { waits } of this.end.pending) waiting += Number(waits);
    return waiting;
  }
}
