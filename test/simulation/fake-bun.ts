/**
 * Sockets on the fake kernel: which events come when, as they were seen on Bun's (test/runtime/bun.test.ts),
 * and what a socket must not be used for. It changes when Bun does, or more is known of it. They stand behind
 * Bun.listen and Bun.connect, or behind the seam (fake-engine.ts).
 */
import { drainMicrotasks } from "bun:jsc";
import type { Clock } from "./clock.ts";
import type { Transport } from "../../src/core/transport.ts";
import { Planned, type Endpoint, type Kernel, type Listening } from "./kernel.ts";
import type { Runs } from "./runs.ts";

/** Bun's receive buffer. */
const CHUNK = 524_288;

/** What Bun.listen and Bun.connect are given, as far as the code under test gives it. */
type Handlers = {
  [Event in "open" | "data" | "drain" | "end" | "close" | "error"]?: (
    socket: FakeSocket,
    told?: unknown,
  ) => void;
};

/** Hands an event to the code under test. */
export type Tell = (event: keyof Handlers, socket: FakeSocket, told?: unknown) => void;

interface Options {
  fd?: number;
  port?: number;
  allowHalfOpen?: boolean;
  socket: Handlers;
}

/** The world's view of sockets. */
export interface Watcher {
  opened(socket: FakeSocket): void;
  /** A chunk, the first bytes of the queue, is about to be handed over. */
  delivers(socket: FakeSocket, queue: Runs, size: number): void;
  closed(socket: FakeSocket): void;
  /** Asked for by the code under test, and not done yet. */
  pauses(socket: FakeSocket): void;
  resumes(socket: FakeSocket): void;
  /** An event of Bun's own has been delivered, and its microtasks have run. */
  happened(): void;
}

export class FakeSocket implements Transport {
  data: unknown;
  readonly endpoint: Endpoint;
  paused = false;
  shut = false;
  closed = false;
  /** `end` has been delivered. */
  endTold = false;
  /** Bun waits for the kernel to take more, and will tell by `drain`. */
  armed = false;
  readonly #bun: FakeBun;
  readonly #sink: Tell;
  #fd: number;

  constructor(bun: FakeBun, fd: number, endpoint: Endpoint, sink: Tell) {
    this.#bun = bun;
    this.#fd = fd;
    this.endpoint = endpoint;
    this.#sink = sink;
    // The success of a connect is reported by `drain`.
    this.armed = endpoint.state === "connecting";
  }

  get fd(): number {
    return this.#fd;
  }

  // What is called.

  write(bytes: Uint8Array, offset = 0, length = bytes.length - offset): number {
    this.#use("write");
    const { kernel } = this.#bun;
    const taken = length === 0 ? 0 : kernel.send(this.endpoint, bytes, offset, length);
    kernel.trace.note("write gives @ to #", this.endpoint.id, taken);
    if (taken < length) this.armed = true;
    return taken;
  }

  pause(): void {
    this.#use("pause");
    if (this.paused) this.#bun.kernel.trace.fail("paused twice");
    this.#bun.watcher.pauses(this);
    this.paused = true;
  }

  resume(): void {
    this.#use("resume");
    if (!this.paused) this.#bun.kernel.trace.fail("resumed without a pause");
    this.#bun.watcher.resumes(this);
    this.paused = false;
  }

  shutdown(): void {
    this.#use("shutdown");
    this.shut = true;
    this.#bun.kernel.shutdown(this.endpoint);
  }

  end(): void {
    this.#use("end");
    this.#close(undefined);
  }

  terminate(): void {
    this.#use("terminate");
    this.#close(undefined, true);
  }

  unacknowledged(): number {
    return this.endpoint.peer.incoming.length;
  }

  unread(): number {
    return this.endpoint.incoming.length;
  }

  peerFinished(): boolean {
    return this.endpoint.fin;
  }

