/**
 * The echo service on a listening socket: whom it serves, within which limits, what it counts, and how it stops.
 * It changes when a limit or the order of a stop changes.
 */
import { readdirSync } from "node:fs";
import { addressText } from "../net/address.ts";
import { Connection, connectionEvents, type ConnectionUser } from "../net/connection.ts";
import { asOSError, osError, type OSError } from "../net/errors.ts";
import { descriptorLimit, setBacklog, setReceiveBuffer, SPARE_DESCRIPTORS } from "../net/libc.ts";
import { RingPool } from "../net/ring-buffer.ts";
import { streamSocket } from "../net/stream-socket.ts";
import { replyNamed, type ReplyName } from "./reply.ts";

export interface EchoOptions {
  /** An address, a name, or "" for every interface. */
  host: string;
  /** 0 to 65535; 0 picks a free one. */
  port: number;
  reply: ReplyName;
  /** The largest slice that one recv gives, in bytes. Default: raw, the chunk as it came; tutorial, 1024. */
  recvSize?: number;
  /** Bytes held for a peer that does not read; one chunk (at most 512 KiB) may come on top. */
  ring: number;
  /** SO_RCVBUF of every connection, in bytes. Default: the kernel's own tuning. */
  receiveBuffer?: number;
  /** Connections that the kernel keeps waiting. Default: Bun's own, 512. */
  backlog?: number;
  /** Default: what the descriptor limit allows, see connectionLimit(). */
  maxConnections?: number;
  /** Seconds of silence after which the kernel probes a peer (SO_KEEPALIVE); 0 never. Default: 0. */
  keepalive?: number;
  /** Seconds after which a peer that moves no byte is closed; 0 never. */
  idleTimeout: number;
  /** Told of an error that is no network error: a defect here. Its connection has been closed. */
  onDefect?: (error: unknown) => void;
}

/** All numbers count from the start, but for `open` and `held`, which are of now. */
export interface Figures {
  connections: number;
  open: number;
  /** Reset at once, because maxConnections were open. */
  refused: number;
  /** Ended by an error, bytes lost: a peer's reset mostly, or ours, of a peer that did not take what it was owed. */
  broken: number;
  bytesIn: number;
  bytesOut: number;
  bytesCopied: number;
  /** Sent by peers when we had sent them FIN, at an idle timeout or a stop, and not echoed. */
  bytesDropped: number;
  held: number;
}

/** The least soft limit that is common, for where it cannot be asked. */
const COMMON_DESCRIPTOR_LIMIT = 1024;
/** How long a peer that we have sent FIN may go on sending, outside a stop. */
const LINGER_MS = 2_000;
/**
 * In a stop, a peer from which nothing has come for so long has nothing more under way: longer than a long-distance
 * round trip, a first retransmission, or a client that was busy with something else. With 250 ms, clients on a
 * machine with four times as much to do as cores were cut off.
 */
const QUIET_MS = 1_000;
const STOP_SWEEP_MS = 50;

/** How many connections can be open at once, by the descriptor limit less what is open now and some to spare. */
export function connectionLimit(): number {
  const limit = descriptorLimit() ?? COMMON_DESCRIPTOR_LIMIT;
  return Math.max(0, limit - openDescriptors() - SPARE_DESCRIPTORS);
}

function openDescriptors(): number {
  try {
    return readdirSync("/dev/fd").length;
  } catch {
    // A system without /dev/fd: about as many as Bun opens for itself.
    return SPARE_DESCRIPTORS;
  }
}

type Listener = Bun.TCPSocketListener<Connection> & { readonly fd?: number };

export class EchoServer {
  readonly host: string;
  readonly port: number;

  readonly #listener: Listener;
  readonly #open = new Set<Connection>();
  readonly #user: ConnectionUser;
  readonly #idleMs: number;
  /** How often idle connections are looked for. */
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
  #sweeper: NodeJS.Timeout | undefined;
  #stopping: Promise<void> | undefined;
  #emptied: (() => void) | undefined;

