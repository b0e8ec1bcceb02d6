/**
 * The socket library among itself: listeners, clients, accepted sockets and pairs, each of which makes
 * whatever call comes to the seed's mind. It changes when the library has another call.
 */
import * as socket from "../../src/socket.ts";
import type { Endpoint } from "./kernel.ts";
import type { FakeSocket } from "./fake-bun.ts";
import { Call, callClosed, connectEx, Manners, type AnySocket, type CountedAbort } from "./library-call.ts";
import { End } from "./library-end.ts";
import type { Runs } from "./runs.ts";
import { Server } from "./library-server.ts";
import { Dice, World } from "./world.ts";

const NOBODY_LISTENS = 29_999;

export class LibraryWorld extends World {
  readonly #servers: Server[] = [];
  readonly #ends: End[] = [];
  readonly #byEndpoint = new Map<Endpoint, End>();
  readonly #dice: Dice;
  readonly #largest: number;
  readonly #manners: Manners;
  /** How often something comes in the microtasks after a call. */
  readonly #gapRate: number;
  #toConnect: number;
  readonly #atOnce: number;
  #ids = 0;

  constructor(seed: number, loud: boolean) {
    super(seed, loud);
    const { random } = this;
    this.#toConnect = random.between(1, 60);
    this.#atOnce = random.between(1, random.chance(0.3) ? 20 : 6);
    this.#largest = Math.min([20, 2000, 50_000, 1 << 20][random.between(0, 3)]!, this.kernel.capacity * 4);
    this.#manners = new Manners(random, this.pace);
    this.#gapRate = [0, 0.1, 0.5][random.between(0, 2)]!;
    const some = (most: number): number => (random.chance(0.3) ? 0 : random.next() * most);
    this.#dice = new Dice({
      connect: random.chance(0.3) ? 20 : 3,
      pair: 0.5,
      retry: 2,
      answer: 5,
      accept: 5,
      acceptCall: 3,
      recv: 2 + some(40),
      recvInto: some(10),
      send: some(20),
      sendall: some(30),
      deliver: 40 + some(40),
      arrive: 5,
      abort: some(3),
      shutdownWrite: some(1),
      shutdownRead: some(0.2),
      shutdownBoth: some(0.2),
      close: some(0.5),
      asyncDispose: some(0.3),
      dispose: some(0.3),
      closed: some(1),
      cut: some(0.2),
      time: 0.2 + some(3),
      turn: 5,
      drainForNothing: some(2),
      late: some(1),
      listen: some(0.2),
      closeServer: random.chance(0.3) ? 0.2 : 0,
    });
  }

  begin(): void {
    this.#listen();
  }

  // What the fakes tell.

  opened(fake: FakeSocket): void {
    const { endpoint } = fake;
    let end = this.#ends.find((one) => one.waiting("connect") && one.sock?.fileno() === fake.fd);
    if (end === undefined) {
      end = new End(this, this.#ids++);
      this.#servers.find(({ port, closed }) => port === endpoint.port && !closed)?.queue.push(end);
    }
    this.#byEndpoint.set(endpoint, end);
    end.attach(fake);
  }

  delivers({ endpoint }: FakeSocket, queue: Runs, size: number): void {
    this.#byEndpoint.get(endpoint)!.delivered(queue, size);
  }

  pauses({ endpoint }: FakeSocket): void {
    this.#byEndpoint.get(endpoint)!.pauses();
  }

  resumes({ endpoint }: FakeSocket): void {
    this.#byEndpoint.get(endpoint)!.resumes();
  }

  override closed(fake: FakeSocket): void {
    const end = this.#byEndpoint.get(fake.endpoint)!;
    if (fake.data !== undefined) return end.gone();
    // A connection that never got a stream was refused.
    const server = this.#servers.find(({ queue }) => queue.includes(end));
    if (server === undefined) return;
    server.queue.splice(server.queue.indexOf(end), 1);
    const room = server.backlog + server.accepts;
    if (server.queue.length < room) this.fail(`refused, and there is room for ${room}`);
  }

  /** What Bun has accepted is judged when it is gone; what it has not is thrown away with its listener. */
  resets(): void {}

  // What happens.

  act(): void {
    const what = this.#dice.throw(this.random);
    switch (what) {
      case "listen":
        return this.#servers.length < 4 ? this.#listen() : undefined;
      case "connect":
        return this.#connect();
      case "pair":
        return this.#pair();
      case "retry":
        return this.#retry();
      case "acceptCall":
        return this.#acceptCall(this.#anyServer());
      case "closeServer":
        return this.#closeServer(this.#anyServer());
      case "abort":
        return this.#abort();
      case "cut":
        return this.#cut();
      case "answer":
      case "accept":
      case "deliver":
      case "arrive":
      case "time":
      case "turn":
      case "drainForNothing":
      case "late":
        return void this[what]();
      default:
        return this.#call(what);
    }
  }

  #listen(port = 0): void {
    const server = new Server(
      this,
      this.#ids++,
      port,
      this.random.chance(0.5) ? this.random.between(0, 3) : 50,
    );
    this.trace.step("listen on #, backlog @", server.port, server.backlog);
    this.#servers.push(server);
  }

  #anyServer(): Server | undefined {
    const server = this.#servers[this.random.between(0, this.#servers.length - 1)];
    return server?.closed === false ? server : undefined;
  }

  #connect(): void {
    if (this.#toConnect === 0 || this.#alive >= this.#atOnce) return;
    this.#toConnect--;
    const end = new End(this, this.#ids++);
    end.sock = socket.socket() as unknown as AnySocket;
    this.#ends.push(end);
    this.#connectTo(end, end.sock);
  }

  /** One that failed is tried again, or given up. */
  #retry(): void {
    const end = this.#ends.find(({ failed, closed }) => failed && !closed);
    if (end === undefined) return;
    end.failed = false;
    if (this.random.chance(0.3)) end.close("close");
    else this.#connectTo(end, end.sock!);
  }

  #connectTo(end: End, sock: AnySocket): void {
    const port = this.#anyServer()?.port ?? NOBODY_LISTENS;
    const given = this.#manners.next();
    const timeout = given.timeout === 0 ? 1 : given.timeout;
    sock.settimeout(timeout === null ? null : timeout / 1000);
    this.trace.step("end # connects to @", end.id, port);
    const call = new Call("connect", 0, { ...given, timeout }, this.clock.now, false);
    const options = given.abort && { signal: given.abort.controller.signal };
    const address = ["127.0.0.1", port] as unknown as string;
    const told = this.random.chance(0.3) ? connectEx(sock, address, options) : sock.connect(address, options);
    const resolved = (): void => {
      if (end.endpoint?.state !== "established")
        end.fail("it is connected, and its connection does not stand");
      end.connected = true;
    };
    end.follow(call, told, resolved, () => (end.failed = true));
    this.#inGap(end, given.abort);
  }

  /**
   * At once or a few microtasks after a call, and before any event, comes another one, or its signal is
   * aborted.
   */
  #inGap(end: End, abort?: CountedAbort): void {
    const { random } = this;
    if (!random.chance(this.#gapRate)) return;
    let left = random.between(0, 8);
    const what = this.#dice.throw(random);
    const act = (): void => {
      if (this.trace.fault !== undefined || end.closed) return;
      for (const call of end.pending) call.raced = true;
      if (abort !== undefined && random.chance(0.5)) {
        const at = this.#manners.signals.indexOf(abort);
        if (at < 0) return;
        this.#manners.signals.splice(at, 1);
        this.trace.note("its signal is aborted in the gap", 0);
        return abort.controller.abort();
      }
      // Before it is connected there is nothing but to close it.
      if (!end.connected) return end.close(random.chance(0.8) ? "close" : "dispose");
      if (what === "recv") end.recv(random.between(0, 50), this.#manners.next(), true);
      else this.#callOn(end, what);
    };
    const tick = (): void => (left-- > 0 ? queueMicrotask(tick) : act());
    tick();
  }

  #pair(): void {
    if (this.#toConnect === 0 || this.#alive >= this.#atOnce) return;
    this.#toConnect--;
    this.trace.step("a pair", 0);
    for (const sock of socket.socketpair() as unknown as AnySocket[]) {
      const fake = this.bun.sockets.find(({ fd }) => fd === sock.fileno())!;
      this.#connected(this.#byEndpoint.get(fake.endpoint)!, sock);
    }
  }

  #connected(end: End, sock: AnySocket): void {
    end.sock = sock;
    end.connected = true;
    if (!this.#ends.includes(end)) this.#ends.push(end);
  }

  #acceptCall(server: Server | undefined): void {
    if (server === undefined || server.end.pending.size > 4) return;
    const given = this.#manners.next();
    const { end, listening } = server;
    this.trace.step("accept on # is called", server.port);
    listening.settimeout(given.timeout === null ? null : given.timeout / 1000);
    const call = new Call("accept", 0, given, this.clock.now, false);
    const options = given.abort && { signal: given.abort.controller.signal };
    end.follow(call, options === undefined ? listening.accept() : listening.accept(options), ([conn]) => {
      const accepted = server.queue.shift();
      if (accepted === undefined) return this.fail("accept gives a connection that never came");
      const fd = conn.fileno();
      if (fd !== -1 && fd !== accepted.fake!.fd) this.fail("accept does not give the oldest connection");
      this.#connected(accepted, conn as unknown as AnySocket);
    });
  }

  #closeServer(server: Server | undefined): void {
    if (server === undefined) return;
    this.trace.step("the listener of # is closed", server.port);
    server.closed = server.end.closed = true;
    for (const end of server.queue.splice(0)) {
      end.unwanted = true;
      end.closed = true;
    }
    server.listening.close();
    if (this.kernel.ports.has(server.port)) this.fail("the port of a closed listener is not free");
    // And at once somebody else has it.
    if (this.random.chance(0.5)) this.#listen(server.port);
  }

  #abort(): void {
    const abort = this.#manners.signals.splice(this.random.between(0, this.#manners.signals.length), 1)[0];
    if (abort === undefined) return;
    this.trace.step("a signal is aborted, with @ listeners", 0, abort.listeners);
    abort.controller.abort();
    if (abort.listeners !== 0) this.fail(`${abort.listeners} listeners are left on a signal`);
  }

  #cut(): void {
    const fake = this.anySocket();
    if (fake === undefined || fake.endpoint.state !== "established" || !this.random.chance(0.2)) return;
    this.trace.step("the network cuts #", fake.endpoint.id);
    this.kernel.cut(fake.endpoint);
  }

  #call(what: string): void {
    const { random } = this;
    const end = this.#ends[random.between(0, this.#ends.length - 1)];
    if (end !== undefined) this.#callOn(end, what);
  }

  #callOn(end: End, what: string): void {
    const { random } = this;
    if (end.closed) return what === "closed" ? this.#callClosed(end) : undefined;
    const closing = { close: "close", asyncDispose: "async dispose", dispose: "dispose" } as const;
    if (what in closing) {
      if (end.connected || random.chance(0.2)) end.close(closing[what as keyof typeof closing]);
      return;
    }
    if (!end.connected || what === "closed") return;
    const size = random.chance(0.1) ? 0 : random.between(1, random.chance(0.5) ? 50 : this.#largest);
    const reading = end.waiting("recv", "recv_into");
    if (what === "recv" && (!reading || random.chance(0.05))) end.recv(size, this.#manners.next());
    else if (what === "recvInto" && !reading) {
      end.recvInto(Math.max(1, size), this.#manners.next());
      this.#inGap(end);
    } else if ((what === "send" || what === "sendall") && end.pending.size < 6)
      end.send(what, size, this.#manners.next());
    else if (what === "shutdownRead") end.shutdown(socket.SHUT_RD);
    else if (what === "shutdownWrite") end.shutdown(socket.SHUT_WR);
    else if (what === "shutdownBoth") end.shutdown(socket.SHUT_RDWR);
  }

  #callClosed({ sock, id }: End): void {
    if (sock === undefined) return;
    this.trace.step("calls on #, which is closed", id);
    callClosed(sock, (reason) => this.fail(reason));
  }

  get #alive(): number {
    let alive = 0;
    for (const { closed } of this.#ends) if (!closed) alive++;
    return alive;
  }

  get exhausted(): boolean {
    return this.#toConnect === 0 && this.#alive === 0 && this.bun.sockets.length === 0;
  }

  check(): void {
    for (const end of this.#ends) end.check();
    for (const { end, queue, backlog, accepts } of this.#servers) {
      end.check();
      for (const waiting of queue) waiting.check();
      if (queue.length > backlog) this.fail(`${queue.length} connections wait, of ${backlog} at most`);
      if (queue.length > 0 && accepts > 0) this.fail("accept waits, and so does a connection");
    }
  }

  // The end.

  heal(): boolean {
    this.kernel.shortWrites = 0;
    let happened = this.everythingHappens();
    for (const fake of this.bun.sockets) fake.endpoint.capacity = 1 << 20;
    for (const server of this.#servers) if (!server.closed && this.#healServer(server)) happened = true;
    for (const end of this.#ends) if (this.#healEnd(end)) happened = true;
    if (happened) return false;
    const waits = this.#ends.some(({ closed, pending }) => !closed || pending.size > 0);
    if (!waits && this.bun.sockets.length === 0) return true;
    if (this.clock.next === Infinity) this.fail("something waits, and nothing will ever happen");
    this.clock.now = Math.max(this.clock.now, this.clock.next);
    this.clock.fire();
    return false;
  }

  #healServer(server: Server): boolean {
    if (server.queue.length > 0 && server.end.pending.size === 0) this.#acceptCall(server);
    else if (this.kernel.connecting.length === 0 && server.queue.length === 0)
      this.#closeServerForGood(server);
    else return false;
    return true;
  }

  #closeServerForGood(server: Server): void {
    server.closed = server.end.closed = true;
    server.listening.close();
  }

  #healEnd(end: End): boolean {
    if (end.failed && !end.closed) end.close("close");
    if (end.closed || !end.connected) return false;
    if (!end.finAsked) end.shutdown(socket.SHUT_WR);
    else if (!end.ended && !end.readEnded) {
      if (end.waiting("recv", "recv_into")) return false;
      end.recv(1 << 20, { timeout: null });
    } else if (end.pending.size === 0) end.close("close");
    else return false;
    return true;
  }

  judge(): void {
    for (const { listeners } of this.#manners.signals) {
      if (listeners !== 0) this.fail(`${listeners} listeners are left on a signal`);
    }
    for (const { end } of this.#servers) if (end.pending.size > 0) this.fail("an accept waits for ever");
  }
}
