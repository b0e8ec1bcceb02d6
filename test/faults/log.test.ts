/** A log that cannot be written: a full disk, a pipe that nobody reads, a pipe whose reader has gone. */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { asBusyAs, cpuShare, serves, steady } from "../support/faults.ts";
import { listeningPort } from "../support/listening.ts";
import { until } from "../support/peers.ts";
import { ROOT } from "../support/program.ts";
import { hasRaw, RawPeer } from "../support/raw-peer.ts";

setDefaultTimeout(30_000);

const children: Bun.Subprocess[] = [];
const folders: string[] = [];
afterEach(async () => {
  for (const child of children) child.kill("SIGKILL");
  await Promise.all(children.splice(0).map(({ exited }) => exited));
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

function folder(): string {
  const made = mkdtempSync(join(tmpdir(), "ringback-"));
  folders.push(made);
  return made;
}

/** The server with its log where a shell's words put it. It says a line of figures every 5 ms. */
async function logging(redirection: string, before: string[] = []) {
  const child = Bun.spawn(
    [
      ...before,
      ...["sh", "-c", `exec "$@" ${redirection}`, "sh"],
      ...[process.execPath, "run", `${ROOT}/src/server.ts`, "--port", "0", "--stats", "0.005"],
    ],
    { env: { ...process.env, HOST: "", PORT: "" }, stdin: "ignore", stdout: "ignore", stderr: "ignore" },
  );
  children.push(child);
  const { pid } = child;
  return { child, pid, port: await listeningPort(pid) };
}

let known: Promise<number> | undefined;
/**
 * The share of a core that it uses where its log is as it should be: the fault may be there from the
 * beginning.
 */
function healthy(): Promise<number> {
  return (known ??= (async () => {
    const { pid, port } = await logging(">/dev/null 2>&1");
    for (let i = 0; i < 10; i++) await serves(port);
    return cpuShare(pid, 500);
  })());
}

/** A stop is one as ever. */
async function stops(child: Bun.Subprocess): Promise<void> {
  child.kill("SIGTERM");
  expect(await child.exited).toBe(0);
}

const cannotMount = ((): string => {
  if (!hasRaw) return "needs Linux";
  if (Bun.which("unshare") === null) return "unshare is not installed";
  const words = ["unshare", "-m", "sh", "-c", "mount -t tmpfs -o size=64k none /mnt"];
  return Bun.spawnSync(words).success ? "" : "mount is not allowed";
})();

const FIGURES = /^( *\d+)( +\d+){3}( +[\d.]+ k?M?B){7}$|^ *open  connections .* dropped$/;

describe.skipIf(!hasRaw)("with its log", () => {
  test("with stdout and stderr on a full device, the server serves and stops", async () => {
    const { child, ...server } = await logging(">/dev/full 2>&1");
    const after = await steady(server, { busy: await healthy() });
    for (let i = 0; i < 20; i++) await serves(server.port);
    await after();
    await stops(child);
  });

  test.skipIf(cannotMount !== "")(
    `with its log on a disk that fills up, the server serves, and logs again when there is room${cannotMount && ` (skipped: ${cannotMount})`}`,
    async () => {
      const mounted = "mount -t tmpfs -o size=64k none /mnt && head -c 40K /dev/zero >/mnt/other";
      const { child, ...server } = await logging("", [
        ...["unshare", "-m", "sh", "-c", `${mounted} && exec "$@" >/mnt/log 2>&1`, "sh"],
      ]);
      const root = `/proc/${child.pid}/root/mnt`;
      const size = (): number => statSync(`${root}/log`).size;
      await until(() => size() === 24 << 10, "the disk is full");
      const after = await steady(server, { busy: await healthy() });
      for (let i = 0; i < 20; i++) await serves(server.port);
      await asBusyAs(child.pid, await healthy());
      expect(size()).toBe(24 << 10);
      rmSync(`${root}/other`);
      await until(() => size() > 28 << 10, "it logs again");
      await after();
      const lines = readFileSync(`${root}/log`, "utf8").split("\n").slice(1, -1);
      // At most the one line is torn that met the end of the disk.
      expect(lines.filter((line) => !FIGURES.test(line)).length).toBeLessThanOrEqual(1);
      await stops(child);
    },
  );

  test("with its log in a pipe that nobody reads, the server serves and later writes whole lines", async () => {
    const fifo = join(folder(), "log");
    await Bun.$`mkfifo ${fifo}`;
    const reader = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
    // Two pages of 16 are left: one for about 30 lines, which are there in 150 ms, and one for the line that
    // fills it.
    const before = "\n".repeat(14 * 4096);
    writeSync(reader, before);
    const { child, ...server } = await logging(`2>${fifo}`);
    const after = await steady(server, { busy: await healthy() });
    const pipe = new RawPeer(reader);
    await until(() => !pipe.stands, "the pipe takes nothing more");
    for (let i = 0; i < 20; i++) await serves(server.port);
    await after();
    let text = "";
    const inbox = Buffer.alloc(1 << 20);
    const take = (): void => {
      try {
        text += inbox.toString("utf8", 0, readSync(reader, inbox));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
      }
    };
    take();
    const full = text.length;
    expect(full).toBeGreaterThan(before.length + 3500);
    expect(full).toBeLessThanOrEqual(16 * 4096);
    await until(() => {
      take();
      return text.length > full + 1000;
    }, "it goes on to log");
    await stops(child);
    take();
    const lines = text.trim().split("\n");
    expect(lines.pop()).toMatch(/^\d+ connections, \d+ bytes in, \d+ bytes out, 0 bytes copied$/);
    for (const line of lines) expect(line).toMatch(FIGURES);
    closeSync(reader);
  });

  test("with its log in a pipe whose reader has gone, the server serves and stops", async () => {
    const fifo = join(folder(), "log");
    await Bun.$`mkfifo ${fifo}`;
    const reader = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
    const { child, ...server } = await logging(`>${fifo} 2>&1`);
    await serves(server.port);
    closeSync(reader);
    const after = await steady(server, { busy: await healthy() });
    for (let i = 0; i < 20; i++) await serves(server.port);
    await after();
    await stops(child);
  });
});
