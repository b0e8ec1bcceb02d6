/**
 * The fake sockets as an engine: the rules on top of the seam alone, without Bun. It changes when the seam
 * does (src/engine/engine.ts).
 */
import type { Time } from "../../src/core/time.ts";
import type { TransportEvents } from "../../src/core/transport.ts";
import type {
  Acceptor,
  Closable,
  ConnectOptions,
  Engine,
  ListenOptions,
  Open,
} from "../../src/engine/engine.ts";
import type { Clock } from "./clock.ts";
import type { FakeBun, FakeSocket, Tell } from "./fake-bun.ts";

/** Hands the events of a socket to whom `open` names. */
function sinkOf(open: Open): Tell {
  return (event, socket, told) => {
    if (event === "open") return opened(socket, open);
    const events = socket.data as TransportEvents | undefined;
    if (event === "data") events!.onData(told as Uint8Array);
    else if (event === "drain") events!.onDrain();
    else if (event === "end") events!.onEnd();
    else if (event === "close") events?.onClose(told);
    else events!.abort(told);
  };
}

function opened(socket: FakeSocket, open: Open): void {
  const events = open(socket);
  if (events === undefined) return socket.terminate();
  socket.data = events;
  events.onOpen();
}

function timeOf(clock: () => Clock): Time {
  return {
    now: () => clock().now,
    after(ms, callback) {
      const of = clock();
      const timer = of.set(callback, ms);
      return { cancel: () => of.clear(timer) };
    },
    every(ms, callback) {
      const of = clock();
      const timer = of.set(callback, ms, ms);
      return { cancel: () => of.clear(timer) };
    },
    nextTurn: (callback) => clock().immediate(callback),
  };
}

export function fakeEngine(sockets: () => FakeBun): Engine {
  const unsupported = (): never => sockets().kernel.trace.fail("the simulation does not have this call");
  return {
    name: "fake",
    time: timeOf(() => sockets().clock),
    listen: (fd, options) => listen(sockets(), fd, options),
    connect: (fd, options) => connect(sockets(), fd, options),
    adopt: (fd, open) => void sockets().open(fd, sockets().kernel.at(fd).endpoint!, sinkOf(open)),
    listenAt: unsupported,
    receive: (): Closable => unsupported(),
    watch: (): Closable => unsupported(),
  };
}

function listen(sockets: FakeBun, fd: number, { backlog, open }: ListenOptions): Acceptor {
  const listener = sockets.listenOn({ fd }, backlog, sinkOf(open));
  return {
    setBacklog: (now) => sockets.kernel.listen(sockets.kernel.at(fd), now),
    retry() {},
    close: () => listener.stop(),
  };
}

function connect(
  sockets: FakeBun,
  fd: number,
  { connected, open, established, failed }: ConnectOptions,
): void {
  const sink = sinkOf(open);
  let pending = true;
  sockets.open(fd, sockets.kernel.at(fd).endpoint!, (event, socket, told) => {
    const over = event === "close" || event === "error";
    // `open` comes first, and only says something where connect(2) has.
    if (event === "open") sink(event, socket);
    if (pending && (event !== "open" || connected)) {
      pending = false;
      if (over) failed(told ?? Object.assign(new Error("reset"), { code: "ECONNRESET", errno: -104 }));
      else established(undefined);
    }
    if (event !== "open") sink(event, socket, told);
  });
}