  #use(call: string): void {
    const { trace } = this.#bun.kernel;
    if (this.closed) trace.fail(`${call} of socket ${this.endpoint.id}, which is closed`);
    if (call !== "write") trace.note(`${call} of #`, this.endpoint.id);
  }

  /** As in Bun, the descriptor is gone before `close`, which comes immediately. */
  #close(error: Error | undefined, reset = false): void {
    const fd = this.#fd;
    this.closed = true;
    this.#fd = -1;
    this.#bun.kernel.close(fd, reset);
    this.#bun.forget(this);
    this.#bun.watcher.closed(this);
    this.#tell("close", error);
  }

  // Events.

  #tell(event: keyof Handlers, told?: unknown): void {
    const { trace } = this.#bun.kernel;
    try {
      this.#sink(event, this, told);
    } catch (error) {
      // Bun passes a handler's throw to `error`, and leaves the socket open.
      if (error instanceof Planned && event !== "error") return this.#tell("error", error);
      if (trace.fault === undefined) {
        trace.fail(
          `the handler of \`${event}\` threw: ${error instanceof Error ? error.stack : String(error)}`,
        );
      }
      throw error;
    }
    // A microtask never runs inside of a handler that was called by a call of ours: Bun runs them at its own
    // events.
  }

  /** An event of Bun's own, after which it lets microtasks run. */
  #happens(event: keyof Handlers, told?: unknown): void {
    this.#tell(event, told);
    drainMicrotasks();
    this.#bun.watcher.happened();
  }

  open(): void {
    this.#bun.watcher.opened(this);
    this.#tell("open");
  }

  #data(size: number): void {
    const { endpoint } = this;
    const chunk = endpoint.incoming.copy(size);
    this.#bun.watcher.delivers(this, endpoint.incoming, size);
    this.#bun.kernel.took(endpoint, size);
    this.#happens("data", chunk);
  }

  #closeNow(code: string | undefined): void {
    const error =
      code === undefined
        ? undefined
        : Object.assign(new Error(code), { code, errno: code === "EPIPE" ? -32 : -104 });
    this.#close(error);
    drainMicrotasks();
    this.#bun.watcher.happened();
  }

  /** One event that the kernel has for this socket. @returns whether there was one */
  deliver(): boolean {
    const { endpoint } = this;
    const { trace, random } = this.#bun.kernel;
    if (endpoint.state === "connecting") return false;
    // A write got the reset, and Bun does not watch a paused socket: nothing comes.
    if (endpoint.error !== "" && !(endpoint.errorTold && this.paused)) return this.#reset();
    if (this.endTold && this.shut) {
      trace.step("both FINs are out at #: `close`", endpoint.id);
      this.#closeNow(undefined);
      return true;
    }
    const waits = endpoint.incoming.length;
    if (!this.paused && !this.endTold && waits > 0) {
      const most = Math.min(waits, CHUNK);
      const size = random.chance(0.3) ? random.between(1, most) : most;
      trace.step("`data` of @ bytes at #", endpoint.id, size);
      this.#data(size);
      return true;
    }
    if (!this.paused && !this.endTold && endpoint.fin) {
      trace.step(this.shut ? "the FIN at #, behind ours: `close`" : "`end` at #", endpoint.id);
      this.endTold = true;
      if (this.shut) this.#closeNow(undefined);
      else this.#happens("end");
      return true;
    }
    if (this.armed && endpoint.room > 0) return this.drain();
    return false;
  }

  /** Also for nothing. */
  drain(): boolean {
    this.#bun.kernel.trace.step("`drain` at #, room for @", this.endpoint.id, this.endpoint.room);
    this.armed = false;
    this.#happens("drain");
    return true;
  }

  /** In spite of a pause, all that the kernel has, then the end of it. */
  #reset(): true {
    const { endpoint } = this;
    const { trace, random } = this.#bun.kernel;
    const toldBefore = endpoint.errorTold;
    const { paused } = this;
    trace.step("the reset is told at #, @ bytes before it", endpoint.id, endpoint.incoming.length);
    while (endpoint.incoming.length > 0 && !this.closed && !this.endTold) {
      this.#data(Math.min(endpoint.incoming.length, CHUNK));
    }
    const ends = endpoint.fin || endpoint.errorTold || (paused && random.chance(0.3));
    if (!this.closed && !this.endTold && !this.shut && ends && endpoint.error !== "ECONNREFUSED") {
      this.endTold = true;
      this.#happens("end");
    }
    if (!this.closed) this.#closeNow(toldBefore ? undefined : endpoint.error);
    return true;
  }

  /** Calls a handler of a socket that has ended. */
  late(): void {
    const { trace, random } = this.#bun.kernel;
    const event = (["data", "drain", "end", "close"] as const)[random.between(0, 3)]!;
    trace.step(`\`${event}\` once more at #, which is closed`, this.endpoint.id);
    this.#happens(event, event === "data" ? Buffer.alloc(random.between(1, 2000), 0xee) : undefined);
  }
}

