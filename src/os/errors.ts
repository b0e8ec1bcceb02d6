/**
 * OSError and its family, as in Python: what a failed call on a socket throws. It says what was tried, on what and
 * why it failed, and carries the same as fields. It changes when what an error says changes.
 */
import { constants } from "node:os";
import { getSystemErrorMap } from "node:util";

export interface OSErrorDetails {
  /** The error's name, as in errno(3): "EADDRINUSE". */
  code: string;
  /** The call that failed: "listen". */
  syscall: string;
  /** What it was tried on: "127.0.0.1:8101". */
  address?: string | undefined;
  /** Why, where it is known better than from the code. */
  reason?: string | undefined;
  /** The number, where it is not errno(3)'s for the code. */
  errno?: number;
  cause?: unknown;
}

/** strerror(3) of the C library, which Python shows: Bun's own table has other words, and lacks some. */
const TEXTS: Record<string, string> = {
  EACCES: "Permission denied",
  EADDRINUSE: "Address already in use",
  EADDRNOTAVAIL: "Cannot assign requested address",
  EAFNOSUPPORT: "Address family not supported by protocol",
  EAGAIN: "Resource temporarily unavailable",
  EALREADY: "Operation already in progress",
  EBADF: "Bad file descriptor",
  EBUSY: "Device or resource busy",
  ECONNABORTED: "Software caused connection abort",
  ECONNREFUSED: "Connection refused",
  ECONNRESET: "Connection reset by peer",
  EDESTADDRREQ: "Destination address required",
  EEXIST: "File exists",
  EFAULT: "Bad address",
  EHOSTUNREACH: "No route to host",
  EINPROGRESS: "Operation now in progress",
  EINTR: "Interrupted system call",
  EINVAL: "Invalid argument",
  EIO: "Input/output error",
  EISCONN: "Transport endpoint is already connected",
  ELOOP: "Too many levels of symbolic links",
  EMFILE: "Too many open files",
  EMSGSIZE: "Message too long",
  ENAMETOOLONG: "File name too long",
  ENETDOWN: "Network is down",
  ENETUNREACH: "Network is unreachable",
  ENFILE: "Too many open files in system",
  ENOBUFS: "No buffer space available",
  ENODEV: "No such device",
  ENOENT: "No such file or directory",
  ENOMEM: "Cannot allocate memory",
  ENOPROTOOPT: "Protocol not available",
  ENOSPC: "No space left on device",
  ENOSYS: "Function not implemented",
  ENOTCONN: "Transport endpoint is not connected",
  ENOTDIR: "Not a directory",
  ENOTSOCK: "Socket operation on non-socket",
  ENOTSUP: "Operation not supported",
  EOPNOTSUPP: "Operation not supported",
  EPERM: "Operation not permitted",
  EPIPE: "Broken pipe",
  EPROTO: "Protocol error",
  EPROTONOSUPPORT: "Protocol not supported",
  EPROTOTYPE: "Protocol wrong type for socket",
  EROFS: "Read-only file system",
  ESHUTDOWN: "Cannot send after transport endpoint shutdown",
  ESOCKTNOSUPPORT: "Socket type not supported",
  ETIMEDOUT: "Connection timed out",
};

/** A failed call on a socket (https://docs.python.org/3/library/exceptions.html#OSError). */
export class OSError extends Error {
  override readonly name: string = "OSError";
  /** The error's name, as in errno(3). */
  readonly code: string;
  /** The platform's number for it, positive (a gaierror's has its sign); 0 where the platform has none. */
  readonly errno: number;
  /** The reason in words. */
  readonly strerror: string;
  readonly syscall: string;
  readonly address: string | undefined;

  constructor(details: OSErrorDetails) {
    const { code, syscall, address, cause } = details;
    const errno = details.errno ?? constants.errno[code as keyof typeof constants.errno] ?? 0;
    const strerror = details.reason ?? TEXTS[code] ?? getSystemErrorMap().get(-errno)?.[1] ?? "Unknown error";
    const on = address === undefined ? "" : ` ${address}`;
    super(`${syscall}${on}: ${strerror} (${code})`, cause === undefined ? undefined : { cause });
    this.code = code;
    this.errno = errno;
    this.strerror = strerror;
    this.syscall = syscall;
    this.address = address;
  }
}

