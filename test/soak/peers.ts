#!/usr/bin/env bun
/**
 * The peers of a soak: who they are and what each does, again and again. Run by soak.ts as a process of its
 * own, which gets orders and answers over IPC. It changes when there is another kind of peer.
 */
import { Random } from "../support/random.ts";
import { emptyLedger, Session, type Ledger, type Surroundings } from "./session.ts";

/**
 * The orders: to start all peers, to report, to let all of them leave, that the server will be
 * stopped.
 */
export type Order = "start" | "report" | "leave" | "stop";

export interface Told {
  /** What it answers. */
  to: Order | "failure";
  ledger: Ledger;
  failure?: string;
}

/** How long, in milliseconds, a peer waits for what should come. */
export const PATIENCE_MS = 30_000;
/**
 * When our server, with its --idle-timeout of 30 s, ends peers that move nothing: its timer looks once a
 * second.
 */
const IDLE_MS = [29_000, 35_000] as const;
/** A process whose timer is later than this has not run. */
const LATE_MS = 100;
/** How long peers go on as before when the server is being stopped. */
const UNDER_LOAD_MS = 1_500;
/** A peer that reads nothing is stuck when the kernel has taken nothing for this long. */
const STUCK_MS = 250;

const KIB = 1024;
const PIECE = 64 * KIB;

/** Each does its part once, from connecting to the end. */
type Part = (crowd: Crowd, random: Random) => Promise<void>;

/** Small messages, and a moment to think after each answer. */
const chatty: Part = async (crowd, random) => {
  const session = await Session.open(crowd, "chatty");
  for (let left = random.between(20, 400); session && left > 0 && crowd.going; left--) {
    const dice = random.next();
    session.send(dice < 0.1 ? 1 : dice < 0.9 ? random.between(2, 400) : random.between(400, 8 * KIB));
    if (!(await session.answered())) return;
    crowd.ledger.messages++;
    await crowd.rest(random.chance(0.02) ? 1_000 : -10 * Math.log(1 - random.next()));
  }
  await session?.finish();
};

/** A long stream, several pieces of it in flight, the last ones after our FIN. */
const bulk: Part = async (crowd, random) => {
  const session = await Session.open(crowd, "bulk");
  if (session === undefined) return;
  const inFlight = random.between(2, 8);
  let pieces = random.between(16, 640);
  while (pieces > 0 && crowd.going) {
    session.send(PIECE);
    pieces--;
    if (!(await session.until(() => session.owed + session.unsent <= (inFlight - 1) * PIECE))) return;
    crowd.ledger.messages++;
  }
  await session.finish();
  await crowd.rest(random.between(50, 800));
};

/** As much as is taken by a server whose echo nobody reads. */
async function sendUntilStuck(crowd: Crowd, session: Session): Promise<void> {
  session.stopReading();
  for (let before = -1; session.sent > before && crowd.going && !session.over;) {
    before = session.sent;
    while (session.unsent === 0 && !session.over) session.send(4 * PIECE);
    await crowd.rest(STUCK_MS);
  }
}

/** Sends until nothing is taken, waits some seconds, and then reads everything; twice. */
const stalled: Part = async (crowd, random) => {
  const session = await Session.open(crowd, "stalled");
  for (let times = 2; session && times > 0 && crowd.going; times--) {
    await sendUntilStuck(crowd, session);
    await crowd.rest(random.between(500, 6_000));
    session.read();
    if (!(await session.answered())) return;
  }
  await session?.finish();
  await crowd.rest(random.between(100, 2_000));
};

/** Comes, says a few bytes and goes, by FIN or by a reset. */
const churning: Part = async (crowd, random) => {
  const session = await Session.open(crowd, "churning");
  if (session === undefined) return;
  session.send(random.between(1, 100));
  const patient = random.chance(0.7);
  if (patient && !(await session.answered())) return;
  if (patient) crowd.ledger.messages++;
  const dice = random.next();
  if (dice < 0.6) await session.finish();
  else if (dice < 0.8) session.reset();
  else session.vanish();
  await crowd.rest(random.between(5, 120));
};

const resetting: Part = async (crowd, random) => {
  const session = await Session.open(crowd, "resetting");
  if (session === undefined) return;
  const whole = random.between(KIB, 2048 * KIB);
  const part = random.between(0, whole);
  session.send(whole);
  if (await session.until(() => session.received >= part)) session.reset();
};

/** Leaves without a word, and without having read its echoes. */
const vanishing: Part = async (crowd, random) => {
  const session = await Session.open(crowd, "vanishing");
  if (session === undefined) return;
  session.stopReading();
  session.send(random.between(1, 4096 * KIB));
  await crowd.rest(random.between(0, 2_000));
  session.vanish();
};

/** Sends, reads nothing, and stays: it is the server that should have enough of it. */
const parked: Part = async (crowd, random) => {
  const session = await Session.open(crowd, "parked");
  if (session === undefined) return;
  session.expendable = true;
  await sendUntilStuck(crowd, session);
  await crowd.rest(random.between(1_000, 60_000), session);
  session.vanish();
};

/** FIN after the first words, and reads late. */
const late: Part = async (crowd, random) => {
  const session = await Session.open(crowd, "late");
  if (session === undefined) return;
  session.stopReading();
  session.send(random.between(1, PIECE));
  await session.halfClose();
  await crowd.rest(random.between(200, 4_000));
  session.read();
  await session.finish();
};

