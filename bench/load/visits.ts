/**
 * Visits: connect, one message, its echo, close; and the next. It changes when what a visit is does.
 *
 * A visit ends as a well-behaved client's does: our FIN after the echo, then the server's. Who sends the
 * first FIN keeps the port for a minute in TIME_WAIT, and that is here. On the loopback interface Linux gives
 * such a port to a next connect after a second (tcp_tw_reuse): in 60 s of 6,300 visits per second there were
 * never more than 14,100 ports in TIME_WAIT, half of those there are, and the rate did not fall. A reset
 * would keep no port, and would measure how a server meets resets.
 */
import { LoadError } from "./checked-stream.ts";
import { clock, CONNECT_DEADLINE, connectFailure, ended, errorCode, GRACE } from "./run.ts";
import { type Load, type Run, RunStream, SECOND } from "./run.ts";

/** How often pending connects are polled, in milliseconds. */
const SWEEP = 500;

class Visitor extends RunStream<Bun.Socket<Visitor>> {
  readonly #visits: Visits;
  state: "away" | "connecting" | "waiting for the echo" | "waiting for the server's FIN" = "away";
  since = 0;

  constructor(visits: Visits, index: number) {
    super(visits.run, "visitor", index);
    this.#visits = visits;
  }

  get everyone(): readonly Visitor[] {
    return this.#visits.visitors;
  }

  visit(): void {
    const { host, port } = this.run.settings;
    this.since = clock();
    this.state = "connecting";
    Bun.connect({ hostname: host, port, allowHalfOpen: true, data: this, socket: VISITOR }).catch((error) =>
      this.#refused(error as Error),
    );
  }

  /** Bun says ECONNREFUSED too when the kernel has no port or no descriptor left. */
  #refused(error: Error): void {
    const { answered, settings } = this.run;
    const why = connectFailure(settings, error);
    this.run.fail(
      answered === 0 ? why : `${why} (after ${answered} visits: the server has gone, or no port is left)`,
    );
  }

  opened(socket: Bun.Socket<Visitor>): void {
    socket.setNoDelay(true);
    this.socket = socket;
    this.state = "waiting for the echo";
    this.unsent = this.run.settings.bytes;
    this.flush();
  }

  receive(chunk: Buffer): void {
    if (!this.accept(chunk) || this.owed + this.unsent > 0) return;
    this.state = "waiting for the server's FIN";
    this.socket!.shutdown();
  }

  /** The server's FIN before ours. */
  end(): void {
    this.fail(ended(this, "ended (FIN)"));
  }

  /** After our own FIN, Bun reports the server's as a close without an error, and no end. */
  closed(error: Error | undefined): void {
    if (this.state !== "waiting for the server's FIN" || error !== undefined)
      return this.fail(ended(this, error === undefined ? "closed" : `reset (${errorCode(error)})`));
    this.run.answer(this.since, clock());
    this.state = "away";
    if (this.#visits.going) this.visit();
  }
}

const VISITOR: Bun.SocketHandler<Visitor> = {
  open: (socket) => socket.data.opened(socket),
  data: ({ data }, chunk) => data.receive(chunk),
  drain: ({ data }) => data.flush(),
  end: ({ data }) => data.end(),
  close: ({ data }, error) => data.closed(error),
  error: ({ data }, error) => data.fail(Bun.inspect(error)),
};

export class Visits implements Load {
  readonly run: Run;
  readonly visitors: Visitor[] = [];
  going = true;

  constructor(run: Run) {
    this.run = run;
    for (let i = 0; i < run.settings.connections; i++) this.visitors.push(new Visitor(this, i));
  }

  /** A visit begins with its connection. */
  async open(): Promise<void> {}

  start(): void {
    const { host, port } = this.run.settings;
    for (const visitor of this.visitors) visitor.visit();
    const sweep = setInterval(() => {
      const oldest = clock() - CONNECT_DEADLINE * SECOND;
      if (this.visitors.some(({ state, since }) => state === "connecting" && since < oldest))
        this.run.fail(`connect to ${host}:${port}: no connection after ${CONNECT_DEADLINE} s`);
    }, SWEEP);
    sweep.unref();
  }

  async finish(): Promise<undefined> {
    this.going = false;
    if (await this.run.until(() => this.visitors.every(({ state }) => state === "away"), GRACE)) return;
    const late = this.visitors.filter(({ state }) => state !== "away");
    const [first] = late;
    throw new LoadError(
      `missing: ${late.length} visits were not over ${GRACE} s after the end; ` +
        `the first is of ${first!.name}, ${first!.state}, with ${first!.owed} bytes missing`,
    );
  }
}
