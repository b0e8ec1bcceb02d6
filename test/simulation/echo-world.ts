/**
 * The echo service among peers of every kind: EchoServer with both replies, on the fake Bun. It changes when
 * the service has another option, or a peer another way to behave.
 */
import { EchoServer } from "../../src/echo/echo-server.ts";
import { REPLIES } from "../../src/echo/reply.ts";
import { Planned, type Endpoint } from "./kernel.ts";
import type { FakeSocket } from "./fake-bun.ts";
import type { Runs } from "./runs.ts";
import { Dice, World } from "./world.ts";
import { Limits } from "./echo-limits.ts";
import { Peer, type Service } from "./echo-peer.ts";

/** So many timers may fire, looks and sweeps, while the loop spins and before accepting pauses. */
const MAX_SPINS = 40;

export class EchoWorld extends World {
  readonly service: Service;
  readonly #maxConnections: number;
  readonly #idleTimeout: number;
  /** What the kernel keeps waiting; undefined leaves that to Bun. */
  readonly #backlog: number | undefined;
  readonly #limits: Limits;
  readonly #peers: Peer[] = [];
  readonly #living: Peer[] = [];
  readonly #byEndpoint = new Map<Endpoint, Peer>();
  readonly #dice: Dice;
  readonly #stubborn: number;
  #toConnect: number;
  #largestWrite: number;
  #server!: EchoServer;
  readonly #stopTimeout: number;
  #stopped = false;
  #spins = 0;
  #connections = 0;
  #refused = 0;
  #delivered = 0;
  /** How often onDefect got a planned error. */
  #defects = 0;

