/**
 * The sockets that an echo server listens on: one for each address, all on the same port. It changes when
 * listening sockets are set in another way.
 */
import type { Acceptor, Engine, ListenOptions, Open } from "../engine/engine.ts";
import { addressText } from "../os/address.ts";
import {
  IPPROTO_IPV6,
  IPPROTO_TCP,
  IPV6_V6ONLY,
  SO_KEEPALIVE,
  SO_OOBINLINE,
  SO_REUSEADDR,
  SOCK_STREAM,
  SOL_SOCKET,
  TCP_KEEPCNT,
  TCP_KEEPIDLE,
  TCP_KEEPINTVL,
} from "../os/constants.ts";
import {
  bindDescriptor,
  closeDescriptor,
  descriptorName,
  listenDescriptor,
  openDescriptor,
  setOption,
} from "../os/descriptor.ts";
import { osError, type OSError } from "../os/errors.ts";
import { libc } from "../os/libc.ts";
import { setBacklog, setReceiveBuffer } from "../os/limits.ts";
import type { Endpoint } from "./endpoint.ts";

export interface ListeningOptions {
  /** 0 picks one that is free on every address. */
  port: number;
  backlog?: number | undefined;
  receiveBuffer?: number | undefined;
  /** Seconds; 0 sends no probes. */
  keepalive: number;
  open: Open;
  failing?: ((error: OSError) => void) | undefined;
}

/** Bun's own default. */
const DEFAULT_BACKLOG = 512;
/** How many ports of the kernel's choice are tried until one is free on every address. */
const PORT_TRIES = 20;
/**
 * Unanswered probes before a peer is given up. They are a fifth of the idle time apart, which makes twice the
 * time in all, and four lost packets in a row do no harm.
 */
const KEEPALIVE_PROBES = 5;

/** Whether this machine lacks the address, or its kernel the family. */
const isElsewhere = (error: unknown): boolean =>
  ["EADDRNOTAVAIL", "EAFNOSUPPORT"].includes((error as OSError).code);

export class Listening {
  /** The addresses as a person reads them, without the port. */
  readonly hosts: readonly string[];
  readonly port: number;
  readonly #acceptors: readonly Acceptor[];

  /**
   * Listens on every address that this machine has; one at least.
   * @throws OSError when an address fails for another reason: half of what was asked for is an error
   */
  constructor(engine: Engine, endpoints: readonly Endpoint[], options: ListeningOptions) {
    const { port, keepalive, backlog = DEFAULT_BACKLOG, open, failing } = options;
    const listen: ListenOptions = { backlog, open, failing };
    if (libc === undefined) {
      checkPlain(options);
      const { host } = endpoints[0]!;
      const acceptor = engine.listenAt(host, port, keepalive, listen);
      [this.#acceptors, this.hosts, this.port] = [[acceptor], [host], acceptor.port];
      return;
    }
    const bound = bindAll(endpoints, options);
    this.hosts = bound.map(({ host }) => host);
    this.port = portOf(bound[0]!.fd);
    const acceptors: Acceptor[] = [];
    try {
      for (const { fd } of bound) acceptors.push(engine.listen(fd, listen));
    } catch (error) {
      for (const acceptor of acceptors) acceptor.close();
      for (const { fd } of bound.slice(acceptors.length)) closeDescriptor(fd);
      throw error;
    }
    this.#acceptors = acceptors;
  }

  /** "127.0.0.1:8101 and [::1]:8101" */
  get address(): string {
    return this.hosts.map((host) => addressText([host, this.port])).join(" and ");
  }

  /** Ends a pause in accepting, if there is room by now. */
  retry(): void {
    for (const acceptor of this.#acceptors) acceptor.retry();
  }

  /** Frees the port, and resets connections that were not accepted. */
  close(): void {
    for (const acceptor of this.#acceptors) acceptor.close();
  }
}

interface Bound {
  host: string;
  fd: number;
}

const portOf = (fd: number): number => (descriptorName(fd, "getsockname") as [string, number])[1];

/** @returns listening descriptors @throws OSError; then none is left open */
function bindAll(endpoints: readonly Endpoint[], options: ListeningOptions): Bound[] {
  for (let tries = 1; ; tries++) {
    const bound: Bound[] = [];
    try {
      bindEach(endpoints, options, bound);
      return bound;
    } catch (error) {
      for (const { fd } of bound) closeDescriptor(fd);
      // The port that the kernel picked on the first address is taken on another one.
      const unlucky = options.port === 0 && (error as OSError).code === "EADDRINUSE" && tries < PORT_TRIES;
      if (!unlucky) throw error;
    }
  }
}

function bindEach(endpoints: readonly Endpoint[], options: ListeningOptions, bound: Bound[]): void {
  let missing: unknown;
  for (const endpoint of endpoints) {
    // "::" takes IPv4 as well.
    if (endpoint.ip === "0.0.0.0" && bound.some(({ host }) => host === "::")) continue;
    const port = bound.length === 0 ? options.port : portOf(bound[0]!.fd);
    try {
      bound.push({ host: endpoint.host, fd: bind(endpoint, port, options) });
    } catch (error) {
      if (!isElsewhere(error)) throw error;
      missing = error;
    }
  }
  if (bound.length === 0) throw missing;
}

/** @returns a descriptor that listens */
function bind({ family, ip, scopeid, host }: Endpoint, port: number, options: ListeningOptions): number {
  const { backlog, receiveBuffer, keepalive } = options;
  const address = addressText([host, port]);
  let fd = -1;
  try {
    fd = openDescriptor(family, SOCK_STREAM, 0);
    tune(fd, keepalive);
    if (receiveBuffer !== undefined) setReceiveBuffer(fd, receiveBuffer);
    if (ip.includes(":")) setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    naming(address, () => {
      bindDescriptor(fd, family, ip.includes(":") ? [ip, port, 0, scopeid] : [ip, port]);
      listenDescriptor(fd, DEFAULT_BACKLOG);
    });
    if (backlog !== undefined) setBacklog(fd, backlog);
    return fd;
  } catch (error) {
    if (fd >= 0) closeDescriptor(fd);
    throw error;
  }
}

/** Reports errors of bind(2) as errors of listening: which call finds a port taken is the kernel's affair. */
function naming(address: string, call: () => void): void {
  try {
    call();
  } catch (cause) {
    throw osError({ code: (cause as OSError).code, syscall: "listen", address, cause });
  }
}

/** Accepted sockets inherit all of it (on Linux, socket(7) and tcp(7); see test/runtime). */
function tune(fd: number, keepalive: number): void {
  // A server that has just stopped leaves connections in TIME_WAIT, which would keep the port.
  setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  // Urgent data stays in its place in the stream: otherwise the kernel takes a byte out of it.
  setOption(fd, SOL_SOCKET, SO_OOBINLINE, 1);
  if (keepalive === 0) return;
  // TCP_USER_TIMEOUT would also bound how long sent bytes stay without an acknowledgement. But it also ends a
  // peer that is alive and does not read (tcp(7), RFC 5482), which we wait for.
  setOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  setOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, keepalive);
  setOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, Math.max(1, Math.floor(keepalive / KEEPALIVE_PROBES)));
  setOption(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
}

/**
 * Where there is no C library, the engine listens by itself, and nothing can be set.
 * @throws OSError ENOSYS
 */
function checkPlain({ backlog, receiveBuffer }: ListeningOptions): void {
  if (backlog === undefined && receiveBuffer === undefined) return;
  const reason = "this platform has no C library that could set the backlog or the receive buffer";
  throw osError({ code: "ENOSYS", syscall: "listen", reason });
}
