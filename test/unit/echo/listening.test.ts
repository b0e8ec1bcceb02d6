/** The sockets that a server listens on, as its peers and the kernel see them. */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { connect } from "node:net";
import { SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET } from "../../../src/os/constants.ts";
import {
  bindDescriptor,
  closeDescriptor,
  descriptorName,
  listenDescriptor,
  openDescriptor,
  setOption,
} from "../../../src/os/descriptor.ts";
import type { Endpoint } from "../../../src/echo/endpoint.ts";
import { bunEngine } from "../../../src/engine/bun/engine.ts";
import { Listening } from "../../../src/echo/listening.ts";
import * as socket from "../../../src/socket.ts";
import { start } from "../../support/echo.ts";
import { exchange, pattern, until } from "../../support/peers.ts";
import { connected, hasRaw, MSG_OOB, rawPeer } from "../../support/raw-peer.ts";

setDefaultTimeout(30_000);

const FOUR: Endpoint = { family: socket.AF_INET, ip: "127.0.0.1", scopeid: 0, host: "127.0.0.1" };
const SIX: Endpoint = { family: socket.AF_INET6, ip: "::1", scopeid: 0, host: "::1" };
/** TEST-NET-2: no machine has it. */
const ELSEWHERE: Endpoint = { ...FOUR, ip: "198.51.100.1", host: "198.51.100.1" };

const hasSix = ((): boolean => {
  const fd = openDescriptor(socket.AF_INET6, SOCK_STREAM, 0);
  try {
    bindDescriptor(fd, socket.AF_INET6, ["::1", 0]);
    return true;
  } catch {
    return false;
  } finally {
    closeDescriptor(fd);
  }
})();

const closing: (() => void)[] = [];
afterEach(() => {
  for (const close of closing.splice(0)) close();
});

function listening(endpoints: Endpoint[], port = 0): Listening {
  const one = new Listening(bunEngine, endpoints, { port, keepalive: 0, open: () => undefined });
  closing.push(() => one.close());
  return one;
}

describe.skipIf(!hasRaw)("urgent bytes stay in their place in the stream", () => {
  test("urgent bytes stay in place, whether one, several, the first or the last", async () => {
    const { port } = await start();
    for (const pieces of [
      ["ABC", "!", "DEF"],
      ["!", "ABC"],
      ["ABC", "!"],
      ["!"],
      ["A!", "B!", "C!", "!", "!"],
    ]) {
      const one = await connected(port);
      for (const piece of pieces) {
        expect(one.send(Buffer.from(piece), 0, piece.includes("!") ? MSG_OOB : 0)).toBe(piece.length);
      }
      one.finish();
      expect((await one.rest()).toString()).toBe(pieces.join(""));
      expect(one.ended).toBe("FIN");
      one.close();
    }
  });

  test("an urgent byte stays in place among megabytes for a peer that does not read", async () => {
    const { port } = await start();
    const bytes = pattern(24 << 20);
    const one = await connected(port);
    let urgent = 0;
    let last = performance.now();
    await until(() => {
      for (;;) {
        const part = bytes.subarray(one.sent, one.sent + 10_000);
        if (one.send(part, 0, ++urgent % 3 === 0 ? MSG_OOB : 0) === 0) break;
        last = performance.now();
      }
      return performance.now() - last > 100;
    }, "the stream stalls");
    expect(urgent).toBeGreaterThan(10);
    expect((await one.exchange(bytes)).equals(bytes)).toBe(true);
    one.close();
  });

  test("urgent bytes stay in place under --reply tutorial", async () => {
    const { port } = await start({ reply: "tutorial" });
    const one = await connected(port);
    one.send(Buffer.from("AB!"), 0, MSG_OOB);
    one.finish();
    const got = (await one.rest())
      .toString()
      .replace(/^Welcome.*\n/, "")
      .replaceAll("OK...", "");
    expect(got).toBe("AB!");
    one.close();
  });

  test("the library leaves urgent bytes out of the stream, as Python does", async () => {
    const listener = socket.create_server(["127.0.0.1", 0]);
    closing.push(() => listener.close());
    const one = rawPeer(listener.getsockname()[1]);
    const [conn] = await listener.accept();
    expect(conn.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE)).toBe(0);
    one.close();
    conn.close();
  });
});

