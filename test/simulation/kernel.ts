/**
 * A kernel's TCP in one place: two ends with a bounded queue of bytes each way, descriptors, listening ports,
 * FIN and RST, with the bad luck of a seed. It changes when the real kernel is found to do something that is
 * not in here.
 */
import type { Random } from "../support/random.ts";
import { Runs } from "./runs.ts";
import type { Trace } from "./trace.ts";

/** What a defect in user code throws, on purpose. */
export class Planned extends Error {}

/** Who knows what must be written next. Both throw a Fault. */
export interface Author {
  /** The kernel takes these bytes, or none of them: are they the right ones? They are put into the queue. */
  written(queue: Runs, bytes: Uint8Array, offset: number, length: number): void;
  /** A FIN goes out. */
  finished(): void;
}

export class Endpoint {
  readonly id: number;
  readonly port: number;
  peer!: Endpoint;
  state: "connecting" | "established" | "refused" = "established";
  /** What comes from the other end, and what it may hold. */
  readonly incoming = new Runs();
  capacity: number;
  /** The other end's FIN follows the incoming bytes. */
  fin = false;
  /** Our FIN is out. */
  shut = false;
  closed = false;
  /** An RST is on its way here. */
  resetDue = false;
  /** The error that the next system call, or Bun, will get. */
  error: "" | "ECONNRESET" | "EPIPE" | "ECONNREFUSED" = "";
  /** A write has got it, so that nobody else will. */
  errorTold = false;
  /** Bytes that this end's kernel has taken, and that its owner has read. */
  sent = 0;
  read = 0;
  author: Author | undefined;
  /** User code is about to throw where it writes next, or has. */
  breaks = false;
  broken = false;

  constructor(id: number, port: number, capacity: number) {
    this.id = id;
    this.port = port;
    this.capacity = capacity;
  }

  /**
   * Whether bytes that are sent now still arrive: this end may have gone, or an RST is here or on its way.
   */
  get receives(): boolean {
    return !this.closed && !this.resetDue && this.error === "";
  }

  /** How much the other end's queue still takes. */
  get room(): number {
    return Math.max(0, this.peer.capacity - this.peer.incoming.length);
  }
}

export class Listening {
  readonly port: number;
  backlog: number;
  /** Established, and not accepted yet: the server's ends. */
  readonly queue: Endpoint[] = [];

  constructor(port: number, backlog: number) {
    this.port = port;
    this.backlog = backlog;
  }
}

/** What descriptors refer to; several may refer to one. */
export interface Open {
  references: number;
  resets?: boolean;
  family: number;
  port: number;
  endpoint: Endpoint | undefined;
  listening: Listening | undefined;
}

const FIRST_DESCRIPTOR = 100;
const FIRST_PORT = 30_000;
const LAST_PORT = 60_000;

export class Kernel {
  readonly random: Random;
  readonly trace: Trace;
  readonly ports = new Map<number, Listening>();
  /** Ends that wait for the other side's answer. */
  readonly connecting: Endpoint[] = [];
  errno = "";
  /** No descriptor is left: EMFILE. */
  exhausted = false;
  /** How often the kernel takes less than it could. */
  shortWrites = 0.1;
  /** Bytes that a new end can hold, at most. */
  capacity = 65_536;
  /** An end throws the connection away. May throw a Fault where it has no reason to. */
  onReset: (by: Endpoint) => void = () => undefined;
  readonly #descriptors: (Open | undefined)[] = [];
  #port = FIRST_PORT;
  #endpoints = 0;

  constructor(random: Random, trace: Trace) {
    this.random = random;
    this.trace = trace;
  }

  // Descriptors.

