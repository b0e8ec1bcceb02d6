/** What the library refuses, before anything changes. It changes when a call checks another argument. */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import * as socket from "../../../src/socket.ts";
import { closeAll, connection, failure, freeAddress, kept, server } from "../../support/sockets.ts";
import { key } from "../../support/tls.ts";

const { AF_INET, AF_INET6, AF_UNIX, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET } = socket;
const bytes = (text: string): Buffer => Buffer.from(text);

setDefaultTimeout(30_000);
afterEach(closeAll);

test("numbers that the kernel would truncate are refused before anything changes", async () => {
  const one = kept(socket.socket());
  const option = (value: number) => () => one.setsockopt(SOL_SOCKET, socket.SO_KEEPALIVE, value);
  for (const value of [2 ** 32 + 5, 2 ** 31]) expect(option(value)).toThrow(RangeError);
  for (const value of [1.5, NaN]) expect(option(value)).toThrow(TypeError);
  expect(one.getsockopt(SOL_SOCKET, socket.SO_KEEPALIVE)).toBe(0);
  expect(() => one.listen(2 ** 40)).toThrow(RangeError);
  for (const timeout of [Infinity, Number.MAX_VALUE, NaN]) {
    expect(() => one.settimeout(timeout)).toThrow(RangeError);
  }
  const six = kept(socket.socket(AF_INET6));
  for (const [flowinfo, scope] of [[NaN], [-1], [2 ** 20], [0, 2 ** 33]] as [number, number?][]) {
    expect(() => six.bind(["::1", 0, flowinfo, scope ?? 0])).toThrow(RangeError);
  }
  expect(await failure(() => socket.socket(AF_UNIX, 5))).toMatchObject({ code: "EOPNOTSUPP" });
  const wrong = "5" as unknown as number;
  expect(await failure(() => socket.create_connection(freeAddress(), wrong))).toBeInstanceOf(TypeError);
});

test("getaddrinfo without host and service, or with a protocol the type lacks, is a gaierror", async () => {
  const { getaddrinfo, IPPROTO_UDP } = socket;
  expect(await failure(() => getaddrinfo(null, null))).toMatchObject({ code: "EAI_NONAME" });
  expect(await failure(() => getaddrinfo("", 80))).toMatchObject({ code: "EAI_NONAME" });
  const mixed = () => getaddrinfo("127.0.0.1", 80, 0, SOCK_STREAM, IPPROTO_UDP);
  expect(await failure(mixed)).toMatchObject({ code: "EAI_SOCKTYPE" });
  expect(await failure(() => getaddrinfo("127.0.0.1", 80, 0, 0, 999))).toMatchObject({
    code: "EAI_SERVICE",
  });
});

describe("a signal that is none", () => {
  const wrong = { signal: 5 as unknown as AbortSignal };

  test("an invalid signal is refused before anything changes, and the connection works on", async () => {
    const { client, conn } = await connection();
    const space = new Uint8Array(9);
    for (const call of [
      () => conn.recv(9, wrong),
      () => conn.recv(9, 0, wrong),
      () => conn.recvfrom(9, wrong),
      () => conn.recv_into(space, wrong),
      () => conn.send(bytes("x"), wrong),
      () => conn.sendall(bytes("x"), wrong),
    ]) {
      expect(await failure(call)).toBeInstanceOf(TypeError);
    }
    await client.sendall(bytes("hello"));
    expect((await conn.recv(9)).toString()).toBe("hello");
    await conn.sendall(bytes("back"));
    expect((await client.recv(9)).toString()).toBe("back");
  });

  test("accept, connect, create_connection, sendto and getaddrinfo refuse an invalid signal", async () => {
    const { listener, address } = server();
    const one = kept(socket.socket());
    const two = kept(socket.socket(AF_INET, SOCK_DGRAM));
    two.bind(["127.0.0.1", 0]);
    for (const call of [
      () => listener.accept(wrong),
      () => one.connect(address, wrong),
      () => socket.create_connection(address, wrong),
      () => two.sendto(bytes("x"), two.getsockname(), wrong),
      () => socket.getaddrinfo("nobody.invalid", 80, 0, 0, 0, wrong),
    ]) {
      expect(await failure(call)).toBeInstanceOf(TypeError);
    }
    await one.connect(address);
    const [conn] = await listener.accept();
    await kept(conn).sendall(bytes("hello"));
    expect((await one.recv(9)).toString()).toBe("hello");
  });
});

test("a signal whose reason cannot become text still ends the call", async () => {
  const { conn } = await connection();
  const controller = new AbortController();
  const receiving = failure(() => conn.recv(9, { signal: controller.signal }));
  controller.abort(Object.create(null));
  expect(await receiving).toMatchObject({ name: "AbortError" });
});

test("create_connection names an invalid address", async () => {
  const none = undefined as unknown as [string, number];
  const error = await failure(() => socket.create_connection(none));
  expect(error).toBeInstanceOf(TypeError);
  expect(error.message).toStartWith("create_connection: ");
});

test("an invalid tls option is refused, and null means no TLS", async () => {
  const { listener, address } = server();
  for (const tls of [false, true, 5, "x", []] as unknown as socket.ConnectOptions["tls"][]) {
    expect(await failure(() => socket.create_connection(address, { tls }))).toBeInstanceOf(TypeError);
    expect(await failure(() => kept(socket.socket()).connect(address, { tls }))).toBeInstanceOf(TypeError);
  }
  const none = null as unknown as undefined;
  const client = kept(await socket.create_connection(address, { tls: none }));
  await client.sendall(bytes("plain"));
  const [conn] = await listener.accept();
  expect((await kept(conn).recv(9)).toString()).toBe("plain");
});

test("a value that cannot become text is refused with the library's own message", async () => {
  const { conn } = await connection();
  const none = Object.create(null) as number;
  for (const call of [
    () => conn.recv(none),
    () => conn.getsockopt(none, 1),
    () => conn.getsockopt(1, 2, none),
    () => conn.shutdown(none),
    () => socket.htonl(none),
    () => socket.getaddrinfo(none as unknown as string, 80),
    () => socket.getaddrinfo("127.0.0.1", none),
  ]) {
    const error = await failure(call);
    expect(error.message).toMatch(/^(recv|getsockopt|shutdown|htonl|getaddrinfo)\b.*\[object\]/);
  }
});

test("flags that are not a number are refused, and a null signal means none", async () => {
  const { conn, client } = await connection();
  const flags = "MSG_PEEK" as unknown as number;
  expect(await failure(() => conn.recv(9, flags))).toBeInstanceOf(TypeError);
  await client.sendall(bytes("here"), { signal: null as unknown as undefined });
  expect((await conn.recv(9, { signal: null as unknown as undefined })).toString()).toBe("here");
});

test("the error for an invalid tls option names what is missing and shows no secret", async () => {
  const address: [string, number] = ["127.0.0.1", 0];
  const text = "-----BEGIN PRIVATE KEY-----" as unknown as socket.TLS;
  const error = await failure(() => socket.create_connection(address, { tls: text }));
  expect(error.message).not.toContain("PRIVATE");
  const half = () => socket.create_server(address, { tls: { key } });
  expect(half).toThrow("create_server: tls is { key, cert } at least, and has no cert");
  const none = null as unknown as socket.TLS;
  expect(kept(socket.create_server(address, { tls: none })).getsockname()[1]).toBeGreaterThan(0);
});
