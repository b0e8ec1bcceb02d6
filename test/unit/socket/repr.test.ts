/** A socket as text, in Python's own words. */
import { afterEach, expect, test } from "bun:test";
import * as socket from "../../../src/socket.ts";
import { closeAll, kept } from "../../support/sockets.ts";

afterEach(closeAll);

test("a socket's text is Python's repr, for String() and console.log()", async () => {
  const s = kept(socket.socket());
  s.bind(["127.0.0.1", 0]);
  const port = s.getsockname()[1];
  const start = `<socket.socket fd=${s.fileno()}, family=2, type=1, proto=0`;
  expect(String(s)).toBe(`${start}, laddr=('127.0.0.1', ${port})>`);
  expect(Bun.inspect(s)).toBe(String(s));
  s.listen();
  const client = kept(await socket.create_connection(s.getsockname()));
  const own = client.getsockname()[1];
  expect(String(client)).toContain(`laddr=('127.0.0.1', ${own}), raddr=('127.0.0.1', ${port})>`);
  s.close();
  expect(String(s)).toBe("<socket.socket [closed] fd=-1, family=2, type=1, proto=0>");
});

test.skipIf(process.platform !== "linux")("an abstract name is shown as bytes, a path as text", () => {
  const one = kept(socket.socket(socket.AF_UNIX));
  one.bind(`\0it's-${process.pid}`);
  expect(String(one)).toContain(`laddr=b'\\x00it\\'s-${process.pid}'`);
  for (const end of socket.socketpair()) expect(String(kept(end))).not.toContain("laddr");
});
