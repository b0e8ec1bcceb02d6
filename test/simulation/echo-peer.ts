/**
 * A scripted peer of the echo server, and the bytes that it is due. It changes when a peer can misbehave in
 * another way, or when what it must get does.
 */
import type { ReplyName } from "../../src/echo/reply.ts";
import type { Connection } from "../../src/core/connection.ts";
import type { Limits } from "./echo-limits.ts";
import type { FakeSocket } from "./fake-bun.ts";
import type { Author, Endpoint, Kernel } from "./kernel.ts";
import { Runs } from "./runs.ts";
import { ShadowRing } from "./shadow-ring.ts";

const BANNER = Buffer.from("Welcome to the server. Type something and hit enter\n");
const OK = Buffer.from("OK...");

export interface Service {
  readonly reply: ReplyName;
  readonly recvSize: number;
  readonly ring: number;
}

export class Peer implements Author {
  readonly end: Endpoint;
  readonly service: Service;
  /** The server's socket, once it is open. */
  socket: FakeSocket | undefined;
  /** Whether the server turned it away. */
  refused = false;
  /** Where in the pattern its bytes begin, and how many it will send. */
  readonly place: number;
  budget: number;
  sent = 0;
  /** It never ends of itself. */
  readonly stubborn: boolean;
  over = false;
  /** What the server has been given and has not sent yet. */
  readonly expected = new Runs();
  readonly ring = new ShadowRing();
  /** The largest chunk that was handed over. */
  largest = 0;
  /** The whole of the last piece that was written. */
  piece = 0;
  /** When, as the kernel saw it, the server's socket was opened, last moved a byte, and sent its FIN. */
  openedAt = -Infinity;
  movedAt = -Infinity;
  shutAt = Infinity;
  /** When bytes of the peer last came to the server. */
  cameAt = -Infinity;
  /** When the peer last read. */
  readAt = -Infinity;
  /** It ended before the kernel had taken an answer to all of its bytes. */
  cutShort = false;
  readonly #kernel: Kernel;
  readonly #limits: Limits;
  /** Something came after the server's FIN. */
  #late = false;
  /** Its FIN was there before the server's. */
  #endedFirst = false;
  /** The bytes that the server received before its FIN, and the reply that is due. */
  #came = 0;
  #owed = 0;
  /** Of a tutorial's replies: how many bytes, and how many of them are composed. */
  readonly #chunks: number[] = [];
  #copied = 0;
  #replies = 0;

  constructor(kernel: Kernel, end: Endpoint, service: Service, limits: Limits, stubborn: boolean) {
    const { random } = kernel;
    this.#kernel = kernel;
    this.#limits = limits;
    this.end = end;
    this.service = service;
    this.stubborn = stubborn;
    this.place = random.between(0, 1 << 20);
    this.budget = random.chance(0.1) ? 0 : random.between(1, kernel.capacity * 10);
    end.peer.author = this;
  }

  get connection(): Connection | undefined {
    return this.socket?.data as Connection | undefined;
  }

  // What the peer does. Each gives whether it could.

  write(most: number): boolean {
    const { end } = this;
    const room = Math.min(end.room, this.budget - this.sent);
    if (end.state !== "established" || end.shut || end.error !== "" || end.closed || room <= 0) return false;
    const size = this.#kernel.random.between(1, Math.min(room, most));
    this.#kernel.trace.step("peer # writes @", end.id, size);
    if (end.peer.closed) this.#kernel.meetsClosed(end);
    else if (end.peer.receives) end.peer.incoming.pushPattern(this.place + this.sent, size);
    this.sent += size;
    return true;
  }

  read(): boolean {
    const waits = this.end.incoming.length;
    if (this.end.closed || waits === 0) return false;
    const { random, trace } = this.#kernel;
    const size = random.chance(0.3) ? waits : random.between(1, waits);
    trace.step("peer # reads @", this.end.id, size);
    this.#kernel.took(this.end, size);
    this.readAt = this.#limits.now;
    return true;
  }

  finish(): boolean {
    const { end } = this;
    if (end.state !== "established" || end.shut || end.closed || end.error !== "") return false;
    this.#kernel.trace.step("peer # sends FIN behind @", end.id, this.sent);
    this.#kernel.shutdown(end);
    return true;
  }

