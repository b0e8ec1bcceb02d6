/**
 * A datagram socket: received datagrams wait in a queue of bounded size, and those that do not fit are
 * dropped, as in the kernel. It changes when that queue's rules do.
 */
import { addressText, encodeAddress, type AnyAddress, type AnyAddressLike } from "../os/address.ts";
import { engine } from "../engine/current.ts";
import type { Closable } from "../engine/engine.ts";
import { AF_INET6, SO_RCVBUF, SOCK_DGRAM, SOL_SOCKET, type AddressFamily } from "../os/constants.ts";
import { closeDescriptor, getInt, sendDatagram } from "../os/descriptor.ts";
import { busyError, closedError, osError, wouldBlock, type OSError } from "../os/errors.ts";
import { literalHost } from "../os/literal-host.ts";
import type { ConnectOptions } from "./checks.ts";
import { Connector } from "./connector.ts";
import { abortReason, nextTurn, PendingCall, sleep } from "./pending-call.ts";
import { checkBuffer } from "./reader.ts";
import { detachByCopy, pendingError, type Role } from "./role.ts";

/** Maximum datagrams in the queue; SO_RCVBUF bounds their bytes. */
const MAX_DATAGRAMS = 4096;
/** The delay before a send is tried again for which the kernel had no room. */
const RETRY_MS = 1;

export type Datagram = [bytes: Buffer, address: AnyAddress];
type Counted = [count: number, address: AnyAddress];

export class DatagramSocket implements Role {
  readonly fd: number;
  readonly #family: AddressFamily;
  readonly #connector: Connector;
  /** Set at the first recv, when the engine gets the descriptor. */
  #receiving: Closable | undefined;
  readonly #queue: Datagram[] = [];
  #bytes = 0;
  /** As in the kernel: SO_RCVBUF. */
  #capacity = 0;
  readonly #reader = new PendingCall<Datagram | Counted>("recv");
  /** The buffer of a pending recv_into, and its size at the time of the call. */
  #into: Uint8Array | undefined;
  #size = 0;
  #error: OSError | undefined;
  #closed = false;
  /** Datagrams that were dropped because the queue was full. */
  dropped = 0;

  constructor(fd: number, family: AddressFamily) {
    this.fd = fd;
    this.#family = family;
    this.#connector = new Connector(fd, { family, type: SOCK_DGRAM, proto: 0 });
  }

  /** SO_RCVBUF bounds the bytes that wait here, as it does in the kernel. @throws OSError */
  optionSet(level: number, option: number): void {
    if (level === SOL_SOCKET && option === SO_RCVBUF) this.#measure();
  }

