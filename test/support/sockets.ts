/**
 * Shared by the tests of the library: sockets that are closed after their test, and Python's
 * answers to compare with.
 */
import * as socket from "../../src/socket.ts";
import { readdirSync } from "node:fs";

const open = new Set<{ close(): void }>();

/** Notes a socket, so that closeAll() closes it. */
export function kept<S extends { close(): void }>(one: S): S {
  open.add(one);
  return one;
}

/** For afterEach: nothing is left open. */
export function closeAll(): void {
  for (const one of open) one.close();
  open.clear();
}

/** A TCP server on a free port of the loopback interface, and where it is. */
export function server(backlog?: number) {
  const options = backlog === undefined ? {} : { backlog };
  const listener = kept(socket.create_server(["127.0.0.1", 0], options));
  return { listener, address: listener.getsockname() };
}

/** Both ends of a TCP connection. */
export async function connection() {
  const { listener, address } = server();
  const client = kept(socket.socket());
  await client.connect(address);
  const [conn, peer] = await listener.accept();
  kept(conn);
  return { listener, client, conn, peer };
}

/** A port of the loopback interface on which nobody listens. */
export function freeAddress(): [string, number] {
  const one = socket.socket();
  one.bind(["127.0.0.1", 0]);
  const address = one.getsockname();
  one.close();
  return address;
}

/** What a call fails with; a call that does not fail is a failed test. */
export async function failure(call: () => unknown): Promise<socket.OSError> {
  try {
    await call();
  } catch (error) {
    return error as socket.OSError;
  }
  throw new Error("it did not fail");
}

/** How many descriptors this process has open, without the one that the question takes. */
export const openDescriptors = (): number => readdirSync("/proc/self/fd").length - 1;

export const python = Bun.which("python3");

/** What a Python program prints, as JSON, when it is given JSON. */
export function askPython(program: string, input: unknown): unknown {
  const { stdout, stderr, exitCode } = Bun.spawnSync([python!, "-c", program], {
    stdin: Buffer.from(JSON.stringify(input)),
  });
  if (exitCode !== 0) throw new Error(`python3: ${stderr.toString()}`);
  return JSON.parse(stdout.toString());
}

const PYTHON_ADDRESSES = `
import json, socket, sys
def tried(call, given):
    try: return call(given)
    except (OSError, ValueError): return None
calls = {
  "aton": lambda text: socket.inet_aton(text).hex(),
  "v4": lambda text: socket.inet_pton(socket.AF_INET, text).hex(),
  "v6": lambda text: socket.inet_pton(socket.AF_INET6, text).hex(),
  "text4": lambda packed: socket.inet_ntop(socket.AF_INET, bytes.fromhex(packed)),
  "text6": lambda packed: socket.inet_ntop(socket.AF_INET6, bytes.fromhex(packed)),
}
json.dump({name: [tried(calls[name], one) for one in given] for name, given in json.load(sys.stdin).items()}, sys.stdout)
`;

/** What Python makes of texts, and of bytes in hexadecimal; null where it refuses. */
export const pythonAddresses = (asked: Record<"aton" | "v4" | "v6" | "text4" | "text6", string[]>) =>
  askPython(PYTHON_ADDRESSES, asked) as Record<keyof typeof asked, (string | null)[]>;
