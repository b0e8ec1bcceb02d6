/**
 * What the public types promise: `bun check` holds this file. A line under @ts-expect-error must not compile,
 * and if it ever does, the check fails. Nothing here is called: the functions exist for their types alone.
 */
import { expect, test } from "bun:test";
import * as socket from "../../../src/socket.ts";

/** Exactly the same type, neither wider nor narrower; `any` is the same as nothing but itself. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
type IsAny<T> = 0 extends 1 & T ? true : false;
/** Whether any hides in a type, in what it is a promise of, or in the members of an array or a tuple. */
type HasAny<T> =
  IsAny<T> extends true
    ? true
    : T extends Promise<infer Value>
      ? HasAny<Value>
      : T extends readonly (infer Member)[]
        ? IsAny<Member>
        : false;
/** Names of what is any, or takes any, or gives any. Of overloads the last one is seen. */
type AnyIn<T> = {
  [Name in keyof T]-?: IsAny<T[Name]> extends true
    ? Name
    : T[Name] extends (...args: infer Given) => infer Result
      ? true extends HasAny<Given> | HasAny<Result>
        ? Name
        : never
      : never;
}[keyof T];

/** Only compiles for `true`. */
const holds = <_ extends true>(): void => undefined;

type Inet = socket.Socket<socket.AF_INET>;
type Inet6 = socket.Socket<socket.AF_INET6>;
type Unix = socket.Socket<socket.AF_UNIX>;
type Result<F extends (...args: never[]) => unknown> = Awaited<ReturnType<F>>;

export function addresses(inet: Inet, inet6: Inet6, unix: Unix): void {
  holds<Same<ReturnType<Inet["getsockname"]>, [host: string, port: number]>>();
  holds<Same<ReturnType<Inet["getpeername"]>, [host: string, port: number]>>();
  holds<
    Same<ReturnType<Inet6["getsockname"]>, [host: string, port: number, flowinfo: number, scopeid: number]>
  >();
  holds<Same<ReturnType<Unix["getsockname"]>, string | Uint8Array>>();
  holds<Same<Result<Inet["accept"]>, [conn: Inet, address: [host: string, port: number]]>>();
  holds<Same<Result<Unix["accept"]>[1], string | Uint8Array>>();
  holds<Same<Result<Inet6["accept"]>[0], Inet6>>();

  inet.bind(["", 0]);
  inet6.bind(["::", 0]);
  inet6.bind(["::", 0, 0, 0]);
  unix.bind("/path");
  // @ts-expect-error a path is no IPv4 address
  inet.bind("/path");
  // @ts-expect-error a path is no IPv6 address
  inet6.bind("/path");
  // @ts-expect-error a host and a port are no path
  unix.bind(["127.0.0.1", 80]);
  // @ts-expect-error a port is a number
  inet.bind(["127.0.0.1", "80"]);
  // @ts-expect-error a host alone is no address
  inet.bind(["127.0.0.1"]);
  // @ts-expect-error an IPv4 address has two members
  inet.bind(["127.0.0.1", 80, 0, 0]);
  // @ts-expect-error the address is one argument
  inet.bind("127.0.0.1", 80);
  // @ts-expect-error as for bind
  void inet.connect("/path");
  // @ts-expect-error as for bind
  void unix.connect_ex(["127.0.0.1", 80]);
  // @ts-expect-error as for bind
  void inet.sendto(new Uint8Array(1), "/path");
}

export function families(): void {
  holds<Same<ReturnType<typeof made>, Inet>>();
  const made = () => socket.socket();
  const inet6 = socket.socket(socket.AF_INET6, socket.SOCK_STREAM);
  holds<Same<typeof inet6, Inet6>>();
  const unix = new socket.socket(socket.AF_UNIX);
  holds<Same<typeof unix, Unix>>();
  const pair = socket.socketpair();
  holds<Same<typeof pair, [Unix, Unix]>>();
  const server = socket.create_server(["::1", 0], { family: socket.AF_INET6 });
  holds<Same<ReturnType<typeof server.getsockname>[0 | 1], string | number>>();
  // @ts-expect-error a family is a constant of the module, not a word
  socket.socket("AF_INET");
  // @ts-expect-error any other number is no family
  socket.socket(2);
  // @ts-expect-error a Unix server has a path
  socket.create_server(["", 0], { family: socket.AF_UNIX });
  // @ts-expect-error IPv4 is the family where none is given
  socket.create_server("/path");
  // @ts-expect-error a service's address has a host and a port
  void socket.create_connection("localhost:80");
}

