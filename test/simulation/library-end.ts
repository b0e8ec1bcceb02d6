/**
 * One end of a connection of the socket library: the calls that wait on it, what each may come to, and the
 * bytes that it is due. It changes when the meaning of a call does.
 */
import type { Connection } from "../../src/core/connection.ts";
import type { AddressFamily } from "../../src/os/constants.ts";
import type { Socket } from "../../src/socket.ts";
import type { FakeSocket } from "./fake-bun.ts";
import type { Author, Endpoint } from "./kernel.ts";
import { Call, nameOf, type Given, type Kind } from "./library-call.ts";
import { Received } from "./received.ts";
import { Runs } from "./runs.ts";
import { ShadowRing } from "./shadow-ring.ts";
import type { World } from "./world.ts";

/**
 * After close(): how long the peer may take nothing of what is queued for it, and how long it may go on after
 * our FIN. The library may take twice as long: it polls for the first, and begins the second anew at a drain.
 */
const FLUSH_MS = 10_000;
const LINGER_MS = 2_000;
/** The clock's sums of fractions are not exact. */
const EXACT_MS = 0.001;
/** The library's ring, and the largest chunk on top. */
const RING = 262_144;
const CHUNK = 524_288;

export class End implements Author {
  readonly id: number;
  readonly world: World;
  sock: Socket<AddressFamily> | undefined;
  fake: FakeSocket | undefined;
  connected = false;
  /** Its connect has failed; it can be tried again. */
  failed = false;
  /** close() has been called, or dispose. */
  closed = false;
  closedAt = Infinity;
  /** When the kernel last took a byte, and the FIN. */
  #sentAt = -Infinity;
  #finAt = Infinity;
  disposed = false;
  finAsked = false;
  readEnded = false;
  /** It may be reset by the library: refused, its listener closed, or its connect given up. */
  unwanted = false;
  /** recv() has returned the end, or thrown an error. */
  ended = false;
  readonly pending = new Set<Call>();
  /** Sends, in order, that may still have bytes to give. */
  readonly #sends: Call[] = [];
  /** Calls that receive, in order. */
  readonly #receiving: { call: Call; judge: () => void }[] = [];
  readonly #received = new Received((reason) => this.fail(reason));
  readonly #ring = new ShadowRing();
  /** When a closed socket last made progress with its bytes. */
  #progress = { at: 0, sent: -1, owes: false };
  #offered: number;

  constructor(world: World, id: number) {
    this.world = world;
    this.id = id;
    this.#offered = world.random.between(0, 1 << 20);
  }

  get endpoint(): Endpoint | undefined {
    return this.fake?.endpoint;
  }

  attach(fake: FakeSocket): void {
    this.fake = fake;
    fake.endpoint.author = this;
  }

  fail(reason: string): never {
    this.world.fail(`end ${this.id}: ${reason}`);
  }

  waiting(...kinds: Kind[]): boolean {
    for (const { kind } of this.pending) if (kinds.includes(kind)) return true;
    return false;
  }

  // Calls.

  /** Follows a call until it settles. */
  follow<T>(
    call: Call,
    promise: Promise<T>,
    resolved: (value: T) => void,
    rejected?: (error: unknown) => void,
  ): void {
    this.pending.add(call);
    const settle = (): void => {
      if (call.settled) this.fail(`${call.kind} settles twice`);
      call.settled = true;
      this.pending.delete(call);
    };
    promise.then(
      (value) => {
        settle();
        this.world.trace.note(`end # ${call.kind} is done`, this.id, call.taken);
        resolved(value);
      },
      (error: unknown) => {
        settle();
        this.world.trace.note(`end # ${call.kind}: ${nameOf(error)}`, this.id);
        this.#justify(call, error);
        rejected?.(error);
      },
    );
  }

