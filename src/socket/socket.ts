/**
 * The socket object of Python's module: one descriptor, which becomes a stream, a listener or a datagram
 * socket. It changes when one of the calls does that connect, listen, receive or send. How bytes move is
 * written in the rooms of those three.
 */
import type { TLS } from "../engine/engine.ts";
import { addressText, checkAddress, type Address, type AddressLike, type AnyAddress } from "../os/address.ts";
import * as k from "../os/constants.ts";
import { AF_INET, AF_INET6, AF_UNIX, SOCK_DGRAM, SOCK_STREAM, type AddressFamily } from "../os/constants.ts";
import { descriptorName, listenDescriptor, openDescriptor } from "../os/descriptor.ts";
import { gaierror, OSError, osError, safeString, tracedTo } from "../os/errors.ts";
import {
  checkGiven,
  checkInt,
  checkOptions,
  constantName,
  signalOf,
  unsupported,
  type Bytes,
  type BytesLike,
  type ConnectOptions,
  type Options,
} from "./checks.ts";
import { BaseSocket } from "./base-socket.ts";
import { adoptStream } from "./connect.ts";
import { Connector } from "./connector.ts";
import { DatagramSocket } from "./datagram.ts";
import { GuestListener } from "./guest-listener.ts";
import { Listener } from "./listener.ts";
import type { Role } from "./role.ts";
import { Stream } from "./stream.ts";
import { TransferSocket } from "./transfer-socket.ts";
import { readableOf, writableOf } from "./web-streams.ts";

/** Maximum bytes per `for await` step. */
const READ_SIZE = 65_536;

/**
 * A listening socket, as create_server() and listen() return it: `for await (const [conn, address] of
 * listener)`.
 */
export interface ListeningSocket<F extends AddressFamily = AddressFamily> extends Omit<
  Socket<F>,
  typeof Symbol.asyncIterator
> {
  /** Calls accept() until the socket is closed. */
  [Symbol.asyncIterator](): AsyncIterator<[conn: Socket<F>, address: Address<F>]>;
}

/** A descriptor; null for a new one; or, from inside this file, a stream that was accepted. */
type Given = number | null | Stream;

export class Socket<F extends AddressFamily = AddressFamily> extends TransferSocket<F> {
  /** What listen() speaks. */
  readonly #tls: TLS | undefined;

  /** @param tls makes what listen() accepts speak TLS */
  constructor(family: F, type: number, proto: number, given: Given, tls?: TLS) {
    // A system call would take another number for it: its remainder by 2^32, without a fraction.
    for (const number of [family, type, proto]) checkInt(number, "socket");
    if (family !== AF_INET && family !== AF_INET6 && family !== AF_UNIX) {
      const reason = `${constantName("AF_", family)} cannot be had on Bun: a family is AF_INET, AF_INET6 or AF_UNIX`;
      throw osError({ code: "EAFNOSUPPORT", syscall: "socket", reason });
    }
    // As in Python, the flags that socket(2) takes with the type are not part of it; close-on-exec is always
    // set.
    const nonBlocking = k.SOCK_NONBLOCK ?? 0;
    const plainType = type & ~(nonBlocking | (k.SOCK_CLOEXEC ?? 0));
    if (plainType !== SOCK_STREAM && plainType !== SOCK_DGRAM) {
      throw unsupported("socket", constantName("SOCK_", plainType));
    }
    if (plainType === SOCK_DGRAM && family === AF_UNIX) throw unsupported("socket", "SOCK_DGRAM of AF_UNIX");
    super(family, plainType, proto);
    if ((type & nonBlocking) !== 0) this.timeoutMs = 0;
    this.#tls = tls;
    this.role = given instanceof Stream ? given : this.#roleOf(given);
  }

