/** Checks of arguments, before anything changes. It changes when the form of an argument does. */
import * as k from "../os/constants.ts";
import * as more from "../os/linux-constants.ts";
import { AF_INET, AF_INET6, type AddressFamily } from "../os/constants.ts";
import { checkNoNul, type AnyAddressLike, type Inet6Address } from "../os/address.ts";
import { osError, safeString, type OSError } from "../os/errors.ts";
import { literalHost, type LiteralHost } from "../os/literal-host.ts";
import { literal, noLookup } from "./resolve.ts";
import type { TLS } from "../engine/engine.ts";

/** Received bytes: a Buffer, which is a Uint8Array. */
export type Bytes = Buffer;
/** Bytes to send, never a string. */
export type BytesLike = ArrayBufferView | ArrayBuffer;

/** The last argument of an awaited call. */
export interface Options {
  /** Ends the call with an AbortError; the socket stays usable. */
  signal?: AbortSignal | undefined;
}

export interface ConnectOptions extends Options {
  /** TLS over the connection, verified by default; `{}` for the system's certificates. */
  tls?: TLS | undefined;
}

/** Python's own bound: 64 bits of nanoseconds, 292 years. */
const MAX_TIMEOUT = 9_223_372_036;

let defaultTimeout: number | null = null;

/** The default timeout of new sockets in seconds; null for ever. */
export const getdefaulttimeout = (): number | null => defaultTimeout;

/**
 * Sets the timeout of new and accepted sockets.
 * @param timeout seconds from 0 on, or null for ever
 * @throws RangeError for a negative one
 */
export function setdefaulttimeout(timeout: number | null): void {
  defaultTimeout = checkTimeout(timeout, "setdefaulttimeout");
}

export function checkTimeout(timeout: number | null, call: string): number | null {
  if (timeout === null) return null;
  if (typeof timeout !== "number") throw new TypeError(`${call}: a timeout is a number of seconds or null`);
  if (!(timeout >= 0 && timeout <= MAX_TIMEOUT)) {
    throw new RangeError(
      `${call}: a timeout is 0 to ${MAX_TIMEOUT} seconds, or null for ever, not ${timeout}`,
    );
  }
  return timeout;
}

/** @throws TypeError unless it is a whole number, RangeError unless it fits in a C int */
export function checkInt(value: number, call: string): number {
  if (!Number.isInteger(value))
    throw new TypeError(`${call}: a whole number is needed, not ${safeString(value)}`);
  if (value < -(2 ** 31) || value >= 2 ** 31)
    throw new RangeError(`${call}: ${value} does not fit in a C int`);
  return value;
}

/** In milliseconds, as the rooms below count. */
export const milliseconds = (seconds: number | null): number | null =>
  seconds === null ? null : seconds * 1000;

/** The bytes, without a copy. @throws TypeError for a string, as in Python, and for anything but bytes */
export function bytesOf(data: BytesLike, call: string): Uint8Array {
  if (data instanceof Uint8Array) return data;
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  if (data instanceof ArrayBuffer) return new Uint8Array(data);
  throw new TypeError(
    `${call}: a bytes-like object is required, not ${typeof data}; Buffer.from(text) makes bytes`,
  );
}

/** @throws RangeError below 0, TypeError unless it is a whole number */
export function checkSize(size: number, call: string): number {
  if (!Number.isInteger(size))
    throw new TypeError(`${call}: a size is a whole number of bytes, not ${safeString(size)}`);
  if (size < 0) throw new RangeError(`${call}: a size is 0 or more bytes, not ${size}`);
  return size;
}

/**
 * The flags of a call, from an argument that may be a number or the options.
 * @param supported the flags that this call knows
 * @returns 0 for options
 * @throws TypeError for undefined, the value of a constant that this platform lacks; OSError EOPNOTSUPP for
 *   other flags
 */
