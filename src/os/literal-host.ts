/** Numeric hosts, with or without a zone. It changes when another way to write one is understood. */
import { inet_aton, inet_ntop, inet_pton } from "./address.ts";
import { AF_INET, AF_INET6 } from "./constants.ts";
import { interfaceIndex } from "./libc.ts";

/** A numeric address, and the interface of its zone: 0 where it has none. */
export type LiteralHost = [family: AF_INET | AF_INET6, host: string, scopeid: number];

/**
 * A numeric address in its standard form: "127.1" is 127.0.0.1. An IPv6 address may have a zone, as for
 * getaddrinfo(3).
 * @returns undefined for a name, and for a zone that does not exist
 */
export function literalHost(host: string): LiteralHost | undefined {
  try {
    if (!host.includes(":")) return [AF_INET, inet_ntop(AF_INET, inet_aton(host)), 0];
    const [address, ...zones] = host.split("%") as [string, ...string[]];
    const bytes = inet_pton(AF_INET6, address);
    const scopeid = zones.length === 0 ? 0 : zones.length === 1 ? scopeOf(bytes, zones[0]!) : undefined;
    return scopeid === undefined ? undefined : [AF_INET6, inet_ntop(AF_INET6, bytes), scopeid];
  } catch {
    return undefined;
  }
}

/** The number of a zone. Only an address that is valid on one interface may name it (RFC 4007). */
function scopeOf(bytes: Uint8Array, zone: string): number | undefined {
  const [first, second] = bytes as unknown as [number, number];
  const unicast = first === 0xfe && (second & 0xc0) === 0x80;
  const multicast = first === 0xff && ((second & 0xf) === 1 || (second & 0xf) === 2);
  const index = unicast || multicast ? interfaceIndex(zone) : 0;
  if (index > 0) return index;
  return /^\d+$/.test(zone) && Number(zone) <= 0xffff_ffff ? Number(zone) : undefined;
}
