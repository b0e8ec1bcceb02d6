/**
 * OSError and its subclasses, as in Python. The message says what was tried, on what, and why it failed; the
 * fields say the same. It changes when an error says something else.
 */
import { constants } from "node:os";

export interface OSErrorDetails {
  /** The error's name, as in errno(3): "EADDRINUSE". */
  code: string;
  /** The call that failed: "listen". */
  syscall: string;
  /** The address or object of the call: "127.0.0.1:8101". */
  address?: string | undefined;
  /** The reason, if more is known than the code says. */
  reason?: string | undefined;
  /** The number, if it is not the code's in errno(3). */
  errno?: number;
  cause?: unknown;
}

let wordsOf = (_errno: number): string | undefined => undefined;

/** Sets the source of an error's words: strerror(3), as in Python. Without it, the code stands for them. */
export function setStrerror(its: (errno: number) => string): void {
  wordsOf = its;
}

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
    const strerror = details.reason ?? (errno > 0 ? wordsOf(errno) : undefined) ?? code;
    const on = address === undefined ? "" : ` ${address}`;
    super(`${syscall}${on}: ${strerror} (${code})`, cause === undefined ? undefined : { cause });
    this.code = code;
    this.errno = errno;
    this.strerror = strerror;
    this.syscall = syscall;
    this.address = address;
  }
}

/** EAGAIN, EALREADY, EINPROGRESS: the call would have to wait, and the socket is non-blocking. */
export class BlockingIOError extends OSError {
  override readonly name = "BlockingIOError";
}
/** Base of the connection errors. */
export class ConnectionError extends OSError {
  override readonly name: string = "ConnectionError";
}
/** EPIPE, ESHUTDOWN: the connection is closed for writing. */
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
/** ECONNRESET: the peer has reset the connection. */
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
/**
 * TLS: a handshake that failed, a certificate that is not trusted. `code` is OpenSSL's name for the reason.
 */
export class SSLError extends OSError {
  override readonly name: string = "SSLError";
  /** OpenSSL's name for the reason, as `code` has it. */
  get reason(): string {
    return this.code;
  }
}

/** X509_verify_cert(3)'s results, by the names that Bun gives them. */
const VERIFY_CODES: Record<string, number> = {
  UNSPECIFIED: 1,
  UNABLE_TO_GET_ISSUER_CERT: 2,
  UNABLE_TO_GET_CRL: 3,
  UNABLE_TO_DECRYPT_CERT_SIGNATURE: 4,
  UNABLE_TO_DECRYPT_CRL_SIGNATURE: 5,
  UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY: 6,
  CERT_SIGNATURE_FAILURE: 7,
  CRL_SIGNATURE_FAILURE: 8,
  CERT_NOT_YET_VALID: 9,
  CERT_HAS_EXPIRED: 10,
  CRL_NOT_YET_VALID: 11,
  CRL_HAS_EXPIRED: 12,
  ERROR_IN_CERT_NOT_BEFORE_FIELD: 13,
  ERROR_IN_CERT_NOT_AFTER_FIELD: 14,
  ERROR_IN_CRL_LAST_UPDATE_FIELD: 15,
  ERROR_IN_CRL_NEXT_UPDATE_FIELD: 16,
  OUT_OF_MEM: 17,
  DEPTH_ZERO_SELF_SIGNED_CERT: 18,
  SELF_SIGNED_CERT_IN_CHAIN: 19,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 20,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 21,
  CERT_CHAIN_TOO_LONG: 22,
  CERT_REVOKED: 23,
  INVALID_CA: 24,
  PATH_LENGTH_EXCEEDED: 25,
  INVALID_PURPOSE: 26,
  CERT_UNTRUSTED: 27,
  CERT_REJECTED: 28,
  HOSTNAME_MISMATCH: 62,
  ERR_TLS_CERT_ALTNAME_INVALID: 62,
};

/** The peer's certificate was refused: it is not trusted, has expired, or is for another host. */
export class SSLCertVerificationError extends SSLError {
  override readonly name = "SSLCertVerificationError";
  /** The number of OpenSSL's X509_V_ERR_* constant; 62 where the certificate is for another host. */
  readonly verify_code: number;
  readonly verify_message: string;

  constructor(details: OSErrorDetails) {
    super(details);
    this.verify_code = VERIFY_CODES[this.code] ?? 1;
    this.verify_message = this.strerror;
  }
}

/** Whether the code of a failed handshake is about the certificate. */
export const isVerifyError = (code: string): boolean => code in VERIFY_CODES;

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

/** The subclass for the code, as Python chooses it by errno. */
export function osError(details: OSErrorDetails): OSError {
  return new (FAMILY[details.code] ?? OSError)(details);
}

/** If two names share a number, the first one in Node's table is errno(3)'s own: EAGAIN, not EWOULDBLOCK. */
const NAMES = new Map<number, string>();
for (const [name, errno] of Object.entries(constants.errno)) if (!NAMES.has(errno)) NAMES.set(errno, name);

/** The name of an error number of either sign: 98 and -98 are "EADDRINUSE" on Linux. */
export const errnoName = (errno: number): string => NAMES.get(Math.abs(errno)) ?? `E${Math.abs(errno)}`;

/** Converts an error of Bun's, which may lack a code or have a negative errno. Passes an OSError through. */
export function toOSError(error: unknown, syscall: string, address?: string): OSError {
  if (error instanceof OSError) return error;
  const given = (error ?? {}) as { code?: unknown; errno?: unknown; message?: unknown };
  const code =
    typeof given.code === "string"
      ? given.code
      : typeof given.errno === "number"
        ? errnoName(given.errno)
        : "EUNKNOWN";
  const alert = alertOf(given.message);
  if (alert !== undefined) return tlsError(alert, syscall, address, error);
  const known = code in constants.errno;
  return osError({
    code,
    syscall,
    address,
    cause: error,
    ...(known ? {} : { reason: String(given.message ?? error) }),
  });
}

/** The reason in an error message of OpenSSL: "error:1000045c:SSL routines:OPENSSL_internal:REASON". */
function alertOf(message: unknown): string | undefined {
  const [, reason] = /^error:[\da-f]{8}:SSL routines:[^:]*:(\w+)/.exec(String(message)) ?? [];
  // BoringSSL's names for the two alerts that only TLS 1.3 has; Python shows OpenSSL's.
  return reason?.replace(/^TLSV1_(?=ALERT_(CERTIFICATE_REQUIRED|MISSING_EXTENSION)$)/, "TLSV13_");
}

/** An error of the TLS protocol, in Python's words. Its number is SSL_ERROR_SSL. */
function tlsError(reason: string, syscall: string, address: string | undefined, cause: unknown): SSLError {
  const text = `[SSL: ${reason}] ${reason.toLowerCase().replaceAll("_", " ")}`;
  return new SSLError({ code: reason, errno: 1, syscall, address, reason: text, cause });
}

// Errors that several rooms throw.

/**
 * Adds the caller's line to the stack of an error. An error of a call that waited comes from an event, far
 * from the caller; in the catch block of an async function the stack leads back to the awaiting caller.
 * @param call the function that the caller called
 */
export function tracedTo(call: Function, error: unknown): unknown {
  if (error instanceof OSError) Error.captureStackTrace(error, call);
  return error;
}

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
  osError({ code: "EAGAIN", syscall, reason: `${what}, and the socket is non-blocking` });

/** String(value) that never throws, for messages. */
export function safeString(value: unknown): string {
  try {
    return String(value);
  } catch {
    return "[object]";
  }
}
