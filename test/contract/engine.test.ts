/**
 * The contract of engines (src/engine/engine.ts), line by line, on real sockets. A new engine is added to
 * ENGINES.
 */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import type { Transport, TransportEvents } from "../../src/core/transport.ts";
import { bunEngine } from "../../src/engine/bun/engine.ts";
import type { Acceptor, Engine } from "../../src/engine/engine.ts";
import { AF_INET, SOCK_DGRAM, SOCK_STREAM } from "../../src/os/constants.ts";
import {
  bindDescriptor,
  closeDescriptor,
  connectDescriptor,
  descriptorName,
  listenDescriptor,
  openDescriptor,
  openPair,
  sendDatagram,
} from "../../src/os/descriptor.ts";
import { AF_UNIX } from "../../src/os/constants.ts";
import { encodeAddress } from "../../src/os/address.ts";
import { pattern, peer, until } from "../support/peers.ts";

setDefaultTimeout(30_000);

const ENGINES: readonly Engine[] = [bunEngine];

const closing: (() => void)[] = [];
afterEach(() => {
  for (const close of closing.splice(0)) close();
});

/** The events of one transport, as they came. */
class Recorder implements TransportEvents {
  readonly transport: Transport;
  readonly log: string[] = [];
  drains = 0;
  readonly chunks: Uint8Array[] = [];
  /** Called with each event's name, in the event. */
  during: (event: string) => void = () => undefined;

  constructor(transport: Transport) {
    this.transport = transport;
  }

  get bytes(): Buffer {
    return Buffer.concat(this.chunks);
  }

  #note(event: string): void {
    this.log.push(event);
    this.during(event);
  }

  onOpen(): void {
    this.#note("open");
  }

  onData(chunk: Uint8Array): void {
    this.chunks.push(chunk);
    if (this.log.at(-1) !== "data") this.#note("data");
    else this.during("data");
  }

  /** May come for nothing. */
  onDrain(): void {
    this.drains++;
  }

  onEnd(): void {
    this.#note("end");
  }

  onClose(error: unknown): void {
    const code = (error as { code?: string } | undefined)?.code;
    this.#note(error === undefined ? "close" : `close ${code}`);
  }

  abort(error: unknown): void {
    this.log.push(`abort ${(error as Error).message}`);
    this.transport.terminate();
  }
}