  /** Has the call any reason to fail so? */
  #justify(call: Call, error: unknown): void {
    const { endpoint } = this;
    const broken = endpoint !== undefined && (endpoint.error !== "" || endpoint.resetDue);
    const name = nameOf(error);
    const due = this.world.clock.now >= call.deadline - 0.001;
    const reasons: Record<string, boolean> = {
      AbortError: call.abort?.controller.signal.aborted === true,
      ETIMEDOUT: due || (call.kind === "sendall" && this.#stuck),
      EAGAIN: !call.waits,
      EINPROGRESS: !call.waits,
      EBADF: this.closed,
      EPIPE: call.kind.startsWith("send") && (this.finAsked || broken || this.closed),
      ECONNRESET: broken,
      ECONNREFUSED: endpoint?.state === "refused",
      EBUSY: call.second,
    };
    if (reasons[name] !== true) this.fail(`${call.kind} fails with ${name}, and there is no reason`);
    if (call.kind === "send" && call.taken > 0) this.fail(`send fails, and ${call.taken} bytes went`);
  }

  recv(size: number, given: Given, inGap = false): void {
    const call = this.#make("recv", size, given);
    call.raced = inGap;
    const options = given.abort && { signal: given.abort.controller.signal };
    const promise = options === undefined ? this.sock!.recv(size) : this.sock!.recv(size, options);
    this.#receive(call, promise, (bytes) => this.#got(call, bytes));
  }

