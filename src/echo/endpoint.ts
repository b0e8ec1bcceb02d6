/** From a host to the addresses to listen on. It changes when another way to write a host is understood. */
import { AF_INET, AF_INET6 } from "../os/constants.ts";
import { literalHost } from "../os/literal-host.ts";
import { osError, type OSError } from "../os/errors.ts";

/** An address without a port. */
export interface Endpoint {
  family: AF_INET | AF_INET6;
  /** As the kernel takes it: a literal address without a zone. */
  ip: string;
  /** The number of the interface of a link-local address; 0 for any other. */
  scopeid: number;
  /** As text, with its zone. */
  host: string;
}

const endpoint = (family: AF_INET | AF_INET6, ip: string): Endpoint => ({ family, ip, scopeid: 0, host: ip });

/** Every interface: "::" serves IPv4 as well, and "0.0.0.0" is for a machine without IPv6. */
const EVERY_INTERFACE = [endpoint(AF_INET6, "::"), endpoint(AF_INET, "0.0.0.0")];

const URL_START = /^[a-z][a-z\d+.-]*:\/\//i;
/** name:port and [address]:port. */
const WITH_PORT = /^(\[[^\]]*\]|[^:[\]]*):(\d*)$/;

/**
 * Checks the text of a host, before any look-up.
 * @returns the mistake, in words that follow the host; undefined if there is none
 */
export function hostMistake(host: string): string | undefined {
  const [, name, port] = WITH_PORT.exec(host) ?? [];
  if (name !== undefined) return `the port has a flag of its own: --host ${name || '""'} --port ${port || 0}`;
  if (URL_START.test(host)) {
    const { hostname = "", port = "" } = URL.parse(host) ?? {};
    const flags = [hostname && ` --host ${hostname}`, port && ` --port ${port}`].join("");
    return `that is a URL; host and port have flags of their own${flags && ":"}${flags}`;
  }
  if (host === ".") return "that is neither an address nor a name";
  const bare = withoutBrackets(host).split("%", 1)[0]!;
  if (/[[\]]/.test(bare) || (host.startsWith("[") && !bare.includes(":"))) {
    return "brackets belong around an IPv6 address: [::1]";
  }
  if (bare.includes(":") && literalHost(bare) === undefined) return "that is no IPv6 address";
  if (bare === withoutBrackets(host) && /^fe[89ab].*:/i.test(bare)) {
    return `a link-local address needs its interface: ${bare}%eth0`;
  }
  return undefined;
}

const withoutBrackets = (host: string): string => (/^\[.*\]$/.test(host) ? host.slice(1, -1) : host);

/**
 * The addresses of a host, IPv4 first. If this machine lacks one of several, the others are used.
 * @param host "" is every interface. An address may be in brackets, have a zone (fe80::1%eth0), or be short
 *   (127.1). A name is looked up as every program on this machine does it (getaddrinfo(3)); one with several
 *   addresses is all of them, as for nginx and sshd: a client that was given the name may try any.
 * @throws OSError EINVAL for an invalid host; with syscall getaddrinfo if the look-up fails
 */
export async function endpointsOf(host: string): Promise<readonly Endpoint[]> {
  if (host === "") return EVERY_INTERFACE;
  const reason = hostMistake(host);
  if (reason !== undefined) throw osError({ code: "EINVAL", syscall: "listen", address: host, reason });
  // The dot at the end of a name keeps a resolver from adding domains. /etc/hosts does not know it.
  const name = withoutBrackets(host).replace(/\.$/, "");
  const literal = literalHost(name);
  if (literal !== undefined) {
    const [family, ip, scopeid] = literal;
    return [{ family, ip, scopeid, host: scopeid === 0 ? ip : name }];
  }
  const found = new Map<string, Endpoint>();
  for (const { address, family } of await lookUp(name)) {
    const [ip, scope] = address.split("%") as [ip: string, scope?: string];
    const shown = scope !== undefined && name.includes("%") ? name : address;
    found.set(address, {
      ...endpoint(family === 6 ? AF_INET6 : AF_INET, ip),
      host: shown,
      scopeid: Number(scope ?? 0),
    });
  }
  return [...found.values()].sort((a, b) => a.family - b.family);
}

async function lookUp(name: string) {
  try {
    // Bun's own resolver knows neither zones nor all that nsswitch.conf(5) may say.
    return await Bun.dns.lookup(name, { backend: "getaddrinfo" });
  } catch (cause) {
    throw unknownHost(name, cause);
  }
}

function unknownHost(name: string, cause: unknown): OSError {
  const code = String((cause as { code?: unknown }).code).replace(/^DNS_/, "");
  const reason = name.includes("%")
    ? "no interface has this name or number, or the address takes none"
    : code === "EAI_AGAIN"
      ? "unknown host, or the name service does not answer now"
      : "unknown host";
  return osError({ code, syscall: "getaddrinfo", address: name, reason, cause });
}
