/**
 * A stop during a fault: it exits in time, with 0 and its totals, and a second signal ends it
 * immediately.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { constants } from "node:os";
import { connect as connectTLS } from "node:tls";
import { makeLink, noLink, type Link } from "../support/link.ts";
import { exchange, pattern, peer, stalled, until } from "../support/peers.ts";
import { descriptors, killAll, launch, ROOT, type Program } from "../support/program.ts";
import { connected, hasRaw, rawPeer, type RawPeer } from "../support/raw-peer.ts";
import { cert } from "../support/tls.ts";

setDefaultTimeout(30_000);

const cleanups: (() => void)[] = [];
afterAll(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
  killAll();
});

const MIB = 1 << 20;
const BLOCK = pattern(65_536);
const ENOUGH = pattern(32 * MIB, 2);
const TOTALS =
  /(^|\n)\d+ connections?( \([^)]*\))?, \d+ bytes in, \d+ bytes out, 0 bytes copied(, \d+ bytes dropped)?\n$/;

async function some(count: number, { port }: Program, receiveBuffer?: number): Promise<RawPeer[]> {
  const way = receiveBuffer === undefined ? {} : { receiveBuffer };
  const peers = await Promise.all(Array.from({ length: count }, () => connected(port, way)));
  // They stand as soon as the kernel has them. Whoever is served behind them, or refused at the descriptor
  // limit, shows that the server has them, too.
  await exchange(port, Buffer.from("x")).catch((error: Error) =>
    expect(error.message).toContain("ECONNRESET"),
  );
  return peers;
}

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
            // It no longer listens.
          }
        }
      });
    },
  },
  "a handler that throws": {
    start: (args) => launch(args, { preload: `${ROOT}/test/support/throwing.ts` }),
    async bring(program) {
      const stays = await some(3, program);
      for (const one of stays) one.send(BLOCK);
      const doomed = await some(100, program);
      doomed.pop()!.send(Buffer.from("throw"));
      await until(() => program.stderr.includes("a connection was closed by an internal error"), "it throws");
      meanwhile(() => doomed.pop()?.send(Buffer.from("throw")));
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
      cleanups.push(link.remove);
      const program = await launch(["--host", link.host, ...args], { within: link.within });
      links.set(program, link);
      return program;
    },
    async bring(program) {
      const { port } = program;
      const link = links.get(program)!;
      const peers = await Promise.all(Array.from({ length: 10 }, () => connected(port, link)));
      for (const one of peers) one.send(BLOCK);
      await peers[9]!.stall(ENOUGH);
      link.set("down");
    },
  },
};
const links = new WeakMap<Program, Link>();

/**
 * They wait mostly, and so run side by side, three at a time: more would take the processors from each other.
 */
const ABREAST = 3;
let running = 0;
const waiting: (() => void)[] = [];
async function inTurn(test: () => Promise<void>): Promise<void> {
  if (running === ABREAST) await new Promise<void>((resolve) => waiting.push(resolve));
  else running++;
  try {
    await test();
  } finally {
    const next = waiting.shift();
    if (next === undefined) running--;
    else next();
  }
}
/** Which ends it gracefully, and which is the second. */
const ORDERS = [
  ["SIGTERM", "SIGINT"],
  ["SIGINT", "SIGTERM"],
] as const;

describe.skipIf(!hasRaw).concurrent("a stop beside", () => {
  for (const [name, { start = plain, bring, skipped = "" }] of Object.entries(situations)) {
    const why = skipped && ` (skipped: ${skipped})`;

    test.skipIf(skipped !== "")(
      `a stop beside ${name}: either signal exits with 0, in time, with the totals${why}`,
      async () => {
        const gracefully = async (signal: NodeJS.Signals): Promise<void> => {
          const program = await start(["--drain-timeout", "0.6"]);
          const then = await bring(program);
          const began = performance.now();
          program.signal(signal);
          then?.();
          const code = await program.exited;
          const took = performance.now() - began;
          const { stderr } = await program.finished;
          expect(stderr).toMatch(TOTALS);
          expect({ signal, code, stderr }).toEqual({ signal, code: 0, stderr });
          expect(took).toBeLessThan(2000);
        };
        await inTurn(async () => void (await Promise.all(ORDERS.map(([signal]) => gracefully(signal)))));
      },
    );

    test.skipIf(skipped !== "")(
      `a stop beside ${name}: a second signal ends it immediately, with the totals${why}`,
      async () => {
        const atOnce = async ([first, second]: (typeof ORDERS)[number]): Promise<void> => {
          const program = await start(["--drain-timeout", "20"]);
          const then = await bring(program);
          const began = performance.now();
          program.signal(first);
          await until(() => program.stderr.includes(`${first}: finishing`), "the stop has begun");
          then?.();
          // Within a second of the first it is the same request: it comes again until it is the second.
          const again = setInterval(() => program.signal(second), 50);
          const code = await program.exited;
          clearInterval(again);
          const took = performance.now() - began;
          const { stderr } = await program.finished;
          expect(stderr).toMatch(TOTALS);
          expect({ second, code }).toEqual({ second, code: 128 + constants.signals[second] });
          expect(took).toBeGreaterThan(900);
          expect(took).toBeLessThan(2000);
        };
        await inTurn(async () => void (await Promise.all(ORDERS.map(atOnce))));
      },
    );
  }
});

test.skipIf(!hasRaw)(
  "stopping the library's TLS server beside peers without TLS: a client in mid-stream gets everything",
  async () => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      const child = Bun.spawn([process.execPath, "run", `${ROOT}/test/support/tls-echo.ts`], {
        ...({ stdin: "ignore", stdout: "pipe", stderr: "pipe" } as const),
      });
      cleanups.push(() => child.kill("SIGKILL"));
      const output = child.stdout.getReader();
      const says = async (): Promise<string> => Buffer.from((await output.read()).value ?? []).toString();
      const port = Number(await says());
      const client = connectTLS({ port, host: "127.0.0.1", ca: cert, servername: "localhost" });
      cleanups.push(() => client.destroy());
      const chunks: Buffer[] = [];
      client.on("data", (chunk: Buffer) => chunks.push(chunk));
      const ended = new Promise<void>((resolve, reject) => client.on("close", resolve).on("error", reject));
      const bytes = pattern(MIB, 8);
      client.write(bytes.subarray(0, 1000));
      await until(() => chunks.length > 0, "it is served");
      // Half of a record that will not come, bytes of no kind, and nothing at all.
      const some = await Promise.all(Array.from({ length: 30 }, () => connected(port)));
      for (const [i, one] of some.entries()) {
        if (i % 3 === 0) one.send(Buffer.from("160301020001", "hex"));
        if (i % 3 === 1) one.send(pattern(20_000, i));
      }
      const began = performance.now();
      child.kill(signal);
      for (const one of some) {
        await one.rest();
        one.close();
      }
      client.end(bytes.subarray(1000));
      await ended;
      expect(Buffer.concat(chunks).equals(bytes)).toBe(true);
      expect(await says()).toBe("1\n");
      expect({ signal, code: await child.exited }).toEqual({ signal, code: 0 });
      // Nobody's handshake is waited for.
      expect(performance.now() - began).toBeLessThan(3000);
      expect(await child.stderr.text()).toBe("");
    }
  },
);
