/**
 * The sending half of a stream: send, sendall and shutdown in the order in which they were called, each as
 * far as the kernel takes it. It changes when one of these calls does.
 */
import type { Connection } from "../core/connection.ts";
import { osError, wouldBlock, type OSError } from "../os/errors.ts";
import { abortReason, PendingCall } from "./pending-call.ts";

/** How many sendall() and send() calls may wait on one socket. */
const MAX_SENDS = 1024;

const RESOLVED: Promise<void> = Promise.resolve();

type Call = "send" | "sendall";

/** A call that the kernel has not finished. A sendall resolves to nothing. */
class Send extends PendingCall<number | void> {
  readonly call: Call;
  readonly bytes: Uint8Array;
  offset: number;

  constructor(call: Call, bytes: Uint8Array, offset: number) {
    super(call);
    this.call = call;
    this.bytes = bytes;
    this.offset = offset;
  }
}

export class Writer {
  readonly #connection: Connection;
  #sends: Send[] = [];
  /** shutdown() was called: a FIN follows the pending calls, and no other call is taken. */
  #ending = false;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Whether calls wait: a FIN has to wait for them. */
  get hasPending(): boolean {
    return this.#sends.some((send) => send.waiting);
  }

  sendall(bytes: Uint8Array, timeout: number | null, signal?: AbortSignal): Promise<void> {
    if (this.#sends.length === 0 && signal === undefined) {
      // What the kernel takes at once costs no promise of its own.
      const sent = this.#connection.send(bytes, 0);
      if (sent === bytes.length && !this.#ending) return RESOLVED;
      return this.#queue("sendall", bytes, sent, timeout) as Promise<void>;
    }
    return this.#send("sendall", bytes, timeout, signal) as Promise<void>;
  }

  send(bytes: Uint8Array, timeout: number | null, signal?: AbortSignal): Promise<number> {
    return this.#send("send", bytes, timeout, signal) as Promise<number>;
  }

  #send(call: Call, bytes: Uint8Array, timeout: number | null, signal?: AbortSignal): Promise<number | void> {
    if (signal?.aborted) return Promise.reject(abortReason(signal));
    const sent = this.#sends.length === 0 ? this.#connection.send(bytes, 0) : 0;
    return this.#queue(call, bytes, sent, timeout, signal);
  }

  /** @param sent how many bytes the kernel has taken at the first try; -1 when it takes no more */
  #queue(
    call: Call,
    bytes: Uint8Array,
    sent: number,
    timeout: number | null,
    signal?: AbortSignal,
  ): Promise<number | void> {
    if (sent < 0 || this.#ending) return Promise.reject(brokenPipe(call));
    if (call === "send" && (sent > 0 || bytes.length === 0)) return Promise.resolve(sent);
    if (sent === bytes.length) return RESOLVED;
    if (timeout === 0) {
      return Promise.reject(wouldBlock(call, `the kernel took ${sent} of ${bytes.length} bytes`));
    }
    // A call that gave up must not keep its bytes here while others come and give up.
    if (this.#sends.length > 0) this.#sends = this.#sends.filter((send) => send.waiting);
    if (this.#sends.length >= MAX_SENDS) {
      const reason = `${MAX_SENDS} calls are already waiting to send on this socket`;
      return Promise.reject(osError({ code: "ENOBUFS", syscall: call, reason }));
    }
    const send = new Send(call, bytes, sent);
    this.#sends.push(send);
    return send.wait(timeout, signal);
  }

  /**
   * Gives the kernel what waits, in order, and then the FIN if it is due. Calls that gave up while they
   * waited are passed over.
   * @returns whether nothing waits
   */
  flush(): boolean {
    for (let send = this.#sends[0]; send !== undefined; send = this.#sends[0]) {
      if (send.waiting && !this.#offer(send)) return false;
      this.#sends.shift();
    }
    if (this.#ending) this.#sendFin();
    return true;
  }

  /** @returns whether the call is done */
  #offer(send: Send): boolean {
    const { call, bytes } = send;
    if (send.offset >= bytes.length) {
      send.reject(new TypeError(`${call}: the bytes were transferred away before they were sent`));
      return true;
    }
    const sent = this.#connection.send(bytes, send.offset);
    if (sent < 0) {
      this.rejectAll(brokenPipe);
      return true;
    }
    send.offset += sent;
    const all = call === "sendall";
    if (all ? send.offset < bytes.length : sent === 0) return false;
    send.resolve(all ? undefined : sent);
    return true;
  }

  /** FIN, after everything that was given before. */
  shutdown(): void {
    if (this.#ending) return;
    this.#ending = true;
    if (!this.hasPending) this.#sendFin();
  }

  /** The kernel of a connection that is full could not send a FIN earlier than it drains. */
  #sendFin(): void {
    if (this.#connection.writable) this.#connection.shutdown();
  }

  rejectAll(reason: (call: Call) => OSError): void {
    for (const send of this.#sends.splice(0)) send.reject(reason(send.call));
  }

  /** close() ends a send() of which the kernel has taken nothing; a sendall() is delivered. */
  rejectSends(reason: (call: Call) => OSError): void {
    for (const send of this.#sends) if (send.call === "send") send.reject(reason("send"));
  }
}

export const brokenPipe = (syscall: string): OSError =>
  osError({ code: "EPIPE", syscall, reason: "the connection is closed for writing" });
