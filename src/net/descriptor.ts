/**
 * A socket as the kernel has it, by its descriptor: made, bound, connected, named, set and closed by the system
 * calls themselves. It changes when a call is added. Bun adopts the descriptor later, for what waits.
 */
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
  AF_UNIX,
  SO_LINGER,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOL_SOCKET,
  type AddressFamily,
} from "./constants.ts";
import { osError } from "./errors.ts";
import { fail, lastError, libc, requireLibc } from "./libc.ts";

/** fcntl(2)'s command. Python's module does not have it, so that it is not among the constants. */
const F_DUPFD_CLOEXEC = process.platform === "darwin" ? 67 : 1030;

/** fcntl(2)'s, the same on Linux and macOS; and the flag of open(2), which is not. */
const [F_GETFL, F_SETFL] = [3, 4];
const O_NONBLOCK = process.platform === "darwin" ? 0x4 : 0x800;

/** Where socket(2) takes no flags, Bun sets O_NONBLOCK when it adopts the descriptor. */
const FLAGS = (SOCK_NONBLOCK ?? 0) | (SOCK_CLOEXEC ?? 0);

/** socket(2). @throws OSError */
export function openDescriptor(family: AddressFamily, type: number, proto: number): number {
  const c = requireLibc("socket");
  const fd = c.socket(family, type | FLAGS, proto);
  if (fd < 0) fail(c, "socket", `family ${family}, type ${type}, proto ${proto}`);
  return fd;
}

/** socketpair(2), of Unix domain streams. @throws OSError */
export function openPair(family: AddressFamily, type: number, proto: number): [number, number] {
  const c = requireLibc("socketpair");
  const pair = new Int32Array(2);
  if (c.socketpair(family, type | FLAGS, proto, ptr(pair)) !== 0) {
    fail(c, "socketpair", `family ${family}, type ${type}, proto ${proto}`);
  }
  return [pair[0]!, pair[1]!];
}

/** bind(2). @throws OSError EADDRINUSE, EACCES, EADDRNOTAVAIL, … */
export function bindDescriptor(fd: number, family: AddressFamily, address: AnyAddressLike): void {
  const c = requireLibc("bind");
  const bytes = encodeAddress(family, address);
  if (c.bind(fd, ptr(bytes), bytes.length) !== 0) fail(c, "bind", addressText(address));
}

/** listen(2). @throws OSError EADDRINUSE, EINVAL, EOPNOTSUPP */
export function listenDescriptor(fd: number, backlog: number): void {
  const c = requireLibc("listen");
  if (c.listen(fd, backlog) !== 0) fail(c, "listen", `backlog ${backlog}`);
}

/**
 * connect(2), which does not wait.
 * @returns whether it is done; false means that it is under way
 * @throws OSError
 */
export function connectDescriptor(fd: number, family: AddressFamily, address: AnyAddressLike): boolean {
  const c = requireLibc("connect");
  const bytes = encodeAddress(family, address);
  if (c.connect(fd, ptr(bytes), bytes.length) === 0) return true;
  const code = lastError(c);
  if (code === "EINPROGRESS") return false;
  // A full queue of a Unix listener is not waited for by the kernel, and says EAGAIN.
  const reason = code === "EAGAIN" && family === AF_UNIX ? "the listener's queue is full" : undefined;
  throw osError({ code, syscall: "connect", address: addressText(address), reason });
}

/** getsockname(2) or getpeername(2). @throws OSError ENOTCONN, EBADF */
export function descriptorName(fd: number, which: "getsockname" | "getpeername"): AnyAddress {
  const c = requireLibc(which);
  const bytes = new Uint8Array(SOCKADDR_MAX);
  const size = new Int32Array([SOCKADDR_MAX]);
  if (c[which](fd, ptr(bytes), ptr(size)) !== 0) fail(c, which);
  return decodeAddress(bytes.subarray(0, size[0]));
}

/** setsockopt(2). @param value a C int, or a packed struct @throws OSError */
export function setOption(fd: number, level: number, option: number, value: number | Uint8Array): void {
  const c = requireLibc("setsockopt");
  const bytes = typeof value === "number" ? new Int32Array([value]) : value;
  // An empty buffer has no address to give.
  const at = bytes.byteLength === 0 ? null : ptr(bytes);
  if (c.setsockopt(fd, level, option, at, bytes.byteLength) !== 0)
    fail(c, "setsockopt", `level ${level}, option ${option}`);
}

/** getsockopt(2). @returns up to `size` bytes, as many as the kernel gave @throws OSError */
export function getOption(fd: number, level: number, option: number, size: number): Uint8Array {
  const c = requireLibc("getsockopt");
  const bytes = new Uint8Array(Math.max(size, 1));
  const length = new Int32Array([size]);
  if (c.getsockopt(fd, level, option, ptr(bytes), ptr(length)) !== 0)
    fail(c, "getsockopt", `level ${level}, option ${option}`);
  return bytes.subarray(0, length[0]);
}

/** The seconds of SO_LINGER (socket(7)); undefined where it is off, or cannot be asked. */
export function lingerTime(fd: number): number | undefined {
  if (fd < 0 || libc === undefined) return undefined;
  // struct linger: whether, and how long.
  const linger = new Int32Array(2);
  const length = new Int32Array([8]);
  if (libc.getsockopt(fd, SOL_SOCKET, SO_LINGER, ptr(linger), ptr(length)) !== 0) return undefined;
  return linger[0] === 0 ? undefined : linger[1];
}

/** A descriptor that was given may wait, and would stop the whole process. @throws OSError */
export function setNonBlocking(fd: number): void {
  const c = requireLibc("fcntl");
  const flags = c.fcntl(fd, F_GETFL, 0);
  if (flags < 0 || c.fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) fail(c, "fcntl", `descriptor ${fd}`);
}

/** A second descriptor of the same socket, numbered as the first if that is free by then. @throws OSError */
export function duplicateDescriptor(fd: number, from: number): number {
  const c = requireLibc("fcntl");
  const copy = c.fcntl(fd, F_DUPFD_CLOEXEC, from);
  if (copy < 0) fail(c, "fcntl", `descriptor ${fd}`);
  return copy;
}

/** close(2). Its errors say nothing that could be done about: the descriptor is gone in any case. */
export function closeDescriptor(fd: number): void {
  libc?.close(fd);
}
