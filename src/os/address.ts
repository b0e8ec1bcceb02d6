/**
 * Addresses in Python's forms, as the kernel's sockaddr, and as text. No name is looked up here.
 * It changes when a family is added or a form changes.
 */
import { isUtf8 } from "node:buffer";
import { AF_INET, AF_INET6, AF_UNIX, type AddressFamily } from "./constants.ts";
import { OSError } from "./errors.ts";

export type InetAddress = [host: string, port: number];
export type Inet6Address = [host: string, port: number, flowinfo: number, scopeid: number];
/**
 * A path as text, or as bytes where it has no UTF-8; an abstract name (Linux) as bytes that begin with a zero
 * byte; "" for a socket without a name.
 */
export type UnixAddress = string | Uint8Array;
/** An address of the family, as calls return it. */
export type Address<F extends AddressFamily = AddressFamily> = F extends AF_INET
  ? InetAddress
  : F extends AF_INET6
    ? Inet6Address
    : UnixAddress;
/** An address of the family, as calls take it. */
export type AddressLike<F extends AddressFamily> = F extends AF_INET
  ? readonly [host: string, port: number]
  : F extends AF_INET6
    ? readonly [host: string, port: number, flowinfo?: number, scopeid?: number]
    : UnixAddress;
export type AnyAddress = InetAddress | Inet6Address | UnixAddress;
export type AnyAddressLike = AddressLike<AF_INET> | AddressLike<AF_INET6> | UnixAddress;

const darwin = process.platform === "darwin";
/** sun_path's size (unix(7)); macOS has 104. */
const UNIX_PATH_MAX = darwin ? 104 : 108;
export const SOCKADDR_MAX = 128;

