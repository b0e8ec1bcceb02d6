/**
 * The system calls that Bun does not offer, through bun:ffi. It changes when we need another one, or when Bun
 * learns one of these. Where bun:ffi or the C library is unavailable, `libc` is undefined; a caller does
 * without (send) or throws (`requireLibc`).
 */
import { dlopen, ptr, read } from "bun:ffi";
import { readFileSync } from "node:fs";
import { IPPROTO_TCP, SO_RCVBUF, SOL_SOCKET, TCP_INFO } from "./constants.ts";
import { errnoName, osError, setStrerror } from "./errors.ts";

const address = ["i32", "ptr", "i32"] as const;
const name = ["i32", "ptr", "ptr"] as const;

const calls = {
  socket: { args: ["i32", "i32", "i32"], returns: "i32" },
  socketpair: { args: ["i32", "i32", "i32", "ptr"], returns: "i32" },
  bind: { args: address, returns: "i32" },
  connect: { args: address, returns: "i32" },
  listen: { args: ["i32", "i32"], returns: "i32" },
  getsockname: { args: name, returns: "i32" },
  getpeername: { args: name, returns: "i32" },
  setsockopt: { args: ["i32", "i32", "i32", "ptr", "i32"], returns: "i32" },
  getsockopt: { args: ["i32", "i32", "i32", "ptr", "ptr"], returns: "i32" },
  send: { args: ["i32", "ptr", "usize", "i32"], returns: "i32" },
  sendto: { args: ["i32", "ptr", "usize", "i32", "ptr", "i32"], returns: "i32" },
  fcntl: { args: ["i32", "i32", "i32"], returns: "i32" },
  ioctl: { args: ["i32", "u64", "ptr"], returns: "i32" },
  poll: { args: ["ptr", "u64", "i32"], returns: "i32" },
  close: { args: ["i32"], returns: "i32" },
  isatty: { args: ["i32"], returns: "i32" },
  getrlimit: { args: ["i32", "ptr"], returns: "i32" },
  if_nametoindex: { args: ["ptr"], returns: "u32" },
  strerror: { args: ["i32"], returns: "cstring" },
  getenv: { args: ["ptr"], returns: "cstring" },
  sigaction: { args: ["i32", "ptr", "ptr"], returns: "i32" },
} as const;

/** What Linux alone has. */
const linuxCalls = {
  accept4: { args: ["i32", "ptr", "ptr", "i32"], returns: "i32" },
  epoll_create1: { args: ["i32"], returns: "i32" },
  epoll_ctl: { args: ["i32", "i32", "i32", "ptr"], returns: "i32" },
} as const;

const platforms = {
  linux: {
    libraries: ["libc.so.6", "libc.so", `libc.musl-${process.arch === "x64" ? "x86_64" : "aarch64"}.so.1`],
    errno: "__errno_location",
    /** Linux reports twice what was asked for, the half being its own bookkeeping (socket(7)). */
    bufferFactor: 2,
    RLIMIT_NOFILE: 7,
  },
  darwin: { libraries: ["libSystem.B.dylib"], errno: "__error", bufferFactor: 1, RLIMIT_NOFILE: 8 },
} as const;

function load() {
  const platform = platforms[process.platform as keyof typeof platforms];
  if (platform === undefined) return undefined;
  for (const library of platform.libraries) {
    try {
      // On another platform they are missing, and nobody calls them there.
      const { symbols } = dlopen(
        library,
        (process.platform === "linux" ? { ...calls, ...linuxCalls } : calls) as typeof calls &
          typeof linuxCalls,
      );
      const { symbols: errno } = dlopen(library, { [platform.errno]: { args: [], returns: "ptr" } } as const);
      return { ...platform, ...symbols, errnoLocation: errno[platform.errno]! };
    } catch {
      // The next name; a system without any of them has no libc for us, which `undefined` says.
    }
  }
  return undefined;
}

/** The C library's calls and constants on this platform, or undefined. */
export const libc = load();

if (libc !== undefined) setStrerror((errno) => String(libc.strerror(errno)));

export type Libc = NonNullable<typeof libc>;

/** @throws OSError ENOSYS, which names the call, where there is no C library */
export function requireLibc(syscall: string): Libc {
  if (libc !== undefined) return libc;
  const reason = `bun:ffi finds no C library with ${syscall}(2) on ${process.platform}`;
  throw osError({ code: "ENOSYS", syscall, reason });
}

/** What the last failed call left in errno(3), by its name. No other call may come between. */
export function lastError(c: Libc): string {
  const at = c.errnoLocation();
  return at === null ? "EUNKNOWN" : errnoName(read.i32(at, 0));
}

/** Throws what the last failed call left in errno(3). No other call may come between. */
export function throwErrno(c: Libc, syscall: string, address?: string): never {
  throw osError({ code: lastError(c), syscall, address });
}

/** The number of a network interface (if_nametoindex(3)); 0 where none has the name. */
export function interfaceIndex(name: string): number {
  return libc === undefined || name.includes("\0") ? 0 : libc.if_nametoindex(ptr(Buffer.from(`${name}\0`)));
}

/** A number that Linux shows below /proc/sys, or undefined: another platform, or a kernel without it. */
function kernelNumber(name: string): number | undefined {
  try {
    return Number(readFileSync(`/proc/sys/${name.replaceAll(".", "/")}`, "utf8"));
  } catch {
    return undefined;
  }
}

