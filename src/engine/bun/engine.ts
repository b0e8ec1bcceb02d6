/**
 * Bun's sockets as an engine (../engine.ts): the only calls of Bun.listen, Bun.connect and Bun.udpSocket. It
 * changes when one of these calls does, or is found to do something else than it says.
 */
import type { TransportEvents } from "../../core/transport.ts";
import { SO_REUSEADDR, SOL_SOCKET } from "../../os/constants.ts";
import {
  closeDescriptor,
  getOption,
  noDelay,
  setNoDelay,
  setOption,
  withFlags,
} from "../../os/descriptor.ts";
import { isVerifyError, osError, toOSError } from "../../os/errors.ts";
import { lastError, requireLibc, throwErrno } from "../../os/libc.ts";
import { ptr } from "bun:ffi";
import type { Closable, ConnectOptions, DatagramEvents, Engine, Handshake, Open } from "../engine.ts";
import { BunAcceptor, PlainAcceptor } from "./acceptor.ts";
import { bunTime } from "./time.ts";
import { opened, socketEvents, type BunSocket } from "./transport.ts";

export const bunEngine: Engine = {
  name: "bun",
  time: bunTime,
  listen: (fd, options) => new BunAcceptor(fd, options),
  listenAt: (host, port, keepalive, options) => new PlainAcceptor(host, port, keepalive, options),
  connect,
  adopt,
  receive,
  watch,
};

/** Bun's types know no descriptor. */
type Connecting = Bun.TCPSocketConnectOptions<TransportEvents | undefined>;

/** Bun sets O_NONBLOCK and TCP_NODELAY on what it adopts; both are put back. @throws OSError */
function adopting<T>(fd: number, run: () => T): T {
  const before = noDelay(fd);
  const result = withFlags(fd, run);
  if (before === 0) setNoDelay(fd, 0);
  return result;
}

function connect(fd: number, { connected, open, established, failed, tls }: ConnectOptions): void {
  const plain = tls === undefined;
  let pending = true;
  const arrived = (handshake?: Handshake): void => {
    if (!pending) return;
    pending = false;
    established(handshake);
  };
  const ended = (error: unknown): void => {
    if (!pending) return;
    pending = false;
    failed(error);
  };
  const socket = {
    ...socketEvents,
    open(one: BunSocket) {
      opened(one, open, plain);
      if (connected && plain) arrived();
    },
    // With TLS, only the handshake shows that the connection is established.
    data(one: BunSocket, chunk: Uint8Array) {
      if (plain) arrived();
      socketEvents.data(one, chunk);
    },
    drain(one: BunSocket) {
      if (plain) arrived();
      socketEvents.drain(one);
    },
    end(one: BunSocket) {
      if (plain) arrived();
      socketEvents.end(one);
    },
    close(one: BunSocket, error?: Error) {
      ended(error ?? osError({ code: "ECONNRESET", syscall: "connect" }));
      socketEvents.close(one, error);
    },
    handshake(one: BunSocket, success: boolean, error: Error | null) {
      // For a wrong host, Bun reports a failure although it was told not to reject.
      const tolerated =
        tls?.rejectUnauthorized === false && isVerifyError((error as OpenSSLError)?.code ?? "");
      arrived({ accepted: success || tolerated, authorized: one.authorized, error });
    },
  };
  // On a connected descriptor, Bun begins no handshake for `tls: {}`.
  const secure = plain ? {} : { tls: { rejectUnauthorized: true, ...tls } };
  const options = { fd, allowHalfOpen: true, socket, ...secure };
  adopting(fd, () => Bun.connect(options as unknown as Connecting)).catch(ended);
}

type OpenSSLError = { code?: string } | null;

function adopt(fd: number, open: Open): void {
  let adopted = false;
  const taken = (one: BunSocket): void => {
    adopted = true;
    opened(one, open, true);
  };
  const options = { fd, allowHalfOpen: true, socket: { ...socketEvents, open: taken } };
  adopting(fd, () => Bun.connect(options as unknown as Connecting)).catch(() => undefined);
  if (adopted) return;
  throw osError({ code: "ENOTSUP", syscall: "socket", reason: `this Bun does not adopt descriptor ${fd}` });
}

function receive(fd: number, events: DatagramEvents): Closable {
  const options = {
    fd,
    socket: {
      data: (_: unknown, bytes: Buffer, port: number, host: string) => events.onDatagram(bytes, host, port),
      // Bun gives the error alone, and its types say that the socket comes first.
      error: (...given: unknown[]) => events.onError(toOSError(given.at(-1), "recv")),
    },
  };
  const reuse = getOption(fd, SOL_SOCKET, SO_REUSEADDR, 4);
  const made = withFlags(fd, () => Bun.udpSocket(options as unknown as Bun.udp.SocketOptions<"buffer">));
  // With a descriptor it is there at once.
  const socket = Bun.peek(made);
  if (socket instanceof Promise) {
    made.catch(() => undefined);
    const reason = "this Bun does not adopt a datagram descriptor";
    throw osError({ code: "ENOTSUP", syscall: "recv", reason });
  }
  // Bun sets it, which would let another program bind this port and take our datagrams.
  setOption(fd, SOL_SOCKET, SO_REUSEADDR, reuse);
  return socket;
}

const EPOLL_CLOEXEC = 0x80000;
const [EPOLL_CTL_ADD, EPOLLIN] = [1, 1];

/**
 * Bun is given an epoll descriptor that watches the one in question: when that becomes readable, Bun tries to
 * read the epoll descriptor, which fails with ENOTSOCK, closes it and says so.
 */
function watch(fd: number, callback: () => void): Closable {
  const c = requireLibc("epoll_create1");
  const epoll = c.epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0) throwErrno(c, "epoll_create1");
  // struct epoll_event: the events, then eight bytes that are ours.
  const event = new Uint32Array([EPOLLIN, 0, 0, 0]);
  if (c.epoll_ctl(epoll, EPOLL_CTL_ADD, fd, ptr(event)) !== 0) {
    const code = lastError(c);
    closeDescriptor(epoll);
    throw osError({ code, syscall: "epoll_ctl" });
  }
  let watching: BunSocket | undefined;
  let off = false;
  const socket = {
    open: (one: BunSocket): void => void (watching = one),
    data: (): void => undefined,
    close: (): void => {
      if (!off) callback();
    },
  };
  Bun.connect({ fd: epoll, socket } as unknown as Connecting).catch(() => undefined);
  return {
    close() {
      off = true;
      watching?.terminate();
    },
  };
}