  /** Closes, whatever is unread; or resets. */
  leave(reset: boolean): boolean {
    const { end } = this;
    if (end.closed || end.state === "connecting") return false;
    this.#kernel.trace.step(
      reset ? "peer # resets" : "peer # closes with @ unread",
      end.id,
      end.incoming.length,
    );
    this.#kernel.closeEndpoint(end, reset);
    this.over = true;
    return true;
  }

  /** The peer sees the end. @returns whether it did */
  notice(): boolean {
    const { end } = this;
    if (this.over || end.closed) return false;
    if (end.resetDue) this.#kernel.arrive(end);
    // Whether the server had a reason is asked when it closes.
    if (end.error !== "") return this.leave(false);
    if (!end.shut || !end.fin || end.incoming.length > 0) return false;
    const { trace } = this.#kernel;
    if (end.read !== this.#owed) trace.fail(`peer ${end.id} got ${end.read} of ${this.#owed}`);
    if (this.#endedFirst && this.#came !== this.sent) {
      trace.fail(`peer ${end.id} is answered ${this.#came} of its ${this.sent} bytes`);
    }
    return this.leave(false);
  }

  // The bytes that are due to it.

  opened(socket: FakeSocket): void {
    this.socket = socket;
    this.openedAt = this.movedAt = this.#limits.now;
    if (this.service.reply === "tutorial") this.#owes(BANNER);
  }

  #owes(bytes: Buffer): void {
    this.expected.push(bytes, 0, bytes.length);
    this.#owed += bytes.length;
  }

  delivered(queue: Runs, size: number): void {
    this.largest = Math.max(this.largest, size);
    this.movedAt = this.cameAt = this.#limits.now;
    // After its own FIN, the server drops input.
    if (this.socket!.shut) {
      this.#late = true;
      return;
    }
    this.ring.push(size);
    this.#came += size;
    this.#owed += size;
    if (this.service.reply === "raw") return queue.copyTo(this.expected, size);
    this.#chunks.push(size);
    const chunk = new Runs();
    queue.copyTo(chunk, size);
    while (chunk.length > 0) {
      this.#owes(OK);
      chunk.moveTo(this.expected, Math.min(chunk.length, this.service.recvSize));
    }
  }

  written(queue: Runs, bytes: Uint8Array, offset: number, length: number): void {
    this.piece = bytes.length;
    if (length > 0) this.movedAt = this.#limits.now;
    if (!this.expected.begins(bytes, offset, length)) {
      const reason = length > this.expected.length ? "more than there is" : "not what comes next";
      this.#kernel.trace.fail(`${length} bytes to peer ${this.end.id} are ${reason}`);
    }
    this.expected.moveTo(queue, length);
  }

  finished(): void {
    const { trace } = this.#kernel;
    const left = this.expected.length;
    if (left > 0) trace.fail(`the FIN to peer ${this.end.id} overtakes ${left} bytes`);
    const { fin, incoming } = this.end.peer;
    this.#endedFirst = fin && incoming.length === 0 && this.socket!.endTold;
    if (!this.#endedFirst && !this.#limits.mayFinish(this)) {
      trace.fail(`a FIN to peer ${this.end.id}, which has not ended`);
    }
    this.shutAt = this.#limits.now;
  }

  /** The server's socket is gone. */
  closed(): void {
    const { incoming, error, broken } = this.socket!.endpoint;
    // Unread when a reset comes is only what Bun has not handed over yet: it would count as what is expected.
    const unread = error === "" && incoming.length > 0;
    this.cutShort = !this.refused && (broken || unread || this.#late || this.expected.length > 0);
    if (this.#limits.mayClose(this)) return;
    this.#kernel.trace.fail(`the server closes on peer ${this.end.id}, and there is no reason`);
  }

  /** How many bytes the replies to all that was taken have. */
  #composed(copied: number): number {
    for (let left = copied - this.#copied; left > 0;) {
      const taken = Math.min(left, this.#chunks[0]!);
      this.#replies += Math.ceil(taken / this.service.recvSize);
      if (taken === this.#chunks[0]) this.#chunks.shift();
      else this.#chunks[0]! -= taken;
      left -= taken;
    }
    this.#copied = copied;
    return BANNER.length + copied + this.#replies * OK.length;
  }

  /**
   * The ring as it is within a call of the code under test.
   * @param tail bytes of a composed reply that wait
   */
  #ringNow(tail: number): ShadowRing {
    const { received, held } = this.connection!;
    this.ring.advance(received - (held - tail));
    return this.ring;
  }

  /** Reading stops when there is no room, and for no other reason. */
  pauses(): void {
    if (this.#limits.mayStopReading(this)) return;
    const raw = this.service.reply === "raw";
    const tail = raw ? 0 : this.#composed(this.connection!.copied) - this.connection!.sent;
    if (this.#ringNow(tail).full(this.service.ring, tail > 0 ? this.piece : 0)) return;
    this.#kernel.trace.fail(`connection ${this.end.peer.id}: paused, and it is not full`);
  }

  /** It goes on when there is plenty again: that is never asked for before a composed reply is out. */
  resumes(): void {
    if (this.#ringNow(0).low(this.service.ring)) return;
    this.#kernel.trace.fail(`connection ${this.end.peer.id}: resumed, and it is not low`);
  }

  /** The invariants of one connection. */
  check(): void {
    const { socket, connection, ring } = this;
    const { trace } = this.#kernel;
    if (socket?.endpoint.broken === true)
      trace.fail(`peer ${this.end.id}: user code threw, and it is still there`);
    if (socket === undefined || connection === undefined || connection.closed) return;
    if (this.#limits.overdue(this)) trace.fail(`peer ${this.end.id} is idle, and still there`);
    const { received, sent, held, copied } = connection;
    const raw = this.service.reply === "raw";
    const tail = raw ? 0 : this.#composed(copied) - sent;
    const waits = received - (raw ? sent : copied);
    const who = `connection ${socket.endpoint.id}`;
    if (received !== ring.came) trace.fail(`${who}: received is ${received}, and ${ring.came} came`);
    if (sent !== socket.endpoint.sent)
      trace.fail(`${who}: sent is ${sent}, and ${socket.endpoint.sent} went`);
    if (tail < 0 || held !== tail + waits) {
      trace.fail(`${who}: received ${received}, sent ${sent}, copied ${copied}, and held is ${held}`);
    }
    if (raw && copied > 0) trace.fail(`${who}: ${copied} bytes copied`);
    const most = this.service.ring + this.largest + (raw ? 0 : 2 * 65_536 + 2 * this.service.recvSize);
    if (held > most) trace.fail(`${who}: ${held} bytes held, of ${most} at most`);
    ring.advance(received - waits);
    const beside = tail > 0 ? this.piece : 0;
    if (connection.paused !== socket.paused) trace.fail(`${who}: paused is ${connection.paused}`);
    if (!socket.paused && ring.full(this.service.ring, beside)) trace.fail(`${who}: full, and not paused`);
    if (socket.paused && ring.low(this.service.ring, beside) && !this.#limits.mayStopReading(this)) {
      trace.fail(`${who}: low, and still paused`);
    }
  }
}
