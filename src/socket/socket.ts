/**
 * The socket object of Python's module: one descriptor, and what it has become, a stream, a listener or a datagram
 * socket. It changes when one of its calls does. How bytes move is written in the rooms of those three.
 */
import { addressText, checkAddress, type Address, type AddressLike, type AnyAddress } from "../os/address.ts";
import {
  bytesOf,
  checkFlags,
  checkGiven,
  checkInt,
  checkOptions,
  checkSize,
  checkTimeout,
  getdefaulttimeout,
  resolveAddress,
  ownAddress,
  milliseconds,
  constantName,
  given,
  signalOf,
  trailingOf,
  unsupported,
  type Trailing,
  type Bytes,
  type BytesLike,
  type ConnectOptions,
  type Options,
} from "./checks.ts";
import * as k from "../os/constants.ts";
import { MSG_WAITALL } from "../os/linux-constants.ts";
import { AF_INET, AF_INET6, AF_UNIX, SOCK_DGRAM, SOCK_STREAM, type AddressFamily } from "../os/constants.ts";
import { DatagramSocket } from "./datagram.ts";
import {
  closeDescriptor,
  descriptorName,
  duplicateDescriptor,
  getOption,
  lingerTime,
  listenDescriptor,
  openDescriptor,
} from "../os/descriptor.ts";
import { closedError, gaierror, OSError, osError, safeString, tracedTo, wouldBlock } from "../os/errors.ts";
import { GuestListener } from "./guest-listener.ts";
import { Listener } from "./listener.ts";
import { adoptStream } from "./connect.ts";
import { Connector } from "./connector.ts";
import type { TLS } from "../engine/bun/transport.ts";
import { repr } from "./repr.ts";
import { copyOf, pinsMuch, type Stream } from "./stream.ts";
import { withDeadline } from "./pending-call.ts";

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

/** A descriptor or, from inside this file, a stream or a pair's end that Bun has already. */
type Given = number | null | { readonly stream: Stream; readonly address: AnyAddress };

export class Socket<F extends AddressFamily = AddressFamily> {
  readonly family: F;
  readonly type: number;
  readonly proto: number;

  readonly #connector: Connector;
  #stream: Stream | undefined;
  #listener: Listener | GuestListener | undefined;
  /** Its descriptor was given, and others may share what it stands for. */
  #guest = false;
  #datagram: DatagramSocket | undefined;
  #closed = false;
  /** Milliseconds, as the calls below take it. */
  #timeout: number | null = milliseconds(getdefaulttimeout());
  #tls: TLS | undefined;

  constructor(family: F, type: number, proto: number, fileno: Given) {
    // A system call would take another number for it: its remainder by 2^32, without a fraction.
    for (const number of [family, type, proto]) checkInt(number, "socket");
    if (family !== AF_INET && family !== AF_INET6 && family !== AF_UNIX) {
      const reason = `${constantName("AF_", family)} cannot be had on Bun: a family is AF_INET, AF_INET6 or AF_UNIX`;
      throw osError({ code: "EAFNOSUPPORT", syscall: "socket", reason });
    }
    // As in Python, the flags that socket(2) takes with the type are not part of it; close-on-exec is always set.
    const nonBlocking = k.SOCK_NONBLOCK ?? 0;
    this.type = type & ~(nonBlocking | (k.SOCK_CLOEXEC ?? 0));
    if (this.type !== SOCK_STREAM && this.type !== SOCK_DGRAM) {
      throw unsupported("socket", constantName("SOCK_", this.type));
    }
    if (this.type === SOCK_DGRAM && family === AF_UNIX) throw unsupported("socket", "SOCK_DGRAM of AF_UNIX");
    if ((type & nonBlocking) !== 0) this.#timeout = 0;
    this.family = family;
    this.proto = proto;
    const made = typeof fileno === "object" && fileno !== null;
    this.#connector = new Connector(made ? -1 : (fileno ?? openDescriptor(family, this.type, proto)), this);
    if (made) this.#stream = fileno.stream;
    else this.#adopt(this.#connector.fd, fileno !== null);
  }

