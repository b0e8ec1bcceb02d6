/** A connect that nobody answers, and the descriptors it leaves open. */
import { readdirSync, readlinkSync } from "node:fs";
import {
  bindDescriptor,
  closeDescriptor,
  connectDescriptor,
  descriptorName,
  listenDescriptor,
  openDescriptor,
} from "../../src/os/descriptor.ts";
import { AF_INET, SOCK_STREAM } from "../../src/socket.ts";
import { kept } from "./sockets.ts";

/** A listener of the kernel's whose queue is full, and which nobody empties: Linux drops what knocks. */
export function silent(): readonly [host: string, port: number] {
  const open = (): number => {
    const fd = openDescriptor(AF_INET, SOCK_STREAM, 0);
    kept({ close: () => closeDescriptor(fd) });
    return fd;
  };
  const listener = open();
  bindDescriptor(listener, AF_INET, ["127.0.0.1", 0]);
  listenDescriptor(listener, 0);
  const address = descriptorName(listener, "getsockname") as [string, number];
  for (let i = 0; i < 4; i++) connectDescriptor(open(), AF_INET, address);
  return address;
}

/**
 * Which sockets this process has open, by the names that the kernel gives them: a number may be used again.
 */
function openSockets(): Set<string> {
  const names = new Set<string>();
  for (const fd of readdirSync("/proc/self/fd")) {
    try {
      names.add(readlinkSync(`/proc/self/fd/${fd}`));
    } catch {
      // It was closed meanwhile.
    }
  }
  return names;
}

/** @returns a condition: what has been opened since is closed */
export function nothingNew(): () => boolean {
  const before = openSockets();
  return () => openSockets().isSubsetOf(before);
}