  #roleOf(given: number | null): Role {
    const { family, type, proto } = this;
    const fd = given ?? openDescriptor(family, type, proto);
    if (type === SOCK_DGRAM) return new DatagramSocket(fd, family);
    if (given !== null && isConnected(fd)) return adoptStream(fd);
    return new Connector(fd, this, given !== null && process.platform === "linux");
  }

  // Making connections.

  /**
   * Starts to listen (listen(2)).
   * @param backlog maximum connections that wait for accept(); more are reset. 0 counts as 1.
   * @returns the socket itself, as one that can be iterated
   * @throws OSError EADDRINUSE, and the socket is as before; EINVAL when it is connected, EOPNOTSUPP for a
   *   datagram socket
   */
  listen(backlog = 128): ListeningSocket<F> {
    this.checkOpen("listen");
    checkGiven(arguments[0], arguments.length > 0, "the backlog", "listen");
    checkInt(backlog, "listen");
    const max = Math.max(0, backlog);
    const { role } = this;
    if (role instanceof DatagramSocket) throw osError({ code: "EOPNOTSUPP", syscall: "listen" });
    if (role instanceof Listener || role instanceof GuestListener) role.setBacklog(max);
    else if (role instanceof Connector && !role.connecting) this.role = this.#listenOn(role, max);
    else throw osError({ code: "EINVAL", syscall: "listen" });
    return this as unknown as ListeningSocket<F>;
  }

  #listenOn({ fd, guest }: Connector, backlog: number): Listener | GuestListener {
    // The kernel goes first: an engine would close the descriptor of a socket that cannot listen.
    listenDescriptor(fd, backlog);
    return guest ? new GuestListener(fd) : new Listener(fd, backlog, this.#tls);
  }

  /** @throws OSError EINVAL where it does not listen */
  #listener(): Listener | GuestListener {
    this.checkOpen("accept");
    const { role } = this;
    if (role instanceof DatagramSocket) throw osError({ code: "EOPNOTSUPP", syscall: "accept" });
    // A descriptor that was given may listen already.
    if (role instanceof Connector && role.fd >= 0 && this.getsockopt(k.SOL_SOCKET, k.SO_ACCEPTCONN) !== 0) {
      if (role.guest) this.role = new GuestListener(role.fd);
      else this.listen();
    }
    const listener = this.role;
    if (listener instanceof Listener || listener instanceof GuestListener) return listener;
    const reason = "the socket does not listen: call listen() first";
    throw osError({ code: "EINVAL", syscall: "accept", reason });
  }

  /**
   * Takes the next connection. Connections that come when fewer than 32 descriptors are left are reset.
   * @returns the new socket, with the default timeout, and the peer's address
   * @throws OSError EINVAL before listen(), TimeoutError, BlockingIOError, EBADF when it is closed meanwhile
   */
  async accept(options?: Options): Promise<[conn: Socket<F>, address: Address<F>]> {
    const listener = this.#listener();
    checkOptions(options, "accept");
    const signal = signalOf("accept", options);
    let stream: Stream;
    try {
      stream = await listener.accept(this.timeoutMs, signal);
    } catch (error) {
      throw tracedTo(this.accept, error);
    }
    const address = (stream.peer ?? unknownPeer(this.family)) as Address<F>;
    return [new Socket(this.family, this.type, this.proto, stream), address];
  }

  /**
   * Connects; a name is looked up.
   * @throws ConnectionRefusedError, TimeoutError, gaierror, BlockingIOError EINPROGRESS when it does not
   *   wait, OSError EISCONN, EALREADY, …; RangeError for a port outside 0..65535. The socket can be tried
   *   again.
   */
  async connect(address: AddressLike<F>, options?: ConnectOptions): Promise<void> {
    this.checkOpen("connect");
    checkAddress(this.family, address, "connect");
    const { role } = this;
    if (role instanceof Stream && role.arrived) {
      role.arrived = false;
      return;
    }
    try {
      if (role instanceof DatagramSocket) return await role.connect(address, this.timeoutMs, options);
      if (!(role instanceof Connector)) {
        throw osError({ code: "EISCONN", syscall: "connect", address: addressText(address) });
      }
      await role.connect(address, this.timeoutMs, options, (stream) => void (this.role = stream));
    } catch (error) {
      throw tracedTo(this.connect, error);
    }
  }

  /**
   * connect() that returns the errno instead of throwing an OSError; 0 for success.
   * @throws gaierror for an unknown name
   */
  async connect_ex(address: AddressLike<F>, options?: ConnectOptions): Promise<number> {
    try {
      await this.connect(address, options);
      return 0;
    } catch (error) {
      if (error instanceof OSError && !(error instanceof gaierror)) return error.errno;
      throw error;
    }
  }

  /**
   * Ends one direction, or both (shutdown(2)). The bytes of earlier sendall() calls arrive before the FIN.
   * @param how SHUT_RD, SHUT_WR or SHUT_RDWR
   * @throws OSError ENOTCONN; RangeError for another `how`
   */
  shutdown(how: number): void {
    if (this.role instanceof DatagramSocket) throw unsupported("shutdown", "shutdown() of a datagram socket");
    const stream = this.connected("shutdown");
    if (how !== k.SHUT_RD && how !== k.SHUT_WR && how !== k.SHUT_RDWR) {
      throw new RangeError(`shutdown: how is SHUT_RD, SHUT_WR or SHUT_RDWR, not ${safeString(how)}`);
    }
    if (how !== k.SHUT_WR) stream.shutdownRead();
    if (how !== k.SHUT_RD) stream.shutdownWrite();
  }

  // Additions to Python's.

  /** Received bytes until the peer's FIN; for a listening socket, `[conn, address]` per connection. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Bytes, void, undefined> {
    if (this.role instanceof Listener || this.role instanceof GuestListener) {
      yield* this.#connections() as unknown as AsyncGenerator<Bytes, void, undefined>;
      return;
    }
    // An empty datagram is not the end.
    const endless = this.role instanceof DatagramSocket;
    for (;;) {
      const bytes = await this.recv(READ_SIZE);
      if (bytes.length === 0 && !endless) return;
      yield bytes;
    }
  }

  async *#connections(): AsyncGenerator<[Socket<F>, Address<F>], void, undefined> {
    while (!this.closed) {
      try {
        yield await this.accept();
      } catch (error) {
        if (!this.closed) throw error;
      }
    }
  }

  #readable: ReadableStream<Uint8Array<ArrayBuffer>> | undefined;
  #writable: WritableStream<BytesLike> | undefined;

  /** The received bytes as a web stream. Made at the first use; recv() beside it takes from it. */
  get readable(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return (this.#readable ??= readableOf(this, READ_SIZE, {
      // An empty datagram is not the end.
      endless: this.role instanceof DatagramSocket,
      cancelled: () => {
        if (this.role instanceof Stream) this.role.shutdownRead();
      },
    }));
  }

  /** Bytes to send as a web stream: its close is shutdown(SHUT_WR), its abort a reset. */
  get writable(): WritableStream<BytesLike> {
    return (this.#writable ??= writableOf(this));
  }
}

// The class is written in three files. As in Python, all calls are its own for programs that list them.
for (const base of [BaseSocket, TransferSocket]) {
  const { constructor: _, ...calls } = Object.getOwnPropertyDescriptors(base.prototype);
  Object.defineProperties(Socket.prototype, calls as PropertyDescriptorMap);
}

/** Whether a descriptor that was given has a peer. @throws OSError EBADF, … */
function isConnected(fd: number): boolean {
  try {
    descriptorName(fd, "getpeername");
    return true;
  } catch (error) {
    if ((error as OSError).code === "ENOTCONN") return false;
    throw error;
  }
}

/** For a peer that had reset before the kernel could be asked for its address. */
const unknownPeer = (family: AddressFamily): AnyAddress =>
  family === AF_UNIX ? "" : family === AF_INET6 ? ["::", 0, 0, 0] : ["0.0.0.0", 0];
