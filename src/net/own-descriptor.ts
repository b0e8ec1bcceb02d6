/**
 * A socket's descriptor while it is the socket's own, before Bun has adopted it: bound, set and connected, and made
 * anew, as it was, after a connect that failed, since Bun closes what it cannot connect. It changes when connecting
 * does.
 */
import { addressText, type AnyAddress, type AnyAddressLike } from "./address.ts";
import { literalAddress, type ConnectOptions } from "./arguments.ts";
import { SO_LINGER, SOCK_DGRAM, SOL_SOCKET, type AddressFamily } from "./constants.ts";
import {
  bindDescriptor,
  closeDescriptor,
  connectDescriptor,
  descriptorName,
  openDescriptor,
  setOption,
} from "./descriptor.ts";
import { OSError, osError } from "./errors.ts";
import { openStream } from "./open-stream.ts";
import type { Stream, TLS } from "./stream.ts";
import { within } from "./waiter.ts";

/** What socket(2) was called with. */
export interface Kind {
  readonly family: AddressFamily;
  readonly type: number;
  readonly proto: number;
}

export class OwnDescriptor {
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

  /** Whether SO_LINGER is on: a C int that says so, and the seconds. */
  get lingers(): boolean {
    const value = this.#options.get(`${SOL_SOCKET} ${SO_LINGER}`)?.[2];
    return value instanceof Uint8Array && value.subarray(0, 4).some((byte) => byte !== 0);
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
    if (this.connecting) throw osError({ code: "EALREADY", syscall: "connect", address: text });
    this.throwConnectError();
    const controller = new AbortController();
    this.#connecting = controller;
    const signals = options?.signal === undefined ? [] : [options.signal];
    const signal = AbortSignal.any([controller.signal, ...signals]);
    const began = performance.now();
    let underWay = false;
    try {
      const to = await within("connect", literalAddress(this.#kind.family, address), timeout || null, signal);
      const connected = connectDescriptor(this.fd, this.#kind.family, to);
      if (this.#kind.type === SOCK_DGRAM) return;
      const left = timeout ? Math.max(1, timeout - (performance.now() - began)) : null;
      const own = options?.tls && {
        ...(typeof address !== "string" && { serverName: address[0] }),
        ...options.tls,
      };
      const open = this.#open({ connected, address: text, tls: own }, left, signal).then(opened);
      if (timeout !== 0 || (connected && own === undefined)) return await open;
      underWay = true;
      const settled = (): void => void (this.#connecting = undefined);
      open.catch((error: unknown) => (this.#connectError = error)).finally(settled);
    } finally {
      if (!underWay) this.#connecting = undefined;
    }
    const reason = "the connection is under way";
    throw osError({ code: "EINPROGRESS", syscall: "connect", address: text, reason });
  }

  async #open(
    how: { connected: boolean; address: string; tls: TLS | undefined },
    timeout: number | null,
    signal: AbortSignal,
  ): Promise<Stream> {
    this.#opening = true;
    try {
      const stream = await openStream(this.fd, how, timeout, signal);
      this.fd = -1;
      return stream;
    } catch (error) {
      if (!this.#closed) this.#reopen();
      throw error;
    } finally {
      this.#opening = false;
    }
  }

  /** Bun has closed the descriptor that could not be connected: a new one takes its place, set as it was. */
  #reopen(): void {
    const { family, type, proto } = this.#kind;
    this.fd = openDescriptor(family, type, proto);
    for (const [level, option, value] of this.#options.values()) setOption(this.fd, level, option, value);
    if (this.#bound !== undefined) bindDescriptor(this.fd, family, this.#bound);
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
    if (!this.#opening && this.fd >= 0) closeDescriptor(this.fd);
    this.fd = -1;
  }
}
