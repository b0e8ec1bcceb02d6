/** The library under load: at the descriptor limit, and after ten thousand connections. */
import { afterEach, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { idle } from "../support/faults.ts";
import { until } from "../support/peers.ts";
import { descriptors, hasProc, ROOT } from "../support/program.ts";
import { hasRaw, rawPeer, type RawPeer } from "../support/raw-peer.ts";

setDefaultTimeout(30_000);

const children: Bun.Subprocess[] = [];
afterEach(async () => {
  for (const child of children.splice(0)) {
    child.kill("SIGKILL");
    await child.exited;
  }
});

const LIMIT = 120;

/** The tutorial's second server, with few descriptors. */
async function tutorial(): Promise<{ pid: number; port: number }> {
  const file = join(ROOT, "src/examples/echo-concurrent.ts");
  const command = ["sh", "-c", `ulimit -n ${LIMIT} && exec "$0" run "$1" 0`, process.execPath, file];
  const child = Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "inherit" });
  children.push(child);
  let text = "";
  void (async () => {
    for await (const bytes of child.stdout) text += Buffer.from(bytes).toString();
  })();
  const port = (): string | undefined => /^Socket now listening\n(\d+)\n/m.exec(text)?.[1];
  await until(() => port() !== undefined, "it listens");
  return { pid: child.pid, port: Number(port()) };
}

const isWelcomed = (one: RawPeer): boolean => one.recv()?.toString().startsWith("Welcome") === true;

test.skipIf(!hasRaw || !hasProc)(
  "the library at the descriptor limit resets newcomers, serves the others, and does not spin",
  async () => {
    const { pid, port } = await tutorial();
    const before = descriptors(pid);
    for (let round = 0; round < 2; round++) {
      const asking = new Set<RawPeer>();
      const welcomed: RawPeer[] = [];
      let refused = 0;
      // Ten at a time: a burst beyond listen(10) is the kernel's to drop.
      for (let i = 0; i < LIMIT + 30; i += 10) {
        for (let k = 0; k < 10; k++) asking.add(rawPeer(port));
        await until(() => {
          for (const one of asking) {
            if (isWelcomed(one)) welcomed.push(one);
            else if (one.ended !== undefined) refused++;
            else continue;
            asking.delete(one);
          }
          return asking.size === 0;
        }, "everyone is welcomed or refused");
      }
      expect(refused).toBeGreaterThan(30);
      expect(welcomed.length).toBeGreaterThan(LIMIT - 32 - before - 10);
      expect(descriptors(pid)).toBeLessThanOrEqual(LIMIT - 32);
      await idle(pid);
      for (const one of welcomed) {
        one.send(Buffer.from("still"));
        one.finish();
        expect((await one.rest()).toString()).toBe("OK...still");
        one.close();
      }
      await until(() => descriptors(pid) <= before, "all places are free");
    }
  },
);

test.skipIf(!hasProc)("listen fails if the descriptor limit leaves no room for clients", () => {
  const program = `import { create_server } from "${ROOT}/src/socket.ts"; create_server(["127.0.0.1", 0]);`;
  const command = ["sh", "-c", `ulimit -n 38 && exec "$0" -e "$1"`, process.execPath, program];
  const { stderr, exitCode } = Bun.spawnSync(command, { timeout: 10_000 });
  expect(stderr.toString()).toContain(
    "listen: fewer than 32 of the descriptors are left: raise the limit with ulimit -n (EMFILE)",
  );
  expect(exitCode).toBe(1);
});

test.skipIf(!hasProc)(
  "ten thousand connects and closes of the library give back their descriptors and memory",
  async () => {
    const child = Bun.spawn([process.execPath, "run", `${ROOT}/test/support/connects.ts`], {
      stdin: "ignore",
    });
    children.push(child);
    const left = JSON.parse(await child.stdout.text());
    expect(await child.exited).toBe(0);
    expect(left.descriptors).toBe(0);
    // Twenty tries were between -12 and 22 MB, but for one before the pause (48); a leak of 6 KB each was 68
    // MB.
    expect(left.bytes).toBeLessThan(40 << 20);
  },
);
