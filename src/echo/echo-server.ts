/** The echo service: admission, limits, counters, the stop. It changes when one of these does. */
import { readdirSync } from "node:fs";
import { addressText } from "../os/address.ts";
import { Connection } from "../core/connection.ts";
import type { ConnectionHandler } from "../core/handler.ts";
import { osError, type OSError } from "../os/errors.ts";
import { descriptorLimit, SPARE_DESCRIPTORS } from "../os/limits.ts";
import { RingPool } from "../core/ring-buffer.ts";
import { engine as currentEngine } from "../engine/current.ts";
import type { Engine } from "../engine/engine.ts";
import type { Timer } from "../core/time.ts";
import type { Transport } from "../core/transport.ts";
import { TurnBudget } from "../core/turn-budget.ts";
import { Activity } from "./activity.ts";
import { Drain, DRAIN_PERIOD_MS } from "./drain.ts";
import { endpointsOf, type Endpoint } from "./endpoint.ts";
import { Listening } from "./listening.ts";
import { replyNamed, type ReplyName } from "./reply.ts";

export interface EchoOptions {
  /** An address; a name, for all of its addresses; or "" for every interface. */
  host: string;
  /** 0 to 65535; 0 picks a free one. */
  port: number;
  reply: ReplyName;
  /** Maximum bytes per recv. Default: for raw, a whole chunk; for tutorial, 1024. */
  recvSize?: number;
  /** Bytes held for a peer that does not read; one chunk (at most 512 KiB) may come on top. */
  ring: number;
  /** SO_RCVBUF of every connection, in bytes. Default: the kernel's own tuning. */
  receiveBuffer?: number;
  /** Connections that the kernel keeps waiting. Default: Bun's own, 512. */
  backlog?: number;
  /** Default: connectionLimit(). */
  maxConnections?: number;
  /** Closes a peer that moves no byte for this many seconds; 0: never. */
  idleTimeout: number;
  /**
   * Seconds of silence before the kernel probes a peer (SO_KEEPALIVE) and, after twice the time, gives it up;
   * 0 to 32767, 0: never. Default: 60.
   */
  keepalive?: number;
  /** The source of bytes and time. Default: Bun's own sockets. */
  engine?: Engine;
  /** Called when connections cannot be accepted (EMFILE, ENFILE, ENOBUFS), once until they can again. */
  onAcceptError?: (error: OSError) => void;
  /** Called with an error that is not the network's, but an internal one. Its connection has been closed. */
  onDefect?: (error: unknown) => void;
}

/** Totals since the start; `open` and `held` are current values. */
export interface Figures {
  connections: number;
  open: number;
  /** Reset immediately, because maxConnections were open. */
  refused: number;
  /**
   * Ended before the kernel had taken the reply to every byte, or by a network error other than a reset. A
   * peer that has everything and then resets, as health checks do, is not broken.
   */
  broken: number;
  bytesIn: number;
  bytesOut: number;
  bytesCopied: number;
  /** Received after our FIN, at an idle timeout or a stop, and not echoed. */
  bytesDropped: number;
  held: number;
}

/** The usual soft limit, for a platform that does not report one. */
const COMMON_DESCRIPTOR_LIMIT = 1024;
/** Maximum concurrent connections: the descriptor limit, less those open now and a few to spare. */
export function connectionLimit(): number {
  const limit = descriptorLimit() ?? COMMON_DESCRIPTOR_LIMIT;
  return Math.max(0, limit - openDescriptors() - SPARE_DESCRIPTORS);
}

function openDescriptors(): number {
  try {
    return readdirSync("/dev/fd").length;
  } catch {
    // Without /dev/fd: about as many as Bun opens for itself.
    return SPARE_DESCRIPTORS;
  }
}

/** Routers commonly forget a silent connection after a few minutes. */
const KEEPALIVE_SECONDS = 60;
/** The kernel's maximum (tcp(7), TCP_KEEPIDLE). */
const MAX_KEEPALIVE_SECONDS = 32_767;

export class EchoServer {
  /** The address that it listens on; of several, the first one. */
  readonly host: string;
  readonly port: number;

