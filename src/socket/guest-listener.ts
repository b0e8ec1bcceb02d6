/**
 * A listening descriptor that was given, and that others may share: connections wait in the kernel's queue, whose length
 * stays what its owner chose, and are accepted one by one, as they are asked for. It changes when accepting by system
 * calls does. Bun.listen would call listen(2) again, accept whatever comes and leave O_NONBLOCK set for everybody.
 */
import { ptr } from "bun:ffi";
import { decodeAddress, SOCKADDR_MAX } from "../os/address.ts";
import { closeDescriptor, listenDescriptor, SOCKET_FLAGS, withFlags } from "../os/descriptor.ts";
import { closedError, osError, wouldBlock } from "../os/errors.ts";
import { throwErrno, lastError, requireLibc } from "../os/libc.ts";
import { MAX_ACCEPTS } from "./listener.ts";
import { adoptStream } from "./connect.ts";
import type { Stream } from "./stream.ts";
import { abortReason, PendingCall } from "./pending-call.ts";

const EPOLL_CLOEXEC = 0x80000;
const [EPOLL_CTL_ADD, EPOLLIN] = [1, 1];

export class GuestListener {
  readonly #fd: number;
  #accepts: PendingCall<Stream>[] = [];
  #watch: Bun.Socket<undefined> | undefined;
  #closed = false;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** listen(2), because the user asks for it. @throws OSError */
  setBacklog(backlog: number): void {
    listenDescriptor(this.#fd, backlog);
  }

  /** What waits is in the kernel: detach() loses nothing. */
  readonly readable = false;

  /** An accepted socket inherits the kernel's options. */
  optionsChanged(): void {}

  /** @param timeout milliseconds; null waits for ever, 0 does not wait */
  async accept(timeout: number | null, signal?: AbortSignal): Promise<Stream> {
    if (signal?.aborted) throw abortReason(signal);
    if (this.#closed) throw closedError("accept");
    this.#accepts = this.#accepts.filter((waiter) => waiter.waiting);
    const stream = this.#accepts.length === 0 ? this.#take() : undefined;
    if (stream !== undefined) return stream;
    if (timeout === 0) throw wouldBlock("accept", "no connection waits");
    if (this.#accepts.length >= MAX_ACCEPTS) {
      const reason = `${MAX_ACCEPTS} calls wait already to accept`;
      throw osError({ code: "ENOBUFS", syscall: "accept", reason });
    }
    this.#wait();
    const waiter = new PendingCall<Stream>("accept");
    this.#accepts.push(waiter);
    return waiter.wait(timeout, signal);
  }

  /** Closes the descriptor; another's of the same socket goes on listening. */
  close(): void {
    if (this.#closed) return;
    this.release();
    closeDescriptor(this.#fd);
  }

  /** Ends what waits, and leaves the descriptor open. */
  release(): void {
    this.#closed = true;
    this.#watch?.terminate();
    for (const waiter of this.#accepts.splice(0)) waiter.reject(closedError("accept"));
  }

  /** accept4(2). @returns undefined when nothing waits: somebody else may have had it @throws OSError EMFILE, … */
  #take(): Stream | undefined {
    const c = requireLibc("accept4");
    const bytes = new Uint8Array(SOCKADDR_MAX);
    const size = new Int32Array([SOCKADDR_MAX]);
    // errno is asked for before the flags are put back.
    const [fd, code] = withFlags(this.#fd, () => {
      const fd = c.accept4(this.#fd, ptr(bytes), ptr(size), SOCKET_FLAGS);
      return [fd, fd < 0 ? lastError(c) : ""];
    });
    if (fd >= 0) {
      const stream = adoptStream(fd);
      stream.peer = decodeAddress(bytes.subarray(0, size[0]));
      return stream;
    }
    if (code === "EAGAIN" || code === "ECONNABORTED") return undefined;
    throw osError({ code, syscall: "accept" });
  }

  /**
   * Waits until a connection does. Bun is given an epoll descriptor that watches the listening one: when it becomes
   * readable, Bun tries to read it, which fails with ENOTSOCK, closes it and says so.
   */
  #wait(): void {
    if (this.#watch !== undefined) return;
    const c = requireLibc("epoll_create1");
    const epoll = c.epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) throwErrno(c, "epoll_create1");
    // struct epoll_event: the events, then eight bytes that are ours.
    const event = new Uint32Array([EPOLLIN, 0, 0, 0]);
    if (c.epoll_ctl(epoll, EPOLL_CTL_ADD, this.#fd, ptr(event)) !== 0) {
      const code = lastError(c);
      closeDescriptor(epoll);
      throw osError({ code, syscall: "epoll_ctl" });
    }
    const socket = {
      open: (watch: Bun.Socket<undefined>): void => void (this.#watch = watch),
      data: (): void => undefined,
      close: (): void => this.#ready(),
    };
    Bun.connect({ fd: epoll, socket } as unknown as Bun.TCPSocketConnectOptions<undefined>).catch(
      () => undefined,
    );
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
