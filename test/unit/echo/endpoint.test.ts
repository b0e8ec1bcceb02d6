/** What may be given as a host, and which address it means. */
import { describe, expect, test } from "bun:test";
import { endpointsOf, hostMistake } from "../../../src/echo/endpoint.ts";

const ips = async (host: string): Promise<string[]> => (await endpointsOf(host)).map(({ ip }) => ip);

describe("a host is", () => {
  for (const [host, ip] of [
    ["127.0.0.1", "127.0.0.1"],
    ["127.1", "127.0.0.1"],
    ["0x7f.1", "127.0.0.1"],
    ["2130706433", "127.0.0.1"],
    ["0177.0.0.1", "127.0.0.1"],
    ["0", "0.0.0.0"],
    ["127.0.0.1.", "127.0.0.1"],
    ["::1", "::1"],
    ["[::1]", "::1"],
    ["0:0::0:1", "::1"],
    ["::ffff:127.0.0.1", "::ffff:127.0.0.1"],
  ] as const) {
    test(`the host ${host} resolves to ${ip}`, async () => expect(await ips(host)).toEqual([ip]));
  }

  test('"": every interface', async () => expect(await ips("")).toEqual(["::", "0.0.0.0"]));

  test("a host name with a trailing dot resolves like the name without it", async () => {
    const all = await ips("localhost");
    expect(all).toContain("127.0.0.1");
    expect(await ips("localhost.")).toEqual(all);
    expect(await ips("LOCALHOST")).toEqual(all);
  });

  test.skipIf(process.platform !== "linux")("a link-local address with its interface", async () => {
    for (const host of ["fe80::1%lo", "fe80::1%1", "[fe80::1%lo]"]) {
      expect(await endpointsOf(host)).toMatchObject([
        { ip: "fe80::1", scopeid: 1, host: host.replace(/[[\]]/g, "") },
      ]);
    }
    for (const host of ["fe80::1%nosuch", "fe80::1%", "::1%lo"]) {
      await expect(endpointsOf(host)).rejects.toThrow("no interface has this name or number");
    }
  });
});

describe("is refused before any look-up", () => {
  for (const [host, reason] of [
    ["localhost:8403", "the port has a flag of its own: --host localhost --port 8403"],
    ["127.0.0.1:8403", "the port has a flag of its own: --host 127.0.0.1 --port 8403"],
    ["[::1]:8403", "the port has a flag of its own: --host [::1] --port 8403"],
    [":8403", 'the port has a flag of its own: --host "" --port 8403'],
    ["http://localhost", "that is a URL; host and port have flags of their own: --host localhost"],
    [
      "tcp://127.0.0.1:8403/",
      "that is a URL; host and port have flags of their own: --host 127.0.0.1 --port 8403",
    ],
    ["http://", "that is a URL; host and port have flags of their own"],
    ["[127.0.0.1]", "brackets belong around an IPv6 address: [::1]"],
    ["[::1", "brackets belong around an IPv6 address: [::1]"],
    ["localhost:http", "that is no IPv6 address"],
    ["1:2:3", "that is no IPv6 address"],
    [".", "that is neither an address nor a name"],
    ["fe80::1", "a link-local address needs its interface: fe80::1%eth0"],
  ] as const) {
    test(host, async () => {
      expect(hostMistake(host)).toBe(reason);
      await expect(endpointsOf(host)).rejects.toMatchObject({
        code: "EINVAL",
        address: host,
        strerror: reason,
      });
    });
  }
});
