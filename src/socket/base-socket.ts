/** The calls of every socket, whatever its role. It changes when one of them does. */
import type { Address, AddressLike } from "../os/address.ts";
import { checkAddress } from "../os/address.ts";
import * as k from "../os/constants.ts";
import type { AddressFamily } from "../os/constants.ts";
import { bindDescriptor, descriptorName, getInt, getOption, setOption } from "../os/descriptor.ts";
import { closedError, safeString } from "../os/errors.ts";
import {
  bytesOf,
  checkInt,
  checkTimeout,
  getdefaulttimeout,
  milliseconds,
  ownAddress,
  unsupported,
  type Bytes,
  type BytesLike,
} from "./checks.ts";
import { Connector } from "./connector.ts";
import { Listener } from "./listener.ts";
import { repr } from "./repr.ts";
import type { Role } from "./role.ts";
import type { Socket } from "./socket.ts";
import { Stream } from "./stream.ts";

export abstract class BaseSocket<F extends AddressFamily> {
  readonly family: F;
  readonly type: number;
  readonly proto: number;
  /** The current role of the socket. */
  protected role!: Role;
  protected closed = false;
  /** Milliseconds; null waits for ever, 0 does not wait. */
  protected timeoutMs: number | null = milliseconds(getdefaulttimeout());

  protected constructor(family: F, type: number, proto: number) {
    this.family = family;
    this.type = type;
    this.proto = proto;
  }

  /** The descriptor's number; -1 when the socket is closed. */
  fileno(): number {
    return this.closed ? -1 : this.role.fd;
  }

  /** @throws OSError EBADF after close() */
  protected checkOpen(call: string): void {
    if (this.closed) throw closedError(call);
  }

  /**
   * Gives the socket its own address (bind(2)). "" as a host is every interface, "localhost" the loopback
   * one; any other name is not looked up, which would have to wait.
   * @throws OSError EADDRINUSE, EACCES, EADDRNOTAVAIL, EINVAL when it has one; gaierror for a name;
   *   RangeError for a port outside 0..65535
   */
  bind(address: AddressLike<F>): void {
    this.checkOpen("bind");
    checkAddress(this.family, address, "bind");
    bindDescriptor(this.fileno(), this.family, ownAddress(this.family, address));
    if (this.role instanceof Connector) this.role.bound();
  }

  /**
   * Closes the socket; a second call does nothing. Pending calls end with an error, except sendall(): its
   * bytes are delivered in the background, and it settles then. A listener's port is free at once.
   */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.role.close();
  }

  /**
   * Gives the descriptor away, open, and closes the object.
   * @returns a descriptor of the same socket, mostly with the same number
   * @throws OSError EBUSY while received bytes or connections wait: they would be lost; EOPNOTSUPP for TLS;
   *   EALREADY while it connects
   */
  detach(): number {
    this.checkOpen("detach");
    const fd = this.role.detach();
    this.closed = true;
    return fd;
  }

  /** The socket's own address (getsockname(2)). @throws OSError EBADF */
  getsockname(): Address<F> {
    this.checkOpen("getsockname");
    return descriptorName(this.fileno(), "getsockname") as Address<F>;
  }

  /** The peer's address (getpeername(2)). @throws OSError ENOTCONN, EBADF */
  getpeername(): Address<F> {
    this.checkOpen("getpeername");
    return descriptorName(this.fileno(), "getpeername") as Address<F>;
  }

  /** Whether the peer's certificate was verified; false without TLS. */
  get authorized(): boolean {
    return this.role instanceof Stream && this.role.authorized;
  }

  /** The code of the reason why the TLS peer is not authorized. */
  get authorizationError(): string | undefined {
    return this.role instanceof Stream ? this.role.authorizationError : undefined;
  }

  /** Clients that were refused because their TLS handshake or certificate failed. */
  get refused(): number {
    return this.role instanceof Listener ? this.role.refused : 0;
  }

  /**
   * Sets an option (setsockopt(2)).
   * @param value a C int, a boolean, or a packed struct
   * @throws OSError ENOPROTOOPT, EINVAL, …; TypeError for a value of another kind
   */
  setsockopt(level: number, optname: number, value: number | boolean | BytesLike): void {
    this.checkOpen("setsockopt");
    for (const number of [level, optname]) checkInt(number, "setsockopt");
    const plain = typeof value === "boolean" ? Number(value) : value;
    const raw =
      typeof plain === "number" ? checkInt(plain, "setsockopt") : bytesOf(plain, "setsockopt").slice();
    setOption(this.fileno(), level, optname, raw);
    this.role.optionSet?.(level, optname, raw);
  }

  /**
   * Gets an option (getsockopt(2)).
   * @param buflen the size of a struct, 1 to 1024 bytes; without it, the option is a C int
   */
  getsockopt(level: number, optname: number): number;
  getsockopt(level: number, optname: number, buflen: number): Bytes;
  getsockopt(level: number, optname: number, buflen = 0): number | Bytes {
    this.checkOpen("getsockopt");
    for (const number of [level, optname]) checkInt(number, "getsockopt");
    if (!(Number.isInteger(buflen) && buflen >= 0 && buflen <= 1024)) {
      throw new RangeError(`getsockopt: a buflen is 0 to 1024 bytes, not ${safeString(buflen)}`);
    }
    if (level === k.SOL_SOCKET && optname === k.SO_ERROR && buflen === 0 && this.role instanceof Connector) {
      const known = this.role.takeErrno();
      if (known !== undefined) return known;
    }
    if (buflen === 0) return getInt(this.fileno(), level, optname);
    return Buffer.from(getOption(this.fileno(), level, optname, buflen));
  }

  /**
   * Sets how long each following call waits; for sendall(), the whole call.
   * @param timeout seconds; null waits for ever, 0 does not wait
   * @throws RangeError for a negative one
   */
  settimeout(timeout: number | null): void {
    this.checkOpen("settimeout");
    const seconds = checkTimeout(timeout, "settimeout");
    this.timeoutMs = milliseconds(seconds);
  }

  /** Seconds; null for ever. */
  gettimeout(): number | null {
    return this.timeoutMs === null ? null : this.timeoutMs / 1000;
  }

  /** true is settimeout(null), false is settimeout(0). */
  setblocking(flag: boolean): void {
    this.settimeout(flag ? null : 0);
  }

  getblocking(): boolean {
    return this.timeoutMs !== 0;
  }

  /** One line, as Python's repr. */
  toString(): string {
    return repr(this as unknown as Socket<AddressFamily>);
  }

  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return repr(this as unknown as Socket<AddressFamily>);
  }

  /** `await using`: closes gracefully, and waits until everything is delivered or the peer is given up. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
    if (this.role instanceof Stream) await this.role.gone;
  }

  /** `using`: closes immediately; a connection is reset. */
  [Symbol.dispose](): void {
    if (this.closed) return;
    this.closed = true;
    if (this.role instanceof Stream) this.role.abort();
    else this.role.close();
  }

  // Not supported on Bun.

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
}
