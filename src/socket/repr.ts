/** A socket as one line of text, in the words of Python's repr. It changes when Python's does. */
import type { AnyAddress } from "../os/address.ts";

/** The properties that are shown. */
interface Shown {
  readonly family: number;
  readonly type: number;
  readonly proto: number;
  fileno(): number;
  getsockname(): AnyAddress;
  getpeername(): AnyAddress;
}

/** `<socket.socket fd=5, family=2, type=1, proto=0, laddr=('127.0.0.1', 80)>`. Never throws. */
export function repr(socket: Shown): string {
  const fd = socket.fileno();
  const closed = fd < 0 ? "[closed] " : "";
  const parts = [`fd=${fd}`, `family=${socket.family}`, `type=${socket.type}`, `proto=${socket.proto}`];
  for (const [name, call] of [
    ["laddr", () => socket.getsockname()],
    ["raddr", () => socket.getpeername()],
  ] as const) {
    const address = attempt(call);
    if (address !== undefined && address.length > 0) parts.push(`${name}=${literal(address)}`);
  }
  return `<socket.socket ${closed}${parts.join(", ")}>`;
}

/** An address that the kernel does not know is left out, as in Python. */
function attempt(call: () => AnyAddress): AnyAddress | undefined {
  try {
    return call();
  } catch {
    return undefined;
  }
}

/** A value as Python writes it. */
function literal(value: AnyAddress | string | number): string {
  if (typeof value === "number") return String(value);
  if (typeof value === "string") return `'${value.replace(/['\\]/g, "\\$&")}'`;
  if (!(value instanceof Uint8Array)) return `(${[...value].map(literal).join(", ")})`;
  const bytes = [...value].map((byte) =>
    byte >= 32 && byte < 127
      ? String.fromCharCode(byte).replace(/['\\]/, "\\$&")
      : `\\x${byte.toString(16).padStart(2, "0")}`,
  );
  return `b'${bytes.join("")}'`;
}
