/**
 * Connections that stay: the closed loop, in which each answer lets the next message go, and the open loop,
 * in which messages go by a schedule. It changes when what is sent on them, and when, does.
 *
 * The schedule is fixed: message n of all has its turn n gaps after the beginning, on connection n modulo
 * their number. So a message's turn follows from its number, and what waits for room on its connection needs
 * no memory.
 */
import { Histogram } from "../histogram.ts";
import { pace, type Pace } from "../system.ts";
import { LoadError } from "./checked-stream.ts";
import {
  clock,
  CONNECT_DEADLINE,
  connectFailure,
  ended,
  errorCode,
  GRACE,
  type Load,
  type Run,
  RunStream,
  type Schedule,
  SECOND,
} from "./run.ts";

/** How many connections are being opened at the same time: less than any server's backlog. */
const OPENING = 100;
/** How long, in seconds, a server may take to answer a FIN with its own. */
const FIN_GRACE = 1;

/** A connection of the closed or of the open loop. */
class Connection extends RunStream<Bun.Socket<Connection>> {
  readonly #load: Connections;
  readonly #index: number;
  /** How many messages' turn has come: in the closed loop, as many as there can be. */
  due: number;
  begun = 0;
  answered = 0;
  /** Set by our FIN. */
  finishing = false;
  finished = false;
  /** Bytes of the next answer that have come. */
  #part = 0;
  /** Of each message in flight the start; in the free slots, when the one before was answered. */
  readonly #times: Float64Array;
  #beginSlot = 0;
  #answerSlot = 0;

  constructor(load: Connections, index: number) {
    super(load.run, "connection", index);
    this.#load = load;
    this.#index = index;
    this.#times = new Float64Array(load.run.settings.depth);
    this.due = load.gap === undefined ? Infinity : 0;
  }

  get everyone(): readonly Connection[] {
    return this.#load.connections;
  }

  get idle(): boolean {
    return this.answered === this.begun && this.begun >= this.due && this.unsent === 0;
  }

  /**
   * Begins what is due and for which there is room. What waits keeps its turn: that is a matter of its
   * number.
   */
  pump(now: number): void {
    const depth = this.#times.length;
    const until = Math.min(this.due, this.answered + depth);
    if (this.begun >= until) return;
    this.unsent += (until - this.begun) * this.run.settings.bytes;
    for (; this.begun < until; this.begun++) {
      const slot = this.#beginSlot;
      this.#times[slot] = this.#load.startOf(this.begun, this.#index, this.#times[slot]!, now);
      this.#beginSlot = slot + 1 === depth ? 0 : slot + 1;
    }
    this.flush();
  }

  receive(chunk: Buffer): void {
    if (!this.accept(chunk)) return;
    const { bytes } = this.run.settings;
    const now = clock();
    this.#part += chunk.length;
    while (this.#part >= bytes) {
      this.#part -= bytes;
      const slot = this.#answerSlot;
      this.run.answer(this.#times[slot]!, now);
      this.#times[slot] = now;
      this.#answerSlot = slot + 1 === this.#times.length ? 0 : slot + 1;
      this.answered++;
    }
    this.#load.catchUp(now);
    this.pump(now);
  }

  end(how: string): void {
    if (!this.finishing) this.fail(ended(this, how));
    this.finished = true;
  }
}

export class Connections implements Load {
  readonly run: Run;
  readonly connections: Connection[] = [];
  /** Between two messages' turns, over all connections, in nanoseconds; undefined in the closed loop. */
  readonly gap: number | undefined;
  #began = 0;
  /** Messages that have had their turn, over all connections, and when the next has. */
  #scheduled = 0;
  #next = Infinity;
  #pace: Pace | undefined;
  readonly #lateness = new Histogram();

  constructor(run: Run) {
    this.run = run;
    const { rate, connections } = run.settings;
    this.gap = rate === undefined ? undefined : SECOND / rate;
    for (let i = 0; i < connections; i++) this.connections.push(new Connection(this, i));
  }

