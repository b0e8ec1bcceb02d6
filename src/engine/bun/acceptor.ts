/**
 * Accepting from a listening descriptor, through Bun, with a rest whenever accept(2) fails. It changes when
 * what to do about a failing accept changes.
 *
 * Where accept(2) fails for want of a descriptor, a buffer or memory, Bun tries again at once and for ever:
 * that takes a whole core, and nobody hears of it. So the listening descriptor stays ours, and Bun listens on
 * a copy. While connections wait and Bun accepts none, the copy is closed, and after a pause Bun gets another
 * one. The kernel's queue belongs to what both descriptors refer to: who waits in it goes on waiting, and is
 * served when there is room.
 */
import type { TransportEvents } from "../../core/transport.ts";
import { addressText } from "../../os/address.ts";
import { AF_INET, SOCK_STREAM } from "../../os/constants.ts";
import {
  closeDescriptor,
  descriptorName,
  duplicateDescriptor,
  listenDescriptor,
  openDescriptor,
  readable,
} from "../../os/descriptor.ts";
import { toOSError, osError, type OSError } from "../../os/errors.ts";
import type { Acceptor, ListenOptions } from "../engine.ts";
import { opened, socketEvents, type BunSocket } from "./transport.ts";

/** How often it looks whether connections wait that Bun does not accept: a wake-up and one poll(2). */
const LOOK_MS = 500;
/** Between a look that finds one and the next: a turn of the event loop, in which Bun accepts what it can. */
const LOOK_AGAIN_MS = 1;
const FIRST_PAUSE_MS = 10;
const MAX_PAUSE_MS = 1_000;

type Listener = Bun.TCPSocketListener<TransportEvents | undefined>;

/** Bun's handlers for what is accepted. @param tuned called with each socket before anybody else */
function handlers({ open, tls, handshake }: ListenOptions, tuned: (socket: BunSocket) => void) {
  const plain = tls === undefined;
  const verifies = tls?.requestCert === true && tls.rejectUnauthorized !== false;
  return {
    ...socketEvents,
    open(socket: BunSocket): void {
      tuned(socket);
      opened(socket, open, plain);
    },
    ...(!plain && {
      handshake({ data, authorized }: BunSocket, success: boolean, error: Error | null): void {
        // Bun reports success for a client whose certificate it refused, and then closes without an error.
        const accepted = success && (!verifies || authorized);
        if (data !== undefined) handshake?.(data, { accepted, authorized, error });
      },
    }),
  };
}

export class BunAcceptor implements Acceptor {
  readonly #fd: number;
  readonly #options: object;
  readonly #failing: ((error: OSError) => void) | undefined;
  #backlog: number;
  /** Undefined during a pause. */
  #listener: Listener | undefined;
  #timer: NodeJS.Timeout | undefined;
  #accepted = 0;
  #acceptedBefore = 0;
  /** The last look found connections that wait, and none accepted. */
  #suspicious = false;
  #nextLook = LOOK_MS;
  #nextPause = FIRST_PAUSE_MS;
  #reported = false;

  /**
   * @param fd bound; it is the acceptor's from now on, and closed by close()
   * @throws OSError; then the descriptor is still the caller's
   */
  constructor(fd: number, options: ListenOptions) {
    const { backlog, tls, failing } = options;
    this.#fd = fd;
    this.#backlog = backlog;
    this.#failing = failing;
    this.#options = {
      // Without it, Bun closes the socket at the peer's FIN, and what is still held is lost.
      allowHalfOpen: true,
      socket: handlers(options, () => this.#accepted++),
      ...(tls !== undefined && { tls }),
    };
    this.#accept();
  }

  /** listen(2) once more, with another backlog. @throws OSError */
  setBacklog(backlog: number): void {
    listenDescriptor(this.#fd, backlog);
    this.#backlog = backlog;
  }

  /** Ends a pause, if there is room by now: the next turn of the event loop accepts who waits. */
  retry(): void {
    if (this.#listener === undefined) this.#resume();
  }

  /** Frees the port, and resets who waits in the kernel's queue. */
  close(): void {
    clearTimeout(this.#timer);
    this.#listener?.stop(false);
    closeDescriptor(this.#fd);
  }

  /** @throws OSError where there is no room for a copy and one connection */
  #accept(): void {
    const copy = duplicateDescriptor(this.#fd, 0);
    try {
      closeDescriptor(openDescriptor(AF_INET, SOCK_STREAM, 0));
      const options = { ...this.#options, fd: copy };
      this.#listener = Bun.listen(
        options as unknown as Bun.TCPSocketListenOptions<TransportEvents | undefined>,
      );
    } catch (error) {
      closeDescriptor(copy);
      throw toOSError(error, "listen");
    }
    // Bun has called listen(2) with a backlog of its own.
    listenDescriptor(this.#fd, this.#backlog);
    this.#suspicious = false;
    this.#lookIn(this.#nextLook);
  }

  #lookIn(ms: number): void {
    this.#nextLook = ms;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#look(), ms).unref();
  }

  #look(): void {
    const stands = this.#accepted === this.#acceptedBefore && readable(this.#fd);
    this.#acceptedBefore = this.#accepted;
    if (stands && this.#suspicious) return this.#pause();
    this.#suspicious = stands;
    if (stands) return this.#lookIn(LOOK_AGAIN_MS);
    if (this.#nextLook === LOOK_MS) {
      this.#nextPause = FIRST_PAUSE_MS;
      this.#reported = false;
    }
    this.#lookIn(Math.min(2 * this.#nextLook, LOOK_MS));
  }

  #pause(): void {
    this.#listener?.stop(false);
    this.#listener = undefined;
    // The first time, the loop may only have been busy with others.
    if (this.#nextPause > FIRST_PAUSE_MS) this.#report("ENOBUFS");
    this.#wait();
  }

  /** Not unref'd: without Bun's listener nothing else may keep the process alive. */
  #wait(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#resume(), this.#nextPause);
    this.#nextPause = Math.min(2 * this.#nextPause, MAX_PAUSE_MS);
  }

  #resume(): void {
    this.#nextLook = LOOK_AGAIN_MS;
    try {
      this.#accept();
    } catch (error) {
      this.#report((error as OSError).code, error);
      this.#wait();
    }
  }

  #report(code: string, cause?: unknown): void {
    if (this.#reported) return;
    this.#reported = true;
    const address = addressText(descriptorName(this.#fd, "getsockname"));
    this.#failing?.(osError({ code, syscall: "accept", address, cause }));
  }
}

/** Bun's own listener, by which nothing can be set: where there is no C library for bun:ffi. */
export class PlainAcceptor implements Acceptor {
  readonly port: number;
  readonly #listener: Listener;

  constructor(host: string, port: number, keepalive: number, options: ListenOptions) {
    const socket = handlers(options, (one) => {
      if (keepalive > 0) one.setKeepAlive(true, keepalive * 1000);
    });
    try {
      const listening = { hostname: host, port, allowHalfOpen: true, socket };
      this.#listener = Bun.listen<TransportEvents | undefined>(listening);
    } catch (error) {
      throw toOSError(error, "listen", addressText([host, port]));
    }
    this.port = this.#listener.port;
  }

  setBacklog(): void {
    throw osError({ code: "ENOSYS", syscall: "listen", reason: "this platform has no C library to call" });
  }

  retry(): void {}

  close(): void {
    this.#listener.stop(false);
  }
}