/** EAGAIN, EALREADY, EINPROGRESS: it cannot be done without waiting, and the socket is set not to wait. */
export class BlockingIOError extends OSError {
  override readonly name = "BlockingIOError";
}
/** What the connection errors have in common. */
export class ConnectionError extends OSError {
  override readonly name: string = "ConnectionError";
}
/** EPIPE, ESHUTDOWN: written to where nobody reads any more. */
export class BrokenPipeError extends ConnectionError {
  override readonly name = "BrokenPipeError";
}
/** ECONNABORTED. */
export class ConnectionAbortedError extends ConnectionError {
  override readonly name = "ConnectionAbortedError";
}
/** ECONNREFUSED: nobody listens there. */
export class ConnectionRefusedError extends ConnectionError {
  override readonly name = "ConnectionRefusedError";
}
/** ECONNRESET: the peer has thrown the connection away. */
export class ConnectionResetError extends ConnectionError {
  override readonly name = "ConnectionResetError";
}
/** ETIMEDOUT, from the network or from settimeout(). */
export class TimeoutError extends OSError {
  override readonly name = "TimeoutError";
}
/** EACCES, EPERM. */
export class PermissionError extends OSError {
  override readonly name = "PermissionError";
}
/** ENOENT: no such path, for AF_UNIX. */
export class FileNotFoundError extends OSError {
  override readonly name = "FileNotFoundError";
}
/** A host or a service that cannot be resolved; `code` is one of EAI_*, `errno` its number. */
export class gaierror extends OSError {
  override readonly name = "gaierror";
}
/** TLS: a handshake that failed, a certificate that is not trusted. `code` is OpenSSL's name for the reason. */
export class SSLError extends OSError {
  override readonly name = "SSLError";
  /** OpenSSL's name for the reason, as `code` has it. */
  get reason(): string {
    return this.code;
  }
}

const FAMILY: Record<string, new (details: OSErrorDetails) => OSError> = {
  EAGAIN: BlockingIOError,
  EWOULDBLOCK: BlockingIOError,
  EALREADY: BlockingIOError,
  EINPROGRESS: BlockingIOError,
  EPIPE: BrokenPipeError,
  ESHUTDOWN: BrokenPipeError,
  ECONNABORTED: ConnectionAbortedError,
  ECONNREFUSED: ConnectionRefusedError,
  ECONNRESET: ConnectionResetError,
  ETIMEDOUT: TimeoutError,
  EACCES: PermissionError,
  EPERM: PermissionError,
  ENOENT: FileNotFoundError,
};

/** The member of the family that the code calls for, as Python chooses it from errno. */
export function osError(details: OSErrorDetails): OSError {
  return new (FAMILY[details.code] ?? OSError)(details);
}

/** Of two names for one number, the first in Node's table is errno(3)'s own: EAGAIN, not EWOULDBLOCK. */
const NAMES = new Map<number, string>();
for (const [name, errno] of Object.entries(constants.errno)) if (!NAMES.has(errno)) NAMES.set(errno, name);

/** The name of an error number, whichever sign it came with: 98 and -98 are "EADDRINUSE" on Linux. */
export const errnoName = (errno: number): string => NAMES.get(Math.abs(errno)) ?? `E${Math.abs(errno)}`;

/**
 * Bun's error, which may lack a code, may carry a negative errno and names the address only now and then, as
 * an OSError of ours. An OSError passes through.
 */
export function asOSError(error: unknown, syscall: string, address?: string): OSError {
  if (error instanceof OSError) return error;
  const told = (error ?? {}) as { code?: unknown; errno?: unknown; message?: unknown };
  const code =
    typeof told.code === "string"
      ? told.code
      : typeof told.errno === "number"
        ? errnoName(told.errno)
        : "EUNKNOWN";
  const alert = alertOf(told.message);
  if (alert !== undefined) return tlsError(alert, syscall, address, error);
  const known = code in constants.errno;
  return osError({
    code,
    syscall,
    address,
    cause: error,
    ...(known ? {} : { reason: String(told.message ?? error) }),
  });
}

/** The reason in an error of OpenSSL's form: "error:1000045c:SSL routines:OPENSSL_internal:REASON". */
function alertOf(message: unknown): string | undefined {
  const [, reason] = /^error:[\da-f]{8}:SSL routines:[^:]*:(\w+)/.exec(String(message)) ?? [];
  // BoringSSL's names for the two alerts that only TLS 1.3 has; Python shows OpenSSL's.
  return reason?.replace(/^TLSV1_(?=ALERT_(CERTIFICATE_REQUIRED|MISSING_EXTENSION)$)/, "TLSV13_");
}

/** An error of the TLS protocol, as Python words it. Its number is SSL_ERROR_SSL. */
function tlsError(reason: string, syscall: string, address: string | undefined, cause: unknown): SSLError {
  const text = `[SSL: ${reason}] ${reason.toLowerCase().replaceAll("_", " ")}`;
  return new SSLError({ code: reason, errno: 1, syscall, address, reason: text, cause });
}

// What more than one room says.

/** A call on a socket that is closed, or that was closed while it waited. */
export const closedError = (syscall: string): OSError =>
  osError({ code: "EBADF", syscall, reason: "the socket is closed" });

export const busyError = (syscall: string): OSError =>
  osError({
    code: "EBUSY",
    syscall,
    reason: `another ${syscall} waits on this socket already; await it first`,
  });

/** For a socket that is set not to wait. */
export const wouldBlock = (syscall: string, what: string): OSError =>
  osError({ code: "EAGAIN", syscall, reason: `${what}, and the socket does not wait` });

/** A value in a message; what somebody gives may have no text. */
export function textOf(value: unknown): string {
  try {
    return String(value);
  } catch {
    return "an object without a text";
  }
}
