/**
 * The system calls that Bun does not offer, through bun:ffi. It changes when we need another one, or when Bun
 * learns one of these. Where bun:ffi or the C library is unavailable, `libc` is undefined; a caller does
 * without (send) or throws (`requireLibc`).
 */
import { dlopen, ptr, read } from "bun:ffi";
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
