/**
 * A call on a socket of the library, how it is made, and what its error is named. It changes when a call can
 * be made in another way.
 */
import { OSError } from "../../src/os/errors.ts";

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
