/**
 * A socket's two directions as web streams. It changes when their contract does
 * (https://streams.spec.whatwg.org).
 */
import type { AddressFamily } from "../os/constants.ts";
import { SHUT_WR } from "../os/constants.ts";
import type { BytesLike } from "./checks.ts";
import type { Socket } from "./socket.ts";

interface Reading {
  /** Whether an empty piece is no end: of datagrams. */
  endless: boolean;
  cancelled(): void;
}

/** @param size maximum bytes per piece */
export function readableOf(
  socket: Socket<AddressFamily>,
  size: number,
  { endless, cancelled }: Reading,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const ended = new AbortController();
  return new ReadableStream(
    {
      async pull(controller) {
        // A signal of a stream's recv costs a promise, and shutdownRead() ends it as well.
        const bytes = await (endless ? socket.recv(size, { signal: ended.signal }) : socket.recv(size));
        if (bytes.length > 0 || endless) controller.enqueue(bytes as Uint8Array<ArrayBuffer>);
        else controller.close();
      },
      cancel() {
        ended.abort();
        cancelled();
      },
    },
    { highWaterMark: 0 },
  );
}

export function writableOf(socket: Socket<AddressFamily>): WritableStream<BytesLike> {
  return new WritableStream({
    write: (bytes) => socket.sendall(bytes),
    close: () => socket.shutdown(SHUT_WR),
    abort: () => socket[Symbol.dispose](),
  });
}