for (const engine of ENGINES) {
  /** Listens, and records every connection that `admit` lets in. */
  function listen(admit: (one: Recorder) => boolean = () => true) {
    const fd = openDescriptor(AF_INET, SOCK_STREAM, 0);
    bindDescriptor(fd, AF_INET, ["127.0.0.1", 0]);
    const [, port] = descriptorName(fd, "getsockname") as [string, number];
    const opened: Recorder[] = [];
    const acceptor: Acceptor = engine.listen(fd, {
      backlog: 16,
      open(transport) {
        const one = new Recorder(transport);
        if (!admit(one)) return undefined;
        opened.push(one);
        return one;
      },
    });
    closing.push(() => acceptor.close());
    return { port, opened, acceptor };
  }

  /** A client, and the record of the server's end. */
  async function pair(admit?: (one: Recorder) => boolean) {
    const { port, opened } = listen(admit);
    const client = await peer(port);
    closing.push(() => client.socket.destroy());
    await until(() => opened.length === 1, "the server's end is open");
    return { client, served: opened[0]! };
  }

  describe(`the ${engine.name} engine`, () => {
    test("opens before any other event", async () => {
      const { client, served } = await pair();
      client.socket.end("x");
      await until(() => served.log.includes("end"), "the FIN");
      expect(served.log.slice(0, 3)).toEqual(["open", "data", "end"]);
    });

    test("resets a connection that is refused, and reports no event of it", async () => {
      const { port, opened } = listen(() => false);
      const ended = await peer(port).then(
        (client) => client.ended,
        (error: NodeJS.ErrnoException) => error.code,
      );
      expect(["ECONNRESET", "closed"]).toContain(ended!);
      expect(opened).toEqual([]);
    });

    test("delivers bytes in order, each once, in memory that it does not touch again", async () => {
      const { client, served } = await pair();
      const bytes = pattern(3 << 20);
      client.socket.end(bytes);
      await until(() => served.log.includes("end"), "all bytes");
      expect(served.bytes.equals(bytes)).toBe(true);
    });

    test("delivers nothing between pause() and resume()", async () => {
      const { client, served } = await pair((one) => {
        one.during = (event) => event === "open" && one.transport.pause();
        return true;
      });
      client.socket.write("waits");
      await Bun.sleep(20);
      expect(served.log).toEqual(["open"]);
      served.transport.resume();
      await until(() => served.bytes.length === 5, "the bytes");
    });

    test("announces room by a drain after a short write", async () => {
      const { client, served } = await pair();
      client.socket.pause();
      const block = pattern(1 << 16);
      expect(served.transport.write(block, 0, 10)).toBe(10);
      let sent = 10;
      for (let taken = block.length; taken === block.length; sent += taken)
        taken = served.transport.write(block, 0, block.length);
      await Bun.sleep(20);
      const { drains } = served;
      client.socket.resume();
      await until(() => client.count === sent, "the client has read everything");
      await until(() => served.drains > drains, "the drain");
      expect(served.log).toEqual(["open"]);
    });

    test("keeps the other direction open after the peer's FIN, and closes when both FINs are out", async () => {
      const { client, served } = await pair();
      client.socket.end("bye");
      await until(() => served.log.includes("end"), "the FIN");
      expect(served.transport.write(Buffer.from("late"), 0, 4)).toBe(4);
      served.transport.shutdown();
      expect(await client.ended).toBe("FIN");
      expect(`${client.got}`).toBe("late");
      await until(() => served.log.includes("close"), "the close");
      expect(served.log).toEqual(["open", "data", "end", "close"]);
    });

    test("closes before terminate() and end() return, and reports nothing after that", async () => {
      for (const call of ["terminate", "end"] as const) {
        const { client, served } = await pair();
        client.socket.write("never read");
        served.transport[call]();
        expect(served.log.at(-1)).toBe("close");
        expect(served.transport.fd).toBe(-1);
        const { length } = served.log;
        await client.ended;
        await Bun.sleep(5);
        expect(served.log).toHaveLength(length);
      }
    });

    test("reports a reset as a close with its error", async () => {
      const { client, served } = await pair();
      client.socket.resetAndDestroy();
      await until(() => served.log.some((event) => event.startsWith("close")), "the reset");
      expect(served.log.at(-1)).toBe("close ECONNRESET");
    });

    test("gives what an event throws to abort() of that connection alone", async () => {
      const { port, opened } = listen();
      const [doomed, other] = [await peer(port), await peer(port)];
      await until(() => opened.length === 2, "both are open");
      opened[0]!.during = () => {
        throw new Error("on purpose");
      };
      doomed.socket.write("x");
      other.socket.write("y");
      await until(() => opened[1]!.bytes.length === 1, "the other one is served");
      expect(await doomed.ended).toBe("ECONNRESET");
      expect(opened[0]!.log).toContain("abort on purpose");
      other.socket.destroy();
    });

    test("frees the port and resets waiting connections at close()", async () => {
      const { port, acceptor } = listen();
      acceptor.close();
      closing.pop();
      const again = openDescriptor(AF_INET, SOCK_STREAM, 0);
      bindDescriptor(again, AF_INET, ["127.0.0.1", port]);
      closeDescriptor(again);
    });

    test("connect: established once, or failed with the error and nothing established", async () => {
      const { port } = listen();
      const connect = async (to: number): Promise<[string, Recorder | undefined]> => {
        const fd = openDescriptor(AF_INET, SOCK_STREAM, 0);
        const connected = connectDescriptor(fd, AF_INET, ["127.0.0.1", to]);
        let one: Recorder | undefined;
        const { promise, resolve } = Promise.withResolvers<string>();
        engine.connect(fd, {
          connected,
          open: (transport) => (one = new Recorder(transport)),
          established: () => resolve("established"),
          failed: (error) => resolve((error as { code: string }).code),
        });
        const how = await promise;
        return [how, one];
      };
      const [how, one] = await connect(port);
      expect(how).toBe("established");
      one!.transport.terminate();
      const unused = openDescriptor(AF_INET, SOCK_STREAM, 0);
      bindDescriptor(unused, AF_INET, ["127.0.0.1", 0]);
      const [, refused] = descriptorName(unused, "getsockname") as [string, number];
      expect((await connect(refused))[0]).toBe("ECONNREFUSED");
      closeDescriptor(unused);
    });

    test("adopt: open is called before it returns", async () => {
      const [a, b] = openPair(AF_UNIX, SOCK_STREAM, 0);
      const ends: Recorder[] = [];
      for (const fd of [a, b]) {
        engine.adopt(fd, (transport) => (ends[ends.length] = new Recorder(transport)));
      }
      expect(ends.map(({ log }) => log)).toEqual([["open"], ["open"]]);
      ends[0]!.transport.write(Buffer.from("there"), 0, 5);
      await until(() => ends[1]!.bytes.length === 5, "the bytes");
      for (const { transport } of ends) transport.end();
    });

    test("receive: datagrams whole, with their senders", async () => {
      const fd = openDescriptor(AF_INET, SOCK_DGRAM, 0);
      bindDescriptor(fd, AF_INET, ["127.0.0.1", 0]);
      const own = descriptorName(fd, "getsockname") as [string, number];
      const got: string[] = [];
      const receiving = engine.receive(fd, {
        onDatagram: (bytes, host, port) => void got.push(`${bytes} from ${host}:${port}`),
        onError: (error) => void got.push(error.code),
      });
      closing.push(() => receiving.close());
      sendDatagram(fd, Buffer.from("self"), encodeAddress(AF_INET, own));
      await until(() => got.length === 1, "the datagram");
      expect(got).toEqual([`self from 127.0.0.1:${own[1]}`]);
    });

    test.skipIf(process.platform !== "linux")("watch: calls back once, or never after close()", async () => {
      const fd = openDescriptor(AF_INET, SOCK_STREAM, 0);
      closing.push(() => closeDescriptor(fd));
      bindDescriptor(fd, AF_INET, ["127.0.0.1", 0]);
      listenDescriptor(fd, 4);
      const [, port] = descriptorName(fd, "getsockname") as [string, number];
      let [called, off] = [0, 0];
      engine.watch(fd, () => off++).close();
      engine.watch(fd, () => called++);
      const client = await peer(port);
      await until(() => called === 1, "the call");
      await Bun.sleep(5);
      expect([called, off]).toEqual([1, 0]);
      client.socket.destroy();
    });

    test("time: goes on, calls back later, and not once cancelled", async () => {
      const { time } = engine;
      const began = time.now();
      const calls: string[] = [];
      const cancelled = time.after(1, () => calls.push("cancelled"), true);
      cancelled.cancel();
      cancelled.cancel();
      await new Promise<void>((resolve) => {
        time.nextTurn(() => void calls.push("turn"));
        expect(calls).toEqual([]);
        time.after(5, resolve, true);
      });
      expect(calls).toEqual(["turn"]);
      expect(time.now() - began).toBeGreaterThanOrEqual(4);
      await new Promise<void>((resolve) => {
        const every = time.every(1, () => {
          if (calls.push("every") < 4) return;
          every.cancel();
          resolve();
        });
      });
      await new Promise<void>((resolve) => void time.after(5, resolve, true));
      expect(calls).toEqual(["turn", "every", "every", "every"]);
    });
  });
}
