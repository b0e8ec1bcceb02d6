/**
 * What the suite asks of the operating system: to be woken at a given time, and what a process has used. It
 * changes with the platforms that it runs on.
 */
import { dlopen, ptr } from "bun:ffi";
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";

const MS = 1e6;
const linux = process.platform === "linux";

/** How a schedule is kept. */
export type Pacing = "ppoll" | "timer";

export interface Pace {
  readonly how: Pacing;
  stop(): void;
}

/** The kernel may wake a thread 50 µs late, to save power, unless it is asked not to (prctl(2)). */
const PR_SET_TIMERSLACK = 29;
/** How much of a wait is spent looking at the clock: about as long as the kernel takes to wake somebody. */
const LOOK = 60_000;

/**
 * Calls a function again and again, in time for what it says is due.
 *
 * A timer of JavaScript has whole milliseconds, which would be most of what is measured. On Linux each turn
 * of the loop therefore waits in ppoll(2) itself, for Bun's own epoll descriptor and the time that is due,
 * whichever comes first; the last LOOK of it, but never more than a tenth of the gap, it goes round without
 * waiting. Where that is not to be had, a timer calls every millisecond, and all that is due by then goes at
 * once. On a busy machine with two cores half of 500 messages a second left less than 3 µs late (with the
 * timer 612), of 2,000 less than 76 µs (553).
 *
 * @param gap between what is due, in nanoseconds
 * @param tick does what is due, and gives the nanoseconds until the next is
 */
export function pace(gap: number, tick: () => number): Pace {
  let stopped = false;
  const stop = (): void => void (stopped = true);
  const wait = waiter();
  if (wait === undefined) {
    const turn = (): void => {
      if (stopped) return;
      tick();
      setTimeout(turn, 1);
    };
    turn();
    return { how: "timer", stop };
  }
  const look = Math.min(LOOK, gap / 10);
  const turn = (): void => {
    if (stopped) return;
    const left = tick() - look;
    if (left > 0) {
      // Timers are looked at between two waits.
      wait(Math.min(left, MS));
      tick();
    }
    setImmediate(turn);
  };
  turn();
  return { how: "ppoll", stop };
}

/** Waits until Bun has something to do, or so many nanoseconds, less than a second. */
function waiter(): ((nanoseconds: number) => void) | undefined {
  if (!linux) return undefined;
  const libc = openLibc();
  const loops = eventLoops();
  if (libc === undefined || loops.length === 0) return undefined;
  libc.prctl(PR_SET_TIMERSLACK, 1n, 0n, 0n, 0n);
  // struct pollfd: the descriptor, and POLLIN in the lower half of the second word.
  const polled = Int32Array.from(loops.flatMap((fd) => [fd, 1]));
  const timespec = new BigInt64Array(2);
  const nanoseconds = new Uint32Array(timespec.buffer, 8, 1);
  const [polledAt, timespecAt] = [ptr(polled), ptr(timespec)];
  return (time) => {
    nanoseconds[0] = time;
    libc.ppoll(polledAt, loops.length, timespecAt, null);
  };
}

function openLibc() {
  for (const name of ["libc.so.6", `libc.musl-${process.arch === "x64" ? "x86_64" : "aarch64"}.so.1`]) {
    try {
      return dlopen(name, {
        ppoll: { args: ["ptr", "u64", "ptr", "ptr"], returns: "i32" },
        prctl: { args: ["i32", "u64", "u64", "u64", "u64"], returns: "i32" },
      }).symbols;
    } catch {
      // The other one, or none: then there is the timer.
    }
  }
  return undefined;
}

