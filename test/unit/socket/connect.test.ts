/**
 * Which of Bun's events completes a connect. Bun is a fake here: the test decides the order of
 * its events.
 */
import { afterEach, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import type { Connection } from "../../../src/core/connection.ts";
import { connectStream } from "../../../src/socket/connect.ts";
import * as socket from "../../../src/socket.ts";
import { FakeSocket } from "../../support/fake-socket.ts";
import { failure } from "../../support/sockets.ts";

type Events = Required<
  Pick<Bun.SocketHandler<Connection>, "open" | "data" | "drain" | "end" | "close" | "handshake">
>;
type Tell = (events: Events, its: Bun.Socket<Connection>) => void;

setDefaultTimeout(30_000);

let restore = (): void => undefined;
afterEach(() => restore());

/** Begins to open a stream over a fake. @returns a function that passes Bun's events to it */
function opening(tls?: socket.TLS) {
  let events: Events | undefined;
  const connect = spyOn(Bun, "connect").mockImplementation(((options: { socket: Events }) => {
    events = options.socket;
    return Promise.resolve();
  }) as unknown as typeof Bun.connect);
  restore = () => connect.mockRestore();
  const its = new FakeSocket() as unknown as Bun.Socket<Connection>;
  const opened = connectStream(-1, { connected: false, address: "a.name:1", tls }, null);
  const tell = (what: Tell): void => what(events!, its);
  tell(({ open }) => open(its));
  return { opened, tell };
}

async function isPending(call: Promise<unknown>): Promise<boolean> {
  await new Promise(setImmediate);
  return Bun.peek.status(call) === "pending";
}

const first: [name: string, tell: Tell][] = [
  ["bytes", ({ data }, its) => data(its, Buffer.from("x"))],
  ["a FIN", ({ end }, its) => end(its)],
  ["room to write", ({ drain }, its) => drain(its)],
];

for (const [name, event] of first) {
  test(`${name} before the TLS handshake: the connect waits until the handshake is done`, async () => {
    const { opened, tell } = opening({});
    tell(event);
    expect(await isPending(opened)).toBe(true);
    tell(({ handshake }, its) => handshake(its, true, null));
    expect((await opened).plain).toBe(false);
  });

  test(`${name} before the TLS handshake fails: the connect fails too`, async () => {
    const { opened, tell } = opening({});
    tell(event);
    tell(({ handshake }, its) => handshake(its, false, new Error("not trusted")));
    expect(await failure(() => opened)).toBeInstanceOf(socket.SSLError);
  });

  test(`${name} without TLS: the connect completes`, async () => {
    const { opened, tell } = opening();
    expect(await isPending(opened)).toBe(true);
    tell(event);
    expect((await opened).plain).toBe(true);
  });
}

test("a close before the handshake is a reset, with or without an error from Bun", async () => {
  const reset = Object.assign(new Error("reset"), { code: "ECONNRESET", errno: -104 });
  for (const [error, tls] of [
    [undefined, {}],
    [reset, {}],
    [undefined, undefined],
    [reset, undefined],
  ]) {
    const { opened, tell } = opening(tls as socket.TLS);
    tell(({ close }, its) => close(its, error as Error));
    const failed = await failure(() => opened);
    expect(failed).toBeInstanceOf(socket.ConnectionResetError);
    expect(failed).toMatchObject({ code: "ECONNRESET", syscall: "connect" });
    restore();
  }
});
