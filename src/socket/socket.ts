/**
 * The socket object of Python's module: one descriptor, which becomes a stream, a listener or a datagram socket. It
 * changes when one of the calls does that connect, listen, receive or send. How bytes move is written in the rooms of
 * those three.
 */
import type { TLS } from "../engine/engine.ts";
import { addressText, checkAddress, type Address, type AddressLike, type AnyAddress } from "../os/address.ts";
import * as k from "../os/constants.ts";
import { AF_INET, AF_INET6, AF_UNIX, SOCK_DGRAM, SOCK_STREAM, type AddressFamily } from "../os/constants.ts";
import { descriptorName, listenDescriptor, openDescriptor } from "../os/descriptor.ts";
import { gaierror, OSError, osError, safeString, tracedTo, wouldBlock } from "../os/errors.ts";
import { MSG_WAITALL } from "../os/linux-constants.ts";
import { BaseSocket } from "./base-socket.ts";
import {
  bytesOf,
  checkFlags,
  checkGiven,
  checkInt,
  checkOptions,
  checkSize,
  constantName,
  given,
  resolveAddress,
  signalOf,
  trailingOf,
  unsupported,
  type Bytes,
  type BytesLike,
  type ConnectOptions,
  type Options,
  type Trailing,
} from "./checks.ts";
import { adoptStream } from "./connect.ts";
import { Connector } from "./connector.ts";
import { DatagramSocket } from "./datagram.ts";
import { GuestListener } from "./guest-listener.ts";
import { Listener } from "./listener.ts";
import { withDeadline } from "./pending-call.ts";
import { copyOf, pinsMuch } from "./reader.ts";
import type { Role } from "./role.ts";
import { Stream } from "./stream.ts";
import { readableOf, writableOf } from "./web-streams.ts";

/** Flags that sends know: none of them ever raises SIGPIPE, so that MSG_NOSIGNAL changes nothing. */
const SEND_FLAGS = k.MSG_DONTWAIT | k.MSG_NOSIGNAL;

/** Maximum bytes per `for await` step. */
const READ_SIZE = 65_536;

/** A listening socket, as create_server() and listen() give it: `for await (const [conn, address] of listener)`. */
export interface ListeningSocket<F extends AddressFamily = AddressFamily> extends Omit<
  Socket<F>,
  typeof Symbol.asyncIterator
> {
  /** accept() again and again, until the socket is closed. */
  [Symbol.asyncIterator](): AsyncIterator<[conn: Socket<F>, address: Address<F>]>;
}

/** A descriptor; null for a new one; or, from inside this file, a stream that was accepted. */
type Given = number | null | Stream;

export class Socket<F extends AddressFamily = AddressFamily> extends BaseSocket<F> {
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
    // As in Python, the flags that socket(2) takes with the type are not part of it; close-on-exec is always set.
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