/** An epoll descriptor can be polled as any other (epoll(7)). */
function eventLoops(): number[] {
  return readdirSync("/proc/self/fd")
    .map(Number)
    .filter((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`) === "anon_inode:[eventpoll]";
      } catch {
        // The one that listed the directory.
        return false;
      }
    });
}

/** How many descriptors this process may have; known on Linux. */
export function descriptorLimit(): number {
  if (!linux) return Infinity;
  const limits = readFileSync("/proc/self/limits", "utf8");
  return Number(/^Max open files +(\d+)/m.exec(limits)?.[1] ?? Infinity);
}

/** CPU time. What the main thread does is known on Linux, otherwise null. */
export interface CpuUsage {
  /** Of all threads. */
  cpuSeconds: number;
  /** Of the main thread alone. */
  mainSeconds: number | null;
  /** How long the main thread could have run and had no core. */
  waitSeconds: number | null;
}

/** What this process uses between begin() and end(). */
export class OwnUsage implements CpuUsage {
  cpuSeconds = 0;
  mainSeconds: number | null = null;
  waitSeconds: number | null = null;
  #cpuBefore = process.cpuUsage();
  #mainBefore = ownThread();

  begin(): void {
    this.#cpuBefore = process.cpuUsage();
    this.#mainBefore = ownThread();
  }

  end(): void {
    const { user, system } = process.cpuUsage(this.#cpuBefore);
    const main = ownThread();
    this.cpuSeconds = (user + system) / 1e6;
    if (main === null) return;
    this.mainSeconds = main.ran - this.#mainBefore!.ran;
    this.waitSeconds = main.waited - this.#mainBefore!.waited;
  }
}

function ownThread(): ThreadTimes | null {
  if (!linux) return null;
  try {
    return schedstat("/proc/self/schedstat");
  } catch {
    // A kernel without schedstat.
    return null;
  }
}

/** In seconds: how long a thread ran, and how long it could have and had no core. */
interface ThreadTimes {
  ran: number;
  waited: number;
}

/** Of each thread by its id; or of the process as a whole, where no more is known, under 0. */
type CpuTimes = Map<number, ThreadTimes>;

/** Where the CPU time is from: threads' schedstat (nanoseconds), stat (10 ms), or ps. */
export type CpuSource = "schedstat" | "stat" | "ps";

export interface Usage extends CpuUsage {
  pid: number;
  source: CpuSource;
  /** Resident memory, in bytes. */
  rssEnd: number;
  /** The largest that was seen, at the beginning, every 100 ms (only on Linux) and at the end. */
  rssPeak: number;
}

export class NoSuchProcess extends Error {
  constructor(pid: number) {
    super(`--pid: there is no process ${pid}, or it has ended`);
  }
}

/** What one process uses between begin() and end(); not what its children do. */
export class WatchedProcess {
  readonly #pid: number;
  readonly #source: CpuSource;
  #before: CpuTimes = new Map();
  #peak = 0;
  /** After end(). */
  usage: Usage | undefined;
  #sampling: ReturnType<typeof setInterval> | undefined;

  /** @throws NoSuchProcess */
  constructor(pid: number) {
    this.#pid = pid;
    this.#source = !linux ? "ps" : threadTimes(pid).size > 0 ? "schedstat" : "stat";
    this.#cpu();
  }

  begin(): void {
    this.#sampling = linux ? setInterval(() => this.#sample(), 100) : undefined;
    this.#rss();
    this.#before = this.#cpu();
  }

  end(): void {
    const after = this.#cpu();
    clearInterval(this.#sampling);
    let cpuSeconds = 0;
    // Thread by thread: of one that has ended meanwhile, what it used before must not be taken off the
    // others.
    for (const [thread, { ran }] of after) cpuSeconds += ran - (this.#before.get(thread)?.ran ?? 0);
    const [main, mainBefore] = [after.get(this.#pid), this.#before.get(this.#pid)];
    const known = main && mainBefore;
    const mainSeconds = known ? main.ran - mainBefore.ran : null;
    const waitSeconds = known ? main.waited - mainBefore.waited : null;
    const rssEnd = this.#rss();
    this.usage = {
      pid: this.#pid,
      source: this.#source,
      ...{ cpuSeconds, mainSeconds, waitSeconds },
      rssEnd,
      rssPeak: this.#peak,
    };
  }

  #cpu(): CpuTimes {
    const whole = (ran: number): CpuTimes => new Map([[0, { ran, waited: 0 }]]);
    const times =
      this.#source === "schedstat"
        ? threadTimes(this.#pid)
        : whole(this.#source === "stat" ? statTime(this.#pid) : askPs(this.#pid).cpuSeconds);
    if (times.size === 0) throw new NoSuchProcess(this.#pid);
    return times;
  }

  #sample(): void {
    try {
      this.#rss();
    } catch (error) {
      // It has ended; end() will say so.
      if (!(error instanceof NoSuchProcess)) throw error;
    }
  }

  #rss(): number {
    const bytes = residentBytes(this.#pid);
    this.#peak = Math.max(this.#peak, bytes);
    return bytes;
  }
}

function readProc(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "utf8");
  } catch {
    throw new NoSuchProcess(pid);
  }
}

function threadTimes(pid: number): CpuTimes {
  const times: CpuTimes = new Map();
  let threads: string[];
  try {
    threads = readdirSync(`/proc/${pid}/task`);
  } catch {
    throw new NoSuchProcess(pid);
  }
  for (const thread of threads) {
    try {
      times.set(Number(thread), schedstat(`/proc/${pid}/task/${thread}/schedstat`));
    } catch {
      // A thread that has just ended, or a kernel without schedstat.
    }
  }
  return times;
}

function schedstat(file: string): ThreadTimes {
  const [ran, waited] = readFileSync(file, "utf8").split(" ");
  return { ran: Number(ran) / 1e9, waited: Number(waited) / 1e9 };
}

/**
 * utime and stime are fields 14 and 15, in hundredths of a second; the second field, a name, may contain
 * anything.
 */
function statTime(pid: number): number {
  const stat = readProc(pid, "stat");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/**
 * Resident memory of a process, in bytes. One that has ended and that nobody has waited for has none any
 * more.
 * @throws NoSuchProcess
 */
export function residentBytes(pid: number): number {
  if (!linux) return askPs(pid).rss;
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readProc(pid, "status"))?.[1] ?? 0) * 1024;
}

/**
 * The TCP ports on which a process listens; undefined where that cannot be told: it is another user's, or
 * gone.
 */
export function listeningPorts(pid: number): number[] | undefined {
  if (!linux) return undefined;
  try {
    return portsOf(pid);
  } catch {
    return undefined;
  }
}

function portsOf(pid: number): number[] {
  const sockets = new Set<string>();
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    try {
      sockets.add(readlinkSync(`/proc/${pid}/fd/${fd}`));
    } catch {
      // Closed since it was listed.
    }
  }
  const ports: number[] = [];
  // A kernel without IPv6 has no tcp6.
  for (const table of ["tcp", "tcp6"].filter((name) => existsSync(`/proc/${pid}/net/${name}`))) {
    for (const line of readProc(pid, `net/${table}`).split("\n")) {
      // "0: 0100007F:1F90 00000000:0000 0A ..." and the inode in the tenth field (proc(5)).
      const [, local, , state, , , , , , inode] = line.trim().split(/\s+/);
      if (state === LISTEN && sockets.has(`socket:[${inode}]`))
        ports.push(parseInt(local!.split(":")[1]!, 16));
    }
  }
  return ports;
}

const LISTEN = "0A";

function askPs(pid: number): { cpuSeconds: number; rss: number } {
  const { stdout } = Bun.spawnSync(["ps", "-o", "time=,rss=", "-p", String(pid)]);
  const [time, kib] = stdout.toString().trim().split(/\s+/);
  if (!time || !kib) throw new NoSuchProcess(pid);
  return { cpuSeconds: secondsOf(time), rss: Number(kib) * 1024 };
}

/** Of what ps calls time: 1-02:03:04 on Linux, 62:03.45 on macOS. */
export function secondsOf(time: string): number {
  const [days, clock] = time.includes("-") ? time.split("-") : ["0", time];
  return clock!.split(":").reduce((sum, part) => sum * 60 + Number(part), 0) + Number(days) * 86_400;
}