  #adopt(fd: number, given: boolean): void {
    if (this.type === SOCK_DGRAM) {
      this.#datagram = new DatagramSocket(fd, this.family);
      return;
    }
    if (!given) return;
    this.#guest = process.platform === "linux";
    // It may be connected.
    try {
      descriptorName(fd, "getpeername");
    } catch (error) {
      if ((error as OSError).code === "ENOTCONN") return;
      throw error;
    }
    this.#stream = adoptStream(fd);
    this.#connector.fd = -1;
  }

  /** The descriptor's number; -1 when the socket is closed. */
  fileno(): number {
    if (this.#closed) return -1;
    return this.#stream === undefined ? this.#connector.fd : this.#stream.fd;
  }

  /** @throws OSError EBADF after close() */
  #check(call: string): void {
    if (this.#closed) throw closedError(call);
  }

  #connected(call: string): Stream {
    this.#check(call);
    if (this.#stream !== undefined) return this.#stream;
    this.#connector.throwConnectError();
    if (this.#connector.connecting && this.#timeout === 0)
      throw wouldBlock(call, "the connection is under way");
    throw osError({ code: "ENOTCONN", syscall: call, reason: "the socket is not connected" });
  }

  // Making connections.

  /**
   * Gives the socket its own address (bind(2)). "" as a host is every interface, "localhost" the loopback one; any
   * other name is not looked up, which would have to wait.
   * @throws OSError EADDRINUSE, EACCES, EADDRNOTAVAIL, EINVAL when it has one; gaierror for a name; RangeError for a
   *   port outside 0..65535
   */
  bind(address: AddressLike<F>): void {
    this.#check("bind");
    checkAddress(this.family, address, "bind");
    this.#connector.bind(this.fileno(), ownAddress(this.family, address));
  }

  /**
   * Starts to listen (listen(2)).
   * @param backlog how many connections may wait for accept(); what comes beyond is reset. 0 is as 1.
   * @returns the socket itself, as one that can be iterated
   * @throws OSError EADDRINUSE, and the socket is as before; EINVAL when it is connected, EOPNOTSUPP for a datagram socket
   */
  listen(backlog = 128): ListeningSocket<F> {
    this.#check("listen");
    checkGiven(arguments[0], arguments.length > 0, "the backlog", "listen");
    checkInt(backlog, "listen");
    if (this.type === SOCK_DGRAM) throw osError({ code: "EOPNOTSUPP", syscall: "listen" });
    if (this.#stream !== undefined || this.#connector.connecting)
      throw osError({ code: "EINVAL", syscall: "listen" });
    const max = Math.max(0, backlog);
    if (this.#listener === undefined) {
      // The kernel goes first: Bun would close the descriptor of a socket that cannot listen.
      listenDescriptor(this.#connector.fd, max);
      this.#listener = this.#guest
        ? new GuestListener(this.#connector.fd)
        : new Listener(this.#connector.fd, max, this.#tls);
    } else this.#listener.setBacklog(max);
    return this as unknown as ListeningSocket<F>;
  }

  /**
   * Takes the next connection. One that comes when fewer than 32 descriptors are left has been reset instead.
   * @returns the new socket, with the default timeout, and the peer's address
   * @throws OSError EINVAL before listen(), TimeoutError, BlockingIOError, EBADF when it is closed meanwhile
   */
  async accept(options?: Options): Promise<[conn: Socket<F>, address: Address<F>]> {
    this.#check("accept");
    if (this.#datagram !== undefined) throw osError({ code: "EOPNOTSUPP", syscall: "accept" });
    // A descriptor that was given may listen already.
    if (this.#listener === undefined && this.#connector.fd >= 0 && this.#stream === undefined) {
      if (this.getsockopt(k.SOL_SOCKET, k.SO_ACCEPTCONN) !== 0) {
        if (this.#guest) this.#listener = new GuestListener(this.#connector.fd);
        else this.listen();
      }
    }
    if (this.#listener === undefined) {
      throw osError({
        code: "EINVAL",
        syscall: "accept",
        reason: "the socket does not listen: call listen() first",
      });
    }
    checkOptions(options, "accept");
    const signal = signalOf("accept", options);
    let stream: Stream;
    try {
      stream = await this.#listener.accept(this.#timeout, signal);
    } catch (error) {
      throw tracedTo(this.accept, error);
    }
    const address = (stream.peer ?? unknownPeer(this.family)) as Address<F>;
    return [new Socket(this.family, this.type, this.proto, { stream, address }), address];
  }

  /**
   * Connects; a name is looked up.
   * @throws ConnectionRefusedError, TimeoutError, gaierror, BlockingIOError EINPROGRESS when it does not wait, OSError
   *   EISCONN, EALREADY, …; RangeError for a port outside 0..65535. The socket can be tried again.
   */
  async connect(address: AddressLike<F>, options?: ConnectOptions): Promise<void> {
    this.#check("connect");
    checkAddress(this.family, address, "connect");
    if (this.#stream !== undefined && this.#connector.takeArrived()) return;
    if (this.#stream !== undefined || this.#listener !== undefined) {
      throw osError({ code: "EISCONN", syscall: "connect", address: addressText(address) });
    }
    const opened = (stream: Stream): void => {
      this.#stream = stream;
    };
    try {
      await this.#connector.connect(address, this.#timeout, options, opened);
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

  // Reading.

  /**
   * Receives what is there, one byte at least.
   * @param bufsize maximum bytes, from 0 on; 0 is empty at once. Of a datagram the rest is lost.
   * @returns 1 to bufsize bytes, or none at the peer's FIN
   * @throws ConnectionResetError, TimeoutError, BlockingIOError, OSError ENOTCONN, EBUSY when another recv waits
   */
  recv(bufsize: number, flags?: number | Options, options?: Options): Promise<Bytes>;
  recv(bufsize: number): Promise<Bytes> {
    const stream = this.#stream;
    // The way of a loop that only receives: no promise but the one that is returned.
    if (
      arguments.length === 1 &&
      stream !== undefined &&
      Number.isInteger(bufsize) &&
      bufsize > 0 &&
      !this.#closed
    ) {
      return stream.recv(bufsize, this.#timeout);
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
    const timeout = (flags & k.MSG_DONTWAIT) !== 0 ? 0 : this.#timeout;
    if (this.#datagram === undefined) {
      const stream = this.#connected(call);
      const all = (flags & MSG_WAITALL) !== 0;
      const bytes = all ? stream.recvAll(bufsize, timeout, signal) : stream.recv(bufsize, timeout, signal);
      return [await bytes, null];
    }
    this.#check(call);
    const [bytes, address] = await this.#datagram.recv(timeout, signal);
    const wanted = bytes.length > bufsize ? bytes.subarray(0, bufsize) : bytes;
    return [pinsMuch(wanted) ? copyOf(wanted) : wanted, address as Address<F>];
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
    const max = (sized && checkSize(args[0] as number, call)) || whole.length;
    if (max > whole.length)
      throw new RangeError(`${call}: ${max} bytes do not fit in a buffer of ${whole.length}`);
    const { flags, signal } = trailingOf(call, sized ? args.slice(1) : args, k.MSG_DONTWAIT);
    const timeout = (flags & k.MSG_DONTWAIT) !== 0 ? 0 : this.#timeout;
    const target = whole.subarray(0, max);
    if (this.#datagram === undefined) {
      return [await this.#connected(call).recvInto(target, timeout, signal), null];
    }
    this.#check(call);
    return (await this.#datagram.recvInto(target, timeout, signal)) as [number, Address<F>];
  }

  // Writing.

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
    const timeout = (flags & k.MSG_DONTWAIT) !== 0 ? 0 : this.#timeout;
    if (this.#datagram !== undefined) {
      this.#check(call);
      return this.#datagram.send(bytes, undefined, timeout, signal);
    }
    const stream = this.#connected(call);
    if (call === "send") return stream.send(bytes, timeout, signal);
    await stream.sendall(bytes, timeout, signal);
    return bytes.length;
  }

  /**
   * Sends all of it, or fails. The bytes must not be changed before it is done. Calls do not interleave.
   * @throws as send(); how much was sent by then cannot be told
   */
  sendall(data: BytesLike, flags?: number | Options, options?: Options): Promise<void>;
  sendall(data: BytesLike): Promise<void> {
    const stream = this.#stream;
    // The way of a loop that only sends: no promise but the one that is returned.
    if (arguments.length === 1 && stream !== undefined && data instanceof Uint8Array && !this.#closed) {
      return stream.sendall(data, this.#timeout);
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
    const timeout = (flags & k.MSG_DONTWAIT) !== 0 ? 0 : this.#timeout;
    this.#check("sendto");
    checkAddress(this.family, address, "sendto");
    if (this.#datagram === undefined && (this.#stream === undefined || this.family === AF_UNIX)) {
      const code = this.#stream === undefined ? "ENOTCONN" : "EISCONN";
      throw osError({ code, syscall: "sendto", address: addressText(address) });
    }
    try {
      // A TCP connection has its peer, and the kernel does not look at the address.
      if (this.#datagram === undefined) return await this.#stream!.send(bytes, timeout, signal);
      const to = await withDeadline("sendto", resolveAddress(this.family, address), timeout || null, signal);
      // It may have been closed or detached while the name was looked up: then the number is another's.
      this.#check("sendto");
      return await this.#datagram.send(bytes, to, timeout, signal);
    } catch (error) {
      throw tracedTo(this.sendto, error);
    }
  }

  // Ending.

  /**
   * Ends one direction, or both (shutdown(2)). What was given to sendall() before arrives before the FIN.
   * @param how SHUT_RD, SHUT_WR or SHUT_RDWR
   * @throws OSError ENOTCONN; RangeError for another `how`
   */
  shutdown(how: number): void {
    if (this.#datagram !== undefined) throw unsupported("shutdown", "shutdown() of a datagram socket");
    const stream = this.#connected("shutdown");
    if (how !== k.SHUT_RD && how !== k.SHUT_WR && how !== k.SHUT_RDWR) {
      throw new RangeError(`shutdown: how is SHUT_RD, SHUT_WR or SHUT_RDWR, not ${safeString(how)}`);
    }
    if (how !== k.SHUT_WR) stream.shutdownRead();
    if (how !== k.SHUT_RD) stream.shutdownWrite();
  }

  /**
   * Closes the socket; again does nothing. Pending calls end with an error, but for sendall(): what it was given is
   * delivered in the background, and it settles then. A listener's port is free at once.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#connector.cancel(closedError("connect"));
    if (this.#stream !== undefined) {
      if (lingerTime(this.#stream.fd) === 0) this.#stream.closeAtOnce();
      else this.#stream.close();
    } else if (this.#listener !== undefined) this.#listener.close();
    else if (this.#datagram !== undefined) this.#datagram.close();
    else this.#connector.close();
  }

  /**
   * Gives the descriptor away, open, and closes the object.
   * @returns a descriptor of the same socket, mostly with the same number
   * @throws OSError EBUSY while received bytes or connections wait: they would be lost; EOPNOTSUPP for TLS; EALREADY while it connects
   */
  detach(): number {
    this.#check("detach");
    if (this.#connector.connecting) {
      throw osError({ code: "EALREADY", syscall: "detach", reason: "the connection is under way" });
    }
    const fd = this.fileno();
    const stream = this.#stream;
    // The keys are in the object, and would be gone with it.
    if (stream?.plain === false) throw unsupported("detach", "the descriptor of a TLS connection");
    const waiting = stream?.readable || stream?.hasPendingWrites || this.#datagram?.readable;
    if (waiting || this.#listener?.readable) {
      const [what, call] = waiting ? ["bytes", "recv"] : ["connections", "accept"];
      const reason = `${what} wait here that would be lost: ${call} them first`;
      throw osError({ code: "EBUSY", syscall: "detach", reason });
    }
    const guest = this.#listener instanceof GuestListener ? this.#listener : undefined;
    if (stream === undefined && guest === this.#listener && !this.#datagram?.adopted) {
      this.#closed = true;
      this.#datagram?.release();
      guest?.release();
      this.#connector.fd = -1;
      return fd;
    }
    // Bun closes what it has adopted: a second descriptor keeps the socket open, and gets the number back.
    const kept = duplicateDescriptor(fd, 0);
    this.#closed = true;
    stream?.closeAtOnce();
    this.#listener?.close();
    this.#datagram?.close();
    const same = duplicateDescriptor(kept, fd);
    closeDescriptor(kept);
    return same;
  }

  // Names, options, timeouts.

  /** The socket's own address (getsockname(2)). @throws OSError EBADF */
  getsockname(): Address<F> {
    this.#check("getsockname");
    return descriptorName(this.fileno(), "getsockname") as Address<F>;
  }

  /** Whether the peer showed a certificate that was verified; false without TLS. */
  get authorized(): boolean {
    return this.#stream?.authorized ?? false;
  }

  /** The code of the reason why a TLS peer is not authorized. */
  get authorizationError(): string | undefined {
    return this.#stream?.authorizationError;
  }

  /** How many clients this listening socket turned away because their TLS handshake or certificate failed. */
  get refused(): number {
    return this.#listener instanceof Listener ? this.#listener.refused : 0;
  }

  /** The peer's address (getpeername(2)). @throws OSError ENOTCONN, EBADF */
  getpeername(): Address<F> {
    this.#check("getpeername");
    return descriptorName(this.fileno(), "getpeername") as Address<F>;
  }

  /**
   * Sets an option (setsockopt(2)).
   * @param value a C int, a boolean, or a packed struct
   * @throws OSError ENOPROTOOPT, EINVAL, …; TypeError for a value of another kind
   */
  setsockopt(level: number, optname: number, value: number | boolean | BytesLike): void {
    this.#check("setsockopt");
    for (const number of [level, optname]) checkInt(number, "setsockopt");
    const plain = typeof value === "boolean" ? Number(value) : value;
    const raw =
      typeof plain === "number" ? checkInt(plain, "setsockopt") : bytesOf(plain, "setsockopt").slice();
    this.#connector.set(this.fileno(), level, optname, raw);
    if (level === k.SOL_SOCKET && optname === k.SO_RCVBUF) this.#datagram?.resize();
    this.#listener?.optionsChanged();
  }

  /**
   * What the kernel says of an option (getsockopt(2)).
   * @param buflen for a struct: how many bytes to ask for, 1 to 1024; without it the option is a C int
   */
  getsockopt(level: number, optname: number): number;
  getsockopt(level: number, optname: number, buflen: number): Bytes;
  getsockopt(level: number, optname: number, buflen = 0): number | Bytes {
    this.#check("getsockopt");
    for (const number of [level, optname]) checkInt(number, "getsockopt");
    if (!(Number.isInteger(buflen) && buflen >= 0 && buflen <= 1024)) {
      throw new RangeError(`getsockopt: a buflen is 0 to 1024 bytes, not ${safeString(buflen)}`);
    }
    if (level === k.SOL_SOCKET && optname === k.SO_ERROR && buflen === 0) {
      const known = this.#connector.takeErrno();
      if (known !== undefined) return known;
    }
    const bytes = getOption(this.fileno(), level, optname, buflen || 4);
    return buflen === 0 ? readInt(bytes) : Buffer.from(bytes);
  }

  /**
   * How long each following call waits; for sendall(), the whole call.
   * @param timeout seconds; null for ever, 0 not at all
   * @throws RangeError for a negative one
   */
  settimeout(timeout: number | null): void {
    this.#check("settimeout");
    const seconds = checkTimeout(timeout, "settimeout");
    this.#timeout = milliseconds(seconds);
  }

  /** Seconds; null for ever. */
  gettimeout(): number | null {
    return this.#timeout === null ? null : this.#timeout / 1000;
  }

  /** true is settimeout(null), false is settimeout(0). */
  setblocking(flag: boolean): void {
    this.settimeout(flag ? null : 0);
  }

  getblocking(): boolean {
    return this.#timeout !== 0;
  }

  // On top of Python's.

  /** Received bytes, step by step, until the peer's FIN. A listening socket gives `[conn, address]`. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Bytes, void, undefined> {
    if (this.#listener !== undefined) {
      yield* this.#connections() as unknown as AsyncGenerator<Bytes, void, undefined>;
      return;
    }
    // An empty datagram is no end.
    const endless = this.#datagram !== undefined;
    for (;;) {
      const bytes = await this.recv(READ_SIZE);
      if (bytes.length === 0 && !endless) return;
      yield bytes;
    }
  }

  async *#connections(): AsyncGenerator<[Socket<F>, Address<F>], void, undefined> {
    while (!this.#closed) {
      try {
        yield await this.accept();
      } catch (error) {
        if (!this.#closed) throw error;
      }
    }
  }

  #readable: ReadableStream<Uint8Array<ArrayBuffer>> | undefined;
  #writable: WritableStream<BytesLike> | undefined;

  /** The received bytes as a web stream. Made at the first use; recv() beside it takes from it. */
  get readable(): ReadableStream<Uint8Array<ArrayBuffer>> {
    const cancelled = new AbortController();
    return (this.#readable ??= new ReadableStream(
      {
        pull: async (controller) => {
          // An empty datagram is no end.
          const endless = this.#datagram !== undefined;
          const bytes = await (endless
            ? this.recv(READ_SIZE, { signal: cancelled.signal })
            : this.recv(READ_SIZE));
          if (bytes.length > 0 || endless) controller.enqueue(bytes as Uint8Array<ArrayBuffer>);
          else controller.close();
        },
        cancel: () => {
          cancelled.abort();
          this.#stream?.shutdownRead();
        },
      },
      { highWaterMark: 0 },
    ));
  }

  /** Bytes to send as a web stream: its close is shutdown(SHUT_WR), its abort a reset. */
  get writable(): WritableStream<BytesLike> {
    return (this.#writable ??= new WritableStream({
      write: (bytes) => this.sendall(bytes),
      close: () => this.shutdown(k.SHUT_WR),
      abort: () => this[Symbol.dispose](),
    }));
  }

  /** One line, as Python's repr. */
  toString(): string {
    return repr(this);
  }

  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return repr(this);
  }

  /** `await using`: closes gracefully, and waits until all is delivered or the peer is given up. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
    await this.#stream?.gone;
  }

  /** `using`: closes at once, with a reset where there is a connection. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    if (this.#stream === undefined) return this.close();
    this.#closed = true;
    this.#stream.abort();
  }

  // What cannot be had says so.

  recvmsg(): never {
    throw unsupported("recvmsg", "recvmsg()");
  }
  recvmsg_into(): never {
    throw unsupported("recvmsg_into", "recvmsg_into()");
  }
  sendmsg(): never {
    throw unsupported("sendmsg", "sendmsg()");
  }
  dup(): never {
    throw unsupported("dup", "dup()");
  }
  ioctl(): never {
    throw unsupported("ioctl", "ioctl()");
  }

  /**
   * For create_server(): what listen() begins to speak TLS with.
   * @throws TypeError without a key and its certificate: Bun would listen, and every handshake would fail
   */
  static serveTLS(socket: Socket<AddressFamily>, tls: TLS): void {
    const { key, cert, keyFile, certFile } = tls as TLS & { keyFile?: string; certFile?: string };
    const isGiven = (one: unknown): boolean => one != null && !(Array.isArray(one) && one.length === 0);
    for (const [name, given] of [
      ["key", key ?? keyFile],
      ["cert", cert ?? certFile],
    ] as const) {
      if (!isGiven(given))
        throw new TypeError(`create_server: tls is { key, cert } at least, and has no ${name}`);
    }
    socket.#tls = tls;
  }
}

/** The address of a peer that had reset before anybody could ask the kernel for it. */
const unknownPeer = (family: AddressFamily): AnyAddress =>
  family === AF_UNIX ? "" : family === AF_INET6 ? ["::", 0, 0, 0] : ["0.0.0.0", 0];

/** A C int, of which the kernel may give fewer bytes than four. */
export function readInt(bytes: Uint8Array): number {
  const whole = new Int32Array(1);
  new Uint8Array(whole.buffer).set(bytes.subarray(0, 4));
  return whole[0]!;
}
