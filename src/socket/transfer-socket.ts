/**
 * The calls of a socket that move bytes: their arguments, flags, timeouts and signals. It changes when one of
 * them does. How the bytes move is written in reader.ts, writer.ts and datagram.ts.
 */
import { addressText, checkAddress, type Address, type AddressLike } from "../os/address.ts";
import * as k from "../os/constants.ts";
import { AF_UNIX, type AddressFamily } from "../os/constants.ts";
import { osError, tracedTo, wouldBlock } from "../os/errors.ts";
import { MSG_WAITALL } from "../os/linux-constants.ts";
import { BaseSocket } from "./base-socket.ts";
import {
  bytesOf,
  checkFlags,
  checkOptions,
  checkSize,
  given,
  resolveAddress,
  trailingOf,
  type Bytes,
  type BytesLike,
  type Options,
  type Trailing,
} from "./checks.ts";
import { Connector } from "./connector.ts";
import { DatagramSocket } from "./datagram.ts";
import { withDeadline } from "./pending-call.ts";
import { copyOf, pinsMuch } from "./reader.ts";
import { Stream } from "./stream.ts";

/** Flags of send(). No send raises SIGPIPE, so MSG_NOSIGNAL changes nothing. */
const SEND_FLAGS = k.MSG_DONTWAIT | k.MSG_NOSIGNAL;

export abstract class TransferSocket<F extends AddressFamily> extends BaseSocket<F> {
  /** @throws OSError EBADF, ENOTCONN, or the error of a connect that was not waited for */
  protected connected(call: string): Stream {
    this.checkOpen(call);
    const { role } = this;
    if (role instanceof Stream) return role;
    if (role instanceof Connector) {
      role.throwConnectError();
      if (role.connecting && this.timeoutMs === 0) throw wouldBlock(call, "the connection is under way");
    }
    throw osError({ code: "ENOTCONN", syscall: call, reason: "the socket is not connected" });
  }

  // Receiving.

  /**
   * Receives the bytes that have come, at least one.
   * @param bufsize maximum bytes, from 0 on; 0 is empty at once. Excess bytes of a datagram are lost.
   * @returns 1 to bufsize bytes, or none at the peer's FIN
   * @throws ConnectionResetError, TimeoutError, BlockingIOError, OSError ENOTCONN, EBUSY when another recv
   *   waits
   */
  recv(bufsize: number, flags?: number | Options, options?: Options): Promise<Bytes>;
  recv(bufsize: number): Promise<Bytes> {
    const { role } = this;
    // The fast path: no promise but the returned one.
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
    const { reader } = this.connected(call);
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
   * Receives into a buffer, from its start; bytes beyond the count stay as they were.
   * @param nbytes maximum bytes; 0, or leaving it out, is the whole buffer
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
    return [await this.connected(call).reader.recvInto(target, timeout, signal), null];
  }

  // Sending.

  /**
   * Sends as many bytes as the kernel takes.
   * @returns the number of bytes taken, perhaps fewer than given: sendall() sends all
   * @throws TypeError for a string; BrokenPipeError, ConnectionResetError, TimeoutError, BlockingIOError,
   *   ENOTCONN
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
    const { writer } = this.connected(call);
    if (call === "send") return writer.send(bytes, timeout, signal);
    await writer.sendall(bytes, timeout, signal);
    return bytes.length;
  }

  /**
   * Sends all of it, or fails. The bytes must not be changed before it is done. Calls do not interleave.
   * @throws as send(); the number of bytes sent by then is not known
   */
  sendall(data: BytesLike, flags?: number | Options, options?: Options): Promise<void>;
  sendall(data: BytesLike): Promise<void> {
    const { role } = this;
    // The fast path: no promise but the returned one.
    if (arguments.length === 1 && role instanceof Stream && data instanceof Uint8Array && !this.closed) {
      return role.writer.sendall(data, this.timeoutMs);
    }
    return this.#sendall(data, given(arguments, 1));
  }

  async #sendall(data: BytesLike, trailing: Trailing): Promise<void> {
    await this.#send("sendall", data, trailing);
  }

  /** Sends one datagram: `sendto(data, address)` or `sendto(data, flags, address)`. Names are looked up. */
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
      // The socket may have been closed or detached during the look-up: then the number is another's.
      this.checkOpen("sendto");
      return role.send(bytes, to, timeout, signal);
    }
    // A TCP connection has its peer; the kernel ignores the address.
    if (role instanceof Stream && this.family !== AF_UNIX) return role.writer.send(bytes, timeout, signal);
    const code = role instanceof Stream ? "EISCONN" : "ENOTCONN";
    throw osError({ code, syscall: "sendto", address: addressText(address) });
  }
}