  #measure(): void {
    this.#capacity = getInt(this.fd, SOL_SOCKET, SO_RCVBUF);
  }

  /** Sets the peer (connect(2)); a name is looked up. @throws OSError */
  connect(address: AnyAddressLike, timeout: number | null, options?: ConnectOptions): Promise<void> {
    return this.#connector.connect(address, timeout, options, () => undefined);
  }

  /** The next datagram, whole. @param timeout milliseconds; null waits for ever, 0 does not wait */
  async recv(timeout: number | null, signal?: AbortSignal): Promise<Datagram> {
    return (await this.#receive(undefined, timeout, signal)) as Datagram;
  }

  /** Fills the buffer with the next datagram; excess bytes are lost. */
  async recvInto(buffer: Uint8Array, timeout: number | null, signal?: AbortSignal): Promise<Counted> {
    return (await this.#receive(buffer, timeout, signal)) as Counted;
  }

  async #receive(
    into: Uint8Array | undefined,
    timeout: number | null,
    signal?: AbortSignal,
  ): Promise<Datagram | Counted> {
    const size = into?.length ?? 0;
    if (signal?.aborted) throw abortReason(signal);
    if (this.#reader.waiting) throw busyError("recv");
    this.#startReceiving();
    if (timeout === 0 && this.#queue.length === 0) await nextTurn();
    const first = this.#queue[0];
    if (first !== undefined) {
      const given = into === undefined ? first : filled(into, size, first);
      this.#queue.shift();
      this.#bytes -= first[0].length;
      return given;
    }
    if (this.#error !== undefined) {
      const error = this.#error;
      this.#error = undefined;
      throw error;
    }
    if (this.#closed) throw closedError("recv");
    if (timeout === 0) {
      throw wouldBlock("recv", "no data available");
    }
    this.#into = into;
    this.#size = size;
    return this.#reader.wait(timeout, signal);
  }

  /**
   * Sends one datagram (sendto(2)).
   * @param address a literal address; undefined for the connected peer
   * @returns the datagram's size
   * @throws OSError EMSGSIZE, EDESTADDRREQ, ECONNREFUSED from an earlier one, …
   */
  async send(
    bytes: Uint8Array,
    address: AnyAddressLike | undefined,
    timeout: number | null,
    signal?: AbortSignal,
  ): Promise<number> {
    const to = address === undefined ? undefined : encodeAddress(this.#family, address);
    const name = address === undefined ? undefined : addressText(address);
    const deadline = timeout === null ? Infinity : engine.time.now() + timeout;
    for (;;) {
      if (signal?.aborted) throw abortReason(signal);
      if (this.#closed) throw closedError("sendto");
      const sent = sendDatagram(this.fd, bytes, to, name);
      if (sent >= 0) return sent;
      if (timeout === 0) throw wouldBlock("sendto", "the kernel has no room");
      if (engine.time.now() >= deadline)
        throw osError({ code: "ETIMEDOUT", syscall: "sendto", reason: "timed out" });
      await sleep(RETRY_MS);
    }
  }

  /** Ends pending calls with an error, and discards received datagrams. */
  close(): void {
    if (this.#closed) return;
    if (this.#receiving === undefined) closeDescriptor(this.fd);
    this.#release();
  }

  detach(): number {
    if (this.#queue.length > 0) throw pendingError("bytes", "recv");
    if (this.#connector.connecting) return this.#connector.detach();
    if (this.#receiving !== undefined) return detachByCopy(this.fd, () => this.close());
    this.#release();
    return this.fd;
  }

  /** After this, nothing is sent by the descriptor's number. */
  #release(): void {
    this.#closed = true;
    this.#queue.length = 0;
    this.#receiving?.close();
    this.#connector.fd = -1;
    this.#connector.close();
    this.#reader.reject(closedError("recv"));
  }

  /** Until the first recv, datagrams wait in the kernel. */
  #startReceiving(): void {
    if (this.#receiving !== undefined || this.#closed) return;
    this.#receiving = engine.receive(this.fd, {
      onDatagram: (bytes, host, port) => this.#received(bytes, host, port),
      onError: (error) => this.#failed(error),
    });
    this.#measure();
  }

  #received(bytes: Buffer, host: string, port: number): void {
    const address: AnyAddress = this.#family === AF_INET6 ? sender6(host, port) : [host, port];
    if (this.#reader.waiting && this.#giveTo([bytes, address])) return;
    if (this.#queue.length >= MAX_DATAGRAMS || this.#bytes + bytes.length > this.#capacity) {
      this.dropped++;
      return;
    }
    this.#queue.push([bytes, address]);
    this.#bytes += bytes.length;
  }

  /** @returns whether the pending call took it */
  #giveTo(datagram: Datagram): boolean {
    const into = this.#into;
    try {
      // Fill its buffer now: before the caller's turn, the buffer may be transferred away.
      this.#reader.resolve(into === undefined ? datagram : filled(into, this.#size, datagram));
      return true;
    } catch (error) {
      this.#reader.reject(error);
      return false;
    }
  }

  #failed(error: OSError): void {
    if (this.#reader.waiting) this.#reader.reject(error);
    else this.#error = error;
  }
}

/** A link-local sender has its interface as a zone. */
function sender6(host: string, port: number): AnyAddress {
  const [, address = host, scopeid = 0] = host.includes("%") ? (literalHost(host) ?? []) : [];
  return [address, port, 0, scopeid];
}

/** @throws TypeError if the buffer has become smaller than `size` */
function filled(into: Uint8Array, size: number, [bytes, address]: Datagram): Counted {
  checkBuffer(into, size);
  const count = Math.min(bytes.length, size);
  into.set(count === bytes.length ? bytes : bytes.subarray(0, count));
  return [count, address];
}
