/**
 * Links between two network namespaces that are slow, lose packets, go down, or disappear with
 * the peer.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { steady } from "../support/faults.ts";
import { makeLink, noLink, type Link } from "../support/link.ts";
import { pattern, until } from "../support/peers.ts";
import { descriptors, killAll, launch, ROOT, type Program } from "../support/program.ts";
import { connected, type RawPeer } from "../support/raw-peer.ts";

setDefaultTimeout(30_000);

/** The way back is the slower one, so that the server has to keep what the link does not take. */
const RATES = { server: "25mbit", client: "60mbit" };

// Each test has a link and a server of its own, and waits for both: they run side by side.
const links: Link[] = [];
afterAll(() => {
  killAll();
  for (const link of links.splice(0)) link.remove();
});

/** A server at one end of a link, and peers from the other. */
async function across(args: string[] = []) {
  const link = makeLink();
  links.push(link);
  const program = await launch(["--host", link.host, ...args], { within: link.within });
  const come = (receiveBuffer?: number): Promise<RawPeer> =>
    connected(program.port, { ...link, ...(receiveBuffer !== undefined && { receiveBuffer }) });
  return { link, program, come };
}

/** The server is warm; it is to serve, at rest, with as many descriptors and as much memory as now. */
function steadyAcross(program: Program, come: () => Promise<RawPeer>): Promise<() => Promise<void>> {
  const bytes = pattern(200_000, 9);
  const check = async (): Promise<void> => {
    const one = await come();
    expect((await one.exchange(bytes)).equals(bytes)).toBe(true);
    expect(one.ended).toBe("FIN");
    one.close();
  };
  return steady(program, { check });
}

const why = noLink === "" ? "" : ` (skipped: ${noLink})`;

describe.skipIf(noLink !== "").concurrent(`a link that loses packets${why}`, () => {
  test("a link that loses packets delays megabytes, changes none, and delivers the half-close after them", async () => {
    const { link, program, come } = await across();
    const after = await steadyAcross(program, come);
    link.shape(RATES, "8kb", "16kb");
    const all = [1, 2, 3].map((seed) => pattern(2 << 20, seed));
    await Promise.all(
      all.map(async (bytes) => {
        const one = await come();
        const back = await one.exchange(bytes);
        expect(Bun.SHA256.hash(back, "hex")).toBe(Bun.SHA256.hash(bytes, "hex"));
        expect(one.ended).toBe("FIN");
        one.close();
      }),
    );
    expect(link.lost()).toBeGreaterThan(20);
    await after();
  });

  test("resets in mid-stream across a link that loses packets leave other connections alone", async () => {
    const { link, program, come } = await across();
    const after = await steadyAcross(program, come);
    link.shape(RATES, "8kb", "16kb");
    const bytes = pattern(1 << 20, 3);
    const doomed = await Promise.all(Array.from({ length: 5 }, () => come()));
    const other = await come();
    await until(() => {
      for (const one of doomed) one.send(bytes);
      return doomed.every((one) => one.recv() !== undefined);
    }, "all are in mid-stream");
    const back = other.exchange(bytes);
    for (const one of doomed) one.reset();
    expect((await back).equals(bytes)).toBe(true);
    other.close();
    await after();
  });
});

describe.skipIf(noLink !== "").concurrent(`a link that goes down${why}`, () => {
  test("a link that is down for two seconds loses no byte", async () => {
    const { link, program, come } = await across(["--idle-timeout", "10"]);
    const after = await steadyAcross(program, come);
    link.shape({ server: "100mbit", client: "100mbit" }, "64kb", "128kb");
    const bytes = pattern(4 << 20, 4);
    const one = await come();
    const back = one.exchange(bytes);
    await until(() => one.sent > 1 << 20, "the stream runs");
    link.set("down");
    const sent = one.sent;
    await Bun.sleep(2000);
    expect(one.ended).toBeUndefined();
    expect(sent).toBeLessThan(bytes.length);
    link.set("up");
    expect((await back).equals(bytes)).toBe(true);
    expect(one.ended).toBe("FIN");
    one.close();
    await after();
  });

  test("half-open peers behind a dead link are closed by --idle-timeout", async () => {
    const { link, program, come } = await across(["--idle-timeout", "1"]);
    const after = await steadyAcross(program, come);
    const before = descriptors(program.pid);
    const quiet = await Promise.all(Array.from({ length: 20 }, () => come()));
    for (const one of quiet) one.send(Buffer.from("x"));
    const owed = await Promise.all(Array.from({ length: 5 }, () => come(4096)));
    const bytes = pattern(64 << 20, 2);
    await Promise.all(owed.map((one) => one.stall(bytes)));
    await until(() => descriptors(program.pid) === before + 25, "all are there");
    link.set("down");
    await until(() => descriptors(program.pid) <= before, "they are given up", 8000);
    link.set("up");
    await after();
    for (const one of [...quiet, ...owed]) one.close();
    program.signal("SIGTERM");
    const { code, stderr } = await program.finished;
    expect(code).toBe(0);
    // The five with held bytes have lost them.
    expect(stderr).toMatch(/^36 connections \(5 broken\), /);
  });

  test("silent peers behind a dead link are given up by keepalive after twice its time", async () => {
    const link = makeLink();
    links.push(link);
    const script = join(ROOT, "test/support/keepalive-server.ts");
    const server = Bun.spawn([...link.within, process.execPath, script, link.host], { stdout: "pipe" });
    try {
      let said = "";
      void (async () => {
        for await (const bytes of server.stdout) said += Buffer.from(bytes).toString();
      })();
      await until(() => said.includes("port"), "it listens");
      const one = await connected(Number(/port (\d+)/.exec(said)![1]), link);
      one.send(Buffer.from("x"));
      await until(() => one.recv()?.toString() === "x", "the echo");
      link.set("down");
      await until(() => said.includes("gone"), "it is given up", 12_000);
      expect(said).toContain("gone, 1 broken");
      one.close();
    } finally {
      server.kill("SIGKILL");
    }
  });
});
