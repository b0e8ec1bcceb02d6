/**
 * Peers by system calls, with nothing between a test and the kernel: they read only when asked to,
 * reset on demand, and have the receive buffer and the network namespace that a test wants. For Linux. It
 * changes when a test needs another call of the kernel.
 */
import { dlopen, ptr, read } from "bun:ffi";
import { constants } from "node:os";
import { until } from "./peers.ts";

const calls = {
  socket: { args: ["i32", "i32", "i32"], returns: "i32" },
  bind: { args: ["i32", "ptr", "i32"], returns: "i32" },
  connect: { args: ["i32", "ptr", "i32"], returns: "i32" },
  getsockname: { args: ["i32", "ptr", "ptr"], returns: "i32" },
  setsockopt: { args: ["i32", "i32", "i32", "ptr", "i32"], returns: "i32" },
  send: { args: ["i32", "ptr", "usize", "i32"], returns: "i32" },
  recv: { args: ["i32", "ptr", "usize", "i32"], returns: "i32" },
  shutdown: { args: ["i32", "i32"], returns: "i32" },
  poll: { args: ["ptr", "u64", "i32"], returns: "i32" },
  close: { args: ["i32"], returns: "i32" },
  unshare: { args: ["i32"], returns: "i32" },
  setns: { args: ["i32", "i32"], returns: "i32" },
  __errno_location: { args: [], returns: "ptr" },
} as const;

function load() {
  for (const name of ["libc.so.6", `libc.musl-${process.arch === "x64" ? "x86_64" : "aarch64"}.so.1`]) {
    try {
      return dlopen(name, calls).symbols;
    } catch {
      // The next name.
    }
  }
  return undefined;
}

const loaded = process.platform === "linux" ? load() : undefined;

/** Whether there are raw peers here. */
export const hasRaw = loaded !== undefined;

/** Only reached behind `hasRaw`. */
export const c = loaded as NonNullable<typeof loaded>;

const names = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]));

/** What the last failed call left in errno(3). No other call may come between. */
export function errno(): string {
  const number = read.i32(c.__errno_location()!, 0);
  return names.get(number) ?? String(number);
}

/** EAGAIN has two names. */
const AGAIN = names.get(constants.errno.EAGAIN);

const [AF_INET, SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC] = [2, 1, 0x800, 0x80000];
const [SOL_SOCKET, SO_RCVBUF, SO_LINGER, SHUT_WR] = [1, 8, 13, 1];
const MSG_NOSIGNAL = 0x4000;
/** The last byte of a send is urgent. */
export const MSG_OOB = 1;
const POLLOUT = 4;
/** As poll(2) wants it: the descriptor, then events and revents in the halves of a little-endian int. */
const pollfd = new Int32Array(2);
const LINGER_0 = new Int32Array([1, 0]);
/** Where all peers receive; what came is copied out. */
const inbox = Buffer.alloc(262_144);

function inetAddress(host: string, port: number): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, AF_INET, true);
  view.setUint16(2, port);
  bytes.set(host.split(".").map(Number), 4);
  return bytes;
}

export class RawPeer {
  #fd: number;
  /** Bytes that the kernel took from us. */
  sent = 0;
  /** How the other side ended it: "FIN", or the error's code. Known once a send or a recv has met it. */
  ended: string | undefined;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /**
   * Whether the connection is established or has failed, which the next call reports. Of a pipe, whether it
   * takes anything.
   */
  get stands(): boolean {
    pollfd[0] = this.#fd;
    pollfd[1] = POLLOUT;
    return c.poll(ptr(pollfd), 1, 0) === 1;
  }

