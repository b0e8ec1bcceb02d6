/** The constants of Python's module, and the flags that recv and send support. */
import { afterEach, describe, expect, test } from "bun:test";
import * as socket from "../../../src/socket.ts";
import { closeAll, failure, kept } from "../../support/sockets.ts";

afterEach(closeAll);

function pair() {
  const [a, b] = socket.socketpair();
  return [kept(a), kept(b)] as const;
}

const python = Bun.which("python3");

test.skipIf(python === null || process.platform !== "linux")(
  "every number of Python's module exists and has the same value",
  () => {
    const program =
      "import socket, json; print(json.dumps({n: int(getattr(socket, n)) for n in dir(socket) if n.isupper() and isinstance(getattr(socket, n), int)}))";
    const theirs = JSON.parse(Bun.spawnSync([python!, "-c", program]).stdout.toString()) as Record<
      string,
      number
    >;
    for (const name of ["EBADF", "EAGAIN", "EWOULDBLOCK", "SOMAXCONN"]) delete theirs[name];
    const ours = socket as unknown as Record<string, unknown>;
    const wrong = Object.entries(theirs).filter(([name, number]) => ours[name] !== number);
    expect(wrong).toEqual([]);
  },
);

describe("MSG_WAITALL", () => {
  test("MSG_WAITALL waits for all bytes, however many pieces they arrive in", async () => {
    const [a, b] = pair();
    const whole = b.recv(9, socket.MSG_WAITALL);
    for (const piece of ["abc", "def", "ghi-rest"]) {
      await a.sendall(Buffer.from(piece));
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect((await whole).toString()).toBe("abcdefghi");
    expect((await b.recv(100)).toString()).toBe("-rest");
  });

  test("MSG_WAITALL returns what there is at the end, then the end", async () => {
    const [a, b] = pair();
    await a.sendall(Buffer.from("abc"));
    a.shutdown(socket.SHUT_WR);
    expect((await b.recv(9, socket.MSG_WAITALL)).toString()).toBe("abc");
    expect((await b.recv(9, socket.MSG_WAITALL)).length).toBe(0);
  });

  test("MSG_WAITALL loses nothing at a timeout or an abort: the next call returns it", async () => {
    const [a, b] = pair();
    b.settimeout(0.02);
    await a.sendall(Buffer.from("abc"));
    expect(await failure(() => b.recv(9, socket.MSG_WAITALL))).toBeInstanceOf(socket.TimeoutError);
    b.settimeout(null);
    const abort = new AbortController();
    const waiting = failure(() => b.recv(9, socket.MSG_WAITALL, { signal: abort.signal }));
    abort.abort();
    expect((await waiting).name).toBe("AbortError");
    await a.sendall(Buffer.from("def"));
    expect((await b.recv(6, socket.MSG_WAITALL)).toString()).toBe("abcdef");
  });

  test("MSG_WAITALL returns what came before a reset, and the next call throws the reset", async () => {
    const listener = kept(socket.create_server(["127.0.0.1", 0]));
    const client = kept(await socket.create_connection(listener.getsockname()));
    const [conn] = await listener.accept();
    kept(conn);
    await client.sendall(Buffer.from("abc"));
    const whole = conn.recv(9, socket.MSG_WAITALL);
    await new Promise((resolve) => setTimeout(resolve, 20));
    client[Symbol.dispose]();
    expect((await whole).toString()).toBe("abc");
    expect(await failure(() => conn.recv(9))).toBeInstanceOf(socket.ConnectionResetError);
  });

  test("MSG_WAITALL blocks other reads until it is done", async () => {
    const [a, b] = pair();
    const whole = b.recv(4, socket.MSG_WAITALL);
    expect(await failure(() => b.recv(1))).toMatchObject({ code: "EBUSY" });
    expect(await failure(() => b.recv(4, socket.MSG_WAITALL))).toMatchObject({ code: "EBUSY" });
    await a.sendall(Buffer.from("abcd"));
    expect((await whole).toString()).toBe("abcd");
  });
});

describe("MSG_DONTWAIT", () => {
  test("MSG_DONTWAIT does not wait, even on a blocking socket", async () => {
    const [a, b] = pair();
    expect(await failure(() => b.recv(1, socket.MSG_DONTWAIT))).toBeInstanceOf(socket.BlockingIOError);
    expect(await failure(() => b.recv_into(Buffer.alloc(1), 1, socket.MSG_DONTWAIT))).toMatchObject({
      code: "EAGAIN",
    });
    expect(await a.send(Buffer.from("x"), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)).toBe(1);
    expect((await b.recv(1)).toString()).toBe("x");
  });
});

test("unsupported flags are refused by name before anything happens", async () => {
  const [, b] = pair();
  expect((await failure(() => b.recv(1, socket.MSG_PEEK))).message).toContain("MSG_PEEK");
  expect((await failure(() => b.recv_into(Buffer.alloc(1), 1, socket.MSG_WAITALL))).message).toContain(
    "MSG_WAITALL",
  );
  for (const [family, type, name] of [
    [socket.AF_UNIX, socket.SOCK_SEQPACKET, "SOCK_SEQPACKET"],
    [socket.AF_NETLINK, socket.SOCK_DGRAM, "AF_NETLINK"],
    [socket.AF_VSOCK, socket.SOCK_STREAM, "AF_VSOCK"],
  ] as const) {
    expect((await failure(() => socket.socket(family as socket.AF_INET, type))).message).toContain(name);
  }
});