export function anyFamily(inet: Inet, inet6: Inet6, unix: Unix): void {
  const all: socket.Socket[] = [inet, inet6, unix, socket.socket()];
  const address: socket.Address = all[0]!.getsockname();
  holds<Same<typeof address, socket.Address<socket.AF_INET | socket.AF_INET6 | socket.AF_UNIX>>>();
}

export function bytes(s: Inet): void {
  holds<Same<ReturnType<Inet["recv"]>, Promise<Buffer>>>();
  holds<Same<ReturnType<Inet["send"]>, Promise<number>>>();
  holds<Same<ReturnType<Inet["sendall"]>, Promise<void>>>();
  holds<Same<ReturnType<Inet["recv_into"]>, Promise<number>>>();
  holds<Same<ReturnType<Inet["connect_ex"]>, Promise<number>>>();
  void s.send(new Uint8Array(1));
  void s.send(new ArrayBuffer(1));
  void s.sendall(new DataView(new ArrayBuffer(1)));
  // @ts-expect-error a string has no bytes until it is encoded
  void s.send("text");
  // @ts-expect-error likewise
  void s.sendall("text");
  // @ts-expect-error numbers in an array are no bytes
  void s.sendall([1, 2, 3]);
  // @ts-expect-error how much is wanted must be said
  void s.recv();
  // @ts-expect-error a size is a number
  void s.recv("1024");
  // @ts-expect-error a string cannot be filled
  void s.recv_into("buffer");
  // @ts-expect-error an abort controller is not its signal
  void s.recv(1, { signal: new AbortController() });
  // @ts-expect-error there is no such option
  void s.recv(1, { timeout: 5 });
}

export function settings(s: Inet): void {
  holds<Same<ReturnType<Inet["gettimeout"]>, number | null>>();
  const number = s.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE);
  holds<Same<typeof number, number>>();
  const struct = s.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8);
  holds<Same<typeof struct, Buffer>>();
  s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, true);
  s.settimeout(null);
  // @ts-expect-error a timeout is a number of seconds
  s.settimeout("1");
  // @ts-expect-error null is for ever; nothing is no answer
  s.settimeout();
  // @ts-expect-error an option's value is a number or bytes
  s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, "on");
  // @ts-expect-error the kernel says what a socket's family is
  s.family = socket.AF_INET;
  // @ts-expect-error what is done at once has nothing to await
  void s.close().then(() => undefined);
}

export async function loops(listener: socket.ListeningSocket<socket.AF_INET>, s: Inet): Promise<void> {
  for await (const [conn, address] of listener) {
    holds<Same<typeof conn, Inet>>();
    holds<Same<typeof address, [host: string, port: number]>>();
  }
  for await (const data of s) holds<Same<typeof data, Buffer>>();
}

export function errors(): void {
  holds<Same<typeof socket.error, typeof socket.OSError>>();
  holds<Same<typeof socket.timeout, typeof socket.TimeoutError>>();
  const refused: socket.OSError = new socket.ConnectionRefusedError({
    code: "ECONNREFUSED",
    syscall: "connect",
  });
  holds<Same<typeof refused.errno, number>>();
  holds<Same<typeof refused.code | typeof refused.strerror | typeof refused.syscall, string>>();
}

export function noAny(): void {
  // The measure itself must see one.
  holds<
    Same<AnyIn<{ a: unknown; b(c: unknown[]): Promise<any[]>; d: (e: any) => void; f: any }>, "b" | "d" | "f">
  >();
  holds<Same<AnyIn<typeof socket>, never>>();
  holds<Same<AnyIn<Inet>, never>>();
  holds<Same<AnyIn<Inet6>, never>>();
  holds<Same<AnyIn<Unix>, never>>();
  holds<Same<AnyIn<socket.ListeningSocket<socket.AF_INET>>, never>>();
  holds<Same<AnyIn<socket.OSError>, never>>();
}

test("the public types are as this file says (bun check verifies them)", () => {
  for (const held of [addresses, families, anyFamily, bytes, settings, loops, errors, noAny])
    expect(held).toBeFunction();
});