  get openDescriptors(): number {
    let open = 0;
    for (const one of this.#descriptors) if (one !== undefined) open++;
    return open;
  }

  /** The lowest number that is free, as in Unix: one that is used too late meets another's socket. */
  install(open: Open, from = 0): number {
    open.references++;
    let at = Math.max(0, from - FIRST_DESCRIPTOR);
    while (this.#descriptors[at] !== undefined) at++;
    this.#descriptors[at] = open;
    return at + FIRST_DESCRIPTOR;
  }

  open(family: number, endpoint?: Endpoint): number {
    return this.install({ references: 0, family, port: endpoint?.port ?? 0, endpoint, listening: undefined });
  }

  /** @throws Fault for a number that is not open */
  at(fd: number): Open {
    return this.#descriptors[fd - FIRST_DESCRIPTOR] ?? this.trace.fail(`descriptor ${fd} is not open`);
  }

  /** close(2), or with SO_LINGER 0: a reset. */
  close(fd: number, reset = false): void {
    const open = this.at(fd);
    this.#descriptors[fd - FIRST_DESCRIPTOR] = undefined;
    // SO_LINGER belongs to the socket: with a second descriptor, the reset comes when that is closed.
    open.resets ||= reset;
    if (--open.references > 0) return;
    if (open.endpoint !== undefined) this.closeEndpoint(open.endpoint, open.resets);
    if (open.listening === undefined) return;
    this.ports.delete(open.listening.port);
    for (const waiting of open.listening.queue) this.closeEndpoint(waiting, true);
  }

  // Listening and connecting.

  /** A port that is free; the one that is wanted, if any. @returns undefined when it is taken */
  freePort(wanted = 0): number | undefined {
    if (wanted !== 0) return this.ports.has(wanted) ? undefined : wanted;
    do this.#port = this.#port >= LAST_PORT ? FIRST_PORT : this.#port + 1;
    while (this.ports.has(this.#port));
    return this.#port;
  }

  listen(open: Open, backlog: number): void {
    if (open.listening === undefined) {
      open.listening = new Listening(open.port, backlog);
      this.ports.set(open.port, open.listening);
    } else open.listening.backlog = backlog;
  }

  endpoint(port: number): Endpoint {
    const most = this.random.chance(0.2) ? this.random.between(1, 2000) : this.capacity;
    return new Endpoint(this.#endpoints++, port, this.random.between(1, most));
  }

  /** Two ends that are connected already. */
  pair(a: number, b: number): [Endpoint, Endpoint] {
    const pair: [Endpoint, Endpoint] = [this.endpoint(a), this.endpoint(b)];
    [pair[0].peer, pair[1].peer] = [pair[1], pair[0]];
    return pair;
  }

  /** The client's end of a connection to a port; it is established when answer() has been called. */
  connect(port: number, own = this.freePort()!): Endpoint {
    const [client] = this.pair(own, port);
    client.state = "connecting";
    this.connecting.push(client);
    return client;
  }

  /** The other side answers a connecting end, unless its queue is full. @returns whether it did */
  answer(client: Endpoint): boolean {
    const listening = this.ports.get(client.peer.port);
    if (listening !== undefined && listening.queue.length > listening.backlog) return false;
    this.connecting.splice(this.connecting.indexOf(client), 1);
    this.trace.step(listening === undefined ? "# is refused by the kernel" : "# stands", client.id);
    client.state = listening === undefined ? "refused" : "established";
    if (listening === undefined) client.error = "ECONNREFUSED";
    else listening.queue.push(client.peer);
    return true;
  }

  // Bytes.

  /** send(2). @returns how many bytes were taken; 0 for EAGAIN, -1 for an error, which is in errno */
  send(from: Endpoint, bytes: Uint8Array, offset: number, length: number): number {
    if (length < 0 || offset < 0 || offset + length > bytes.length) {
      this.trace.fail(`a write of ${length} bytes from ${offset} on, of a piece that has ${bytes.length}`);
    }
    if (from.closed) this.trace.fail("a write to what is closed");
    if (from.breaks) {
      from.breaks = false;
      from.broken = true;
      this.trace.note("user code throws on #", from.id);
      throw new Planned("user code has a defect");
    }
    if (from.shut) this.trace.fail("a write behind the FIN");
    if (from.error !== "") {
      from.errorTold = true;
      this.errno = "EPIPE";
      return -1;
    }
    let taken = from.state === "established" ? Math.min(length, from.room) : 0;
    if (from.peer.closed) taken = length;
    if (taken > 0 && this.random.chance(this.shortWrites)) taken = this.random.between(0, taken);
    this.errno = "EAGAIN";
    from.sent += taken;
    const { peer } = from;
    from.author!.written(peer.receives ? peer.incoming : new Runs(), bytes, offset, taken);
    if (peer.closed && taken > 0) this.meetsClosed(from);
    return taken;
  }

  /**
   * What an end has sent meets one that is closed. The answer is an RST: bytes that the closed end's kernel
   * had accepted are lost, although it was closed without a reset.
   */
  meetsClosed(from: Endpoint): void {
    if (from.resetDue) return;
    this.onReset(from.peer);
    this.#throwAway(from);
  }

  /** The owner has read this many of the bytes that came. */
  took(by: Endpoint, size: number): void {
    by.incoming.drop(size);
    by.read += size;
  }

  // Ends.

  /** shutdown(2) of the writing side. */
  shutdown(from: Endpoint): void {
    if (from.shut) this.trace.fail("a second FIN");
    from.shut = true;
    if (from.error !== "" || from.state !== "established") return;
    from.author?.finished();
    if (from.peer.receives) from.peer.fin = true;
  }

  closeEndpoint(by: Endpoint, reset: boolean): void {
    if (by.closed) this.trace.fail("closed twice");
    by.closed = true;
    const { peer } = by;
    const at = this.connecting.indexOf(by);
    if (at >= 0) this.connecting.splice(at, 1);
    if (by.state !== "established" || by.error !== "" || peer.closed) return;
    if (reset || by.incoming.length > 0) {
      this.trace.note("# is closed with a reset, @ bytes unread", by.id, by.incoming.length);
      this.onReset(by);
      this.#throwAway(peer);
    } else if (!by.shut) this.shutdown(by);
  }

  /** The network throws a connection away, at both ends. */
  cut(one: Endpoint): void {
    for (const end of [one, one.peer]) if (!end.closed) this.#throwAway(end);
  }

  /** Of what is under way to an end that an RST follows, a part arrives. */
  #throwAway(end: Endpoint): void {
    end.resetDue = true;
    if (this.random.chance(0.5)) this.#lose(end, this.random.between(0, end.incoming.length));
  }

  /** Of what is under way to an end, only so much arrives, and with the rest the FIN behind it is lost. */
  #lose(end: Endpoint, arrives: number): void {
    if (arrives === end.incoming.length) return;
    end.incoming.truncate(arrives);
    end.fin = false;
  }

  /** The RST arrives. */
  arrive(end: Endpoint): void {
    end.resetDue = false;
    if (end.closed || end.error !== "") return;
    this.trace.step("an RST arrives at #, @ bytes unread", end.id, end.incoming.length);
    // Behind a FIN, Linux says EPIPE (tcp_reset).
    end.error = end.fin ? "EPIPE" : "ECONNRESET";
    this.#lose(end.peer, 0);
  }
}
