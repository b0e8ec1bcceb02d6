/** getaddrinfo on Bun's look-up, with Python's numbers and order. It changes when its arguments do. */
import { checkNoNul, type Inet6Address, type InetAddress } from "../os/address.ts";
import {
  AF_INET,
  AF_INET6,
  EAI_ADDRFAMILY,
  EAI_AGAIN,
  EAI_FAIL,
  EAI_FAMILY,
  EAI_NONAME,
  EAI_SERVICE,
  EAI_SOCKTYPE,
  IPPROTO_TCP,
  IPPROTO_UDP,
  SOCK_DGRAM,
  SOCK_STREAM,
  type AddressFamily,
} from "../os/constants.ts";
import { gaierror, safeString } from "../os/errors.ts";
import { literalHost, type LiteralHost } from "../os/literal-host.ts";

/** One result: the arguments of socket() and connect(). */
export type AddressInfo = [
  family: AF_INET | AF_INET6,
  type: number,
  proto: number,
  canonname: string,
  sockaddr: InetAddress | Inet6Address,
];

const CODES = { EAI_ADDRFAMILY, EAI_AGAIN, EAI_FAIL, EAI_FAMILY, EAI_NONAME, EAI_SERVICE, EAI_SOCKTYPE };

function unresolved(code: keyof typeof CODES, address: string, reason: string, cause?: unknown): gaierror {
  return new gaierror({ code, errno: CODES[code], syscall: "getaddrinfo", address, reason, cause });
}

const UNKNOWN_ZONE = "no interface has this name or number, or the address takes none";

/** The addresses of a host, literal ones without a look-up. @throws gaierror */
async function hosts(host: string, family: number): Promise<LiteralHost[]> {
  const literal = literalHost(host);
  if (literal !== undefined) {
    if (family === 0 || family === literal[0]) return [literal];
    throw unresolved("EAI_ADDRFAMILY", host, "the address is of another family");
  }
  if (host.includes("%")) throw unresolved("EAI_NONAME", host, UNKNOWN_ZONE);
  try {
    const found = await Bun.dns.lookup(host, {
      family: family === AF_INET ? 4 : family === AF_INET6 ? 6 : 0,
    });
    return found.map(({ address }) => literalHost(address)).filter((one) => one !== undefined);
  } catch (error) {
    const again = /EAI_AGAIN|ETIMEOUT|ESERVFAIL/.test(String((error as { code?: unknown }).code));
    if (again) throw unresolved("EAI_AGAIN", host, "the name service does not answer now", error);
    throw unresolved("EAI_NONAME", host, "name or service not known", error);
  }
}

function portNumber(port: number | string | null): number {
  const number = port === null ? 0 : typeof port === "string" && /^\d+$/.test(port) ? Number(port) : port;
  if (typeof number !== "number") {
    throw unresolved(
      "EAI_SERVICE",
      safeString(port),
      "services are not looked up by name: give the port's number",
    );
  }
  if (Number.isInteger(number) && number >= 0 && number <= 65_535) return number;
  throw new RangeError(`getaddrinfo: a port is a whole number from 0 to 65535, not ${number}`);
}

/**
 * The addresses of a host and a port, in the order in which to try them.
 * https://docs.python.org/3/library/socket.html#socket.getaddrinfo
 * @param host a name, a literal address, or null for this machine
 * @param port a number, its digits, or null for 0
 * @param family 0 for any
 * @param type 0 for SOCK_STREAM and SOCK_DGRAM
 * @throws gaierror; RangeError for a port outside 0..65535
 */
export async function resolve(
  host: string | null,
  port: number | string | null,
  family = 0,
  type = 0,
  proto = 0,
): Promise<AddressInfo[]> {
  if (host !== null && typeof host !== "string")
    throw new TypeError(`getaddrinfo: a host is a string or null, not ${safeString(host)}`);
  if (host !== null) checkNoNul(host, "a host", "getaddrinfo");
  if (family !== 0 && family !== AF_INET && family !== AF_INET6) {
    throw unresolved("EAI_FAMILY", safeString(host), `family ${family} is neither AF_INET nor AF_INET6`);
  }
  if (type !== 0 && type !== SOCK_STREAM && type !== SOCK_DGRAM) {
    throw unresolved("EAI_SOCKTYPE", safeString(host), `type ${type} is neither SOCK_STREAM nor SOCK_DGRAM`);
  }
  const number = portNumber(port);
  if (host === "" || (host === null && port === null)) {
    throw unresolved("EAI_NONAME", safeString(host), "a host or a port is needed");
  }
  const types = (
    [
      [SOCK_STREAM, IPPROTO_TCP],
      [SOCK_DGRAM, IPPROTO_UDP],
    ] as const
  ).filter(([one, its]) => (type === 0 || type === one) && (proto === 0 || proto === its));
  if (types.length === 0) {
    const known = proto === IPPROTO_TCP || proto === IPPROTO_UDP;
    const reason = known
      ? `protocol ${proto} is not of type ${type}`
      : `protocol ${proto} is neither TCP nor UDP`;
    throw unresolved(known ? "EAI_SOCKTYPE" : "EAI_SERVICE", safeString(host), reason);
  }
  const local: LiteralHost[] = [
    [AF_INET6, "::1", 0],
    [AF_INET, "127.0.0.1", 0],
  ];
  const found =
    host === null ? local.filter(([one]) => family === 0 || family === one) : await hosts(host, family);
  const seen = new Set<string>();
  const answers: AddressInfo[] = [];
  for (const [itsFamily, address, scopeid] of found) {
    const key = `${address}%${scopeid}`;
    if (seen.has(key)) continue;
    seen.add(key);
    const sockaddr: InetAddress | Inet6Address =
      itsFamily === AF_INET ? [address, number] : [address, number, 0, scopeid];
    for (const [itsType, itsProto] of types) answers.push([itsFamily, itsType, itsProto, "", sockaddr]);
  }
  return answers;
}

/** For a call that cannot wait for a name service. */
export const noLookup = (host: string, syscall: string): gaierror =>
  new gaierror({
    code: "EAI_NONAME",
    errno: EAI_NONAME,
    syscall,
    address: host,
    reason: host.includes("%")
      ? UNKNOWN_ZONE
      : "bind() does not look up names: pass an address from getaddrinfo()",
  });

/** The first literal address of the family; literal ones at once. @throws gaierror */
export async function literal(host: string, family: AddressFamily): Promise<LiteralHost> {
  const [first] = await hosts(host, family);
  if (first === undefined) throw unresolved("EAI_NONAME", host, "the name has no address of this family");
  return first;
}
