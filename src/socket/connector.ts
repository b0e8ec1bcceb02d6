/**
 * A socket's descriptor while it is the socket's own, before Bun has adopted it: bound, set and connected, and made
 * anew, as it was, after a connect that failed, since Bun closes what it cannot connect. It changes when connecting
 * does.
 */
import { addressText, type AnyAddress, type AnyAddressLike } from "../os/address.ts";
import { resolveAddress, signalOf, tlsOf, verifying, type ConnectOptions } from "./checks.ts";
import { AF_UNIX, SOCK_DGRAM, type AddressFamily } from "../os/constants.ts";
import {
  bindDescriptor,
  closeDescriptor,
  connectDescriptor,
  descriptorName,
  openDescriptor,
  setOption,
} from "../os/descriptor.ts";
import { closedError, OSError, osError } from "../os/errors.ts";
import { connectStream } from "./connect.ts";
import type { TLS } from "../engine/bun/transport.ts";
import type { Stream } from "./stream.ts";
import { abortReason, withDeadline } from "./pending-call.ts";

/** How soon a connect is tried again that found a Unix listener's queue full. */
const QUEUE_RETRY_MS = 5;

/** What socket(2) was called with. */
export interface Kind {
  readonly family: AddressFamily;
  readonly type: number;
  readonly proto: number;
}

export class Connector {
  /** -1 once it is a stream's, or closed. */
  fd: number;
  readonly #kind: Kind;
  /** What was set, to be set again on a new descriptor after a connect that failed. */
  readonly #options = new Map<string, [level: number, option: number, value: number | Uint8Array]>();
  #bound: AnyAddress | undefined;
  #connecting: AbortController | undefined;
  /** Bun connects the descriptor, and closes it if it fails. */
  #opening = false;
  #closed = false;
  #arrived = false;
  /** Why a connect that nobody waited for failed; told to the next call. */
  #connectError: unknown;

  constructor(fd: number, kind: Kind) {
    this.fd = fd;
    this.#kind = kind;
  }

  /** Whether a connect is under way. */
  get connecting(): boolean {
    return this.#connecting !== undefined;
  }

