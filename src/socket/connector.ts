/**
 * A descriptor that no engine has adopted yet: bind, setsockopt, connect. The engine closes a descriptor
 * whose connect fails, so a failed attempt is replaced by a new one with the same address and options. It
 * changes when connecting does.
 */
import { engine } from "../engine/current.ts";
import type { TLS } from "../engine/engine.ts";
import { addressText, type AnyAddress, type AnyAddressLike } from "../os/address.ts";
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
import { resolveAddress, signalOf, tlsOf, verifying, type ConnectOptions } from "./checks.ts";
import { connectStream } from "./connect.ts";
import { abortReason, sleep, withDeadline } from "./pending-call.ts";
import type { Role } from "./role.ts";
import type { Stream } from "./stream.ts";

/** The delay before a connect to a full Unix listener is tried again. */
const QUEUE_RETRY_MS = 5;

/** The arguments of socket(2). */
export interface SocketSpec {
  readonly family: AddressFamily;
  readonly type: number;
  readonly proto: number;
}

export class Connector implements Role {
  /** -1 once it is a stream's, or closed. */
  fd: number;
  /** Whether the descriptor was given: other processes may share its socket. */
  readonly guest: boolean;
  readonly #spec: SocketSpec;
  /** The options that were set, for the new descriptor after a failed connect. */
  readonly #options = new Map<string, [level: number, option: number, value: number | Uint8Array]>();
  #bound: AnyAddress | undefined;
  #connecting: AbortController | undefined;
  /** The engine has the descriptor, and closes it if the connect fails. */
  #opening = false;
  #closed = false;
  /** The error of a failed non-blocking connect; the next call throws it. */
  #connectError: unknown;

  constructor(fd: number, spec: SocketSpec, guest = false) {
    this.fd = fd;
    this.guest = guest;
    this.#spec = spec;
  }

  /** Whether a connect is under way. */
  get connecting(): boolean {
    return this.#connecting !== undefined;
  }

  /** bind(2) has given it an address. @throws OSError */
  bound(): void {
    // With the port that the kernel chose, so that a second try has the same.
    this.#bound = descriptorName(this.fd, "getsockname");
  }

  optionSet(level: number, option: number, value: number | Uint8Array): void {
    this.#options.set(`${level} ${option}`, [level, option, value]);
  }

  /**
   * Connects; a name is looked up.
   * @param timeout milliseconds; null waits for ever; 0 does not wait, but for the name
   * @param opened receives the stream, perhaps after the call has returned
   * @throws OSError EALREADY while a connect is under way, EINPROGRESS when this one is; or the error of an
   *   earlier non-blocking connect (like SO_ERROR)
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
    const began = engine.time.now();
    let underWay = false;
    try {
      const to = await withDeadline(
        "connect",
        resolveAddress(this.#spec.family, address),
        timeout || null,
        signal,
      );
      const deadline = timeout === 0 ? 0 : timeout === null ? Infinity : began + timeout;
      const connected = await this.#begin(to, deadline, signal);
      if (this.#spec.type === SOCK_DGRAM) return;
      const left = timeout ? Math.max(0, timeout - (engine.time.now() - began)) : null;
      const open = this.#open({ connected, address: text, tls: own }, left, signal).then((stream) => {
        // close() may have been called since the connection was established.
        if (this.#closed) {
          stream.abort();
          throw closedError("connect");
        }
        stream.arrived = underWay;
        opened(stream);
      });
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

  /**
   * connect(2). The kernel returns EAGAIN while a Unix listener's queue is full, and we try again. The signal
   * is checked right before each call: after a wait, the number may be another socket's.
   */
  async #begin(to: AnyAddressLike, deadline: number, signal: AbortSignal): Promise<boolean> {
    for (;;) {
      if (signal.aborted) throw abortReason(signal);
      try {
        return connectDescriptor(this.fd, this.#spec.family, to);
      } catch (error) {
        const full = this.#spec.family === AF_UNIX && (error as OSError).code === "EAGAIN";
        if (!full || deadline === 0) throw error;
      }
      const left = deadline - engine.time.now();
      const patience = left === Infinity ? null : Math.max(0, left);
      await withDeadline("connect", sleep(QUEUE_RETRY_MS), patience, signal);
    }
  }

  async #open(
    how: { connected: boolean; address: string; tls: TLS | undefined },
    timeout: number | null,
    signal: AbortSignal,
  ): Promise<Stream> {
    // A signal reports its abort once: one in the microtasks since connect(2) would go unheard.
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
      // The engine has closed it, and the number may be another's from now on.
      this.fd = -1;
      if (!this.#closed) this.#reopen();
      throw error;
    } finally {
      this.#opening = false;
    }
  }

  /**
   * Opens a new descriptor with the address and the options of the failed one. If that fails too (no
   * descriptor is left, the port is taken by now), the socket has none, and the caller still gets the error
   * of the connect.
   */
  #reopen(): void {
    const { family, type, proto } = this.#spec;
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

  /** Throws the error of a non-blocking connect, once. */
  throwConnectError(): void {
    const error = this.#connectError;
    this.#connectError = undefined;
    if (error !== undefined) throw error;
  }

  /**
   * SO_ERROR while a connect is under way or has failed. Asking the kernel would clear the error, and the
   * engine would believe that the connection is established; a failed descriptor is gone.
   * @returns undefined if the kernel is to be asked
   */
  takeErrno(): number | undefined {
    if (this.#opening) return 0;
    const error = this.#connectError;
    if (!(error instanceof OSError)) return undefined;
    this.#connectError = undefined;
    return error.errno;
  }

  /** Ends a connect that is under way, and closes the descriptor for good. */
  close(): void {
    this.#closed = true;
    this.#connecting?.abort(closedError("connect"));
    // A descriptor that the engine is connecting is closed by the abort.
    if (this.#opening) this.fd = -1;
    else this.#closeDescriptor();
  }

  detach(): number {
    if (this.connecting) {
      throw osError({ code: "EALREADY", syscall: "detach", reason: "the connection is under way" });
    }
    const { fd } = this;
    this.fd = -1;
    return fd;
  }

  #closeDescriptor(): void {
    if (this.fd >= 0) closeDescriptor(this.fd);
    this.fd = -1;
  }
}
