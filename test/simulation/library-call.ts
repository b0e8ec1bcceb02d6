/**
 * A call on a socket of the library, how it is made, and what its error is named. It changes when a call can
 * be made in another way.
 */
import type { AddressFamily } from "../../src/os/constants.ts";
import { errnoName, OSError } from "../../src/os/errors.ts";
import type * as socket from "../../src/socket.ts";
import type { Random } from "../support/random.ts";

export type AnySocket = socket.Socket<AddressFamily>;

/** A signal that counts who listens to it. */
export class CountedAbort {
  readonly controller = new AbortController();
  listeners = 0;

  constructor() {
    const { signal } = this.controller;
    const [add, remove] = [signal.addEventListener.bind(signal), signal.removeEventListener.bind(signal)];
    signal.addEventListener = (type: string, listener: never) => {
      this.listeners++;
      add(type, listener);
    };
    signal.removeEventListener = (type: string, listener: never) => {
      this.listeners--;
      remove(type, listener);
    };
  }
}

export type Kind = "recv" | "recv_into" | "send" | "sendall" | "connect" | "accept" | "dispose";

/** A call that has been made. */
export class Call {
  readonly kind: Kind;
  /** When it must be over; Infinity when it may wait for ever. */
  readonly deadline: number;
  readonly waits: boolean;
  readonly abort: CountedAbort | undefined;
  /** Whether another call of its kind waited already. */
  readonly second: boolean;
  settled = false;
  /** Another call came in the microtasks after it, or it came in those after another: either may be first. */
  raced = false;
  /**
   * Of a recv, what is wanted; of a send, how many bytes there are, from where in the pattern, and how many
   * went.
   */
  readonly size: number;
  place = 0;
  taken = 0;

  constructor(kind: Kind, size: number, given: Given, now: number, second: boolean) {
    this.kind = kind;
    this.size = size;
    this.waits = given.timeout !== 0;
    this.deadline = given.timeout === null || given.timeout === 0 ? Infinity : now + given.timeout;
    this.abort = given.abort;
    this.second = second;
  }
}

/** How a call is made. */
export interface Given {
  /** Milliseconds. */
  readonly timeout: number | null;
  readonly abort?: CountedAbort | undefined;
}

/** The code of what an OSError, or the name of what an aborted call, says. */
export const nameOf = (error: unknown): string =>
  error instanceof OSError ? error.code : error instanceof DOMException ? error.name : Bun.inspect(error);

/** How a world makes its calls: with which deadlines and signals. */
export class Manners {
  /** Those that can still be aborted. */
  readonly signals: CountedAbort[] = [];
  readonly #random: Random;
  readonly #pace: number;
  readonly #timeouts: number;
  readonly #signalRate: number;

  constructor(random: Random, pace: number) {
    this.#random = random;
    this.#pace = pace;
    this.#timeouts = [0, 0.2, 0.8][random.between(0, 2)]!;
    this.#signalRate = [0, 0.2, 0.6][random.between(0, 2)]!;
  }

  next(): Given {
    const random = this.#random;
    const timeout = random.chance(this.#timeouts)
      ? random.chance(0.2)
        ? 0
        : random.next() * this.#pace * 5
      : null;
    if (!random.chance(this.#signalRate)) return { timeout };
    let abort = this.signals[random.between(0, this.signals.length)];
    if (abort === undefined) {
      abort = new CountedAbort();
      this.signals.push(abort);
    }
    return { timeout, abort };
  }
}

/** connect_ex(), which returns as a number what connect() throws. */
export async function connectEx(sock: AnySocket, address: string, options?: socket.Options): Promise<void> {
  const errno = await sock.connect_ex(address, options);
  if (errno !== 0) throw new OSError({ code: errnoName(errno), syscall: "connect" });
}

/** After close(), every call is EBADF. */
export function callClosed(sock: AnySocket, fail: (reason: string) => never): void {
  sock.close();
  for (const call of [
    sock.recv(1),
    sock.send(Buffer.alloc(1)),
    sock.sendall(Buffer.alloc(1)),
    sock.accept(),
  ]) {
    call.then(
      () => fail("a call on a closed socket works"),
      (error: unknown) => nameOf(error) === "EBADF" || fail(`a closed socket says ${nameOf(error)}`),
    );
  }
}