/** An address as text: host:port, [host]:port, or the path. */
export function addressText(address: AnyAddressLike): string {
  if (typeof address === "string") return address.replaceAll("\0", "@");
  if (address instanceof Uint8Array) return addressText(Buffer.from(address).toString());
  const [host, port] = address;
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/**
 * Checks an address of the family, before any system call.
 * @throws TypeError for the wrong form; RangeError for a port outside 0..65535
 */
export function checkAddress(
  family: AddressFamily,
  address: unknown,
  syscall: string,
): asserts address is AnyAddressLike {
  if (family === AF_UNIX) {
    if (typeof address !== "string" && !(address instanceof Uint8Array))
      throw new TypeError(
        `${syscall}: an AF_UNIX address is a string or a Uint8Array, not ${typeof address}`,
      );
    if (typeof address === "string" && !address.isWellFormed())
      throw new RangeError(`${syscall}: a lone surrogate in a path has no UTF-8: give the path as bytes`);
    // An abstract name begins with a zero byte and may have more of them; the kernel cuts a path at its
    // first.
    const bytes = Buffer.from(address as string);
    if (bytes.indexOf(0) > 0) throw embeddedNul("a path", syscall);
    return;
  }
  const form = family === AF_INET ? "[host, port]" : "[host, port, flowinfo, scopeid]";
  const max = family === AF_INET ? 2 : 4;
  if (
    !Array.isArray(address) ||
    address.length < 2 ||
    address.length > max ||
    typeof address[0] !== "string"
  ) {
    throw new TypeError(`${syscall}: an address of this family is ${form}`);
  }
  for (const number of address.slice(1)) {
    if (typeof number !== "number") throw new TypeError(`${syscall}: an address of this family is ${form}`);
  }
  checkNoNul(address[0], "a host", syscall);
  checkPort(address[1] as number, syscall);
  const [, , flowinfo = 0, scopeid = 0] = address as number[];
  checkWithin(flowinfo, 0xf_ffff, "flowinfo", syscall);
  checkWithin(scopeid, 0xffff_ffff, "a scope id", syscall);
}

/** @throws RangeError for a text with a zero byte, where the C library would stop reading */
export function checkNoNul(text: string, what: string, syscall: string): void {
  if (text.includes("\0")) throw embeddedNul(what, syscall);
}

const embeddedNul = (what: string, syscall: string): RangeError =>
  new RangeError(`${syscall}: embedded null byte in ${what}`);

function checkWithin(value: number, max: number, what: string, syscall: string): void {
  if (Number.isInteger(value) && value >= 0 && value <= max) return;
  throw new RangeError(`${syscall}: ${what} is a whole number from 0 to ${max}, not ${value}`);
}

/** @throws RangeError outside 0..65535 */
export function checkPort(port: number, syscall: string): void {
  if (!Number.isInteger(port) || port < 0 || port > 65_535) {
    throw new RangeError(`${syscall}: a port is a whole number from 0 to 65535, not ${port}`);
  }
}

/**
 * The kernel's form (ip(7), ipv6(7), unix(7)). The host must be a literal address.
 * @throws OSError for a path that is too long
 */
export function encodeAddress(family: AddressFamily, address: AnyAddressLike): Uint8Array {
  if (family === AF_UNIX) {
    const path = Buffer.from(address as string);
    // An abstract name (Linux) begins with a zero byte and has no zero at its end.
    const length = path[0] === 0 ? path.length : path.length + 1;
    if (length > UNIX_PATH_MAX) {
      const reason = `a path has at most ${UNIX_PATH_MAX - 1} bytes`;
      throw new OSError({ code: "ENAMETOOLONG", syscall: "bind", address: addressText(address), reason });
    }
    return start(family, path.length === 0 ? 2 : 2 + length, (bytes) => bytes.set(path, 2));
  }
  const [host, port, flowinfo = 0, scopeid = 0] = address as AddressLike<AF_INET6>;
  if (family === AF_INET) {
    return start(family, 16, (bytes, view) => {
      view.setUint16(2, port);
      bytes.set(inet_aton(host), 4);
    });
  }
  return start(family, 28, (bytes, view) => {
    view.setUint16(2, port);
    view.setUint32(4, flowinfo);
    bytes.set(inet_pton(AF_INET6, host), 8);
    view.setUint32(24, scopeid, true);
  });
}

function start(family: number, size: number, fill: (bytes: Uint8Array, view: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  if (darwin) bytes.set([size, family]);
  else view.setUint16(0, family, true);
  fill(bytes, view);
  return bytes;
}

/** A kernel's address in Python's form. @throws OSError EINVAL when bytes are missing */
export function decodeAddress(bytes: Uint8Array): AnyAddress {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const family = bytes.length < 2 ? AF_UNIX : darwin ? view.getUint8(1) : view.getUint16(0, true);
  const whole = family === AF_INET ? 8 : family === AF_INET6 ? 28 : 0;
  if (bytes.length < whole) {
    const reason = `an address of family ${family} has ${whole} bytes at least, not ${bytes.length}`;
    throw new OSError({ code: "EINVAL", syscall: "getsockname", reason });
  }
  if (family === AF_INET) return [inet_ntop(AF_INET, bytes.subarray(4, 8)), view.getUint16(2)];
  if (family === AF_INET6) {
    const host = inet_ntop(AF_INET6, bytes.subarray(8, 24));
    return [host, view.getUint16(2), view.getUint32(4), view.getUint32(24, true)];
  }
  return decodePath(Buffer.from(new Uint8Array(bytes.subarray(2)).buffer));
}

function decodePath(path: Buffer): UnixAddress {
  if (path[0] === 0) return path;
  const end = path.indexOf(0);
  const bytes = end < 0 ? path : path.subarray(0, end);
  return isUtf8(bytes) ? bytes.toString() : bytes;
}

const illegal = (call: string, text: unknown): OSError =>
  new OSError({
    code: "EINVAL",
    syscall: call,
    address: JSON.stringify(text),
    reason: "illegal IP address string",
  });

/** A part of an IPv4 address, as inet_aton(3) reads it: decimal, octal after 0, hexadecimal after 0x. */
function partValue(part: string): number {
  if (/^0x[\da-f]+$/i.test(part)) return Number.parseInt(part, 16);
  if (/^0[0-7]*$/.test(part)) return Number.parseInt(part, 8);
  return /^[1-9]\d*$/.test(part) ? Number(part) : NaN;
}

/**
 * The 4 bytes of an IPv4 address, in any form of inet_aton(3): "127.1" and "0x7f000001" too.
 * https://docs.python.org/3/library/socket.html#socket.inet_aton
 * @throws OSError for any other text
 */
export function inet_aton(ip_string: string): Uint8Array {
  checkText(ip_string, "inet_aton");
  const parts = ip_string.split(".").map(partValue);
  const last = parts.pop()!;
  const whole = last < 256 ** (4 - parts.length);
  if (parts.length > 3 || !whole || !parts.every((part) => part <= 255))
    throw illegal("inet_aton", ip_string);
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, last);
  bytes.set(parts);
  return bytes;
}

/**
 * "127.0.0.1" for the 4 bytes. https://docs.python.org/3/library/socket.html#socket.inet_ntoa
 * @throws OSError for another number of bytes
 */
export function inet_ntoa(packed_ip: Uint8Array): string {
  checkPacked(packed_ip, "inet_ntoa");
  return inet_ntop(AF_INET, packed_ip);
}

/**
 * The bytes of an IPv4 (4) or IPv6 (16) address in its standard form.
 * https://docs.python.org/3/library/socket.html#socket.inet_pton
 * @throws OSError for any other text, and for another family
 */
export function inet_pton(address_family: AddressFamily, ip_string: string): Uint8Array {
  checkText(ip_string, "inet_pton");
  if (address_family === AF_INET) {
    if (!/^(0|[1-9]\d{0,2})(\.(0|[1-9]\d{0,2})){3}$/.test(ip_string)) throw illegal("inet_pton", ip_string);
    return inet_aton(ip_string);
  }
  if (address_family !== AF_INET6) throw unknownFamily("inet_pton");
  // An IPv4 tail stands for the last two groups.
  const text = ip_string.replace(/(?<=:)\d+\.\d+\.\d+\.\d+$/, (v4) => {
    const [a, b, c, d] = inet_pton(AF_INET, v4) as unknown as [number, number, number, number];
    return `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  });
  const halves = text.split("::");
  const groups = (half: string | undefined): string[] => (half ? half.split(":") : []);
  const [head, tail] = [groups(halves[0]), groups(halves[1])];
  const missing = 8 - head.length - tail.length;
  const all = [...head, ...new Array<string>(Math.max(0, missing)).fill("0"), ...tail];
  const shaped = halves.length === 1 ? missing === 0 : halves.length === 2 && missing >= 1;
  if (!shaped || !all.every((group) => /^[\da-f]{1,4}$/i.test(group))) throw illegal("inet_pton", ip_string);
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  for (const [i, group] of all.entries()) view.setUint16(i * 2, Number.parseInt(group, 16));
  return bytes;
}

/**
 * The standard text of an IPv4 (4 bytes) or IPv6 (16 bytes) address; IPv6 by RFC 5952, as glibc writes it.
 * https://docs.python.org/3/library/socket.html#socket.inet_ntop
 * @throws OSError for another number of bytes or another family
 */
export function inet_ntop(address_family: AddressFamily, packed_ip: Uint8Array): string {
  checkPacked(packed_ip, "inet_ntop");
  const size = address_family === AF_INET ? 4 : address_family === AF_INET6 ? 16 : undefined;
  if (size === undefined) throw unknownFamily("inet_ntop");
  if (packed_ip.length !== size) {
    const reason = `an address of this family has ${size} bytes, not ${packed_ip.length}`;
    throw new OSError({ code: "EINVAL", syscall: "inet_ntop", reason });
  }
  if (size === 4) return packed_ip.join(".");
  const view = new DataView(packed_ip.buffer, packed_ip.byteOffset, 16);
  const groups = Array.from({ length: 8 }, (_, i) => view.getUint16(i * 2).toString(16));
  const v4 = packed_ip.subarray(12).join(".");
  if (groups.slice(0, 6).every((group) => group === "0") && groups[6] !== "0") return `::${v4}`;
  if (groups.slice(0, 5).every((group) => group === "0") && groups[5] === "ffff") return `::ffff:${v4}`;
  // The first longest run of zero groups, two at least, becomes "::".
  let [from, length] = [-1, 1];
  for (let i = 0, run = 0; i < 8; i++) {
    run = groups[i] === "0" ? run + 1 : 0;
    if (run > length) [from, length] = [i - run + 1, run];
  }
  if (from < 0) return groups.join(":");
  return `${groups.slice(0, from).join(":")}::${groups.slice(from + length).join(":")}`;
}

function checkText(text: unknown, call: string): asserts text is string {
  if (typeof text !== "string") throw new TypeError(`${call}: an address is a string, not ${typeof text}`);
}

function checkPacked(packed: unknown, call: string): asserts packed is Uint8Array {
  if (!(packed instanceof Uint8Array))
    throw new TypeError(`${call}: a packed address is a Uint8Array, not ${typeof packed}`);
}

function unknownFamily(call: string): OSError {
  return new OSError({
    code: "EAFNOSUPPORT",
    syscall: call,
    reason: "the family is neither AF_INET nor AF_INET6",
  });
}
