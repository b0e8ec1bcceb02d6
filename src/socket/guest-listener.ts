/**
 * A listening descriptor that was given, and that other processes may share. Connections wait in the kernel's
 * queue, whose length its owner chose, and are accepted one by one as accept() is called. It changes when
 * accepting by system calls does. An engine would call listen(2) again, and accept whatever comes.
 */
import { engine } from "../engine/current.ts";
import type { Closable } from "../engine/engine.ts";
import { acceptDescriptor, closeDescriptor, listenDescriptor } from "../os/descriptor.ts";
import { closedError, osError, wouldBlock } from "../os/errors.ts";
import { adoptStream } from "./connect.ts";
import { MAX_ACCEPTS } from "./listener.ts";
import { abortReason, PendingCall } from "./pending-call.ts";
import type { Role } from "./role.ts";
import type { Stream } from "./stream.ts";

export class GuestListener implements Role {
  readonly fd: number;
  #accepts: PendingCall<Stream>[] = [];
  #watch: Closable | undefined;
  #closed = false;

  constructor(fd: number) {
    this.fd = fd;
  }

  /** listen(2), at the user's request. @throws OSError */
  setBacklog(backlog: number): void {
    listenDescriptor(this.fd, backlog);
  }

  /** @param timeout milliseconds; null waits for ever, 0 does not wait */
  async accept(timeout: number | null, signal?: AbortSignal): Promise<Stream> {
    if (signal?.aborted) throw abortReason(signal);
    if (this.#closed) throw closedError("accept");
    this.#accepts = this.#accepts.filter((waiter) => waiter.waiting);
    const stream = this.#accepts.length === 0 ? this.#take() : undefined;
    if (stream !== undefined) return stream;
    if (timeout === 0) throw wouldBlock("accept", "no connection waits");
    if (this.#accepts.length >= MAX_ACCEPTS) {
      const reason = `${MAX_ACCEPTS} calls are already waiting to accept`;
      throw osError({ code: "ENOBUFS", syscall: "accept", reason });
    }
    this.#wait();
    const waiter = new PendingCall<Stream>("accept");
    this.#accepts.push(waiter);
    return waiter.wait(timeout, signal);
  }

  /** Closes the descriptor; others of the same socket go on listening. */
  close(): void {
    if (this.#closed) return;
    closeDescriptor(this.detach());
  }

  /** Nothing is lost: waiting connections are in the kernel. */
  detach(): number {
    this.#closed = true;
    this.#watch?.close();
    for (const waiter of this.#accepts.splice(0)) waiter.reject(closedError("accept"));
    return this.fd;
  }

  #take(): Stream | undefined {
    const accepted = acceptDescriptor(this.fd);
    if (accepted === undefined) return undefined;
    const stream = adoptStream(accepted.fd);
    stream.peer = accepted.peer;
    return stream;
  }

  #wait(): void {
    this.#watch ??= engine.watch(this.fd, () => this.#ready());
  }

  #ready(): void {
    this.#watch = undefined;
    if (this.#closed) return;
    this.#accepts = this.#accepts.filter((waiter) => waiter.waiting);
    while (this.#accepts.length > 0) {
      try {
        const stream = this.#take();
        if (stream === undefined) return this.#wait();
        this.#accepts.shift()!.resolve(stream);
      } catch (error) {
        this.#accepts.shift()?.reject(error);
      }
    }
  }
}