  recvInto(size: number, given: Given): void {
    const call = this.#make("recv_into", size, given);
    const buffer = Buffer.alloc(size + 8, 0xee);
    const options = given.abort && { signal: given.abort.controller.signal };
    this.#receive(
      call,
      this.sock!.recv_into(buffer, size, ...(options === undefined ? [] : [options])),
      (count) => {
        if (buffer.subarray(count, count + 64).some((byte) => byte !== 0xee))
          this.fail("recv_into writes too much");
        this.#got(call, buffer.subarray(0, count));
      },
    );
  }

  /** Judges what receiving calls gave in the order of the calls: their promises may settle in another one. */
  #receive<T>(call: Call, promise: Promise<T>, resolved: (value: T) => void): void {
    const judged = { call, judge: (): void => undefined };
    this.#receiving.push(judged);
    const next = (): void => {
      while (this.#receiving[0]?.call.settled) this.#receiving.shift()!.judge();
    };
    const got = (value: T): void => {
      judged.judge = () => resolved(value);
      next();
    };
    const failed = (error: unknown): void => {
      judged.judge = () => this.#gotError(error);
      next();
    };
    this.follow(call, promise, got, failed);
  }

  #make(kind: Kind, size: number, given: Given): Call {
    if (!this.closed) this.sock!.settimeout(given.timeout === null ? null : given.timeout / 1000);
    const { clock, trace } = this.world;
    trace.step(`end # ${kind} @${given.abort === undefined ? "" : ", with a signal"}`, this.id, size);
    const receives = kind === "recv" || kind === "recv_into";
    return new Call(kind, size, given, clock.now, receives && this.waiting("recv", "recv_into"));
  }

  #got(call: Call, bytes: Buffer): void {
    if (bytes.length > call.size) this.fail(`${bytes.length} bytes, and ${call.size} were wanted`);
    if (call.second && !call.raced) this.fail(`a second ${call.kind} is served while another waits`);
    // It was answered just before the close.
    if (call.size === 0 || (call.raced && (this.closed || this.readEnded))) return;
    if (this.closed)
      this.fail(`${call.kind} gives ${bytes.length} bytes of a socket that was closed meanwhile`);
    if (bytes.length === 0) return this.#gotEnd();
    if (this.readEnded) this.fail(`${bytes.length} bytes after the end`);
    this.#received.given(bytes);
  }

  /** A reset is reported after all bytes that came before it. */
  #gotError(error: unknown): void {
    if (nameOf(error) !== "ECONNRESET") return;
    this.ended = true;
    this.#received.ended("a reset");
  }

  #gotEnd(): void {
    const before = this.ended;
    this.ended = true;
    if (before || this.readEnded) return;
    const { fin, incoming, errorTold, error, read, peer } = this.endpoint!;
    this.#received.ended("the end");
    // A write has got the reset, and Bun reports an end.
    if (error !== "" && errorTold) return;
    if (!fin || incoming.length > 0) this.fail("the end, and the peer has not ended");
    if (read !== peer.sent) this.fail(`the end behind ${read} bytes of ${peer.sent}`);
  }

  send(kind: "send" | "sendall", size: number, given: Given): void {
    const call = this.#make(kind, size, given);
    call.place = this.#offered;
    this.#offered += size;
    const bytes = new Runs();
    bytes.pushPattern(call.place, size);
    const piece = bytes.copy(size);
    this.#sends.push(call);
    const options = given.abort && { signal: given.abort.controller.signal };
    const sock = this.sock!;
    const promise: Promise<number | void> =
      options === undefined ? sock[kind](piece) : sock[kind](piece, options);
    const whole = kind === "sendall";
    this.follow(
      call,
      promise,
      (sent) => {
        if (whole ? call.taken !== size : call.taken !== sent) {
          this.fail(`${kind} of ${size} says ${String(sent)}, and ${call.taken} went`);
        }
        if (!whole && size > 0 && sent === 0) this.fail("send of nothing");
        // It is the caller's again.
        piece.fill(0xee);
      },
      () => piece.fill(0xee),
    );
  }

  shutdown(how: number): void {
    this.world.trace.step("end # shutdown(@)", this.id, how);
    if (how !== 0) this.finAsked = true;
    if (how !== 1) this.#readNoMore();
    this.sock!.shutdown(how);
  }

  #readNoMore(): void {
    this.readEnded = true;
    this.#received.forget();
  }

  close(how: "close" | "async dispose" | "dispose"): void {
    this.world.trace.step(`end # ${how}`, this.id);
    this.#readNoMore();
    this.closed = true;
    this.closedAt = this.world.clock.now;
    if (how === "dispose") {
      this.disposed = true;
      this.sock![Symbol.dispose]();
    } else if (how === "close") {
      this.sock!.close();
      this.sock!.close();
    } else {
      const call = new Call("dispose", 0, { timeout: null }, this.world.clock.now, false);
      this.follow(call, this.sock![Symbol.asyncDispose](), () => {
        if (this.fake !== undefined && !this.fake.closed) this.fail("disposed of, and still there");
      });
    }
    if (this.sock!.fileno() !== -1) this.fail("a closed socket has a descriptor");
  }

  // What the fakes tell.

  delivered(queue: Runs, size: number): void {
    // What Bun hands over in spite of a pause is lost with the connection: the peer has reset it.
    if (this.readEnded || this.fake!.paused) return;
    this.#received.handed(queue, size);
    this.#ring.push(size);
  }

  written(queue: Runs, bytes: Uint8Array, offset: number, length: number): void {
    if (length === 0) return;
    this.#sentAt = this.world.clock.now;
    for (let call = this.#sends[0]; call !== undefined; call = this.#sends[0]) {
      const left = call.size - call.taken;
      if (!call.settled && left > 0) {
        const its = new Runs();
        its.pushPattern(call.place + call.taken, left);
        if (its.begins(bytes, offset, length)) {
          call.taken += length;
          return its.moveTo(queue, length);
        }
        // A send that has given something may be over already, and its promise does not know it yet.
        if (call.kind !== "send" || call.taken === 0) {
          this.fail(`${length} bytes that are not what comes next of ${call.kind}`);
        }
      }
      this.#sends.shift();
    }
    this.fail(`${length} bytes that nobody sends`);
  }

  finished(): void {
    if (!this.finAsked && !this.closed) this.fail("a FIN that nobody has asked for");
    for (const { kind, settled, taken, size } of this.#sends) {
      if (settled || taken === size || (kind === "send" && (taken > 0 || this.closed))) continue;
      this.fail(`the FIN overtakes ${size - taken} bytes of ${kind}`);
    }
    this.#finAt = this.world.clock.now;
  }

  /** Closed, and the peer has taken nothing for too long. */
  get #stuck(): boolean {
    return this.closed && this.world.clock.now - Math.max(this.closedAt, this.#sentAt) >= FLUSH_MS - EXACT_MS;
  }

  /** Whether the library may give up its closed socket now, although the peer has not ended. */
  get #mayGiveUp(): boolean {
    if (!this.closed) return false;
    if (this.waiting("sendall")) return this.#stuck;
    return this.world.clock.now - Math.max(this.closedAt, this.#finAt) >= LINGER_MS - EXACT_MS;
  }

  /** The ring as it is within a call of the code under test. */
  get #ringNow(): ShadowRing {
    const { received, held } = this.fake!.data as Connection;
    this.#ring.advance(received - held);
    return this.#ring;
  }

  pauses(): void {
    if (!this.#ringNow.full(RING)) this.fail("paused, and it is not full");
  }

  resumes(): void {
    if (!this.#ringNow.low(RING)) this.fail("resumed, and it is not low");
  }

  /**
   * The connection is gone. Whether the peer will find out or not: without both FINs there must be a reason.
   */
  gone(): void {
    const { endpoint, endTold } = this.fake!;
    if (endpoint.error !== "" || (endTold && endpoint.shut)) return;
    const late = [...this.pending].some(({ kind, deadline, abort }) => {
      return kind === "connect" && (deadline <= this.world.clock.now || abort?.controller.signal.aborted);
    });
    const abandoned = this.closed && !this.connected;
    if (this.disposed || this.unwanted || abandoned || late || this.#mayGiveUp) return;
    this.fail("its connection is given up, and there is no reason");
  }

  /** A closed socket is gone in bounded time, whatever its peer does. */
  #checkClosing({ closed, endpoint }: FakeSocket): void {
    const { now, next } = this.world.clock;
    const { sent } = endpoint;
    // Its bytes may be given up: that is noticed at a drain, or with the next poll.
    const owes = this.#finAt === Infinity && (this.#progress.owes || this.waiting("sendall"));
    if (this.#progress.sent !== sent || this.#progress.owes !== owes)
      this.#progress = { at: now, sent, owes };
    // A timer may be late, and the next one counts from there.
    const bound = 2 * (owes ? FLUSH_MS : LINGER_MS) + 2 * this.world.pace + 1;
    if (closed || next <= now || now - this.#progress.at <= bound) return;
    this.fail(`closed at ${this.closedAt}, and still there`);
  }

  /** The invariants. */
  check(): void {
    if (this.closed && this.fake !== undefined) this.#checkClosing(this.fake);
    const { clock } = this.world;
    for (const { kind, deadline, abort, waits } of this.pending) {
      if (clock.next > clock.now && deadline + 1 <= clock.now) this.fail(`${kind} is overdue`);
      // A non-blocking one settles with the next turn in any case.
      if (waits && abort?.controller.signal.aborted)
        this.fail(`${kind} waits, and its signal has been aborted`);
    }
    const connection = this.fake?.data as Connection | undefined;
    if (connection === undefined || connection.closed) return;
    const { received, sent, held, paused } = connection;
    const { endpoint, paused: bunPaused } = this.fake!;
    if (sent !== endpoint.sent) this.fail(`sent is ${sent}, and ${endpoint.sent} went`);
    if (paused !== bunPaused) this.fail(`paused is ${paused}`);
    if (held > RING + CHUNK) this.fail(`${held} bytes held`);
    if (this.readEnded) {
      if (held > 0 || paused) this.fail(`reads have ended, and ${held} bytes are held, paused ${paused}`);
      return;
    }
    const ring = this.#ring;
    if (received !== ring.came) this.fail(`received is ${received}, and ${ring.came} came`);
    const { count } = this.#received;
    if (received !== count + held) this.fail(`${received} came, ${count} were received, ${held} are held`);
    ring.advance(count);
    if (!bunPaused && ring.full(RING)) this.fail("full, and not paused");
    if (bunPaused && ring.low(RING)) this.fail("low, and still paused");
  }
}