/** Says nothing. */
const mute: Part = async (crowd, random) => {
  const session = await Session.open(crowd, "mute");
  if (session === undefined) return;
  session.expendable = true;
  await crowd.rest(random.between(500, 60_000), session);
  if (random.chance(0.5)) session.reset();
  else await session.finish();
};

const rude: Part = async (crowd, random) => {
  const parts = [resetting, vanishing, parked, late, mute];
  await parts[random.between(0, parts.length - 1)]!(crowd, random);
  await crowd.rest(random.between(20, 500));
};

/** How many of each are there at the same time. */
const CROWD: readonly [part: Part, count: number][] = [
  [chatty, 64],
  [bulk, 4],
  [stalled, 3],
  [churning, 10],
  [rude, 12],
];

export class Crowd implements Surroundings {
  readonly port: number;
  readonly graceful: boolean;
  readonly idle: Surroundings["idle"];
  readonly ledger = emptyLedger();
  readonly sessions = new Set<Session>();
  stopping: number | undefined;
  /** Whether peers come again when they have gone. */
  going = false;

  readonly #seed: number;
  readonly #patience: number;
  readonly #failed: (why: string) => void;
  #opened = 0;
  #leave = new AbortController();
  #lives: Promise<void>[] = [];
  readonly #period: number;
  readonly #sweep: NodeJS.Timeout;
  #looked = performance.now();

  constructor(
    port: number,
    {
      seed = 1,
      graceful = true,
      patience = PATIENCE_MS,
      idle = undefined as Surroundings["idle"],
      failed = (_why: string): void => undefined,
    } = {},
  ) {
    this.port = port;
    this.graceful = graceful;
    this.idle = idle;
    this.#seed = seed;
    this.#patience = patience;
    this.#failed = failed;
    this.#period = Math.min(1_000, patience / 4);
    this.#sweep = setInterval(() => this.#lookForHangs(), this.#period);
  }

  nextIndex(): number {
    // Another seed begins elsewhere in the pattern.
    return (this.#seed % 1_000_003) + this.#opened++;
  }

  fail(why: string): void {
    this.#failed(why);
  }

  /** Waits, unless all shall leave, or the session has ended. */
  async rest(ms: number, session?: Session): Promise<void> {
    const { signal } = this.#leave;
    if (signal.aborted) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms);
    const wake = (): void => resolve();
    signal.addEventListener("abort", wake, { once: true });
    await (session === undefined ? promise : Promise.race([promise, session.until(() => session.over)]));
    signal.removeEventListener("abort", wake);
    clearTimeout(timer);
  }

  start(): void {
    this.going = true;
    this.#leave = new AbortController();
    const random = new Random(this.#seed + this.#opened);
    for (const [part, count] of CROWD) {
      for (let i = 0; i < count; i++)
        this.#lives.push(this.#live(part, new Random(random.between(1, 2 ** 31))));
    }
  }

  async #live(part: Part, random: Random): Promise<void> {
    // Not all of them at once.
    await this.rest(random.between(0, 500));
    while (this.going) {
      await part(this, random);
      // The server may no longer listen.
      if (this.stopping !== undefined) await this.rest(50);
    }
  }

  /** Everybody ends what it has begun, and goes. */
  async leave(): Promise<void> {
    this.going = false;
    this.#leave.abort();
    await Promise.all(this.#lives.splice(0));
  }

  /** The server is about to be stopped: for a moment everything goes on as before. */
  stop(): void {
    this.stopping = performance.now();
  }

  /** Everybody goes without a word, who was about to come as well. */
  async close(): Promise<void> {
    clearInterval(this.#sweep);
    const left = this.leave();
    let gone = false;
    void left.finally(() => (gone = true));
    while (!gone) {
      for (const session of this.sessions) session.vanish();
      await Bun.sleep(5);
    }
  }

  #lookForHangs(): void {
    const now = performance.now();
    const late = now - this.#looked - this.#period;
    this.#looked = now;
    if (late > LATE_MS) for (const session of this.sessions) session.excuse(late);
    for (const session of this.sessions) {
      const hang = session.hang(now, this.#patience);
      if (hang !== undefined) return this.fail(hang);
    }
  }
}

/** The process: `peers.ts <port> <seed> <whether it is our server> <the server's pid>`. */
function serveOrders([port, seed, ours, pid]: string[]): void {
  const tell = (to: Told["to"], failure?: string): void => {
    process.send!({ to, ledger: crowd.ledger, ...(failure !== undefined && { failure }) } satisfies Told);
  };
  const failed = (why: string): void => tell("failure", why);
  const own = ours === "true";
  const how = { seed: Number(seed), graceful: own, idle: own ? IDLE_MS : undefined, failed };
  const crowd = new Crowd(Number(port), how);
  const orders: Record<Order, () => void> = {
    start: () => {
      crowd.start();
      tell("start");
    },
    report: () => tell("report"),
    leave: () => void crowd.leave().then(() => tell("leave")),
    stop: () => {
      crowd.stop();
      tell("stop");
      setTimeout(() => void crowd.leave().then(() => tell("leave")), UNDER_LOAD_MS);
    },
  };
  process.on("message", (order: Order) => orders[order]());
  // The process that gives the orders was killed, and could not stop the server.
  process.on("disconnect", () => {
    process.kill(Number(pid), "SIGKILL");
    process.exit(0);
  });
  // Ctrl-C is for soak.ts, which says what follows from it.
  process.on("SIGINT", () => undefined);
}

if (import.meta.main) serveOrders(process.argv.slice(2));