describe("several addresses", () => {
  test.skipIf(!hasSix)("several addresses are served on one port, which the kernel picks", async () => {
    const one = listening([FOUR, SIX]);
    expect(one.address).toBe(`127.0.0.1:${one.port} and [::1]:${one.port}`);
    for (const host of one.hosts) {
      const client = connect(one.port, host);
      await new Promise((resolve) => client.on("error", resolve).on("close", resolve));
      expect(client.bytesRead).toBe(0);
      client.destroy();
    }
    const { port } = one;
    one.close();
    closing.pop();
    expect(listening([SIX, FOUR], port).hosts).toEqual(["::1", "127.0.0.1"]);
  });

  test.skipIf(!hasSix)(
    "if one of several addresses is taken, the error names it and the other is released",
    () => {
      const fd = openDescriptor(socket.AF_INET6, SOCK_STREAM, 0);
      closing.push(() => closeDescriptor(fd));
      setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
      bindDescriptor(fd, socket.AF_INET6, ["::1", 0]);
      listenDescriptor(fd, 1);
      const [, port] = descriptorName(fd, "getsockname") as [string, number];
      expect(() => listening([FOUR, SIX], port)).toThrow(
        expect.objectContaining({ code: "EADDRINUSE", syscall: "listen", address: `[::1]:${port}` }),
      );
      expect(listening([FOUR], port).port).toBe(port);
    },
  );

  test("if this machine has only some of several addresses, those are served", () => {
    const one = listening([ELSEWHERE, FOUR]);
    expect(one.address).toBe(`127.0.0.1:${one.port}`);
    expect(() => listening([ELSEWHERE, { ...ELSEWHERE, ip: "198.51.100.2", host: "198.51.100.2" }])).toThrow(
      expect.objectContaining({ code: "EADDRNOTAVAIL" }),
    );
  });
});

test("a port still held by connections in TIME_WAIT can be bound again immediately", async () => {
  const server = await start();
  const client = connect(server.port, "127.0.0.1");
  client.write("x");
  await new Promise((resolve) => client.once("data", resolve));
  const ended = new Promise((resolve) => client.once("end", resolve));
  // The server ends first, and has the connection in TIME_WAIT.
  const stopped = server.stop(0);
  await ended;
  client.destroy();
  await stopped;
  const again = await start({ port: server.port });
  expect((await exchange(again.port, Buffer.from("again"))).toString()).toBe("again");
});

describe("keepalive", () => {
  for (const seconds of [-1, 1.5, 32_768, NaN]) {
    test(`a keepalive of ${seconds} seconds is refused`, () =>
      expect(start({ keepalive: seconds })).rejects.toThrow("keepalive: "));
  }

  test.skipIf(Bun.which("ss") === null)("keepalive is on by default and off with 0", async () => {
    for (const [options, timer] of [
      [{}, /timer:\(keepalive,(59|60|1min)/],
      [{ keepalive: 300 }, /timer:\(keepalive,(5min|4min59)/],
      [{ keepalive: 0 }, /^(?!.*timer)/],
    ] as const) {
      const { port } = await start(options);
      const client = connect(port, "127.0.0.1");
      client.write("x");
      await new Promise((resolve) => client.once("data", resolve));
      let shown = "";
      // Before the client has acknowledged the echo, another timer runs.
      await until(() => {
        const words = ["ss", "-tnoH", "state", "established", `sport = :${port}`];
        shown = Bun.spawnSync(words).stdout.toString().trim();
        return shown !== "" && !shown.includes("timer:(on");
      }, "the echo is acknowledged");
      expect(shown).toMatch(timer);
      client.destroy();
    }
  });
});
