/** IPv6 addresses with a zone (fe80::1%eth0): which are accepted, and where. */
import { afterEach, describe, expect, test } from "bun:test";
import { networkInterfaces } from "node:os";
import { literalHost } from "../../../src/os/literal-host.ts";
import * as socket from "../../../src/socket.ts";
import { askPython, closeAll, failure, kept, python } from "../../support/sockets.ts";

const { AF_INET6, SOCK_DGRAM, SOCK_STREAM } = socket;
const onLinux = test.skipIf(process.platform !== "linux");

afterEach(closeAll);

/** The addresses with a zone, and those that are not link-local or name nothing. */
const HOSTS = [
  ..."fe80::1%lo fe80::1%1 fe80::1%7 fe80::1%99 fe80::1%01 fe80::1%0 ::1%1 ::1%0 ff01::1%lo".split(" "),
  ..."ff02::1%lo ff05::1%1 febf::1%lo FE80::1%lo fe80::1%4294967295".split(" "),
  ..."fe80::1%nosuch fe80::1% ::1%lo 2001::1%lo 127.0.0.1%lo fe80::1%4294967296 fe80::1%-1".split(" "),
  ..."fe80::1%0x1 ::ffff:127.0.0.1%lo FE80::1%LO fec0::1%lo fe80::1%lo%lo ff05::1%lo %lo".split(" "),
];

/** An address of this machine that is valid on one interface only. */
const own = Object.entries(networkInterfaces())
  .flatMap(([name, all]) => (all ?? []).map((one) => ({ name, ...one })))
  .find(({ address }) => address.startsWith("fe80:"));
const [ip, name, scope] = [own?.address ?? "", own?.name ?? "", own?.scopeid ?? 0];

describe("getaddrinfo", () => {
  test.skipIf(python === null)("getaddrinfo accepts and refuses the same zones as Python", async () => {
    const program = `
import json, socket, sys
def ask(host):
    try: return socket.getaddrinfo(host, 80, 0, socket.SOCK_STREAM)[0][4]
    except socket.gaierror as e: return e.errno
json.dump([[host, ask(host)] for host in json.load(sys.stdin)], sys.stdout)
`;
    const ours = HOSTS.map(async (host) => {
      const asked = socket.getaddrinfo(host, 80, 0, SOCK_STREAM);
      return [
        host,
        await asked.then(
          ([one]) => one![4],
          ({ errno }: socket.error) => errno,
        ),
      ];
    });
    expect((await Promise.all(ours)) as unknown).toEqual(askPython(program, HOSTS));
  });

  onLinux("refuses an unknown interface in words", async () => {
    const error = await failure(() => socket.getaddrinfo("fe80::1%nosuch", 80));
    expect(error).toMatchObject({ code: "EAI_NONAME", address: "fe80::1%nosuch" });
    expect(error.strerror).toBe("no interface has this name or number, or the address takes none");
  });
});

test("inet_pton refuses a zone, as Python's does", () => {
  expect(() => socket.inet_pton(AF_INET6, "fe80::1%lo")).toThrow(socket.OSError);
});

onLinux("a zone with a zero byte names no interface", () => {
  expect(literalHost("fe80::1%lo\0")).toBeUndefined();
});

onLinux("bind, connect and sendto hand the zone to the kernel", async () => {
  // No interface has the number: the kernel says so only if it is asked for that one.
  const host = "fe80::1%2147483647";
  const unknown = { code: expect.stringMatching(/^(ENODEV|ENETUNREACH|EINVAL)$/) };
  expect(await failure(() => kept(socket.socket(AF_INET6)).bind([host, 0]))).toMatchObject({
    code: "ENODEV",
  });
  expect(await failure(() => kept(socket.socket(AF_INET6)).connect([host, 9]))).toMatchObject(unknown);
  const datagram = kept(socket.socket(AF_INET6, SOCK_DGRAM));
  expect(await failure(() => datagram.sendto(new Uint8Array(1), [host, 9]))).toMatchObject(unknown);
});

describe.skipIf(own === undefined)("a link-local address of this machine", () => {
  for (const zone of [name, String(scope)]) {
    test(`a link-local address with %${zone} can listen, connect and be bound`, async () => {
      const host = `${ip}%${zone}`;
      const listener = kept(socket.create_server([host, 0], { family: AF_INET6 }));
      const [, port] = listener.getsockname();
      expect(listener.getsockname()).toEqual([ip, port, 0, scope]);
      const client = kept(
        await socket.create_connection([host, port], null, [host, 0]),
      ) as never as socket.Socket<typeof AF_INET6>;
      const [conn, peer] = await listener.accept();
      kept(conn);
      expect(peer).toEqual(client.getsockname());
      expect(client.getpeername()).toEqual([ip, port, 0, scope]);
      // The scope id alone does the same, and goes before the zone.
      await kept(socket.socket(AF_INET6)).connect([ip, port, 0, scope]);
      await kept(socket.socket(AF_INET6)).connect([`${ip}%2147483647`, port, 0, scope]);
    });

    test(`a link-local address with %${zone} sends a datagram whose sender can be answered`, async () => {
      const [one, two] = [0, 1].map(() => kept(socket.socket(AF_INET6, SOCK_DGRAM))) as [
        socket.Socket<typeof AF_INET6>,
        socket.Socket<typeof AF_INET6>,
      ];
      for (const each of [one, two]) each.bind([`${ip}%${zone}`, 0]);
      await one.sendto(Buffer.from("ask"), [`${ip}%${zone}`, two.getsockname()[1]]);
      const [, sender] = await two.recvfrom(9);
      expect(sender).toEqual(one.getsockname());
      await two.sendto(Buffer.from("answer"), sender!);
      expect(String(await one.recv(9))).toBe("answer");
    });
  }
});
