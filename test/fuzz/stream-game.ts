/**
 * One random program of socket calls on two connected ends, and its model: what is received is a prefix of
 * what was sent, and all of it at a graceful end. Each direction has a writer and a reader, which run at the
 * same time. It changes when an end may call something else.
 */
import { expect } from "bun:test";
import * as socket from "../../src/socket.ts";
import { pattern } from "../support/peers.ts";
import { Random } from "../support/random.ts";

export type End = socket.Socket<socket.AddressFamily>;
export type Pair = [a: End, b: End];

/** The most that one direction is given. */
const MOST = 4 << 20;
/** What a writer sends, by its place in the stream: one for each end. */
const STREAMS = [pattern(MOST, 1), pattern(MOST, 2)] as const;

/** How a program ends, but for the graceful way: who does what at a random place. */
const ENDINGS = [
  "graceful",
  "graceful",
  "graceful",
  "close",
  "shutdown both",
  "stop reading",
  "abandon",
] as const;
type Ending = (typeof ENDINGS)[number];

/** One direction's truth. */
interface Direction {
  readonly bytes: Buffer;
  /** Bytes that the writer's calls have accepted for certain. */
  sent: number;
  /** Bytes that a call which failed half way may have sent on top. */
  maybe: number;
  /** What the reader got, as it came: kept, not copied, so that memory which is used twice shows. */
  readonly got: Buffer[];
  received: number;
  /** The reader has seen the end. */
  atEnd: boolean;
}

