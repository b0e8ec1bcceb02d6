/** Unix addresses: text and bytes, to the kernel and back. */
import { afterEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as socket from "../../../src/socket.ts";
import { closeAll, failure, kept } from "../../support/sockets.ts";

const { AF_UNIX } = socket;
const linux = process.platform === "linux";

const folder = mkdtempSync(join(tmpdir(), "unix-"));
afterEach(() => {
  closeAll();
  for (const name of ["a", "ä", "\u{1f600}"]) rmSync(join(folder, name), { force: true });
});

/** What the socket is called after it was bound so. */
function bound(address: string | Uint8Array): string | Uint8Array {
  const one = kept(socket.socket(AF_UNIX));
  one.bind(address);
  return one.getsockname();
}

describe("a path", () => {
  test("a Unix path may be text or bytes and comes back as text", () => {
    for (const path of [join(folder, "ä"), join(folder, "\u{1f600}")]) expect(bound(path)).toBe(path);
    expect(bound(new TextEncoder().encode(join(folder, "a")))).toBe(join(folder, "a"));
  });

  test.skipIf(!linux)("a Unix path that is not UTF-8 comes back as bytes that connect accepts", async () => {
    const path = Buffer.from(`${folder}/\xff`, "latin1");
    const listener = kept(socket.create_server(path, { family: AF_UNIX }));
    const name = listener.getsockname();
    expect(name).toEqual(path);
    const client = kept(socket.socket(AF_UNIX));
    await client.connect(name);
    expect(client.getpeername()).toEqual(path);
    rmSync(path as unknown as string);
  });

  test("a Unix path with a lone surrogate or a zero byte is refused before anything is bound", async () => {
    const one = kept(socket.socket(AF_UNIX));
    for (const path of [`${folder}/\udcff`, "\ud800", "\0\ud800", `${folder}/a\0b`, Buffer.from("a\0b")]) {
      expect(() => one.bind(path)).toThrow(RangeError);
      expect(await failure(() => one.connect(path))).toBeInstanceOf(RangeError);
    }
    expect(one.getsockname()).toBe("");
  });

  test("a Unix address of another form is a TypeError", () => {
    const one = kept(socket.socket(AF_UNIX));
    for (const path of [5, ["a", 1], null, new ArrayBuffer(4), new Uint16Array(2)])
      expect(() => one.bind(path as never)).toThrow(TypeError);
  });
});

describe.skipIf(!linux)("an abstract name", () => {
  test("an abstract name comes back from every call as bytes with all their zeros", async () => {
    for (const name of [`\0ring-${process.pid}`, Buffer.from([0, 255, 0, 0])]) {
      const listener = kept(socket.create_server(name, { family: AF_UNIX }));
      const client = kept(socket.socket(AF_UNIX));
      await client.connect(listener.getsockname());
      const [conn, peer] = await listener.accept();
      kept(conn);
      expect(listener.getsockname()).toEqual(Buffer.from(name as string));
      expect(client.getpeername()).toEqual(Buffer.from(name as string));
      expect([peer, client.getsockname()]).toEqual(["", ""]);
    }
  });

  test("an abstract name has at most 108 bytes, a path 107", () => {
    const most = `\0${"x".repeat(107)}`;
    expect(bound(most)).toEqual(Buffer.from(most));
    for (const long of [`${most}x`, Buffer.from(`${most}x`), "x".repeat(108), "ä".repeat(54)])
      expect(() => bound(long)).toThrow("ENAMETOOLONG");
  });

  test('is given by the kernel to who binds to ""', async () => {
    for (const empty of ["", new Uint8Array(0)]) {
      const listener = kept(socket.create_server(empty, { family: AF_UNIX }));
      const name = listener.getsockname() as Uint8Array;
      expect([name[0], name.length]).toEqual([0, 6]);
      await kept(socket.socket(AF_UNIX)).connect(name);
    }
  });

  test("an abstract name's buffer may change while the call waits", async () => {
    const name = Buffer.from(`\0held-${process.pid}`);
    kept(socket.create_server(name, { family: AF_UNIX }));
    const given = Buffer.from(name);
    const connecting = kept(socket.socket(AF_UNIX)).connect(given);
    given.fill(1);
    await connecting;
  });

  test("an abstract name is written with @ in an error", async () => {
    const error = await failure(() => kept(socket.socket(AF_UNIX)).connect(Buffer.from("\0no-such")));
    expect(error.message).toBe("connect @no-such: Connection refused (ECONNREFUSED)");
  });
});