  async open(): Promise<void> {
    const { host, port, connections } = this.run.settings;
    let [asked, stand] = [0, 0];
    const openNext = async (): Promise<void> => {
      while (asked < connections) {
        const connection = this.connections[asked++]!;
        connection.socket = await Bun.connect({
          hostname: host,
          port,
          allowHalfOpen: true,
          data: connection,
          socket: CONNECTION,
        });
        stand++;
      }
    };
    const all = Promise.all(Array.from({ length: OPENING }, openNext)).catch((error: unknown) => {
      throw new LoadError(connectFailure(this.run.settings, error));
    });
    await this.run.orFailure(
      beforeDeadline(
        all,
        () => `connect to ${host}:${port}: ${stand} of ${connections} connections are established`,
      ),
    );
  }

  start(): void {
    const now = clock();
    if (this.gap === undefined) {
      for (const connection of this.connections) connection.pump(now);
      return;
    }
    this.#began = this.#next = now;
    this.#pace = pace(this.gap, () => {
      this.catchUp(clock());
      return this.#next - clock();
    });
  }

  /** When a message's turn was (or, in the closed loop, is), given when its place became free. */
  startOf(message: number, connection: number, freeSince: number, now: number): number {
    if (this.gap === undefined) return now;
    const turn = this.#began + (message * this.connections.length + connection) * this.gap;
    if (turn >= this.run.from && turn < this.run.to)
      this.#lateness.record(Math.max(0, now - Math.max(turn, freeSince)));
    return turn;
  }

  /** Sends all whose turn has come, connection by connection, each in one write. */
  catchUp(now: number): void {
    if (now < this.#next) return;
    const { connections } = this;
    const first = this.#scheduled;
    for (; this.#next <= now; this.#next = this.#began + this.#scheduled * this.gap!) {
      connections[this.#scheduled++ % connections.length]!.due++;
    }
    const last = Math.min(this.#scheduled, first + connections.length);
    for (let i = first; i < last; i++) connections[i % connections.length]!.pump(now);
  }

  async finish(): Promise<Schedule | undefined> {
    const schedule = this.gap === undefined ? undefined : await this.#finishSchedule();
    for (const connection of this.connections) connection.due = connection.begun;
    await this.#settle();
    for (const connection of this.connections) {
      connection.finishing = true;
      connection.socket!.shutdown();
    }
    // Behind our FIN may come surplus bytes, up to the server's own. Not every server has one.
    await this.run.until(() => this.connections.every(({ finished }) => finished), FIN_GRACE);
    for (const { socket } of this.connections) socket!.end();
    return schedule;
  }

  /** What had its turn in the window is sent still, so that a stall at its end shows. */
  async #finishSchedule(): Promise<Schedule> {
    const { run, connections } = this;
    this.catchUp(run.to - 1);
    this.#next = Infinity;
    this.#pace!.stop();
    const waiting = (): number => connections.reduce((sum, { due, begun }) => sum + due - begun, 0);
    const backlog = waiting();
    if (!run.interrupt.aborted) await run.until(() => waiting() === 0, GRACE);
    const before = Math.ceil((run.from - this.#began) / this.gap!);
    return {
      pacing: this.#pace!.how,
      due: this.#scheduled - before,
      backlog,
      unsent: waiting(),
      lateness: this.#lateness,
    };
  }

  async #settle(): Promise<void> {
    if (await this.run.until(() => this.connections.every(({ idle }) => idle), GRACE)) return;
    const late = this.connections.filter(({ idle }) => !idle);
    const missing = late.reduce((sum, { owed, unsent }) => sum + owed + unsent, 0);
    const [first] = late;
    throw new LoadError(
      `missing bytes: ${missing} bytes of ${late.length} connections have not come back ${GRACE} s after the end; ` +
        `the first is ${first!.name}, at offset ${first!.received} of its stream`,
    );
  }
}

async function beforeDeadline<T>(promise: Promise<T>, what: () => string): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => reject(new LoadError(`${what()} after ${CONNECT_DEADLINE} s`)),
    CONNECT_DEADLINE * 1000,
  );
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

const CONNECTION: Bun.SocketHandler<Connection> = {
  open: (socket) => void socket.setNoDelay(true),
  data: ({ data }, chunk) => data.receive(chunk),
  drain: ({ data }) => data.flush(),
  end: ({ data }) => data.end("ended (FIN)"),
  close: ({ data }, error) => data.end(error === undefined ? "closed" : `reset (${errorCode(error)})`),
  error: ({ data }, error) => data.fail(Bun.inspect(error)),
};
