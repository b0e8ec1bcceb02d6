/** Limits of the kernel and the process that calls exceed silently. It changes when another limit matters. */
import { ptr } from "bun:ffi";
import { readFileSync } from "node:fs";
import { SO_RCVBUF, SOL_SOCKET } from "./constants.ts";
import { getInt, listenDescriptor, setOption } from "./descriptor.ts";
import { osError } from "./errors.ts";
import { libc, requireLibc, throwErrno } from "./libc.ts";

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
  const max = kernelNumber("net.core.somaxconn") ?? backlog;
  if (backlog > max) {
    const reason = `the kernel allows ${max} at most (net.core.somaxconn)`;
    throw osError({ code: "EINVAL", syscall: "listen", address: `backlog ${backlog}`, reason });
  }
  listenDescriptor(fd, backlog);
}

/**
 * Sets SO_RCVBUF; a listener's is inherited by what it accepts (socket(7), tcp(7)). It ends the kernel's own
 * tuning.
 * @param bytes from 1 on; the kernel raises what is too small (on Linux to 1152)
 * @throws OSError; also where the kernel would silently take less
 */
export function setReceiveBuffer(fd: number, bytes: number): void {
  setOption(fd, SOL_SOCKET, SO_RCVBUF, bytes);
  const granted = getInt(fd, SOL_SOCKET, SO_RCVBUF) / requireLibc("getsockopt").bufferFactor;
  if (granted >= bytes) return;
  const reason = `the kernel allows ${granted} bytes at most (net.core.rmem_max)`;
  throw osError({ code: "EINVAL", syscall: "setsockopt", address: `SO_RCVBUF ${bytes}`, reason });
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