export function checkFlags(flags: number | Options | null | undefined, call: string, supported = 0): number {
  if (typeof flags === "object") return 0;
  if (typeof flags !== "number" || !Number.isInteger(flags)) {
    throw new TypeError(
      `${call}: flags are a whole number, not ${safeString(flags)}; leave them out, or pass 0`,
    );
  }
  const others = flags & ~supported;
  if (others === 0) return flags;
  throw unsupported(call, `the flags ${flagNames(others)}`);
}

const constants: readonly [string, unknown][] = Object.entries({ ...k, ...more });

function flagNames(flags: number): string {
  const names = constants.filter(([name, flag]) => {
    return name.startsWith("MSG_") && typeof flag === "number" && flag !== 0 && (flags & flag) === flag;
  });
  return names.map(([name]) => name).join(" | ") || `0x${(flags >>> 0).toString(16)}`;
}

/** A constant's name, for messages: "SOCK_SEQPACKET". */
export function constantName(prefix: "AF_" | "SOCK_", value: number): string {
  const [name] = constants.find(([name, number]) => name.startsWith(prefix) && number === value) ?? [];
  return name ?? `${prefix === "AF_" ? "family" : "type"} ${value}`;
}

/** The arguments from the n-th on, as they were given: an explicit undefined is not a missing argument. */
export const given = (args: IArguments, from: number): Trailing => Array.prototype.slice.call(args, from);
export type Trailing = readonly unknown[];

/**
 * The flags, if any, and the options at the end of a call.
 * @param supported the flags that the call knows
 * @throws TypeError, OSError EOPNOTSUPP
 */
export function trailingOf(
  call: string,
  trailing: Trailing,
  supported = 0,
): { flags: number; signal: AbortSignal | undefined } {
  const [first, second] = trailing;
  const flagged = trailing.length > 0 && typeof first !== "object";
  const flags = flagged ? checkFlags(first as number, call, supported) : 0;
  const options = flagged ? second : first;
  checkOptions(options, call);
  if (!flagged && second !== undefined) checkOptions(NaN, call);
  return { flags, signal: signalOf(call, options as Options | null | undefined) };
}

/** @throws TypeError for an argument that is explicitly undefined */
export function checkGiven(value: unknown, given: boolean, name: string, call: string): void {
  if (given && value === undefined) {
    throw new TypeError(`${call}: ${name} is undefined; leave it out for its default`);
  }
}

/** @throws TypeError for anything but an object in the place of the options */
export function checkOptions(options: unknown, call: string): void {
  if (options === undefined || (typeof options === "object" && !Array.isArray(options))) return;
  throw new TypeError(`${call}: the last argument is an object of options, not ${safeString(options)}`);
}

export const unsupported = (call: string, what: string): OSError =>
  osError({ code: "EOPNOTSUPP", syscall: call, reason: `${what} cannot be had on Bun` });

/**
 * The signal, wherever the options are among the arguments.
 * @throws TypeError unless it is an AbortSignal: a waiting call would find out too late
 */
export function signalOf(
  call: string,
  ...trailing: (number | Options | null | undefined)[]
): AbortSignal | undefined {
  const options = trailing.find((one): one is Options => typeof one === "object" && one !== null);
  const signal = options?.signal ?? undefined;
  if (signal === undefined || signal instanceof AbortSignal) return signal;
  throw new TypeError(`${call}: signal is an AbortSignal, not ${typeof signal}`);
}

/**
 * @returns undefined for none
 * @throws TypeError unless `tls` is an options object: ignoring it would silently open a plaintext connection
 */