  constructor(seed: number, loud: boolean) {
    super(seed, loud);
    const { random, kernel } = this;
    const small = kernel.capacity <= 20_000;
    const recvSize = random.chance(0.5) && small ? random.between(1, 60) : random.between(100, 5000);
    const reply = REPLIES[random.between(0, 1)]!;
    this.service = {
      reply,
      recvSize: reply === "raw" && random.chance(0.5) ? Infinity : recvSize,
      ring: random.chance(0.3) ? random.between(1, 500) : random.between(500, kernel.capacity * 2),
    };
    this.#maxConnections = random.chance(0.3) ? random.between(1, 3) : 100;
    this.#idleTimeout = random.chance(0.3) ? random.between(1, 100) / 10 : 0;
    this.#stubborn = random.chance(0.3) ? 0.3 : 0;
    this.#toConnect = random.between(1, random.chance(0.3) ? (random.chance(0.2) ? 100 : 40) : 6);
    this.#backlog = random.chance(0.3) ? random.between(0, 4) : undefined;
    this.#largestWrite = random.chance(0.3) ? 50 : kernel.capacity;
    this.#stopTimeout = random.chance(0.2) ? 0 : random.between(1, 120) / 10;
    this.#limits = new Limits(this.bun, this.#idleTimeout, this.#stopTimeout, this.pace);
    const some = (most: number): number => (random.chance(0.3) ? 0 : random.next() * most);
    this.#dice = new Dice({
      connect: random.chance(0.3) ? 20 : 0.5,
      answer: 5,
      accept: 5,
      write: 5 + some(40),
      read: 2 + some(40),
      deliver: 40 + some(40),
      arrive: 5,
      notice: 5,
      finish: some(1),
      leave: some(0.2),
      reset: some(0.2),
      cut: some(0.1),
      break: random.chance(0.3) ? 0.2 : 0,
      time: 0.2 + some(2),
      turn: 3,
      drainForNothing: some(2),
      late: some(1),
      exhaust: random.chance(0.2) ? 1 : 0,
      stop: random.chance(0.5) ? 0.2 : 0,
    });
  }

  begin(): void {
    const { reply, recvSize, ring } = this.service;
    const options = {
      host: "127.0.0.1",
      port: 0,
      reply,
      ring,
      ...(recvSize === Infinity ? {} : { recvSize }),
      maxConnections: this.#maxConnections,
      idleTimeout: this.#idleTimeout,
      ...(this.#backlog === undefined ? {} : { backlog: this.#backlog }),
      onDefect: (error: unknown): void => {
        if (!(error instanceof Planned)) this.fail(`a defect: ${Bun.inspect(error)}`);
        this.#defects++;
      },
    };
    void EchoServer.listen(options).then((server) => (this.#server = server));
    this.trace.note("an echo server, ring of @ bytes, # connections at most", this.#maxConnections, ring);
  }

  // What the fakes tell.

  opened(socket: FakeSocket): void {
    const peer = this.#peerOf(socket);
    let open = 0;
    for (const other of this.bun.sockets) if (other !== socket && !this.#peerOf(other).refused) open++;
    peer.refused = open >= this.#maxConnections;
    if (peer.refused) this.#refused++;
    else this.#connections++;
    peer.opened(socket);
  }

  delivers(socket: FakeSocket, queue: Runs, size: number): void {
    this.#delivered += size;
    this.#peerOf(socket).delivered(queue, size);
  }

  /** When there was last no descriptor. */
  #lastExhausted = -Infinity;

  get #exhaustedAt(): number {
    return this.kernel.exhausted ? this.clock.now : this.#lastExhausted;
  }

  override closed(socket: FakeSocket): void {
    this.#peerOf(socket).closed();
  }

  /** What Bun has accepted is judged when it is closed; what it has not is never thrown away. */
  resets(by: Endpoint): void {
    const peer = this.#byEndpoint.get(by.peer);
    if (peer === undefined || peer.socket !== undefined) return;
    // A stop waits for a turn, and not for descriptors.
    if (this.#exhaustedAt >= this.#limits.stopBegan) return;
    this.fail(`peer ${peer.end.id} is reset, and was never accepted`);
  }

  // What happens.

  act(): void {
    const what = this.#dice.throw(this.random);
    const peer = this.#anyPeer();
    switch (what) {
      case "connect":
        return void this.#connect();
      case "write":
        return void peer?.write(this.#largestWrite);
      case "read":
        return void peer?.read();
      case "notice":
        return void peer?.notice();
      case "finish":
        return void peer?.finish();
      case "leave":
        return void peer?.leave(false);
      case "reset":
        return void peer?.leave(true);
      case "cut":
        return void (peer !== undefined && this.#cut(peer));
      case "break":
        return void (peer !== undefined && this.#break(peer));
      case "exhaust":
        return this.#exhaust();
      case "stop":
        return this.#stop();
      default:
        this[
          what as "deliver" | "accept" | "answer" | "arrive" | "time" | "turn" | "drainForNothing" | "late"
        ]();
    }
  }

  #anyPeer(): Peer | undefined {
    const living = this.#living;
    if (living.length === 0) return undefined;
    const at = this.random.between(0, living.length - 1);
    if (!living[at]!.over) return living[at];
    living.splice(at, 1);
    return undefined;
  }

  #connect(): void {
    if (this.#toConnect === 0 || this.#limits.stopBegan < Infinity) return;
    this.#toConnect--;
    const end = this.kernel.connect(this.#server.port);
    this.trace.step("peer # connects", end.id);
    const peer = new Peer(this.kernel, end, this.service, this.#limits, this.random.chance(this.#stubborn));
    this.#peers.push(peer);
    this.#living.push(peer);
    this.#byEndpoint.set(end, peer);
  }

  #cut({ end }: Peer): void {
    if (end.state !== "established") return;
    this.trace.step("the network cuts #", end.id);
    this.kernel.cut(end);
  }

  /** User code will throw when it next writes to this peer. */
  #break({ end: { peer }, socket }: Peer): void {
    if (socket === undefined || socket.closed || peer.broken) return;
    this.trace.step("user code will throw on #", peer.id);
    peer.breaks = true;
  }

  /** From now on nothing can be accepted; or it can again. */
  #exhaust(): void {
    const { kernel, random } = this;
    if (kernel.exhausted && random.chance(0.95)) return;
    if (kernel.exhausted) this.#lastExhausted = this.clock.now;
    kernel.exhausted = !kernel.exhausted;
    this.trace.step(kernel.exhausted ? "no descriptor is left" : "there are descriptors again", 0);
  }

  /** Where accept(2) fails, Bun's loop spins for as long as it listens. */
  #countSpin(): void {
    const { bun, kernel } = this;
    const spins =
      !this.clock.seam &&
      kernel.exhausted &&
      bun.listeners.some(({ listening }) => listening.queue.length > 0);
    this.#spins = spins ? this.#spins + 1 : 0;
    if (this.#spins > MAX_SPINS) this.fail(`Bun's loop spins: ${this.#spins} timers in a row`);
  }

  /**
   * Bun polls the kernel before its timers: nothing waits longer than from one sweep to the next.
   */
  override beforeTimer(): void {
    this.#countSpin();
    for (const listener of [...this.bun.listeners]) while (listener.accept());
    for (const socket of [...this.bun.sockets]) if (!socket.closed) socket.deliver();
  }

  #stop(): void {
    if (this.#limits.stopBegan < Infinity) return;
    this.trace.step("the server is stopped, within @ ms", 0, this.#stopTimeout * 1000);
    this.#limits.stopBegan = this.clock.now;
    if (this.random.chance(0.5)) this.kernel.exhausted = false;
    void this.#server.stop(this.#stopTimeout).then(() => (this.#stopped = true));
  }

  get exhausted(): boolean {
    return (this.#toConnect === 0 && this.#living.length === 0) || this.#stopped;
  }

  pauses(socket: FakeSocket): void {
    this.#peerOf(socket).pauses();
  }

  resumes(socket: FakeSocket): void {
    this.#peerOf(socket).resumes();
  }

  #peerOf({ endpoint }: FakeSocket): Peer {
    return this.#byEndpoint.get(endpoint.peer)!;
  }

  /** A peer may be gone, and its connection still there. */
  check(): void {
    for (const socket of this.bun.sockets) this.#peerOf(socket).check();
    const waiting = this.bun.listeners[0]?.listening.queue.length ?? 0;
    // The kernel lets one more in.
    if (waiting > (this.#backlog ?? 511) + 1)
      this.fail(`${waiting} wait, behind a backlog of ${this.#backlog}`);
  }

  heal(): boolean {
    const waits = this.#peers.some(({ over, stubborn }) => !over && !stubborn);
    if (this.#stopped && this.bun.sockets.length === 0 && !waits) return true;
    this.kernel.shortWrites = 0;
    this.kernel.exhausted = false;
    let happened = this.everythingHappens();
    let waiting = 0;
    for (const peer of this.#peers) {
      if (peer.over) continue;
      peer.end.capacity = 1 << 20;
      if (peer.notice()) happened = true;
      if (peer.stubborn || peer.over) continue;
      waiting++;
      while (peer.read()) happened = true;
      if (peer.finish()) happened = true;
    }
    if (happened) return false;
    const pauses = this.bun.listeners.length === 0;
    if (this.#limits.stopBegan === Infinity && !pauses) {
      if (waiting > 0) this.fail(`${waiting} peers wait, and nothing comes`);
      // Those that stay are given up by the idle timeout, where there is one, and otherwise by a stop.
      if (this.#idleTimeout === 0 || this.bun.sockets.length === 0) this.#stop();
    }
    this.clock.now = Math.max(this.clock.now, Math.min(this.clock.next, this.clock.now + 1e9));
    this.clock.fire();
    return false;
  }

  judge(): void {
    const { figures } = this.#server;
    const out = this.#peers.reduce((sum, { end }) => sum + end.peer.sent, 0);
    const broken = this.#peers.filter(({ end }) => end.peer.broken).length;
    this.assert(this.#defects === broken, `onDefect was told ${this.#defects} times of ${broken} defects`);
    const cutShort = this.#peers.filter((peer) => peer.cutShort).length;
    const { open, held, connections, refused, bytesIn, bytesOut, bytesDropped } = figures;
    const right =
      open === 0 &&
      held === 0 &&
      connections === this.#connections &&
      refused === this.#refused &&
      figures.broken === cutShort &&
      bytesIn + bytesDropped === this.#delivered &&
      bytesOut === out;
    const truth = `${this.#connections} connections, ${this.#refused} refused, ${cutShort} broken, ${this.#delivered} in, ${out} out`;
    this.assert(right, `the figures ${JSON.stringify(figures)} are wrong: ${truth}`);
  }
}
