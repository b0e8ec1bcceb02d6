/**
 * The system calls of src/os/libc.ts on the fake kernel. bun:ffi is replaced: the code that packs
 * addresses and reads errno is the real one. It changes when the code under test uses another system call.
 */
import { constants } from "node:os";
import { getSystemErrorMap } from "node:util";
import { decodeAddress, encodeAddress, type Inet6Address } from "../../src/os/address.ts";
import type { AddressFamily } from "../../src/os/constants.ts";
import type { Kernel, Open } from "./kernel.ts";

/** What ptr() gives: the memory itself, so that a use outside of it is seen. */
interface Pointer {
  readonly view: ArrayBufferView;
  readonly offset: number;
}

const SO_TYPE = 3;
const SO_ERROR = 4;
const SO_ACCEPTCONN = 30;
const SO_DOMAIN = 39;
const F_GETFL = 3;
const F_SETFL = 4;
const IPPROTO_TCP = 6;
const FIONREAD = 0x541b;
const TCP_ESTABLISHED = 1;
const TCP_CLOSE_WAIT = 8;
const RLIMIT = 65_536n;

const bytesAt = ({ view, offset }: Pointer): Uint8Array =>
  new Uint8Array(view.buffer, view.byteOffset + offset, view.byteLength - offset);

const ints = ({ view }: Pointer): Int32Array => view as Int32Array;

/** The calls, of which each returns what its C function does, and leaves its error in kernel.errno. */
function systemCalls(current: () => Kernel) {
  const failed = (code: string): -1 => {
    current().errno = code;
    return -1;
  };
  const portOf = (address: Pointer): number => (decodeAddress(bytesAt(address)) as Inet6Address)[1];
  const giveAddress = (family: number, port: number, to: Pointer, size: Pointer): number => {
    const packed =
      family === 1 ? new Uint8Array([1, 0]) : encodeAddress(2 as AddressFamily, ["127.0.0.1", port]);
    bytesAt(to).set(packed);
    ints(size)[0] = packed.length;
    return 0;
  };
  const peerOf = (open: Open) => {
    const { endpoint } = open;
    return endpoint?.state === "established" && endpoint.error === "" ? endpoint.peer : undefined;
  };
  return {
    socket: (family: number) => (current().exhausted ? failed("EMFILE") : current().open(family)),
    socketpair(family: number, _type: number, _proto: number, to: Pointer) {
      const pair = current().pair(0, 0);
      for (const i of [0, 1] as const) ints(to)[i] = current().open(family, pair[i]);
      return 0;
    },
    bind(fd: number, address: Pointer) {
      const port = current().freePort(portOf(address));
      if (port === undefined) return failed("EADDRINUSE");
      current().at(fd).port = port;
      return 0;
    },
    listen(fd: number, backlog: number) {
      const open = current().at(fd);
      if (open.listening === undefined && current().ports.has(open.port)) return failed("EADDRINUSE");
      current().listen(open, backlog);
      return 0;
    },
    connect(fd: number, address: Pointer) {
      const open = current().at(fd);
      open.port ||= current().freePort()!;
      open.endpoint = current().connect(portOf(address), open.port);
      return failed("EINPROGRESS");
    },
    getsockname(fd: number, to: Pointer, size: Pointer) {
      const { family, port } = current().at(fd);
      return giveAddress(family, port, to, size);
    },
    getpeername(fd: number, to: Pointer, size: Pointer) {
      const open = current().at(fd);
      const peer = peerOf(open);
      return peer === undefined ? failed("ENOTCONN") : giveAddress(open.family, peer.port, to, size);
    },
    setsockopt: () => 0,
    getsockopt(fd: number, level: number, option: number, to: Pointer, size: Pointer) {
      const open = current().at(fd);
      if (level === IPPROTO_TCP) {
        // TCP_INFO, of which the first byte is asked for.
        bytesAt(to)[0] = open.endpoint?.fin === true ? TCP_CLOSE_WAIT : TCP_ESTABLISHED;
        return 0;
      }
      const known: Record<number, number> = {
        [SO_TYPE]: 1,
        [SO_ERROR]: 0,
        [SO_ACCEPTCONN]: Number(open.listening !== undefined),
        [SO_DOMAIN]: open.family,
      };
      new DataView(bytesAt(to).buffer).setInt32(0, known[option] ?? 0, true);
      ints(size)[0] = 4;
      return 0;
    },
    send(fd: number, { view, offset }: Pointer, length: number) {
      const { endpoint } = current().at(fd);
      if (endpoint === undefined) return failed("ENOTCONN");
      const taken = current().send(endpoint, view as Uint8Array, offset, length);
      current().trace.note("send(2) gives @ to #", endpoint.id, taken);
      return taken === 0 ? -1 : taken;
    },
    fcntl(fd: number, command: number, from: number) {
      const open = current().at(fd);
      // Its flags, which make no difference here, or a second descriptor.
      if (command === F_GETFL || command === F_SETFL) return 0;
      return current().exhausted ? failed("EMFILE") : current().install(open, from);
    },
    /** Only asked whether a connection waits at a listening descriptor. */
    poll: (polled: Pointer) => Math.min(1, current().at(ints(polled)[0]!).listening!.queue.length),
    ioctl(fd: number, request: number, to: Pointer) {
      const { endpoint } = current().at(fd);
      ints(to)[0] = (request === FIONREAD ? endpoint : endpoint?.peer)?.incoming.length ?? 0;
      return 0;
    },
    close(fd: number) {
      current().close(fd);
      return 0;
    },
    getrlimit(_resource: number, to: Pointer) {
      (to.view as BigUint64Array)[0] = RLIMIT;
      return 0;
    },
    strerror: (errno: number) => getSystemErrorMap().get(-errno)?.[1] ?? `Unknown error ${errno}`,
    /** Only the loopback interface is there. */
    if_nametoindex: (name: Pointer) => Number(Buffer.from(bytesAt(name)).toString() === "lo\0"),
    errnoLocation: () => 1,
  };
}

/** Puts the fake kernel behind bun:ffi, for good, and before src/os/libc.ts is imported. */
export function installLibc(current: () => Kernel): void {
  const calls: Record<string, unknown> = systemCalls(current);
  const ffi = require("bun:ffi") as Record<string, unknown>;
  ffi["dlopen"] = (_library: string, wanted: Record<string, unknown>) => ({
    symbols: Object.fromEntries(
      Object.keys(wanted).map((name) => [
        name,
        name.includes("errno") ? calls["errnoLocation"] : calls[name],
      ]),
    ),
  });
  ffi["ptr"] = (view: ArrayBufferView, offset = 0): Pointer => ({ view, offset });
  ffi["read"] = { i32: () => constants.errno[current().errno as keyof typeof constants.errno] };
}
