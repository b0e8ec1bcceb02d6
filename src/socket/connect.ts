/**
 * How a descriptor becomes a stream: connecting, with or without TLS, and adopting what is connected already. It
 * changes when there is another way to begin.
 */
import { connectionEvents } from "../engine/bun/transport.ts";
import { type Connection } from "../core/connection.ts";
import { adopting, closeDescriptor } from "../os/descriptor.ts";
import {
  toOSError,
  isVerifyError,
  osError,
  SSLCertVerificationError,
  SSLError,
  type OSError,
} from "../os/errors.ts";
import type { TLS } from "../engine/bun/transport.ts";
import { Stream } from "./stream.ts";
import { PendingCall } from "./pending-call.ts";

/**
 * Hands a connected or connecting descriptor to Bun, and waits until the connection stands; with TLS, until its
 * handshake is done. Whatever goes wrong, the descriptor is closed.
 * @param connected whether connect(2) said that it is connected already
 * @param address for the errors
 * @throws OSError; SSLError when the handshake fails
 */
export async function connectStream(
  fd: number,
  { connected, address, tls }: { connected: boolean; address: string; tls?: TLS | undefined },
  timeout: number | null,
  signal?: AbortSignal,
): Promise<Stream> {
  const waiter = new PendingCall<void>("connect");
  let stream: Stream | undefined;
  const settle = (error?: unknown): void => {
    if (stream !== undefined) stream.onOpen = undefined;
    if (error === undefined) waiter.resolve();
    else waiter.reject(toOSError(error, "connect", address));
  };
  const opened = waiter.wait(timeout, signal);
  const events = {
    ...connectionEvents,
    open(socket: Bun.Socket<Connection>) {
      stream = new Stream(socket, tls === undefined);
      // With TLS, only the handshake shows that the connection stands.
      stream.onOpen = tls === undefined ? settle : (error) => error !== undefined && settle(error);
      if (connected && tls === undefined) settle();
    },
    drain(socket: Bun.Socket<Connection>) {
      if (tls === undefined) settle();
      connectionEvents.drain(socket);
    },
    handshake(socket: Bun.Socket<Connection>, success: boolean, error: Error | null) {
      stream?.setAuthorized(socket.authorized, error);
      // For a wrong host, Bun reports failure although it was told not to reject.
      const accepted = success || (tls?.rejectUnauthorized === false && isVerifyError(codeOf(error)));
      settle(accepted ? undefined : handshakeError(error, address));
    },
  };
  // On a connected descriptor Bun begins no handshake for `tls: {}`.
  const secure = tls === undefined ? {} : { tls: { rejectUnauthorized: true, ...tls } };
  const options = { fd, allowHalfOpen: true, socket: events, ...secure };
  try {
    adopting(fd, () => Bun.connect(options as unknown as Bun.TCPSocketConnectOptions<Connection>)).catch(
      settle,
    );
  } catch (error) {
    // Certificates and keys that are none, mostly.
    settle(tls === undefined ? error : handshakeError(error as Error, address, "connect"));
  }
  try {
    await opened;
    return stream!;
  } catch (error) {
    if (stream === undefined) closeDescriptor(fd);
    else stream.abort();
    throw error;
  }
}

/**
 * Hands a connected descriptor to Bun, which has it at once.
 * @throws OSError
 */
export function adoptStream(fd: number): Stream {
  let stream: Stream | undefined;
  const open = (socket: Bun.Socket<Connection>): void => {
    stream = new Stream(socket, true);
  };
  const options = { fd, allowHalfOpen: true, socket: { ...connectionEvents, open } };
  adopting(fd, () => Bun.connect(options as unknown as Bun.TCPSocketConnectOptions<Connection>)).catch(
    () => undefined,
  );
  if (stream !== undefined) return stream;
  throw osError({ code: "ENOTSUP", syscall: "socket", reason: `this Bun does not adopt descriptor ${fd}` });
}

const codeOf = (error: Error | null): string =>
  String((error as { code?: unknown } | null)?.code ?? "EPROTO");

/** A handshake that failed: the network's error, or OpenSSL's reason. */
export function handshakeError(error: Error | null, address: string, syscall = "do_handshake"): OSError {
  const code = codeOf(error);
  // EPROTO is what Bun calls OpenSSL's own errors.
  if (code === "ECONNRESET" || code === "EPIPE") return toOSError(error, "connect", address);
  if (code === "EPROTO" && error !== null) {
    const known = toOSError(error, syscall, address);
    if (known instanceof SSLError) return known;
  }
  const reason = error?.message ?? "the handshake failed";
  return new (isVerifyError(code) ? SSLCertVerificationError : SSLError)({
    code,
    errno: 1,
    syscall,
    address,
    reason,
    cause: error ?? undefined,
  });
}
