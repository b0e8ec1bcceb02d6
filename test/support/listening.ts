/** Where a process listens, as the kernel says it: for a server whose stdout is what the test breaks. For Linux. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { until } from "./peers.ts";

const LISTEN = "0A";

function portOf(pid: number): number | undefined {
  const sockets = new Set<string>();
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    try {
      const [, inode] = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`)) ?? [];
      if (inode !== undefined) sockets.add(inode);
    } catch {
      // Closed since it was listed.
    }
  }
  for (const line of readFileSync(`/proc/${pid}/net/tcp`, "utf8").split("\n")) {
    const [, local, , state, , , , , , inode] = line.trim().split(/\s+/);
    if (state === LISTEN && sockets.has(inode!)) return parseInt(local!.split(":")[1]!, 16);
  }
  return undefined;
}

/** The port of an IPv4 listener, once there is one. */
export async function listeningPort(pid: number): Promise<number> {
  let port: number | undefined;
  await until(() => (port = portOf(pid)) !== undefined, "the server listens");
  return port!;
}
