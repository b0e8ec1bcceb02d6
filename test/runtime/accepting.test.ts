/**
 * Bun on a copy of a listening descriptor, which engine/bun/acceptor.ts and echo/listening.ts
 * rely on.
 */
import { describe, expect, test } from "bun:test";
import { connect } from "node:net";
import * as k from "../../src/os/constants.ts";
import * as d from "../../src/os/descriptor.ts";
import { libc } from "../../src/os/libc.ts";
import { readable } from "../../src/os/descriptor.ts";
import { until } from "../support/peers.ts";

type WithFd = { readonly fd: number };

const number = (fd: number, level: number, option: number): number =>
  new DataView(d.getOption(fd, level, option, 4).buffer).getInt32(0, true);

function listening(): [fd: number, port: number] {
  const fd = d.openDescriptor(k.AF_INET, k.SOCK_STREAM, 0);
  d.bindDescriptor(fd, k.AF_INET, ["127.0.0.1", 0]);
  d.listenDescriptor(fd, 7);
  return [fd, (d.descriptorName(fd, "getsockname") as [string, number])[1]];
}

function bun(fd: number, open: (socket: Bun.Socket<undefined> & WithFd) => void, more: object = {}) {
  const options = { fd, allowHalfOpen: true, socket: { open, data() {} }, ...more };
  return Bun.listen(options as unknown as Bun.TCPSocketListenOptions<undefined>) as unknown as WithFd & {
    stop(all?: boolean): void;
  };
}

describe.skipIf(libc === undefined || process.platform !== "linux")("a listening descriptor", () => {
  test("a listener's options are inherited by what Bun accepts from a copy of it", async () => {
    const [fd, port] = listening();
    const set: [level: number, option: number, value: number][] = [
      [k.SOL_SOCKET, k.SO_OOBINLINE, 1],
      [k.SOL_SOCKET, k.SO_KEEPALIVE, 1],
      [k.IPPROTO_TCP, k.TCP_KEEPIDLE, 61],
      [k.IPPROTO_TCP, k.TCP_KEEPINTVL, 13],
      [k.IPPROTO_TCP, k.TCP_KEEPCNT, 4],
    ];
    for (const one of set) d.setOption(fd, ...one);
    const found: number[] = [];
    const listener = bun(d.duplicateDescriptor(fd, 0), (socket) => {
      for (const [level, option] of set) found.push(number(socket.fd, level, option));
      found.push(number(socket.fd, k.IPPROTO_TCP, k.TCP_NODELAY));
      socket.terminate();
    });
    const client = connect(port, "127.0.0.1").on("error", () => undefined);
    await until(() => found.length > 0, "accepted");
    expect(found).toEqual([...set.map(([, , value]) => value), 1]);
    client.destroy();
    listener.stop();
    d.closeDescriptor(fd);
  });

  test("a listener keeps its queue while Bun's copy is closed, and another copy gets it", async () => {
    const [fd, port] = listening();
    let opened = 0;
    const open = (socket: Bun.Socket<undefined>): void => {
      opened++;
      socket.terminate();
    };
    bun(d.duplicateDescriptor(fd, 0), open).stop(false);
    const client = connect(port, "127.0.0.1").on("error", () => undefined);
    await new Promise((resolve) => client.once("connect", resolve));
    // Two turns: nobody accepts it, and the loop does not even see it.
    for (let turns = 0; turns < 2; turns++) await new Promise((resolve) => setTimeout(resolve, 1));
    expect(opened).toBe(0);
    expect(readable(fd)).toBe(true);
    const listener = bun(d.duplicateDescriptor(fd, 0), open);
    // One turn of the event loop accepts whatever waits: a look and another one tell a failing accept from a
    // late one.
    await new Promise((resolve) => setTimeout(resolve, 1));
    expect(opened).toBe(1);
    expect(readable(fd)).toBe(false);
    client.destroy();
    listener.stop();
    d.closeDescriptor(fd);
  });

  test("each copy that Bun is given sets Bun's own backlog on the listener", () => {
    const [fd, port] = listening();
    const backlog = (): string | undefined =>
      Bun.spawnSync(["ss", "-ltnH", `sport = :${port}`])
        .stdout.toString()
        .split(/\s+/)[2];
    if (Bun.which("ss") !== null) expect(backlog()).toBe("7");
    const listener = bun(d.duplicateDescriptor(fd, 0), () => undefined);
    if (Bun.which("ss") !== null) expect(backlog()).toBe("511");
    listener.stop();
    d.closeDescriptor(fd);
  });

  test("a descriptor that Bun refuses stays open", () => {
    const [fd] = listening();
    const copy = d.duplicateDescriptor(fd, 0);
    expect(() => bun(copy, () => undefined, { tls: { key: "none", cert: "none" } })).toThrow();
    expect(d.descriptorName(copy, "getsockname")).toEqual(d.descriptorName(fd, "getsockname"));
    d.closeDescriptor(copy);
    d.closeDescriptor(fd);
  });
});
