/**
 * Python's socket module: `import * as socket from "ringback"`. Calls that block in Python return promises;
 * the others are synchronous. It changes when the module's surface does.
 *
 * The reference for everything else: https://docs.python.org/3/library/socket.html
 */
import { hostname } from "node:os";
import { checkAddress, type Address, type AddressLike, type Inet6Address } from "./os/address.ts";
import {
  checkGiven,
  checkInt,
  checkServerTLS,
  checkTimeout,
  constantName,
  getdefaulttimeout,
  signalOf,
  tlsOf,
  verifying,
  unsupported,
  type ConnectOptions,
  type Options,
} from "./socket/checks.ts";
import * as k from "./os/constants.ts";
import { AF_INET, AF_INET6, AF_UNIX, SOCK_STREAM, type AddressFamily } from "./os/constants.ts";
import { getInt, openPair } from "./os/descriptor.ts";
import { safeString, tracedTo } from "./os/errors.ts";
import { resolve, type AddressInfo } from "./socket/resolve.ts";
import { Socket, type ListeningSocket } from "./socket/socket.ts";
import type { TLS } from "./engine/engine.ts";
import { withDeadline } from "./socket/pending-call.ts";

export { inet_aton, inet_ntoa, inet_ntop, inet_pton } from "./os/address.ts";
export * from "./os/constants.ts";
export * from "./os/linux-constants.ts";
export {
  BlockingIOError,
  BrokenPipeError,
  ConnectionAbortedError,
  ConnectionError,
  ConnectionRefusedError,
  ConnectionResetError,
  FileNotFoundError,
  gaierror,
  OSError,
  OSError as error,
  PermissionError,
  SSLCertVerificationError,
  SSLError,
  TimeoutError,
  TimeoutError as timeout,
} from "./os/errors.ts";
export type { Address, AddressInfo, AddressLike, Inet6Address, TLS };
export { getdefaulttimeout, setdefaulttimeout } from "./socket/checks.ts";
export type { Bytes, BytesLike, ConnectOptions, Options } from "./socket/checks.ts";
export type { ListeningSocket, Socket } from "./socket/socket.ts";
export type { InetAddress, UnixAddress } from "./os/address.ts";

/** Whether Python's module has IPv6. */
export const has_ipv6 = true;

interface SocketConstructor {
  (): Socket<AF_INET>;
  <F extends AddressFamily = AF_INET>(
    family?: F,
    type?: number,
    proto?: number,
    fileno?: number | null,
  ): Socket<F>;
  new (): Socket<AF_INET>;
  new <F extends AddressFamily = AF_INET>(
    family?: F,
    type?: number,
    proto?: number,
    fileno?: number | null,
  ): Socket<F>;
}

function make(
  family?: AddressFamily,
  type?: number,
  proto?: number,
  fileno: number | null = null,
): Socket<AddressFamily> {
  if (fileno === null) {
    for (const [i, name] of ["the family", "the type", "the protocol"].entries()) {
      checkGiven(arguments[i], arguments.length > i, name, "socket");
    }
  }
  if (fileno === null) return new Socket(family ?? AF_INET, type ?? SOCK_STREAM, proto ?? 0, null);
  if (checkInt(fileno, "socket") < 0)
    throw new RangeError(`socket: a descriptor is a whole number from 0 on, not ${fileno}`);
  // The kernel knows the family and the type of a given descriptor.
  const ask = (option: number | undefined, given: number | undefined, preset: number): number => {
    const known = option !== undefined && getInt(fileno, k.SOL_SOCKET, option);
    return given ?? (known || preset);
  };
  const its = ask(k.SO_DOMAIN, family, AF_INET) as AddressFamily;
  return new Socket(its, ask(k.SO_TYPE, type, SOCK_STREAM), ask(k.SO_PROTOCOL, proto, 0), fileno);
}
make.prototype = Socket.prototype;

/**
 * Makes a socket: a real descriptor (socket(2)). With or without `new`.
 * https://docs.python.org/3/library/socket.html#socket.socket
 * @param fileno an existing descriptor; the kernel tells its family and type
 * @throws OSError; EOPNOTSUPP for SOCK_RAW
 */
export const socket = make as unknown as SocketConstructor;

/** Two connected sockets (socketpair(2)). @throws OSError */
export function socketpair<F extends AddressFamily = AF_UNIX>(
  family: F = AF_UNIX as F,
  type: number = SOCK_STREAM,
  proto = 0,
): [Socket<F>, Socket<F>] {
  for (const [i, name] of ["the family", "the type", "the protocol"].entries()) {
    checkGiven(arguments[i], arguments.length > i, name, "socketpair");
  }
  if (type !== SOCK_STREAM) throw unsupported("socketpair", constantName("SOCK_", type));
  for (const number of [family, proto]) checkInt(number, "socketpair");
  const [a, b] = openPair(family, type, proto);
  return [new Socket(family, type, proto, a), new Socket(family, type, proto, b)];
}

/**
 * Connects to a TCP service: every address of the host in turn; null is this machine.
 * https://docs.python.org/3/library/socket.html#socket.create_connection
 * @param timeout seconds for each try; null for ever; default: the default timeout
 * @param source_address the address to bind to
 * @throws the last try's error; SSLError when the TLS handshake fails
 */
