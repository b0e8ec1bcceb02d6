/** A stop in the middle of a fault: it ends in time, with 0 and with its totals, and a second signal ends it at once. */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { constants } from "node:os";
import { makeLink, noLink } from "../support/link.ts";
import { pattern, peer, stalled, until } from "../support/peers.ts";
import { descriptors, killAll, launch, ROOT, type Program } from "../support/program.ts";
import { connected, hasRaw, rawPeer, type RawPeer } from "../support/raw-peer.ts";

setDefaultTimeout(30_000);

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
  killAll();
});

const MIB = 1 << 20;
const BLOCK = pattern(65_536);
const ENOUGH = pattern(32 * MIB, 2);
const TOTALS =
  /(^|\n)\d+ connections?( \([^)]*\))?, \d+ bytes in, \d+ bytes out, 0 bytes copied(, \d+ bytes dropped behind a FIN)?\n$/;

const some = (count: number, program: Program, receiveBuffer?: number): Promise<RawPeer[]> =>
  Promise.all(
    Array.from({ length: count }, () =>
      connected(program.port, receiveBuffer === undefined ? {} : { receiveBuffer }),
    ),
  );

/** Does it again and again, also during the stop. */
function meanwhile(what: () => void): void {
  const timer = setInterval(what, 5);
  cleanups.push(() => clearInterval(timer));
}

const plain = (args: string[]): Promise<Program> => launch(args);

interface Situation {
  start?: (args: string[]) => Promise<Program>;
  /** Brings it about. What it gives is done right behind the signal. */
  bring: (program: Program) => Promise<(() => void) | void>;
  skipped?: string;
}

const situations: Record<string, Situation> = {
  "peers that read nothing": {
    bring: async ({ port }) => void (await Promise.all([stalled(port), stalled(port), stalled(port)])),
  },
  "peers whose window is closed, and whose FIN waits behind it": {
    async bring(program) {
      const peers = await some(10, program, 1);
      await Promise.all(peers.map((one) => one.stall(ENOUGH)));
      for (const one of peers) one.finish();
    },
  },
  "peers that send without end": {
    async bring({ port, pid }) {
      const before = descriptors(pid);
      const bulk = Bun.spawn([
        process.execPath,
        "run",
        `${ROOT}/test/support/bulk-peers.ts`,
        String(port),
        "4",
      ]);
      cleanups.push(() => bulk.kill("SIGKILL"));
      await until(() => descriptors(pid) === before + 4, "they are there");
    },
  },
  "a process of peers that is killed at that moment": {
    async bring({ port, pid }) {
      const before = descriptors(pid);
      const bulk = Bun.spawn([
        process.execPath,
        "run",
        `${ROOT}/test/support/bulk-peers.ts`,
        String(port),
        "4",
      ]);
      const quiet = await peer(port);
      cleanups.push(() => void quiet.socket.destroy());
      await until(() => descriptors(pid) === before + 5, "they are there");
      return () => bulk.kill("SIGKILL");
    },
  },
  "500 peers of a byte now and then": {
    async bring(program) {
      const peers = await some(500, program);
      let tick = 0;
      meanwhile(() => {
        for (let i = tick++ % 20; i < 500; i += 20) peers[i]!.send(Buffer.from("x"));
      });
    },
  },
  "peers that reset one by one": {
    async bring(program) {
      const peers = await some(200, program);
      for (const one of peers) one.send(BLOCK);
      meanwhile(() => peers.pop()?.reset());
    },
  },
  "peers that come and go": {
    async bring({ port }) {
      const stays = await peer(port);
      cleanups.push(() => void stays.socket.destroy());
      stays.socket.write("x");
      await until(() => stays.count === 1, "it is there");
      meanwhile(() => {
        for (let i = 0; i < 5; i++) {
          try {
            const one = rawPeer(port);
            if (i % 2 === 0) one.reset();
            else one.close();
          } catch {
            // Nobody listens any more.
          }
        }
      });
    },
  },
  "the descriptor limit": {
    start: (args) => launch(args, { shell: "ulimit -n 100" }),
    async bring(program) {
      const peers = await some(200, program);
      for (const one of peers) one.send(Buffer.from("?"));
      await until(() => {
        for (const one of peers) one.recv();
        return peers.filter(({ ended }) => ended !== undefined).length > 100;
      }, "most are refused");
    },
  },
  "peers that have vanished from the link": {
    skipped: noLink,
    async start(args) {
      const link = makeLink();
      links.push(link);
      return launch(["--host", link.host, ...args], { within: link.within });
    },
    async bring({ port }) {
      const link = links.at(-1)!;
      cleanups.push(link.remove);
      const peers = await Promise.all(Array.from({ length: 10 }, () => connected(port, link)));
      for (const one of peers) one.send(BLOCK);
      await peers[9]!.stall(ENOUGH);
      link.set("down");
    },
  },
};
const links: ReturnType<typeof makeLink>[] = [];

describe.skipIf(!hasRaw)("a stop beside", () => {
  for (const [i, [name, situation]] of Object.entries(situations).entries()) {
    const { start = plain, bring, skipped = "" } = situation;
    const [first, second] = i % 2 === 0 ? (["SIGTERM", "SIGINT"] as const) : (["SIGINT", "SIGTERM"] as const);

    test.skipIf(skipped !== "")(
      `${name}: 0, in time, with the totals${skipped && ` (skipped: ${skipped})`}`,
      async () => {
        const program = await start(["--drain-timeout", "1"]);
        const then = await bring(program);
        const began = performance.now();
        program.signal(first);
        then?.();
        const code = await program.exited;
        const took = performance.now() - began;
        const { stderr } = await program.finished;
        expect(stderr).toMatch(TOTALS);
        expect(code).toBe(0);
        expect(took).toBeLessThan(2000);
      },
    );

    test.skipIf(skipped !== "")(`${name}: at the second signal at once, with the totals`, async () => {
      const program = await start(["--drain-timeout", "20"]);
      const then = await bring(program);
      program.signal(first);
      await until(() => program.stderr.includes(`${first}: stopping`), "the stop has begun");
      then?.();
      const began = performance.now();
      program.signal(second);
      const code = await program.exited;
      const took = performance.now() - began;
      const { stderr } = await program.finished;
      expect(stderr).toMatch(TOTALS);
      expect(code).toBe(128 + constants.signals[second]);
      expect(took).toBeLessThan(1000);
    });
  }
});