  /** @param fd the socket's descriptor as of now, which may be a stream's @throws OSError */
  bind(fd: number, address: AnyAddressLike): void {
    bindDescriptor(fd, this.#kind.family, address);
    // With the port that the kernel chose, for a connect that fails and is tried again.
    this.#bound = descriptorName(fd, "getsockname");
  }

  /** @param fd as for bind() @throws OSError */
  set(fd: number, level: number, option: number, value: number | Uint8Array): void {
    setOption(fd, level, option, value);
    this.#options.set(`${level} ${option}`, [level, option, value]);
  }

  /**
   * Connects; a name is looked up.
   * @param timeout milliseconds; null waits for ever; 0 does not wait, but for the name
   * @param opened gets the stream, which may be after the call
   * @throws OSError EALREADY while a connect is under way, EINPROGRESS when this one is; what an earlier one came to
   *   that was not waited for, as the kernel tells it
   */
  async connect(
    address: AnyAddressLike,
    timeout: number | null,
    options: ConnectOptions | undefined,
    opened: (stream: Stream) => void,
  ): Promise<void> {
    const text = addressText(address);
    const given = signalOf("connect", options);
    const asked = tlsOf("connect", options);
    const own = asked && verifying(asked, Array.isArray(address) ? address[0] : undefined, "connect");
    if (this.connecting) throw osError({ code: "EALREADY", syscall: "connect", address: text });
    this.throwConnectError();
    const controller = new AbortController();
    const signal = AbortSignal.any([controller.signal, ...(given === undefined ? [] : [given])]);
    this.#connecting = controller;
    const began = performance.now();
    let underWay = false;
    try {
      const to = await withDeadline(
        "connect",
        resolveAddress(this.#kind.family, address),
        timeout || null,
        signal,
      );
      const deadline = timeout === 0 ? 0 : timeout === null ? Infinity : began + timeout;
      const connected = await this.#begin(to, deadline, signal);
      if (this.#kind.type === SOCK_DGRAM) return;
      const left = timeout ? Math.max(0, timeout - (performance.now() - began)) : null;
      const open = this.#open({ connected, address: text, tls: own }, left, signal).then((stream) => {
        // close() may have come since the connection was established.
        if (this.#closed) {
          stream.abort();
          throw closedError("connect");
        }
        opened(stream);
      });
      if (timeout !== 0 || (connected && own === undefined)) return await open;
      underWay = true;
      const arrived = (): void => void (this.#arrived = true);
      const settled = (): void => void (this.#connecting = undefined);
      open.then(arrived, (error: unknown) => (this.#connectError = error)).finally(settled);
    } finally {
      if (!underWay) this.#connecting = undefined;
    }
    const reason = "the connection is under way";
    throw osError({ code: "EINPROGRESS", syscall: "connect", address: text, reason });
  }

  /**
   * connect(2). The kernel does not wait for a place in a Unix listener's queue, and says EAGAIN. The signal is checked
   * after each wait, and with no wait before the call: by then the number may be another socket's.
   */
  async #begin(to: AnyAddressLike, deadline: number, signal: AbortSignal): Promise<boolean> {
    for (;;) {
      if (signal.aborted) throw abortReason(signal);
      try {
        return connectDescriptor(this.fd, this.#kind.family, to);
      } catch (error) {
        const full = this.#kind.family === AF_UNIX && (error as OSError).code === "EAGAIN";
        if (!full || deadline === 0) throw error;
      }
      const left = deadline - performance.now();
      await withDeadline(
        "connect",
        Bun.sleep(QUEUE_RETRY_MS),
        left === Infinity ? null : Math.max(0, left),
        signal,
      );
    }
  }

  async #open(
    how: { connected: boolean; address: string; tls: TLS | undefined },
    timeout: number | null,
    signal: AbortSignal,
  ): Promise<Stream> {
    // An abort in the microtasks since connect(2) would go unheard: a signal says it once.
    if (signal.aborted) {
      this.#closeDescriptor();
      if (!this.#closed) this.#reopen();
      throw abortReason(signal);
    }
    this.#opening = true;
    try {
      const stream = await connectStream(this.fd, how, timeout, signal);
      this.fd = -1;
      return stream;
    } catch (error) {
      // Bun has closed it, and the number may be another's from now on.
      this.fd = -1;
      if (!this.#closed) this.#reopen();
      throw error;
    } finally {
      this.#opening = false;
    }
  }

  /**
   * A new descriptor, set as the one was that could not be connected. Where it cannot be had (no descriptor is left,
   * the port is taken by now), the socket has none, and the caller is told why the connect failed, not this.
   */
  #reopen(): void {
    const { family, type, proto } = this.#kind;
    let fd = -1;
    try {
      fd = openDescriptor(family, type, proto);
      for (const [level, option, value] of this.#options.values()) setOption(fd, level, option, value);
      if (this.#bound !== undefined) bindDescriptor(fd, family, this.#bound);
      this.fd = fd;
    } catch {
      if (fd >= 0) closeDescriptor(fd);
    }
  }

  /** Whether a connect that was not waited for stands now; said once, as connect(2) does. */
  takeArrived(): boolean {
    const arrived = this.#arrived;
    this.#arrived = false;
    return arrived;
  }

  /** Throws, once, what a connect came to that was not waited for. */
  throwConnectError(): void {
    const error = this.#connectError;
    this.#connectError = undefined;
    if (error !== undefined) throw error;
  }

  /**
   * SO_ERROR, where the kernel must not be asked: that takes the error away, and Bun would believe that the
   * connection stands; and the descriptor that failed is gone.
   * @returns undefined where the kernel is to be asked
   */
  takeErrno(): number | undefined {
    if (this.#opening) return 0;
    const error = this.#connectError;
    if (!(error instanceof OSError)) return undefined;
    this.#connectError = undefined;
    return error.errno;
  }

  /** Ends a connect that is under way, and with it the descriptor; no other takes its place. */
  cancel(reason: OSError): void {
    this.#closed = true;
    this.#connecting?.abort(reason);
  }

  /** After cancel(). A descriptor that Bun is connecting is closed by that. */
  close(): void {
    if (this.#opening) this.fd = -1;
    else this.#closeDescriptor();
  }

  #closeDescriptor(): void {
    if (this.fd >= 0) closeDescriptor(this.fd);
    this.fd = -1;
  }
}
