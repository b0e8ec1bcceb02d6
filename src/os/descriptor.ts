/** The system calls on a socket's descriptor. It changes when a call is added. */
import { ptr } from "bun:ffi";
import {
  addressText,
  decodeAddress,
  encodeAddress,
  SOCKADDR_MAX,
  type AnyAddress,
  type AnyAddressLike,
} from "./address.ts";
import {
  AF_INET6,
  AF_UNIX,
  IPPROTO_TCP,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  SO_LINGER,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOL_SOCKET,
  TCP_INFO,
  TCP_NODELAY,
  type AddressFamily,
} from "./constants.ts";
import { osError } from "./errors.ts";
import { throwErrno, lastError, libc, requireLibc } from "./libc.ts";

/** A command of fcntl(2). Python's module does not have it, so it is not among the constants. */
const F_DUPFD_CLOEXEC = process.platform === "darwin" ? 67 : 1030;

/** Commands of fcntl(2), the same on Linux and macOS; and a flag of open(2), which differs. */
const [F_GETFL, F_SETFL] = [3, 4];
const O_NONBLOCK = process.platform === "darwin" ? 0x4 : 0x800;

/** Where socket(2) takes no flags, Bun sets O_NONBLOCK when it adopts the descriptor. */
export const SOCKET_FLAGS = (SOCK_NONBLOCK ?? 0) | (SOCK_CLOEXEC ?? 0);

/** socket(2). @throws OSError */
export function openDescriptor(family: AddressFamily, type: number, proto: number): number {
  const c = requireLibc("socket");
  const fd = c.socket(family, type | SOCKET_FLAGS, proto);
  if (fd < 0) throwErrno(c, "socket", `family ${family}, type ${type}, proto ${proto}`);
  return fd;
}

/** socketpair(2), of Unix domain streams. @throws OSError */
export function openPair(family: AddressFamily, type: number, proto: number): [number, number] {
  const c = requireLibc("socketpair");
  const pair = new Int32Array(2);
  if (c.socketpair(family, type | SOCKET_FLAGS, proto, ptr(pair)) !== 0) {
    throwErrno(c, "socketpair", `family ${family}, type ${type}, proto ${proto}`);
  }
  return [pair[0]!, pair[1]!];
}

/** bind(2). @throws OSError EADDRINUSE, EACCES, EADDRNOTAVAIL, … */
export function bindDescriptor(fd: number, family: AddressFamily, address: AnyAddressLike): void {
  const c = requireLibc("bind");
  const bytes = encodeAddress(family, address);
  if (c.bind(fd, ptr(bytes), bytes.length) !== 0) throwErrno(c, "bind", addressText(address));
}

/** listen(2). @throws OSError EADDRINUSE, EINVAL, EOPNOTSUPP */
export function listenDescriptor(fd: number, backlog: number): void {
  const c = requireLibc("listen");
  if (c.listen(fd, backlog) !== 0) throwErrno(c, "listen", `backlog ${backlog}`);
}

/**
 * connect(2), which does not wait.
 * @returns whether it is done; false means that it is under way
 * @throws OSError
 */
export function connectDescriptor(fd: number, family: AddressFamily, address: AnyAddressLike): boolean {
  const c = requireLibc("connect");
  const bytes = encodeAddress(family, address);
  // A given descriptor may be blocking, which would stop the whole process.
  const code = withFlags(fd, () => (c.connect(fd, ptr(bytes), bytes.length) === 0 ? "" : lastError(c)));
  if (code === "") return true;
  if (code === "EINPROGRESS") return false;
  // The kernel does not wait for a Unix listener's full queue: it returns EAGAIN.
  const reason = code === "EAGAIN" && family === AF_UNIX ? "the listener's queue is full" : undefined;
  throw osError({ code, syscall: "connect", address: addressText(address), reason });
}

/**
 * accept4(2), which does not wait, though the descriptor may be blocking for other processes.
 * @returns undefined if no connection waits: another process may have taken it
 * @throws OSError EMFILE, …
 */
export function acceptDescriptor(fd: number): { fd: number; peer: AnyAddress } | undefined {
  const c = requireLibc("accept4");
  const bytes = new Uint8Array(SOCKADDR_MAX);
  const size = new Int32Array([SOCKADDR_MAX]);
  // Read errno before the flags are restored.
  const [accepted, code] = withFlags(fd, () => {
    const result = c.accept4(fd, ptr(bytes), ptr(size), SOCKET_FLAGS);
    return [result, result < 0 ? lastError(c) : ""];
  });
  if (accepted >= 0) return { fd: accepted, peer: decodeAddress(bytes.subarray(0, size[0])) };
  if (code === "EAGAIN" || code === "ECONNABORTED") return undefined;
  throw osError({ code, syscall: "accept" });
}

/**
 * sendto(2), which does not wait.
 * @param to a sockaddr; undefined for the connected peer
 * @param address of `to`, for errors
 * @returns the datagram's size; -1 while the kernel has no room
 * @throws OSError EMSGSIZE, EDESTADDRREQ, ECONNREFUSED from an earlier one, …
 */
