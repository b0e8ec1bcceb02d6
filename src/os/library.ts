/**
 * Finds the C library, through bun:ffi. It changes when a platform is added.
 */
import { dlopen, type FFIFunction } from "bun:ffi";

const LIBRARIES: Partial<Record<NodeJS.Platform, readonly string[]>> = {
  linux: ["libc.so.6", "libc.so", `libc.musl-${process.arch === "x64" ? "x86_64" : "aarch64"}.so.1`],
  darwin: ["libSystem.B.dylib"],
};

/** The functions of the C library, or undefined where there is none, or where it lacks one of them. */
export function loadLibc<Calls extends Record<string, FFIFunction>>(calls: Calls) {
  for (const library of LIBRARIES[process.platform] ?? []) {
    try {
      return dlopen(library, calls).symbols;
    } catch {
      // The next name; a system without any of them has no libc for us, which `undefined` says.
    }
  }
  return undefined;
}