  /**
   * Starts to listen.
   * @throws RangeError for an option out of range; OSError when the address cannot be had or the kernel refuses
   */
  static async listen(options: EchoOptions): Promise<EchoServer> {
    const most = connectionLimit();
    if (most === 0) {
      const reason = "the descriptor limit leaves no room for a connection: raise it with ulimit -n";
      throw osError({
        code: "EMFILE",
        syscall: "listen",
        address: addressText([options.host, options.port]),
        reason,
      });
    }
    const max = options.maxConnections ?? most;
    if (!(max >= 1 && max <= most)) {
      throw new RangeError(
        `maxConnections: ${max} is not from 1 to ${most}, which the descriptor limit allows`,
      );
    }
    const all = await addresses(options.host);
    for (const [i, host] of all.entries()) {
      try {
        return new EchoServer(options, host, max);
      } catch (error) {
        // A machine without IPv6 has no "::", and every interface is then every IPv4 interface; "localhost" likewise.
        const elsewhere =
          (error as OSError).code === "EADDRNOTAVAIL" || (error as OSError).code === "EAFNOSUPPORT";
        if (!elsewhere || i === all.length - 1) throw error;
      }
    }
    throw osError({
      code: "EADDRNOTAVAIL",
      syscall: "listen",
      address: addressText([options.host, options.port]),
    });
  }