export function tlsOf(call: string, options: ConnectOptions | null | undefined): TLS | undefined {
  const tls = options?.tls ?? undefined;
  if (tls === undefined) return tls;
  if (typeof tls === "object" && !Array.isArray(tls)) {
    // Bun passes these to C, which would stop at a zero byte.
    const { serverName, keyFile, certFile, caFile, dhParamsFile } = tls as Record<string, unknown>;
    for (const [name, text] of Object.entries({ serverName, keyFile, certFile, caFile, dhParamsFile })) {
      for (const one of [text].flat()) if (typeof one === "string") checkNoNul(one, name, call);
    }
    return tls;
  }
  throw new TypeError(
    `${call}: tls is an object of options, {} for the system's certificates, not ${Array.isArray(tls) ? "an array" : typeof tls}`,
  );
}

/** The name that a server's certificate must have: without the zone, which is this machine's own. */
export const serverNameOf = (host: string): string => host.split("%", 1)[0]!;

/**
 * The options of TLS with the name that the server's certificate must have. Without one, Bun would verify
 * against "localhost", wherever the connection leads.
 * @param host undefined for a Unix path, or if it is unknown
 * @throws TypeError when there is no name to verify; Python's ssl demands server_hostname likewise
 */
export function verifying(tls: TLS, host: string | undefined, call: string): TLS {
  const serverName = tls.serverName || (host === undefined ? "" : serverNameOf(host));
  if (serverName !== "") return { ...tls, serverName };
  if (tls.rejectUnauthorized === false) return tls;
  throw new TypeError(`${call}: tls needs a serverName here: the name that the certificate must have`);
}

/** "" is every interface; "<broadcast>" is every host of an IPv4 network, as in Python. */
export function expandWildcard(family: AddressFamily, address: AnyAddressLike): AnyAddressLike {
  if (!Array.isArray(address)) return address;
  const [host, ...rest] = address as Inet6Address;
  const broadcast = host === "<broadcast>" && family === AF_INET;
  if (host !== "" && !broadcast) return address;
  const its = broadcast ? "255.255.255.255" : family === AF_INET6 ? "::" : "0.0.0.0";
  return [its, ...rest] as unknown as AnyAddressLike;
}

/** An address for bind(), which needs no look-up. @throws gaierror for a name */
export function ownAddress(family: AddressFamily, address: AnyAddressLike): AnyAddressLike {
  if (!Array.isArray(address)) return address;
  const whole = expandWildcard(family, address) as Inet6Address;
  const [host] = whole;
  const known = literalHost(host === "localhost" ? (family === AF_INET6 ? "::1" : "127.0.0.1") : host);
  if (known?.[0] !== family) throw noLookup(host, "bind");
  return withHost(whole, known);
}

/** The address with a numeric host. An explicit scope id takes precedence over the host's zone. */
function withHost([, port, flowinfo = 0, scopeid = 0]: Inet6Address, known: LiteralHost): AnyAddressLike {
  const [family, host, zone] = known;
  return family === AF_INET ? [host, port] : [host, port, flowinfo, scopeid || zone];
}

/** The address with its name looked up; "" is this machine. */
export async function resolveAddress(
  family: AddressFamily,
  address: AnyAddressLike,
): Promise<AnyAddressLike> {
  // Copy the bytes: the caller's may change while the call waits.
  if (address instanceof Uint8Array) return new Uint8Array(address);
  if (!Array.isArray(address)) return address;
  const whole = expandWildcard(family, address) as Inet6Address;
  const [host, port, flowinfo, scopeid] = whole;
  return withHost([host, port, flowinfo, scopeid], await literal(host, family));
}

/** @throws TypeError without a key and its certificate: Bun would listen, and every handshake would fail */
export function checkServerTLS(tls: TLS): void {
  const { key, cert, keyFile, certFile } = tls as TLS & { keyFile?: string; certFile?: string };
  const isGiven = (one: unknown): boolean => one != null && !(Array.isArray(one) && one.length === 0);
  const needed = { key: key ?? keyFile, cert: cert ?? certFile };
  for (const [name, value] of Object.entries(needed)) {
    if (!isGiven(value))
      throw new TypeError(`create_server: tls is { key, cert } at least, and has no ${name}`);
  }
}
