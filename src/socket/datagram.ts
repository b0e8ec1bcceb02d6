/**
 * A datagram socket that is awaited: what has come waits in a queue of bounded size, as it would in the kernel, and
 * what does not fit is dropped, as the kernel would. It changes when that queue's rules do.
 */
import { ptr } from "bun:ffi";
import { addressText, encodeAddress, type AnyAddress, type AnyAddressLike } from "../os/address.ts";
import {
  AF_INET6,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  SO_RCVBUF,
  SO_REUSEADDR,
  SOL_SOCKET,
  type AddressFamily,
} from "../os/constants.ts";
import { closeDescriptor, getOption, setOption, withFlags } from "../os/descriptor.ts";
import { toOSError, busyError, closedError, osError, wouldBlock, type OSError } from "../os/errors.ts";
import { literalHost } from "../os/literal-host.ts";
import { lastError, requireLibc } from "../os/libc.ts";
import { checkBuffer, nextTurn } from "./stream.ts";
import { abortReason, PendingCall } from "./pending-call.ts";

/** How many may wait, however small; their bytes are bounded by SO_RCVBUF. */
const MAX_DATAGRAMS = 4096;
/** How soon a send is tried again that the kernel had no room for. */
const RETRY_MS = 1;

export type Datagram = [bytes: Buffer, address: AnyAddress];
type Counted = [count: number, address: AnyAddress];

interface BunUdpSocket {
  close(): void;
}

export class DatagramSocket {
  readonly #fd: number;
  readonly #family: AddressFamily;
  #bun: BunUdpSocket | undefined;
  readonly #queue: Datagram[] = [];
  #bytes = 0;
  /** As in the kernel: SO_RCVBUF. */
  #capacity = 0;
  readonly #reader = new PendingCall<Datagram | Counted>("recv");
  /** Where the recv_into that waits wants its datagram, and how large that was when it was called. */
  #into: Uint8Array | undefined;
  #size = 0;
  #error: OSError | undefined;
  #closed = false;
  /** Datagrams that came and found no place. */
  dropped = 0;

  constructor(fd: number, family: AddressFamily) {
    this.#fd = fd;
    this.#family = family;
  }

  /** SO_RCVBUF has been set, or is to be learned. @throws OSError */
  resize(): void {
    const bytes = getOption(this.#fd, SOL_SOCKET, SO_RCVBUF, 4);
    this.#capacity = new DataView(bytes.buffer).getInt32(0, true);
  }

  /** Whether datagrams wait here. */
  get readable(): boolean {
    return this.#queue.length > 0;
  }

  /** Whether Bun has the descriptor. */
  get adopted(): boolean {
    return this.#bun !== undefined;
  }

  /**
   * The next datagram, whole.
   * @param timeout milliseconds; null waits for ever, 0 does not wait
   */
  async recv(timeout: number | null, signal?: AbortSignal): Promise<Datagram> {
    return (await this.#receive(undefined, timeout, signal)) as Datagram;
  }

  /** Fills the buffer from its start with the next datagram, whose rest is lost. */
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
    this.#adopt();
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
      throw osError({
        code: "EAGAIN",
        syscall: "recv",
        reason: "nothing is there, and the socket does not wait",
      });
    }
    this.#into = into;
    this.#size = size;
    return this.#reader.wait(timeout, signal);
  }

  /**
   * Sends one datagram (sendto(2)).
   * @param address a literal one; undefined goes to the connected peer
   * @returns how many bytes it had
   * @throws OSError EMSGSIZE, EDESTADDRREQ, ECONNREFUSED from an earlier one, …
   */
  async send(
    bytes: Uint8Array,
    address: AnyAddressLike | undefined,
    timeout: number | null,
    signal?: AbortSignal,
  ): Promise<number> {
    const c = requireLibc("sendto");
    const to = address === undefined ? undefined : encodeAddress(this.#family, address);
    const at = to === undefined ? null : ptr(to);
    const deadline = timeout === null ? Infinity : performance.now() + timeout;
    for (;;) {
      if (signal?.aborted) throw abortReason(signal);
      if (this.#closed) throw closedError("sendto");
      const from = bytes.length === 0 ? null : ptr(bytes);
      const sent = c.sendto(
        this.#fd,
        from,
        bytes.length,
        MSG_DONTWAIT | (MSG_NOSIGNAL ?? 0),
        at,
        to?.length ?? 0,
      );
      if (sent >= 0) return sent;
      const code = lastError(c);
      const on = address === undefined ? undefined : addressText(address);
      if (code !== "EAGAIN" && code !== "ENOBUFS") throw osError({ code, syscall: "sendto", address: on });
      if (timeout === 0) throw wouldBlock("sendto", "the kernel has no room");
      if (performance.now() >= deadline)
        throw osError({ code: "ETIMEDOUT", syscall: "sendto", reason: "timed out" });
      await Bun.sleep(RETRY_MS);
    }
  }

  /** Ends what waits with an error; what has come is forgotten. */
  close(): void {
    if (this.#closed) return;
    if (this.#bun === undefined) closeDescriptor(this.#fd);
    this.release();
  }

  /** The descriptor is given away, unless Bun has it: nothing is sent by its number any more. */
  release(): void {
    this.#closed = true;
    this.#queue.length = 0;
    this.#bun?.close();
    this.#reader.reject(closedError("recv"));
  }

  /** Until the first recv, datagrams wait in the kernel. */
  #adopt(): void {
    if (this.#bun !== undefined || this.#closed) return;
    const options = {
      fd: this.#fd,
      socket: {
        data: (_: unknown, bytes: Buffer, port: number, host: string) => this.#received(bytes, port, host),
        // Bun gives the error alone, and its types say that the socket comes first.
        error: (...told: unknown[]) => this.#failed(toOSError(told.at(-1), "recv")),
      },
    };
    const reuse = getOption(this.#fd, SOL_SOCKET, SO_REUSEADDR, 4);
    const opened = withFlags(this.#fd, () =>
      Bun.udpSocket(options as unknown as Bun.udp.SocketOptions<"buffer">),
    );
    // With a descriptor it is there at once.
    const socket = Bun.peek(opened);
    if (socket instanceof Promise) {
      opened.catch(() => undefined);
      throw osError({
        code: "ENOTSUP",
        syscall: "recv",
        reason: "this Bun does not adopt a datagram descriptor",
      });
    }
    this.#bun = socket;
    // Bun sets it, and another program could then bind the same port, and have what comes.
    setOption(this.#fd, SOL_SOCKET, SO_REUSEADDR, reuse);
    this.resize();
  }

  #received(bytes: Buffer, port: number, host: string): void {
    const address: AnyAddress = this.#family === AF_INET6 ? sender6(host, port) : [host, port];
    if (this.#reader.waiting && this.#giveTo([bytes, address])) return;
    if (this.#queue.length >= MAX_DATAGRAMS || this.#bytes + bytes.length > this.#capacity) {
      this.dropped++;
      return;
    }
    this.#queue.push([bytes, address]);
    this.#bytes += bytes.length;
  }

  /** @returns whether the call that waits had it */
  #giveTo(datagram: Datagram): boolean {
    const into = this.#into;
    try {
      // Into its buffer at once: between here and the caller's turn, the buffer may be transferred away.
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

/** @throws TypeError for a buffer that is smaller by now than the `size` that it had */
function filled(into: Uint8Array, size: number, [bytes, address]: Datagram): Counted {
  checkBuffer(into, size);
  const count = Math.min(bytes.length, size);
  into.set(count === bytes.length ? bytes : bytes.subarray(0, count));
  return [count, address];
}