export function sendDatagram(fd: number, bytes: Uint8Array, to?: Uint8Array, address?: string): number {
  const c = requireLibc("sendto");
  const flags = MSG_DONTWAIT | (MSG_NOSIGNAL ?? 0);
  // An empty buffer has no address to give.
  const from = bytes.length === 0 ? null : ptr(bytes);
  const sent = c.sendto(fd, from, bytes.length, flags, to === undefined ? null : ptr(to), to?.length ?? 0);
  if (sent >= 0) return sent;
  const code = lastError(c);
  if (code === "EAGAIN" || code === "ENOBUFS") return -1;
  throw osError({ code, syscall: "sendto", address });
}

/** getsockname(2) or getpeername(2). @throws OSError ENOTCONN, EBADF */
export function descriptorName(fd: number, which: "getsockname" | "getpeername"): AnyAddress {
  const c = requireLibc(which);
  const bytes = new Uint8Array(SOCKADDR_MAX);
  const size = new Int32Array([SOCKADDR_MAX]);
  if (c[which](fd, ptr(bytes), ptr(size)) !== 0) throwErrno(c, which);
  return decodeAddress(bytes.subarray(0, size[0]));
}

/** For getsockopt(2) on Linux: it still answers after a reset, when getpeername(2) no longer does. */
const SO_PEERNAME = 28;

/** The address of an accepted peer, even if it has reset by now. @throws OSError */
export function acceptedFrom(fd: number): AnyAddress {
  try {
    return descriptorName(fd, "getpeername");
  } catch (error) {
    if (process.platform !== "linux") throw error;
    // The kernel refuses a buffer larger than the address; the family, which comes first, tells the size.
    const family = getOption(fd, SOL_SOCKET, SO_PEERNAME, 2)[0];
    return decodeAddress(getOption(fd, SOL_SOCKET, SO_PEERNAME, family === AF_INET6 ? 28 : 16));
  }
}

/** setsockopt(2). @param value a C int, or a packed struct @throws OSError */
export function setOption(fd: number, level: number, option: number, value: number | Uint8Array): void {
  const c = requireLibc("setsockopt");
  const bytes = typeof value === "number" ? new Int32Array([value]) : value;
  // An empty buffer has no address to give.
  const at = bytes.byteLength === 0 ? null : ptr(bytes);
  if (c.setsockopt(fd, level, option, at, bytes.byteLength) !== 0)
    throwErrno(c, "setsockopt", `level ${level}, option ${option}`);
}

/** getsockopt(2). @returns up to `size` bytes, as many as the kernel gave @throws OSError */
export function getOption(fd: number, level: number, option: number, size: number): Uint8Array {
  const c = requireLibc("getsockopt");
  const bytes = new Uint8Array(Math.max(size, 1));
  const length = new Int32Array([size]);
  if (c.getsockopt(fd, level, option, ptr(bytes), ptr(length)) !== 0)
    throwErrno(c, "getsockopt", `level ${level}, option ${option}`);
  return bytes.subarray(0, length[0]);
}

/** getsockopt(2) of a C int; the kernel may return fewer than four bytes of it. @throws OSError */
export function getInt(fd: number, level: number, option: number): number {
  const whole = new Int32Array(1);
  new Uint8Array(whole.buffer).set(getOption(fd, level, option, 4));
  return whole[0]!;
}

/** The seconds of SO_LINGER (socket(7)); undefined if it is off or unknown. */
export function lingerTime(fd: number): number | undefined {
  if (fd < 0 || libc === undefined) return undefined;
  // struct linger: on or off, and seconds.
  const linger = new Int32Array(2);
  const length = new Int32Array([8]);
  if (libc.getsockopt(fd, SOL_SOCKET, SO_LINGER, ptr(linger), ptr(length)) !== 0) return undefined;
  return linger[0] === 0 ? undefined : linger[1];
}

/**
 * Runs a function that needs O_NONBLOCK or leaves it set, and restores the flag: it belongs to the open file
 * description, which a given descriptor may share with other processes. Bun reads and writes with
 * MSG_DONTWAIT, and does not need it.
 * @throws OSError
 */
export function withFlags<T>(fd: number, run: () => T): T {
  const c = requireLibc("fcntl");
  const flags = c.fcntl(fd, F_GETFL, 0);
  // For an invalid descriptor, the function throws.
  const waits = flags >= 0 && (flags & O_NONBLOCK) === 0;
  if (waits) c.fcntl(fd, F_SETFL, flags | O_NONBLOCK);
  try {
    return run();
  } finally {
    if (waits) c.fcntl(fd, F_SETFL, flags);
  }
}

/** TCP_NODELAY; undefined for a socket that has none. */
export function noDelay(fd: number): number | undefined {
  if (libc === undefined) return undefined;
  const value = new Int32Array(1);
  const size = new Int32Array([4]);
  return libc.getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, ptr(value), ptr(size)) === 0 ? value[0] : undefined;
}

/** Does nothing to a socket that is gone. */
export function setNoDelay(fd: number, value: number): void {
  flag[0] = value;
  libc?.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, ptr(flag), 4);
}

const flag = new Int32Array(1);

/** A second descriptor of the same socket, with the lowest free number from `from` on. @throws OSError */
export function duplicateDescriptor(fd: number, from: number): number {
  const c = requireLibc("fcntl");
  const copy = c.fcntl(fd, F_DUPFD_CLOEXEC, from);
  if (copy < 0) throwErrno(c, "fcntl", `descriptor ${fd}`);
  return copy;
}

/** close(2). Its errors are ignored: the descriptor is gone in any case. */
export function closeDescriptor(fd: number): void {
  libc?.close(fd);
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
