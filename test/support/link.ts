/**
 * Two network namespaces with a link of their own between them, without names: they are gone with the test's
 * process, however that ends. Linux, as root, with iproute2 and nsenter. It changes when a link is to fail in
 * another way.
 */
import { closeSync, openSync } from "node:fs";
import { c, errno, hasRaw } from "./raw-peer.ts";

const CLONE_NEWNET = 0x40000000;
const OWN = "/proc/thread-self/ns/net";

export interface Link {
  /** The address that a server in its namespace has. */
  readonly host: string;
  /** What starts a program in the server's namespace: see launch(). */
  readonly within: string[];
  /** Makes a socket in the client's namespace: see rawPeer(). */
  readonly make: <T>(call: () => T) => T;
  /** "up" or "down", at the client's end: packets are lost without a notice. */
  set(state: "up" | "down"): void;
  /** A rate with a small queue, in each direction: what does not fit is lost, and sent again. */
  shape(rates: { server: string; client: string }, burst: string, limit: string): void;
  /** How many packets a shaped link has lost so far. */
  lost(): number;
  remove(): void;
}

function newNamespace(): number {
  const home = openSync(OWN, "r");
  try {
    if (c.unshare(CLONE_NEWNET) !== 0) throw new Error(`unshare: ${errno()}`);
    const made = openSync(OWN, "r");
    if (c.setns(home, CLONE_NEWNET) !== 0) throw new Error(`setns: ${errno()}`);
    return made;
  } finally {
    closeSync(home);
  }
}

function inside<T>(namespace: number, call: () => T): T {
  const home = openSync(OWN, "r");
  try {
    if (c.setns(namespace, CLONE_NEWNET) !== 0) throw new Error(`setns: ${errno()}`);
    return call();
  } finally {
    c.setns(home, CLONE_NEWNET);
    closeSync(home);
  }
}

function command(words: string[]): string {
  const { success, stdout, stderr } = Bun.spawnSync(words);
  if (!success) throw new Error(`${words.join(" ")}: ${stderr.toString().trim()}`);
  return stdout.toString();
}

export function makeLink(): Link {
  const [server, client] = [newNamespace(), newNamespace()];
  const enter = (namespace: number): string[] => ["nsenter", `--net=/proc/${process.pid}/fd/${namespace}`];
  const ends = [
    { namespace: server, name: "server", address: "10.0.0.1/24" },
    { namespace: client, name: "client", address: "10.0.0.2/24" },
  ] as const;
  const ip = (namespace: number, words: string): string =>
    command([...enter(namespace), "ip", ...words.split(" ")]);
  const remove = (): void => {
    for (const { namespace } of ends) closeSync(namespace);
  };
  try {
    ip(server, `link add server type veth peer name client netns /proc/${process.pid}/fd/${client}`);
    for (const { namespace, name, address } of ends) {
      ip(namespace, `addr add ${address} dev ${name}`);
      ip(namespace, `link set ${name} up`);
    }
  } catch (error) {
    remove();
    throw error;
  }
  return {
    host: "10.0.0.1",
    within: enter(server),
    make: (call) => inside(client, call),
    set: (state) => void ip(client, `link set client ${state}`),
    shape(rates, burst, limit) {
      for (const { namespace, name } of ends) {
        const words = `tc qdisc add dev ${name} root tbf rate ${rates[name]} burst ${burst} limit ${limit}`;
        command([...enter(namespace), ...words.split(" ")]);
      }
    },
    lost() {
      let lost = 0;
      for (const { namespace, name } of ends) {
        const shown = command([...enter(namespace), "tc", "-s", "qdisc", "show", "dev", name]);
        lost += Number(/dropped (\d+)/.exec(shown)?.[1] ?? 0);
      }
      return lost;
    },
    remove,
  };
}

/** Why there can be no link here, in a word for the test's name; empty where there can. */
export const noLink = ((): string => {
  if (!hasRaw) return "needs Linux";
  const missing = ["ip", "tc", "nsenter"].find((name) => Bun.which(name) === null);
  if (missing !== undefined) return `${missing} is not installed`;
  try {
    const link = makeLink();
    link.shape({ server: "20mbit", client: "20mbit" }, "8kb", "16kb");
    link.remove();
    return "";
  } catch (error) {
    return (error as Error).message;
  }
})();