  /** @throws OSError EBADF, ENOTCONN, or the error of a connect that was not waited for */
  #stream(call: string): Stream {
    this.checkOpen(call);
    const { role } = this;
    if (role instanceof Stream) return role;
    if (role instanceof Connector) {
      role.throwConnectError();
      if (role.connecting && this.timeoutMs === 0) throw wouldBlock(call, "the connection is under way");
    }
    throw osError({ code: "ENOTCONN", syscall: call, reason: "the socket is not connected" });
  }

  // Making connections.

  /**
   * Starts to listen (listen(2)).
   * @param backlog how many connections may wait for accept(); what comes beyond is reset. 0 is as 1.
   * @returns the socket itself, as one that can be iterated
   * @throws OSError EADDRINUSE, and the socket is as before; EINVAL when it is connected, EOPNOTSUPP for a datagram socket
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
   * Takes the next connection. One that comes when fewer than 32 descriptors are left has been reset instead.
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
   * @throws ConnectionRefusedError, TimeoutError, gaierror, BlockingIOError EINPROGRESS when it does not wait, OSError
   *   EISCONN, EALREADY, …; RangeError for a port outside 0..65535. The socket can be tried again.
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

  /** connect(), which gives the errno instead of throwing an OSError; 0 when it stands. @throws gaierror for an unknown name */
  async connect_ex(address: AddressLike<F>, options?: ConnectOptions): Promise<number> {
    try {
      await this.connect(address, options);
      return 0;
    } catch (error) {
      if (error instanceof OSError && !(error instanceof gaierror)) return error.errno;
      throw error;
    }
  }

  // Receiving.

  /**
   * Receives what is there, one byte at least.
   * @param bufsize maximum bytes, from 0 on; 0 is empty at once. Of a datagram the rest is lost.
   * @returns 1 to bufsize bytes, or none at the peer's FIN
   * @throws ConnectionResetError, TimeoutError, BlockingIOError, OSError ENOTCONN, EBUSY when another recv waits
   */
  recv(bufsize: number, flags?: number | Options, options?: Options): Promise<Bytes>;
  recv(bufsize: number): Promise<Bytes> {
    const { role } = this;
    // The way of a loop that only receives: no promise but the one that is returned.
    if (
      arguments.length === 1 &&
      role instanceof Stream &&
      Number.isInteger(bufsize) &&
      bufsize > 0 &&
      !this.closed
    ) {
      return role.reader.recv(bufsize, this.timeoutMs);
    }
    return this.#recv(bufsize, given(arguments, 1));
  }

  async #recv(bufsize: number, trailing: Trailing): Promise<Bytes> {
    try {
      const [bytes] = await this.#receive("recv", bufsize, trailing);
      return bytes;
    } catch (error) {
      throw tracedTo(this.#recv, error);
    }
  }

  async #receive(
    call: string,
    bufsize: number,
    trailing: Trailing,
  ): Promise<[bytes: Bytes, address: Address<F> | null]> {
    checkSize(bufsize, call);
    const { flags, signal } = trailingOf(call, trailing, k.MSG_DONTWAIT | MSG_WAITALL);
    const timeout = this.#timeoutWith(flags);
    if (this.role instanceof DatagramSocket) {
      this.checkOpen(call);
      const [bytes, address] = await this.role.recv(timeout, signal);
      const wanted = bytes.length > bufsize ? bytes.subarray(0, bufsize) : bytes;
      return [pinsMuch(wanted) ? copyOf(wanted) : wanted, address as Address<F>];
    }
    const { reader } = this.#stream(call);
    if ((flags & MSG_WAITALL) !== 0) return [await reader.recvAll(bufsize, timeout, signal), null];
    return [await reader.recv(bufsize, timeout, signal), null];
  }

  #timeoutWith(flags: number): number | null {
    return (flags & k.MSG_DONTWAIT) !== 0 ? 0 : this.timeoutMs;
  }

  /** recv() and the sender's address; null on a stream. */
  recvfrom(
    bufsize: number,
    flags?: number | Options,
    options?: Options,
  ): Promise<[bytes: Bytes, address: Address<F> | null]>;
  async recvfrom(bufsize: number): Promise<[bytes: Bytes, address: Address<F> | null]> {
    try {
      return await this.#receive("recvfrom", bufsize, given(arguments, 1));
    } catch (error) {
      throw tracedTo(this.recvfrom, error);
    }
  }

  /**
   * Receives into a buffer, from its start; what is beyond the count stays as it was.
   * @param nbytes maximum bytes; 0 or nothing is the whole buffer
   * @returns how many bytes came; 0 at the peer's FIN
   * @throws RangeError when nbytes is negative or more than the buffer has; otherwise as recv()
   */
  recv_into(
    buffer: BytesLike,
    nbytes?: number | Options,
    flags?: number | Options,
    options?: Options,
  ): Promise<number>;
  async recv_into(buffer: BytesLike): Promise<number> {
    try {
      const [count] = await this.#into("recv_into", buffer, given(arguments, 1));
      return count;
    } catch (error) {
      throw tracedTo(this.recv_into, error);
    }
  }

  /** recv_into() and the sender's address; null on a stream. */
  recvfrom_into(
    buffer: BytesLike,
    nbytes?: number | Options,
    flags?: number | Options,
    options?: Options,
  ): Promise<[count: number, address: Address<F> | null]>;
  recvfrom_into(buffer: BytesLike): Promise<[count: number, address: Address<F> | null]> {
    return this.#into("recvfrom_into", buffer, given(arguments, 1));
  }

  async #into(call: string, buffer: BytesLike, args: Trailing): Promise<[number, Address<F> | null]> {
    const whole = bytesOf(buffer, call);
    const sized = args.length > 0 && (typeof args[0] !== "object" || args.length > 1);
    const size = (sized && checkSize(args[0] as number, call)) || whole.length;
    if (size > whole.length)
      throw new RangeError(`${call}: ${size} bytes do not fit in a buffer of ${whole.length}`);
    const { flags, signal } = trailingOf(call, sized ? args.slice(1) : args, k.MSG_DONTWAIT);
    const timeout = this.#timeoutWith(flags);
    const target = whole.subarray(0, size);
    if (this.role instanceof DatagramSocket) {
      this.checkOpen(call);
      return (await this.role.recvInto(target, timeout, signal)) as [number, Address<F>];
    }
    return [await this.#stream(call).reader.recvInto(target, timeout, signal), null];
  }

  // Sending.

  /**
   * Sends as much as the kernel takes.
   * @returns how many bytes it took, which may be fewer than there are: sendall() sends all
   * @throws TypeError for a string; BrokenPipeError, ConnectionResetError, TimeoutError, BlockingIOError, ENOTCONN
   */
  send(data: BytesLike, flags?: number | Options, options?: Options): Promise<number>;
  async send(data: BytesLike): Promise<number> {
    try {
      return await this.#send("send", data, given(arguments, 1));
    } catch (error) {
      throw tracedTo(this.send, error);
    }
  }

  async #send(call: "send" | "sendall", data: BytesLike, trailing: Trailing): Promise<number> {
    const bytes = bytesOf(data, call);
    const { flags, signal } = trailingOf(call, trailing, SEND_FLAGS);
    const timeout = this.#timeoutWith(flags);
    if (this.role instanceof DatagramSocket) {
      this.checkOpen(call);
      return this.role.send(bytes, undefined, timeout, signal);
    }
    const { writer } = this.#stream(call);
    if (call === "send") return writer.send(bytes, timeout, signal);
    await writer.sendall(bytes, timeout, signal);
    return bytes.length;
  }

  /**
   * Sends all of it, or fails. The bytes must not be changed before it is done. Calls do not interleave.
   * @throws as send(); how much was sent by then cannot be told
   */
  sendall(data: BytesLike, flags?: number | Options, options?: Options): Promise<void>;
  sendall(data: BytesLike): Promise<void> {
    const { role } = this;
    // The way of a loop that only sends: no promise but the one that is returned.
    if (arguments.length === 1 && role instanceof Stream && data instanceof Uint8Array && !this.closed) {
      return role.writer.sendall(data, this.timeoutMs);
    }
    return this.#sendall(data, given(arguments, 1));
  }

  async #sendall(data: BytesLike, trailing: Trailing): Promise<void> {
    await this.#send("sendall", data, trailing);
  }

  /** Sends one datagram to an address; a name is looked up. `sendto(data, address)` or `sendto(data, flags, address)`. */
  async sendto(data: BytesLike, address: AddressLike<F>, options?: Options): Promise<number>;
  async sendto(data: BytesLike, flags: number, address: AddressLike<F>, options?: Options): Promise<number>;
  async sendto(
    data: BytesLike,
    flagsOrAddress: number | AddressLike<F>,
    addressOrOptions?: AddressLike<F> | Options,
  ): Promise<number> {
    const bytes = bytesOf(data, "sendto");
    const flagged = typeof flagsOrAddress === "number";
    const flags = flagged ? checkFlags(flagsOrAddress, "sendto", SEND_FLAGS) : 0;
    const address = flagged ? addressOrOptions : flagsOrAddress;
    const trailing = given(arguments, flagged ? 3 : 2);
    for (const one of trailing) checkOptions(one, "sendto");
    const { signal } = trailingOf("sendto", trailing);
    this.checkOpen("sendto");
    checkAddress(this.family, address, "sendto");
    try {
      return await this.#sendTo(bytes, address, this.#timeoutWith(flags), signal);
    } catch (error) {
      throw tracedTo(this.sendto, error);
    }
  }

  async #sendTo(
    bytes: Uint8Array,
    address: AddressLike<F>,
    timeout: number | null,
    signal: AbortSignal | undefined,
  ): Promise<number> {
    const { role } = this;
    if (role instanceof DatagramSocket) {
      const to = await withDeadline("sendto", resolveAddress(this.family, address), timeout || null, signal);
      // It may have been closed or detached while the name was looked up: then the number is another's.
      this.checkOpen("sendto");
      return role.send(bytes, to, timeout, signal);
    }
    // A TCP connection has its peer, and the kernel does not look at the address.
    if (role instanceof Stream && this.family !== AF_UNIX) return role.writer.send(bytes, timeout, signal);
    const code = role instanceof Stream ? "EISCONN" : "ENOTCONN";
    throw osError({ code, syscall: "sendto", address: addressText(address) });
  }

  /**
   * Ends one direction, or both (shutdown(2)). What was given to sendall() before arrives before the FIN.
   * @param how SHUT_RD, SHUT_WR or SHUT_RDWR
   * @throws OSError ENOTCONN; RangeError for another `how`
   */
  shutdown(how: number): void {
    if (this.role instanceof DatagramSocket) throw unsupported("shutdown", "shutdown() of a datagram socket");
    const stream = this.#stream("shutdown");
    if (how !== k.SHUT_RD && how !== k.SHUT_WR && how !== k.SHUT_RDWR) {
      throw new RangeError(`shutdown: how is SHUT_RD, SHUT_WR or SHUT_RDWR, not ${safeString(how)}`);
    }
    if (how !== k.SHUT_WR) stream.shutdownRead();
    if (how !== k.SHUT_RD) stream.shutdownWrite();
  }

  // On top of Python's.

  /** Received bytes, step by step, until the peer's FIN. A listening socket gives `[conn, address]`. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Bytes, void, undefined> {
    if (this.role instanceof Listener || this.role instanceof GuestListener) {
      yield* this.#connections() as unknown as AsyncGenerator<Bytes, void, undefined>;
      return;
    }
    // An empty datagram is no end.
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
      // An empty datagram is no end.
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

/** The address of a peer that had reset before anybody could ask the kernel for it. */
const unknownPeer = (family: AddressFamily): AnyAddress =>
  family === AF_UNIX ? "" : family === AF_INET6 ? ["::", 0, 0, 0] : ["0.0.0.0", 0];