/**
 * Sets how many connections the kernel keeps waiting on a listening descriptor (listen(2)).
 * @param backlog from 0 on
 * @throws OSError; also where the kernel would silently take less
 */
export function setBacklog(fd: number, backlog: number): void {
  const c = requireLibc("listen");
  const max = kernelNumber("net.core.somaxconn") ?? backlog;
  const address = `backlog ${backlog}`;
  if (backlog > max) {
    const reason = `the kernel allows ${max} at most (net.core.somaxconn)`;
    throw osError({ code: "EINVAL", syscall: "listen", address, reason });
  }
  if (c.listen(fd, backlog) !== 0) throwErrno(c, "listen", address);
}

/**
 * Sets SO_RCVBUF; a listener's is inherited by what it accepts (socket(7), tcp(7)). It ends the kernel's own
 * tuning.
 * @param bytes from 1 on; the kernel raises what is too small (on Linux to 1152)
 * @throws OSError; also where the kernel would silently take less
 */
export function setReceiveBuffer(fd: number, bytes: number): void {
  const c = requireLibc("setsockopt");
  const value = new Int32Array([bytes]);
  const size = new Int32Array([4]);
  const address = `SO_RCVBUF ${bytes}`;
  if (c.setsockopt(fd, SOL_SOCKET, SO_RCVBUF, ptr(value), 4) !== 0) throwErrno(c, "setsockopt", address);
  if (c.getsockopt(fd, SOL_SOCKET, SO_RCVBUF, ptr(value), ptr(size)) !== 0)
    throwErrno(c, "getsockopt", address);
  const granted = value[0]! / c.bufferFactor;
  if (granted >= bytes) return;
  const reason = `the kernel allows ${granted} bytes at most (net.core.rmem_max)`;
  throw osError({ code: "EINVAL", syscall: "setsockopt", address, reason });
}

/**
 * Descriptors that are left to the runtime and to refusing: a refused connection has one until it is reset.
 */
export const SPARE_DESCRIPTORS = 32;

/**
 * How many descriptors this process may have open (getrlimit(2), RLIMIT_NOFILE, the soft limit).
 * @returns undefined where it cannot be asked
 */
export function descriptorLimit(): number | undefined {
  if (libc === undefined) return undefined;
  const limit = new BigUint64Array(2);
  if (libc.getrlimit(libc.RLIMIT_NOFILE, ptr(limit)) !== 0) throwErrno(libc, "getrlimit", "RLIMIT_NOFILE");
  return Number(limit[0]);
}

/**
 * Whether a descriptor is a terminal (isatty(3)). `process.stdout.isTTY` says the same, but loads Bun's tty
 * and net modules: 12 ms of start.
 */
export function isTerminal(fd: 1 | 2): boolean {
  if (libc !== undefined) return libc.isatty(fd) === 1;
  return (fd === 1 ? process.stdout : process.stderr).isTTY;
}

const POLLOUT = 4;
const pollfd = new Int32Array(2);

/**
 * Whether a short line can be written without waiting (poll(2)): a pipe that nobody reads has no room for it,
 * and a write would stop the whole process until somebody does.
 */
export function canWrite(fd: 1 | 2): boolean {
  if (libc === undefined) return true;
  pollfd[0] = fd;
  // events in the lower half, revents, which the kernel fills, in the upper one, of a little-endian int.
  pollfd[1] = POLLOUT;
  return libc.poll(ptr(pollfd), 1, 0) === 1;
}

const POLLIN = 1;

/** Whether a descriptor can be read now, or for a listener: accepted from (poll(2)). */
export function readable(fd: number): boolean {
  pollfd[0] = fd;
  pollfd[1] = POLLIN;
  return requireLibc("poll").poll(ptr(pollfd), 1, 0) === 1;
}

const [SIOCOUTQ, FIONREAD] = [0x5411, 0x541b];
const count = new Int32Array(1);

function queued(fd: number, request: number): number {
  if (libc === undefined || process.platform !== "linux") return 0;
  return libc.ioctl(fd, request, ptr(count)) === 0 ? count[0]! : 0;
}

/** Bytes that a TCP peer has not acknowledged (tcp(7), SIOCOUTQ); 0 elsewhere. */
export const unacknowledged = (fd: number): number => queued(fd, SIOCOUTQ);

/** Bytes from a TCP peer that nobody has read yet (tcp(7), FIONREAD); 0 elsewhere. */
export const unread = (fd: number): number => queued(fd, FIONREAD);

/** The first byte of tcp(7)'s TCP_INFO is the connection's state. */
const TCP_CLOSE_WAIT = 8;
const info = new Uint8Array(1);
const infoSize = new Int32Array(1);

/** Whether a TCP peer's FIN has come (tcp(7), TCP_INFO); false elsewhere. */
export function peerFinished(fd: number): boolean {
  if (libc === undefined || process.platform !== "linux") return false;
  infoSize[0] = 1;
  const answered = libc.getsockopt(fd, IPPROTO_TCP, TCP_INFO, ptr(info), ptr(infoSize)) === 0;
  return answered && info[0] === TCP_CLOSE_WAIT;
}