  readonly #engine: Engine;
  readonly #listening: Listening;
  readonly #open = new Map<Connection, Activity>();
  readonly #handler: ConnectionHandler;
  readonly #idleMs: number;
  /** How often connections are polled for idleness. */
  readonly #sweepMs: number;
  readonly #figures = {
    connections: 0,
    refused: 0,
    broken: 0,
    bytesIn: 0,
    bytesOut: 0,
    bytesCopied: 0,
    bytesDropped: 0,
  };
  #sweeper: Timer | undefined;
  #stopping: Promise<void> | undefined;
  #emptied: (() => void) | undefined;

  /**
   * Starts to listen.
   * @throws RangeError for an option out of range; OSError when the address is not available or the kernel
   *   refuses
   */
  static async listen(options: EchoOptions): Promise<EchoServer> {
    const allowed = connectionLimit();
    if (allowed === 0) {
      const reason = "the descriptor limit leaves no room for a connection: raise it with ulimit -n";
      throw osError({
        code: "EMFILE",
        syscall: "listen",
        address: addressText([options.host, options.port]),
        reason,
      });
    }
    const max = options.maxConnections ?? allowed;
    if (!(max >= 1 && max <= allowed)) {
      throw new RangeError(
        `maxConnections: ${max} is not from 1 to ${allowed}, which the descriptor limit allows`,
      );
    }
    const keepalive = options.keepalive ?? KEEPALIVE_SECONDS;
    if (!(Number.isInteger(keepalive) && keepalive >= 0 && keepalive <= MAX_KEEPALIVE_SECONDS)) {
      throw new RangeError(
        `keepalive: ${keepalive} is not a whole number of seconds from 0 to ${MAX_KEEPALIVE_SECONDS}`,
      );
    }
    return new EchoServer({ ...options, keepalive }, await endpointsOf(options.host), max);
  }

  private constructor(
    options: EchoOptions & { keepalive: number },
    endpoints: readonly Endpoint[],
    maxConnections: number,
  ) {
    const reply = replyNamed(options.reply, options.recvSize);
    const { onDefect, engine = currentEngine } = options;
    this.#idleMs = options.idleTimeout * 1000;
    this.#sweepMs = Math.min(1000, Math.max(50, this.#idleMs / 4));
    this.#handler = {
      onOpen: reply.onOpen,
      onData: reply.onData,
      onDrain: reply.onDrain,
      onEnd: (connection) => connection.finish(),
      onClose: (connection, error) => {
        this.#forget(connection);
        if (!connection.complete || (error !== undefined && !isReset(error))) this.#figures.broken++;
        connection.drop();
        if (error !== undefined && !isNetworkError(error)) onDefect?.(error);
      },
    };
    const rings = new RingPool(options.ring);
    const budget = new TurnBudget(engine.time);
    const open = (transport: Transport): Connection | undefined => {
      if (this.#open.size >= maxConnections) {
        this.#figures.refused++;
        return undefined;
      }
      this.#figures.connections++;
      const connection = new Connection(transport, this.#handler, rings, budget);
      this.#open.set(connection, new Activity(connection, this.#sweepMs));
      return connection;
    };
    this.#engine = engine;
    this.#listening = new Listening(engine, endpoints, { ...options, open, failing: options.onAcceptError });
    this.host = this.#listening.hosts[0]!;
    this.port = this.#listening.port;
    if (this.#idleMs > 0) {
      this.#sweepEvery(this.#sweepMs, (activity) => activity.endIfIdle(this.#idleMs, this.#sweepMs));
    }
  }

  /** "127.0.0.1:8101", or "127.0.0.1:8101 and [::1]:8101". */
  get address(): string {
    return this.#listening.address;
  }

  get figures(): Figures {
    const figures = { ...this.#figures, open: this.#open.size, held: 0 };
    for (const connection of this.#open.keys()) {
      count(connection, figures);
      figures.held += connection.held;
    }
    return figures;
  }

  /**
   * Stops listening, and ends every connection without dropping a byte: a peer is served until it has been
   * quiet for a second and has acknowledged everything; then it gets a FIN, and is closed at its own FIN, or
   * two seconds later.
   * @param timeout seconds to wait for peers that keep sending. In the last 2 of them (or the last half) we
   *   stop reading: each peer gets the bytes that were echoed, then a FIN if those were all that it had sent,
   *   and a reset otherwise. At the deadline, peers that miss bytes are reset, and the others closed.
   * @returns when every connection is closed. Another call returns the same promise
   */
  stop(timeout: number): Promise<void> {
    return (this.#stopping ??= this.#stop(timeout * 1000));
  }

  async #stop(timeoutMs: number): Promise<void> {
    // Connections that wait in the kernel may have sent something: one turn of the event loop lets the engine
    // accept them all. Without it, closing the listener would reset them.
    this.#listening.retry();
    await new Promise<void>((resolve) => this.#engine.time.after(1, resolve, true));
    this.#listening.close();
    if (this.#open.size === 0) return this.#sweeper?.cancel();
    const emptied = new Promise<void>((resolve) => {
      this.#emptied = resolve;
    });
    for (const activity of this.#open.values()) activity.quietMs = 0;
    const drain = new Drain(timeoutMs, this.#engine.time);
    this.#sweepEvery(
      DRAIN_PERIOD_MS,
      (activity) => drain.judge(activity),
      () => drain.look(),
    );
    await emptied;
    this.#sweeper?.cancel();
  }

  /** One timer serves all connections. */
  #sweepEvery(periodMs: number, judge: (activity: Activity) => void, before = (): void => undefined): void {
    this.#sweeper?.cancel();
    this.#sweeper = this.#engine.time.every(periodMs, () => {
      before();
      for (const activity of this.#open.values()) {
        activity.tick(periodMs);
        judge(activity);
      }
    });
  }

  #forget(connection: Connection): void {
    this.#open.delete(connection);
    count(connection, this.#figures);
    if (this.#open.size === 0) this.#emptied?.();
  }
}

/** Adds what a connection has counted. */
function count(
  { received, sent, copied, dropped }: Connection,
  figures: Pick<Figures, "bytesIn" | "bytesOut" | "bytesCopied" | "bytesDropped">,
): void {
  figures.bytesIn += received;
  figures.bytesOut += sent;
  figures.bytesCopied += copied;
  figures.bytesDropped += dropped;
}

/** Errors of peers and the network carry an errno; others are ours. */
const isNetworkError = (error: unknown): boolean => typeof (error as { errno?: unknown }).errno === "number";

/** After the peer's FIN, the kernel reports a reset as EPIPE (tcp_reset). */
const isReset = (error: unknown): boolean => {
  const { code } = error as { code?: unknown };
  return code === "ECONNRESET" || code === "EPIPE";
};