export async function create_connection(
  address: readonly [host: string | null, port: number],
  timeout?: number | null | ConnectOptions,
  source_address?: readonly [host: string, port: number] | null | ConnectOptions,
  options?: ConnectOptions,
): Promise<Socket<AF_INET> | Socket<AF_INET6>> {
  const all = [timeout, source_address, options];
  const given = all.find(
    (one): one is ConnectOptions => typeof one === "object" && one !== null && !Array.isArray(one),
  );
  const tls = tlsOf("create_connection", given);
  const signal = signalOf("create_connection", given);
  if (!Array.isArray(address)) throw new TypeError("create_connection: an address is [host, port]");
  const [host, port] = address;
  checkAddress(AF_INET, [host ?? "", port], "create_connection");
  const preset = timeout === undefined || timeout === given;
  const wait = checkTimeout(preset ? getdefaulttimeout() : (timeout as number | null), "create_connection");
  if (source_address !== given && source_address != null && !Array.isArray(source_address)) {
    throw new TypeError("create_connection: a source address is [host, port]");
  }
  const ms = wait === null ? null : wait * 1000;
  const found = await withDeadline(
    "create_connection",
    resolve(host, port, 0, SOCK_STREAM),
    ms || null,
    signal,
  );
  let last: unknown;
  for (const [family, type, proto, , to] of found) {
    const conn = socket(family, type, proto) as unknown as Socket<AF_INET6>;
    try {
      conn.settimeout(wait);
      if (Array.isArray(source_address)) conn.bind(source_address as unknown as Inet6Address);
      await conn.connect(to as Inet6Address, {
        signal,
        tls: tls && verifying(tls, host ?? "localhost", "create_connection"),
      });
      return conn;
    } catch (error) {
      conn.close();
      last = error;
      if (signal?.aborted) break;
    }
  }
  throw tracedTo(create_connection, last);
}

export interface ServerOptions {
  /** AF_INET, AF_INET6 or AF_UNIX. */
  family?: AddressFamily;
  /** See listen(). */
  backlog?: number;
  /** Sets SO_REUSEPORT, so that other processes can listen there as well. */
  reuse_port?: boolean;
  /** Makes an IPv6 server accept IPv4, too; "" is then every interface of both. */
  dualstack_ipv6?: boolean;
  /**
   * TLS for every connection: at least `{ key, cert }`. accept() returns connections whose handshake is done.
   */
  tls?: TLS;
}

/**
 * A listening TCP or Unix socket, with SO_REUSEADDR.
 * https://docs.python.org/3/library/socket.html#socket.create_server
 * @throws OSError
 */
export function create_server<F extends AddressFamily = AF_INET>(
  address: AddressLike<F>,
  options: ServerOptions & { family?: F } = {},
): ListeningSocket<F> {
  if (typeof options !== "object" || options === null) {
    throw new TypeError(
      `create_server: options are an object, not ${options === null ? null : typeof options}`,
    );
  }
  const family = (options.family ?? AF_INET) as F;
  if (options.dualstack_ipv6 && family !== AF_INET6) {
    throw new TypeError("create_server: dualstack_ipv6 needs family AF_INET6");
  }
  const tls = tlsOf("create_server", options);
  if (tls !== undefined) checkServerTLS(tls);
  const server = new Socket<F>(family, SOCK_STREAM, 0, null, tls);
  try {
    if (family !== AF_UNIX) server.setsockopt(k.SOL_SOCKET, k.SO_REUSEADDR, 1);
    if (options.reuse_port) server.setsockopt(k.SOL_SOCKET, k.SO_REUSEPORT, 1);
    if (family === AF_INET6) server.setsockopt(k.IPPROTO_IPV6, k.IPV6_V6ONLY, !options.dualstack_ipv6);
    server.bind(address);
    return options.backlog === undefined ? server.listen() : server.listen(options.backlog);
  } catch (error) {
    server.close();
    throw error;
  }
}

/** The addresses of a host and a port; see Python's. @throws gaierror */
export async function getaddrinfo(
  host: string | null,
  port: number | string | null,
  family = 0,
  type = 0,
  proto = 0,
  flags: number | Options = 0,
  options?: Options,
): Promise<AddressInfo[]> {
  if (typeof flags === "number" && flags !== 0) {
    throw unsupported("getaddrinfo", `the flags 0x${flags.toString(16)}`);
  }
  // Checked before the look-up begins: nobody would handle its rejection.
  const signal = signalOf("getaddrinfo", flags, options);
  try {
    return await withDeadline("getaddrinfo", resolve(host, port, family, type, proto), null, signal);
  } catch (error) {
    throw tracedTo(getaddrinfo, error);
  }
}

/** This machine's name (gethostname(2)). */
export const gethostname = (): string => hostname();

const LITTLE = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

function checkWord(x: number, max: number, call: string): void {
  if (!Number.isInteger(x) || x < 0 || x > max)
    throw new RangeError(`${call}: 0 to ${max}, not ${safeString(x)}`);
}

/** 16 bits from host to network order. @throws RangeError outside 0..0xffff */
export function htons(x: number): number {
  checkWord(x, 0xffff, "htons");
  return LITTLE ? ((x & 0xff) << 8) | (x >>> 8) : x;
}

/** 32 bits from host to network order. @throws RangeError outside 0..0xffffffff */
export function htonl(x: number): number {
  checkWord(x, 0xffffffff, "htonl");
  return LITTLE ? ((x << 24) | ((x & 0xff00) << 8) | ((x >>> 8) & 0xff00) | (x >>> 24)) >>> 0 : x;
}

/** 16 bits from network to host order. @throws RangeError outside 0..0xffff */
export const ntohs = htons;
/** 32 bits from network to host order. @throws RangeError outside 0..0xffffffff */
export const ntohl = htonl;
