/**
 * How answers of the name service are used, and their absence. The test gives the answers
 * itself.
 */
import { afterEach, describe, expect, setDefaultTimeout, spyOn, test, type Mock } from "bun:test";
import * as socket from "../../../src/socket.ts";
import { closeAll, failure, kept, server } from "../../support/sockets.ts";

const { AF_INET, AF_INET6, SOCK_STREAM } = socket;

setDefaultTimeout(30_000);

let lookup: Mock<typeof Bun.dns.lookup> | undefined;
afterEach(() => {
  lookup?.mockRestore();
  closeAll();
});

/** From here on the name service answers so. */
function answers(...found: [address: string, family: 4 | 6][]): Mock<typeof Bun.dns.lookup> {
  const given = found.map(([address, family]) => ({ address, family, ttl: 0 }));
  return (lookup = spyOn(Bun.dns, "lookup").mockResolvedValue(given));
}

/** From here on the name service fails so. */
function fails(code: string): void {
  lookup = spyOn(Bun.dns, "lookup").mockRejectedValue(Object.assign(new Error(code), { code }));
}

describe("a name service", () => {
  test("resolve: a silent DNS server gives EAI_AGAIN, an unknown name EAI_NONAME", async () => {
    const codes = [
      ["EAI_AGAIN", "EAI_AGAIN"],
      ["DNS_ETIMEOUT", "EAI_AGAIN"],
      ["DNS_ESERVFAIL", "EAI_AGAIN"],
      ["DNS_ENOTFOUND", "EAI_NONAME"],
      ["DNS_ENODATA", "EAI_NONAME"],
    ] as const;
    for (const [told, code] of codes) {
      fails(told);
      const error = await failure(() => socket.getaddrinfo("a.name", 80));
      expect(error).toBeInstanceOf(socket.gaierror);
      expect(error).toMatchObject({ code, errno: socket[code], address: "a.name" });
      expect((error.cause as { code: string }).code).toBe(told);
    }
  });

  test("resolve: a repeated address is returned once, in order", async () => {
    answers(["127.0.0.2", 4], ["::1", 6], ["127.0.0.2", 4], ["127.0.0.1", 4], ["::1", 6]);
    const found = await socket.getaddrinfo("a.name", 80, 0, SOCK_STREAM);
    expect(found.map(([family, , , , [host]]) => [family, host])).toEqual([
      [AF_INET, "127.0.0.2"],
      [AF_INET6, "::1"],
      [AF_INET, "127.0.0.1"],
    ]);
  });

  test("resolve: only the requested family is looked up", async () => {
    const asked = answers(["127.0.0.1", 4]);
    for (const family of [0, AF_INET, AF_INET6]) await socket.getaddrinfo("a.name", 80, family);
    const { listener, address } = server();
    await kept(socket.socket()).connect(["a.name", address[1]]);
    kept((await listener.accept())[0]);
    await failure(() => kept(socket.socket(AF_INET6)).connect(["a.name", address[1]]));
    expect(asked.mock.calls).toEqual([0, 4, 6, 4, 6].map((family) => ["a.name", { family }]) as never);
  });

  test("resolve: a name without an address of the family gives EAI_NONAME", async () => {
    answers();
    const error = await failure(() => kept(socket.socket(AF_INET6)).connect(["a.name", 80]));
    expect(error).toBeInstanceOf(socket.gaierror);
    expect(error).toMatchObject({ code: "EAI_NONAME", address: "a.name" });
  });
});