export class FakeListener {
  readonly fd: number;
  readonly port: number | undefined;
  readonly listening: Listening;
  readonly #bun: FakeBun;
  readonly #sink: Tell;
  #stopped = false;

  constructor(bun: FakeBun, { fd, port }: Pick<Options, "fd" | "port">, backlog: number, sink: Tell) {
    const { kernel } = bun;
    this.#bun = bun;
    this.#sink = sink;
    this.fd = fd ?? kernel.open(2);
    const open = kernel.at(this.fd);
    if (fd === undefined) {
      const free = kernel.freePort(port);
      if (free === undefined) throw Object.assign(new Error("in use"), { code: "EADDRINUSE", errno: 98 });
      this.port = open.port = free;
    }
    kernel.listen(open, backlog);
    this.listening = open.listening!;
  }

  /** Takes one connection out of the kernel's queue. @returns whether one was there */
  accept(): boolean {
    if (this.#bun.kernel.exhausted) return false;
    const endpoint = this.listening.queue.shift();
    if (endpoint === undefined) return false;
    const { kernel } = this.#bun;
    kernel.trace.step("`open` of #", endpoint.id);
    this.#bun.open(kernel.open(2, endpoint), endpoint, this.#sink);
    drainMicrotasks();
    this.#bun.watcher.happened();
    return true;
  }

  stop(): void {
    if (this.#stopped) this.#bun.kernel.trace.fail("a listener is stopped twice");
    this.#stopped = true;
    this.#bun.kernel.trace.note("the listener of port # stops", this.listening.port);
    this.#bun.kernel.close(this.fd);
    this.#bun.listeners.splice(this.#bun.listeners.indexOf(this), 1);
  }
}

/** How many closed sockets are kept, for events that come too late. */
const GHOSTS = 8;

export class FakeBun {
  readonly kernel: Kernel;
  readonly clock: Clock;
  readonly watcher: Watcher;
  readonly sockets: FakeSocket[] = [];
  readonly listeners: FakeListener[] = [];
  readonly ghosts: FakeSocket[] = [];

  constructor(kernel: Kernel, clock: Clock, watcher: Watcher) {
    this.kernel = kernel;
    this.clock = clock;
    this.watcher = watcher;
  }

  open(fd: number, endpoint: Endpoint, sink: Tell): FakeSocket {
    const socket = new FakeSocket(this, fd, endpoint, sink);
    this.sockets.push(socket);
    socket.open();
    return socket;
  }

  forget(socket: FakeSocket): void {
    this.sockets.splice(this.sockets.indexOf(socket), 1);
    // A socket that was refused never had anything to call.
    if (socket.data === undefined) return;
    this.ghosts.push(socket);
    if (this.ghosts.length > GHOSTS) this.ghosts.shift();
  }

  /** Bun.listen, whose own backlog is 511. */
  listen(options: Options): FakeListener {
    this.#checkHalfOpen(options);
    return this.listenOn(options, 511, handlersOf(options));
  }

  listenOn(where: Pick<Options, "fd" | "port">, backlog: number, sink: Tell): FakeListener {
    const listener = new FakeListener(this, where, backlog, sink);
    this.listeners.push(listener);
    return listener;
  }

  connect(options: Options): Promise<FakeSocket> {
    this.#checkHalfOpen(options);
    const fd = options.fd!;
    return Promise.resolve(this.open(fd, this.kernel.at(fd).endpoint!, handlersOf(options)));
  }

  #checkHalfOpen({ allowHalfOpen }: Options): void {
    if (allowHalfOpen !== true) this.kernel.trace.fail("without allowHalfOpen, Bun closes at the peer's FIN");
  }
}

const handlersOf =
  ({ socket: handlers }: Options): Tell =>
  (event, socket, told) =>
    handlers[event]?.(socket, told);

/** Puts the fake in the place of Bun's own calls, for good. */
export function installBun(current: () => FakeBun): void {
  Object.assign(Bun, {
    listen: (options: Options) => (current().clock.pastSeam("Bun.listen"), current().listen(options)),
    connect: (options: Options) => (current().clock.pastSeam("Bun.connect"), current().connect(options)),
  });
  Bun.dns.lookup = () => Promise.resolve([{ address: "127.0.0.1", family: 4, ttl: 0 }]);
}