  /** @returns how many bytes the kernel took, 0 when it has no room or the connection is over */
  send(bytes: Uint8Array, offset = 0, flags = 0): number {
    const length = bytes.length - offset;
    if (length === 0 || this.#fd < 0) return 0;
    const sent = c.send(this.#fd, ptr(bytes, offset), length, MSG_NOSIGNAL | flags);
    if (sent < 0) this.#failed();
    else this.sent += sent;
    return Math.max(0, sent);
  }

  /** @returns the bytes that have come, or undefined: none, or the connection has ended (see `ended`) */
  recv(size = inbox.length): Buffer | undefined {
    if (this.#fd < 0) return undefined;
    const count = c.recv(this.#fd, ptr(inbox), Math.min(size, inbox.length), 0);
    if (count < 0) this.#failed();
    if (count === 0) this.ended ??= "FIN";
    return count > 0 ? Buffer.from(inbox.subarray(0, count)) : undefined;
  }

  #failed(): void {
    const code = errno();
    if (code !== AGAIN) this.ended = code;
  }

  /** FIN. */
  finish(): void {
    c.shutdown(this.#fd, SHUT_WR);
  }

  /** RST, whatever waits in either direction. */
  reset(): void {
    c.setsockopt(this.#fd, SOL_SOCKET, SO_LINGER, ptr(LINGER_0), 8);
    this.close();
  }

  /** FIN, or RST where bytes wait that were not read: what the kernel does for a program that is killed. */
  close(): void {
    if (this.#fd >= 0) c.close(this.#fd);
    this.#fd = -1;
  }

  /** Sets SO_RCVBUF. */
  receiveBuffer(bytes: number): void {
    c.setsockopt(this.#fd, SOL_SOCKET, SO_RCVBUF, ptr(new Int32Array([bytes])), 4);
  }

  /**
   * Sends what is left of these bytes, and reads nothing, until the kernel has taken none for a quarter
   * second.
   */
  async stall(bytes: Uint8Array): Promise<void> {
    let last = performance.now();
    await until(
      () => {
        while (this.send(bytes, this.sent) > 0) last = performance.now();
        return performance.now() - last > 250;
      },
      "a peer that reads nothing comes to a stop",
      20_000,
    );
  }

  /** Reads until the end. */
  async rest(): Promise<Buffer> {
    const chunks: Buffer[] = [];
    await until(
      () => {
        for (let chunk = this.recv(); chunk !== undefined; chunk = this.recv()) chunks.push(chunk);
        return this.ended !== undefined;
      },
      "the other side ends it",
      25_000,
    );
    return Buffer.concat(chunks);
  }

  /**
   * Sends what is left of these bytes while it reads, then FIN, and gives what came before the other side's
   * end.
   */
  async exchange(bytes: Uint8Array): Promise<Buffer> {
    const chunks: Buffer[] = [];
    await until(
      () => {
        for (let moved = true; moved && this.ended === undefined;) {
          const sent = this.send(bytes, this.sent);
          if (sent > 0 && this.sent === bytes.length) this.finish();
          const chunk = this.recv();
          if (chunk !== undefined) chunks.push(chunk);
          moved = sent > 0 || chunk !== undefined;
        }
        return this.ended !== undefined;
      },
      "all is sent and back",
      25_000,
    );
    return Buffer.concat(chunks);
  }
}

interface Way {
  host?: string;
  /** SO_RCVBUF, set before it connects, so that the window is never larger. */
  receiveBuffer?: number;
  /** Where the socket is made: within(namespace). */
  make?: (call: () => number) => number;
}

const newSocket = (): number => c.socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

/**
 * A peer whose connection stands, or is being made: on the loopback interface it stands unless the queue is
 * full.
 */
export function rawPeer(port: number, { host = "127.0.0.1", receiveBuffer, make }: Way = {}): RawPeer {
  const fd = make === undefined ? newSocket() : make(newSocket);
  if (fd < 0) throw new Error(`socket: ${errno()}`);
  const one = new RawPeer(fd);
  if (receiveBuffer !== undefined) one.receiveBuffer(receiveBuffer);
  if (c.connect(fd, ptr(inetAddress(host, port)), 16) === 0) return one;
  const code = errno();
  if (code === "EINPROGRESS") return one;
  one.close();
  throw new Error(`connect ${host}:${port}: ${code}`);
}

/** A peer with an established connection. */
export async function connected(port: number, way?: Way): Promise<RawPeer> {
  const one = rawPeer(port, way);
  await until(() => one.stands, "the connection stands");
  return one;
}

/**
 * Takes a port of the loopback interface, as a program does that binds and does not listen yet.
 * @param port 0 picks a free one
 * @returns undefined when somebody else has it
 */
export function bound(port: number): { port: number; close(): void } | undefined {
  const fd = newSocket();
  const address = inetAddress("127.0.0.1", port);
  if (c.bind(fd, ptr(address), 16) !== 0) {
    const code = errno();
    c.close(fd);
    if (code === "EADDRINUSE") return undefined;
    throw new Error(`bind 127.0.0.1:${port}: ${code}`);
  }
  c.getsockname(fd, ptr(address), ptr(new Int32Array([16])));
  return { port: new DataView(address.buffer).getUint16(2), close: () => void c.close(fd) };
}

/** A port that nobody has. */
export function freePort(): number {
  const one = bound(0)!;
  one.close();
  return one.port;
}
