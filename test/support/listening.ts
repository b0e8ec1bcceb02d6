/**
 * The port on which a process listens, as the kernel reports it, for a server whose stdout the
 * test breaks. Linux only.
 */
import { listeningPorts } from "../../bench/system.ts";
import { until } from "./peers.ts";

/** The port of a listener, once there is one. */
export async function listeningPort(pid: number): Promise<number> {
  let port: number | undefined;
  await until(() => (port = listeningPorts(pid)?.[0]) !== undefined, "the server listens");
  return port!;
}