/** The error's code. Anything but an OSError is a defect, and is thrown on. */
function codeOf(error: unknown): string {
  if (error instanceof socket.error) return error.code;
  throw error;
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export class Game {
  readonly random: Random;
  readonly ends: Pair;
  readonly ending: Ending;
  readonly directions: [Direction, Direction];
  /** What was called last, for the message of a failure. */
  readonly log: string[] = [];
  /** The end that breaks off does so when its writer has made so many calls. */
  readonly breakAt: number;
  /** The end which breaks off; of the other one everything is graceful. */
  readonly breaker: 0 | 1;
  broken = false;

  constructor(seed: number, ends: Pair) {
    this.random = new Random(seed);
    this.ends = ends;
    this.ending = ENDINGS[this.random.between(0, ENDINGS.length - 1)]!;
    this.breaker = this.random.chance(0.5) ? 0 : 1;
    this.breakAt = this.random.between(0, 25);
    const direction = (bytes: Buffer): Direction => ({
      bytes,
      sent: 0,
      maybe: 0,
      got: [],
      received: 0,
      atEnd: false,
    });
    this.directions = [direction(STREAMS[0]), direction(STREAMS[1])];
    // A small buffer makes calls wait that would otherwise be done at once.
    for (const end of ends) {
      if (this.random.chance(0.4)) end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096);
    }
  }

  note(who: number, what: string): void {
    this.log.push(`${"ab"[who]}: ${what}`);
    if (this.log.length > 40) this.log.shift();
  }

  /** Whether this end has broken off, so that its own calls may fail and end early. */
  brokeOff(who: 0 | 1): boolean {
    return this.broken && this.breaker === who;
  }

  size(random: Random): number {
    const dice = random.next();
    if (dice < 0.05) return 0;
    if (dice < 0.75) return random.between(1, 2000);
    if (dice < 0.95) return random.between(2000, 70_000);
    return random.between(70_000, 700_000);
  }

  async play(): Promise<void> {
    const seeds = [0, 1, 2, 3].map(() => this.random.between(1, 2 ** 30));
    await Promise.all([
      this.write(0, new Random(seeds[0]!)),
      this.write(1, new Random(seeds[1]!)),
      this.read(0, new Random(seeds[2]!)),
      this.read(1, new Random(seeds[3]!)),
    ]);
    for (const end of this.ends) {
      end.close();
      end.close();
      expect(end.fileno()).toBe(-1);
      expect(await end.recv(1).then(() => "bytes", codeOf)).toBe("EBADF");
    }
    for (const from of [0, 1] as const) this.judge(from);
  }

  /** What must be true of one direction when everything is over. */
  judge(from: 0 | 1): void {
    const { bytes, got, sent, maybe, received } = this.directions[from];
    // Once more, and of what was kept: no byte of it may have changed since it was received.
    expect(Buffer.concat(got).equals(bytes.subarray(0, received))).toBe(true);
    expect(received).toBeLessThanOrEqual(sent + maybe);
    const readerBroke =
      this.breaker !== from && this.ending !== "graceful" && this.ending !== "shutdown both";
    const writerAbandoned = this.breaker === from && this.ending === "abandon";
    const both = this.ending === "shutdown both" && this.breaker !== from;
    if (!readerBroke && !writerAbandoned && !both) expect(received).toBeGreaterThanOrEqual(sent);
  }

  // Writing.

  async write(who: 0 | 1, random: Random): Promise<void> {
    const end = this.ends[who];
    const direction = this.directions[who];
    const calls = random.between(0, 30);
    const budget = random.chance(0.2) ? MOST : 300_000;
    for (let i = 0; i < calls && direction.sent < budget; i++) {
      if (this.breaker === who && i === this.breakAt && this.breakOff()) return;
      if (!(await this.writeOnce(who, random, direction, end))) return;
    }
    if (this.breaker === who && this.breakOff()) return;
    let last: Promise<void> | undefined;
    if (random.chance(0.2)) await this.failHalfWay(who, random, direction, end);
    else if (random.chance(0.4)) last = this.sendLast(who, random, direction, end);
    // Whatever the peer has done: FIN comes after all that was given, once, and a second one is nothing.
    this.note(who, "shutdown");
    end.shutdown(socket.SHUT_WR);
    end.shutdown(socket.SHUT_WR);
    expect(["EPIPE", "ECONNRESET"]).toContain(await end.send(Buffer.alloc(1)).then(() => "sent", codeOf));
    await last;
  }

  /** A sendall that may still wait when the FIN is asked for: it arrives before the FIN all the same. */
  async sendLast(who: 0 | 1, random: Random, direction: Direction, end: End): Promise<void> {
    const at = direction.sent + direction.maybe;
    const data = direction.bytes.subarray(at, Math.min(MOST, at + random.between(1, 700_000)));
    this.note(who, `sendall ${data.length}, not awaited`);
    direction.maybe += data.length;
    const code = await end.sendall(data).then(() => "sent", codeOf);
    expect(this.broken || code).toBe(this.broken || "sent");
    if (code !== "sent") return;
    direction.maybe -= data.length;
    direction.sent += data.length;
  }

  /** @returns whether the writer goes on */
  async writeOnce(who: 0 | 1, random: Random, direction: Direction, end: End): Promise<boolean> {
    const { bytes } = direction;
    // A copy, which is scribbled over when the call is done: nothing may be sent from it later.
    const piece = (size: number): Buffer => {
      const at = direction.sent + direction.maybe;
      return Buffer.from(bytes.subarray(at, Math.min(MOST, at + size)));
    };
    const dice = random.next();
    try {
      if (dice < 0.1) await turn();
      else if (dice < 0.4) {
        const data = piece(this.size(random));
        this.note(who, `sendall ${data.length}`);
        direction.maybe += data.length;
        expect(await end.sendall(data)).toBeUndefined();
        direction.maybe -= data.length;
        direction.sent += data.length;
        data.fill(0xff);
      } else if (dice < 0.5) {
        // Several at a time never interleave.
        const pieces: Buffer[] = [];
        for (let n = random.between(2, 4); n > 0; n--) {
          pieces.push(piece(this.size(random)));
          direction.maybe += pieces.at(-1)!.length;
        }
        this.note(who, `sendall ${pieces.map(({ length }) => length).join(" and ")}`);
        const given = pieces.map(async (data) => {
          await end.sendall(data);
          direction.maybe -= data.length;
          direction.sent += data.length;
          data.fill(0xff);
        });
        const failed = (await Promise.allSettled(given)).find(({ status }) => status === "rejected");
        if (failed !== undefined) throw (failed as PromiseRejectedResult).reason;
      } else await this.sendOnce(who, random, direction, end, piece(this.size(random)));
      return true;
    } catch (error) {
      const code = codeOf(error);
      this.note(who, `  ${code}`);
      // Only where somebody has broken off may a call fail.
      expect(this.broken || code).toBe(true);
      expect(["EBADF", "EPIPE", "ECONNRESET"]).toContain(code);
      return false;
    }
  }

  /** send(), which may have a deadline of none or hardly any time, or be aborted: then nothing was sent. */
  async sendOnce(who: 0 | 1, random: Random, direction: Direction, end: End, data: Buffer): Promise<void> {
    const how = random.between(0, 3);
    this.note(who, `send ${data.length}${["", ", not waiting", ", 1 ms", ", aborted"][how]}`);
    if (how === 1) end.settimeout(0);
    if (how === 2) end.settimeout(0.001);
    const signal = how === 3 ? AbortSignal.timeout(1) : undefined;
    direction.maybe += data.length;
    const call = end.send(data, { signal });
    // A call takes the timeout that is set when it is made.
    end.settimeout(null);
    let sent = 0;
    try {
      sent = await call;
      expect(sent).toBeLessThanOrEqual(data.length);
      if (data.length > 0) expect(sent).toBeGreaterThan(0);
    } catch (error) {
      if (how === 1) expect(error).toBeInstanceOf(socket.error);
      const gaveUp =
        (how === 1 && error instanceof socket.BlockingIOError) ||
        (how === 2 && error instanceof socket.timeout) ||
        (how === 3 && (error as Error).name === "TimeoutError" && !(error instanceof socket.error));
      if (!gaveUp) throw error;
    }
    direction.maybe -= data.length;
    direction.sent += sent;
    data.fill(0xff);
  }

  /** A sendall that may be given up in the middle of its bytes: how many of them went cannot be known. */
  async failHalfWay(who: 0 | 1, random: Random, direction: Direction, end: End): Promise<void> {
    const at = direction.sent + direction.maybe;
    const data = Buffer.from(direction.bytes.subarray(at, Math.min(MOST, at + random.between(1, 700_000))));
    this.note(who, `sendall ${data.length}, not waiting`);
    end.settimeout(random.chance(0.5) ? 0 : 0.001);
    direction.maybe += data.length;
    const call = end.sendall(data);
    end.settimeout(null);
    const code = await call.then(() => "sent", codeOf);
    if (code === "sent") {
      direction.maybe -= data.length;
      direction.sent += data.length;
    } else if (!this.broken) expect(["EAGAIN", "ETIMEDOUT"]).toContain(code);
  }

  /** @returns whether the writer is over by it */
  breakOff(): boolean {
    if (this.ending === "graceful" || this.broken) return false;
    const who = this.breaker;
    const end = this.ends[who];
    this.broken = true;
    this.note(who, this.ending);
    if (this.ending === "stop reading") {
      end.shutdown(socket.SHUT_RD);
      return false;
    }
    const direction = this.directions[who];
    if (this.ending === "close") {
      // What is given before the close arrives, though nobody waits for it.
      const data = direction.bytes.subarray(direction.sent, Math.min(MOST, direction.sent + 200_000));
      direction.sent += data.length;
      const given = end.sendall(data);
      end.close();
      void given;
    } else if (this.ending === "shutdown both") end.shutdown(socket.SHUT_RDWR);
    else end[Symbol.dispose]();
    return true;
  }

  // Reading.

  async read(who: 0 | 1, random: Random): Promise<void> {
    const end = this.ends[who];
    const direction = this.directions[who === 0 ? 1 : 0];
    try {
      while (!direction.atEnd) await this.readOnce(who, random, direction, end);
      // The end is the end, again and again, until the socket is closed.
      if (this.ending === "graceful") {
        expect(await end.recv(10)).toHaveLength(0);
        expect(await end.recv_into(Buffer.alloc(10))).toBe(0);
      }
    } catch (error) {
      const code = codeOf(error);
      this.note(who, `  ${code}`);
      expect(this.broken || code).toBe(true);
      expect(["EBADF", "ECONNRESET", "EPIPE"]).toContain(code);
      if (code === "EBADF") expect(this.brokeOff(who)).toBe(true);
      // To a peer that keeps its side, a reset is only told by one that has abandoned it.
      else if (this.breaker !== who) expect(this.ending).toBe("abandon");
    }
  }

  take(direction: Direction, bytes: Buffer): void {
    const { received } = direction;
    expect(bytes.equals(direction.bytes.subarray(received, received + bytes.length))).toBe(true);
    direction.received += bytes.length;
    direction.got.push(bytes);
    expect(direction.received).toBeLessThanOrEqual(direction.sent + direction.maybe);
  }

  async readOnce(who: 0 | 1, random: Random, direction: Direction, end: End): Promise<void> {
    const size = Math.max(1, this.size(random));
    const dice = random.next();
    if (dice < 0.05) await turn();
    else if (dice < 0.08) expect(await end.recv(0)).toHaveLength(0);
    else if (dice < 0.35) {
      const slack = random.between(0, 20);
      const buffer = Buffer.alloc(size + slack, 0xee);
      const count = await end.recv_into(buffer, size);
      this.note(who, `recv_into ${size} -> ${count}`);
      expect(count).toBeLessThanOrEqual(size);
      // What is beyond the count is as it was.
      expect(buffer.subarray(count).every((byte) => byte === 0xee)).toBe(true);
      this.take(direction, buffer.subarray(0, count));
      direction.atEnd = count === 0;
    } else if (dice < 0.4) {
      // Two at a time: the second one is told so, or the first is done already. Nothing is lost either way.
      const first = end.recv(size);
      const second = await end.recv(size).then((bytes) => bytes, codeOf);
      const bytes = await first;
      this.note(who, `recv ${size} twice -> ${bytes.length}`);
      this.take(direction, bytes);
      direction.atEnd = bytes.length === 0;
      if (typeof second === "string") expect(this.broken || second).toBe(this.broken || "EBUSY");
      else {
        this.take(direction, second);
        direction.atEnd ||= second.length === 0;
      }
    } else await this.recvOnce(who, random, direction, end, size);
  }

  /** recv(), which may have a deadline of none or hardly any time, or be aborted: then no byte is lost. */
  async recvOnce(who: 0 | 1, random: Random, direction: Direction, end: End, size: number): Promise<void> {
    const how = random.chance(0.5) ? 0 : random.between(1, 3);
    if (how === 1) end.settimeout(0);
    if (how === 2) end.settimeout(0.001);
    const signal = how === 3 ? AbortSignal.timeout(1) : undefined;
    const call = end.recv(size, { signal });
    // On a socket that was closed, settimeout throws as well: then the call's own error must not be left
    // alone.
    call.catch(() => undefined);
    try {
      end.settimeout(null);
      const bytes = await call;
      this.note(who, `recv ${size} -> ${bytes.length}`);
      expect(bytes.length).toBeLessThanOrEqual(size);
      this.take(direction, bytes);
      direction.atEnd = bytes.length === 0;
    } catch (error) {
      const gaveUp =
        (how === 1 && error instanceof socket.BlockingIOError) ||
        (how === 2 && error instanceof socket.timeout) ||
        (how === 3 && (error as Error).name === "TimeoutError" && !(error instanceof socket.error));
      if (!gaveUp) throw error;
      this.note(who, `recv ${size} gave up`);
    }
  }
}