  private constructor(options: EchoOptions, host: string, maxConnections: number) {
    const reply = replyNamed(options.reply, options.recvSize);
    const { onDefect } = options;
    this.#idleMs = options.idleTimeout * 1000;
    this.#sweepMs = Math.min(1000, Math.max(50, this.#idleMs / 4));
    this.#user = {
      received: reply.received,
      drained: reply.drained,
      ended: (connection) => connection.finish(),
      closed: (connection, error) => {
        this.#forget(connection);
        if (error === undefined) return;
        this.#figures.broken++;
        if (!isNetworkError(error)) onDefect?.(error);
      },
    };
    const rings = new RingPool(options.ring);
    this.#listener = listen(host, options.port, (socket) => {
      if (this.#open.size >= maxConnections) {
        this.#figures.refused++;
        socket.terminate();
        return;
      }
      this.#figures.connections++;
      const connection = new Connection(streamSocket(socket), this.#user, rings);
      // The first sweep adds a whole period, however shortly before it the connection came.
      connection.quiet = -this.#sweepMs;
      socket.data = connection;
      this.#open.add(connection);
      reply.opened(connection);
    });
    this.host = host;
    this.port = this.#listener.port;
    try {
      tune(this.#listener, options);
    } catch (error) {
      this.#listener.stop(true);
      throw error;
    }
    if (this.#idleMs > 0) this.#sweepEvery(this.#sweepMs);
  }

  get address(): string {
    return addressText([this.host, this.port]);
  }

  get figures(): Figures {
    let { bytesIn, bytesOut, bytesCopied, bytesDropped } = this.#figures;
    let held = 0;
    for (const connection of this.#open) {
      bytesIn += connection.received;
      bytesOut += connection.sent;
      bytesCopied += connection.copied;
      bytesDropped += connection.dropped;
      held += connection.held;
    }
    return { ...this.#figures, open: this.#open.size, bytesIn, bytesOut, bytesCopied, bytesDropped, held };
  }

  /**
   * Stops listening, and ends every connection without dropping a byte that its peer has sent: it is served until
   * it has been quiet for a moment and nothing is held for it, then it is sent FIN and closed at its own FIN.
   * @param timeout seconds to wait for peers that stay; then they are closed, with a reset where bytes are held.
   *   In the last 2 of them (or the last half), a peer that goes on sending is sent FIN as well, as soon as nothing is
   *   held for it; what it sends then is read, dropped and counted, so that no reset takes from it what it has not read.
   * @returns when every connection is closed; calling it again gives the same promise
   */
  stop(timeout: number): Promise<void> {
    return (this.#stopping ??= this.#stop(timeout * 1000));
  }

  async #stop(timeoutMs: number): Promise<void> {
    // The connections that the kernel has accepted already may have sent something: one turn of the event loop
    // lets Bun accept them all. Without it, closing the listener would reset them.
    await new Promise((resolve) => setTimeout(resolve, 1));
    this.#listener.stop(false);
    if (this.#open.size === 0) return clearInterval(this.#sweeper);
    const emptied = new Promise<void>((resolve) => {
      this.#emptied = resolve;
    });
    const finishAll = timeoutMs - Math.min(LINGER_MS, timeoutMs / 2);
    const lingering = new Set<Connection>();
    for (const connection of this.#open) {
      connection.quiet = 0;
      if (connection.lingering) lingering.add(connection);
    }
    let last = performance.now();
    let elapsed = 0;
    const look = (): void => {
      const now = performance.now();
      // A process that was stopped for a while has not given its peers that time.
      elapsed += Math.min(now - last, 2 * STOP_SWEEP_MS);
      last = now;
    };
    this.#sweepEvery(
      STOP_SWEEP_MS,
      (connection, quiet) => {
        if (elapsed >= timeoutMs) this.#expel(connection);
        else if (lingering.has(connection) && connection.lingered >= LINGER_MS) connection.close();
        else if (elapsed >= finishAll || (quiet >= QUIET_MS && connection.held === 0)) connection.finish();
      },
      look,
    );
    await emptied;
    clearInterval(this.#sweeper);
  }

  /** One timer looks at all connections. Outside a stop it ends those that are idle or linger too long. */
  #sweepEvery(
    period: number,
    judge = (connection: Connection, quiet: number): void => {
      // What the kernel holds when quiet begins is what it is compared with in the end: asked only then, a peer that
      // takes nothing would have twice the time.
      if (quiet === period && quiet < this.#idleMs) connection.delivering();
      if (connection.lingered >= LINGER_MS) connection.close();
      else if (quiet < this.#idleMs || connection.lingering || connection.delivering()) return;
      else if (connection.held > 0) connection.abort(timedOut());
      else connection.finish();
    },
    look = (): void => undefined,
  ): void {
    clearInterval(this.#sweeper);
    this.#sweeper = setInterval(() => {
      look();
      for (const connection of this.#open) judge(connection, connection.age(period));
    }, period);
  }

  /** A clean end would tell the peer that it has everything: where bytes are held it gets a reset. */
  #expel(connection: Connection): void {
    if (connection.held > 0) connection.abort(timedOut());
    else connection.close();
  }

  #forget(connection: Connection): void {
    this.#open.delete(connection);
    this.#figures.bytesIn += connection.received;
    this.#figures.bytesOut += connection.sent;
    this.#figures.bytesCopied += connection.copied;
    this.#figures.bytesDropped += connection.dropped;
    if (this.#open.size === 0) this.#emptied?.();
  }
}

/** What a host stands for, as addresses to try in turn. Bun.listen resolves too, but does not say what is wrong. */
async function addresses(host: string): Promise<[string, ...string[]]> {
  if (host === "") return ["::", "0.0.0.0"];
  try {
    const found = await Bun.dns.lookup(host);
    return found.map(({ address }) => address) as [string, ...string[]];
  } catch (error) {
    const code = String((error as { code?: unknown }).code).replace(/^DNS_/, "");
    throw osError({ code, syscall: "getaddrinfo", address: host, reason: "unknown host", cause: error });
  }
}

function listen(host: string, port: number, open: (socket: Bun.Socket<Connection>) => void): Listener {
  try {
    return Bun.listen<Connection>({
      hostname: host,
      port,
      // Without it, Bun closes the socket at the peer's FIN, and what is still held is lost.
      allowHalfOpen: true,
      socket: { ...connectionEvents, open },
    });
  } catch (error) {
    throw asOSError(error, "listen", addressText([host, port]));
  }
}

/** Bun sets neither: it ignores its own backlog option, and has none for SO_RCVBUF. */
function tune({ fd }: Listener, { backlog, receiveBuffer }: EchoOptions): void {
  if (backlog === undefined && receiveBuffer === undefined) return;
  if (fd === undefined) {
    throw osError({ code: "ENOSYS", syscall: "listen", reason: "this Bun does not tell the descriptor" });
  }
  if (backlog !== undefined) setBacklog(fd, backlog);
  if (receiveBuffer !== undefined) setReceiveBuffer(fd, receiveBuffer);
}

const timedOut = (): OSError =>
  osError({ code: "ETIMEDOUT", syscall: "send", reason: "the peer does not take what it is owed" });

/** What a peer or the network can cause carries an errno; what does not is ours. */
const isNetworkError = (error: unknown): boolean => typeof (error as { errno?: unknown }).errno === "number";
