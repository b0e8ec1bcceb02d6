/**
 * OSError: what a failed call on a socket throws. It says what was tried, on what and why it failed, and
 * carries the same as fields. It changes when what an error says changes.
 */
import { constants } from "node:os";
import { getSystemErrorMap } from "node:util";

export interface OSErrorDetails {
  /** The error's name, as in errno(3): "EADDRINUSE". */
  code: string;
  /** The call that failed: "listen". */
  syscall: string;
  /** What it was tried on: "127.0.0.1:8101". */
  address?: string;
  /** Why, where it is known better than from the code. */
  reason?: string;
  cause?: unknown;
}

export class OSError extends Error {
  override readonly name: string = "OSError";
  /** The error's name, as in errno(3). */
  readonly code: string;
  /** The platform's number for it, positive; 0 where the platform has none. */
  readonly errno: number;
  /** The reason in words. */
  readonly strerror: string;
  readonly syscall: string;
  readonly address: string | undefined;

  constructor({ code, syscall, address, reason, cause }: OSErrorDetails) {
    const errno = constants.errno[code as keyof typeof constants.errno] ?? 0;
    const strerror = reason ?? getSystemErrorMap().get(-errno)?.[1] ?? "unknown error";
    const on = address === undefined ? "" : ` ${address}`;
    super(`${syscall}${on}: ${strerror} (${code})`, cause === undefined ? undefined : { cause });
    this.code = code;
    this.errno = errno;
    this.strerror = strerror;
    this.syscall = syscall;
    this.address = address;
  }
}

/** The name of an error number, whichever sign it came with: 98 and -98 are "EADDRINUSE" on Linux. */
export function errnoName(errno: number): string {
  return getSystemErrorMap().get(-Math.abs(errno))?.[0] ?? `E${Math.abs(errno)}`;
}

/**
 * Bun's error, which may lack a code, may carry a negative errno and names the address only now and then, as
 * an OSError of ours. An OSError passes through.
 */
export function asOSError(error: unknown, syscall: string, address?: string): OSError {
  if (error instanceof OSError) return error;
  const told = error as { code?: unknown; errno?: unknown; message?: unknown };
  const code =
    typeof told.code === "string"
      ? told.code
      : typeof told.errno === "number"
        ? errnoName(told.errno)
        : "EUNKNOWN";
  const details: OSErrorDetails = { code, syscall, cause: error };
  if (address !== undefined) details.address = address;
  if (!(code in constants.errno)) details.reason = String(told.message ?? error);
  return new OSError(details);
}
