/**
 * How a descriptor becomes a stream: by connecting, with or without TLS, or because it is connected already.
 * It changes when there is another way to begin.
 */
import type { Transport, TransportEvents } from "../core/transport.ts";
import { engine } from "../engine/current.ts";
import type { Handshake, TLS } from "../engine/engine.ts";
import { closeDescriptor } from "../os/descriptor.ts";
import { isVerifyError, SSLCertVerificationError, SSLError, toOSError, type OSError } from "../os/errors.ts";
import { PendingCall } from "./pending-call.ts";
import { Stream } from "./stream.ts";

/**
 * Hands a connected or connecting descriptor to the engine, and waits until the connection is established;
 * with TLS, until its handshake is done. Whatever goes wrong, the descriptor is closed.
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
  const call = new PendingCall<void>("connect");
  let stream: Stream | undefined;
  const done = call.wait(timeout, signal);
  const established = (handshake: Handshake | undefined): void => {
    if (handshake === undefined) return call.resolve();
    stream!.setAuthorized(handshake);
    if (handshake.accepted) call.resolve();
    else call.reject(handshakeError(handshake.error, address));
  };
  const failed = (error: unknown): void => call.reject(toOSError(error, "connect", address));
  const open = (transport: Transport): TransportEvents => {
    stream = new Stream(transport, tls === undefined);
    return stream.events;
  };
  try {
    engine.connect(fd, { connected, open, established, failed, tls });
  } catch (error) {
    // Usually a malformed certificate or key.
    if (tls === undefined) failed(error);
    else call.reject(handshakeError(error as Error, address, "connect"));
  }
  try {
    await done;
    return stream!;
  } catch (error) {
    if (stream === undefined) closeDescriptor(fd);
    else stream.abort();
    throw error;
  }
}

/** Hands a connected descriptor to the engine, which has it at once. @throws OSError */
export function adoptStream(fd: number): Stream {
  let stream: Stream | undefined;
  engine.adopt(fd, (transport) => {
    stream = new Stream(transport, true);
    return stream.events;
  });
  return stream!;
}

/** A handshake that failed: the network's error, or OpenSSL's reason. */
export function handshakeError(error: Error | null, address: string, syscall = "do_handshake"): OSError {
  const code = String((error as { code?: unknown } | null)?.code ?? "EPROTO");
  // EPROTO is what Bun calls OpenSSL's own errors.
  if (code === "ECONNRESET" || code === "EPIPE") return toOSError(error, "connect", address);
  if (code === "EPROTO" && error !== null) {
    const known = toOSError(error, syscall, address);
    if (known instanceof SSLError) return known;
  }
  const reason = error?.message ?? "the handshake failed";
  const details = { code, errno: 1, syscall, address, reason, cause: error ?? undefined };
  return new (isVerifyError(code) ? SSLCertVerificationError : SSLError)(details);
}
