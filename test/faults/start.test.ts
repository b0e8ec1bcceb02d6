/** Interference during the start: another program that takes the port, and a signal. */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { serves } from "../support/faults.ts";
import { hasProc, killAll, launch, ROOT } from "../support/program.ts";
import { bound, freePort, hasRaw } from "../support/raw-peer.ts";

setDefaultTimeout(30_000);
afterEach(killAll);

const taken = (port: number): RegExp =>
  new RegExp(
    `ringback: listen 127\\.0\\.0\\.1:${port}: .*\\(EADDRINUSE\\); stop the program that listens\\s+there`,
  );

/** Starts it on this port: the port, when it serves there; what it says, when it does not. */
async function tryPort(port: number) {
  try {
    return { served: await launch(["--port", String(port)]), says: "" };
  } catch (error) {
    return { served: undefined, says: (error as Error).message };
  }
}

/**
 * Halves the time between "before it" and "after it", and so comes close to the very moment. How long a start
 * takes it does not know: the time is doubled until it is after it.
 */
function closingIn() {
  let [before, after, longest] = [-1, Infinity, 50];
  return {
    next(): number {
      if (before < 0) return 0;
      return after < Infinity ? (before + after) / 2 : (longest *= 2);
    },
    early: (delay: number): void => void (before = Math.max(before, delay)),
    late: (delay: number): void => void (after = Math.min(after, delay)),
  };
}

describe.skipIf(!hasProc || !hasRaw)("a port that is free when the server starts", () => {
  test("of two servers that start on one port at once, one serves and the other names the port and exits with 1", async () => {
    for (let round = 0; round < 5; round++) {
      const port = freePort();
      const tries = await Promise.all([tryPort(port), tryPort(port)]);
      const [winner, ...more] = tries.filter(({ served }) => served !== undefined);
      expect(more).toEqual([]);
      await serves(winner!.served!.port);
      const [loser] = tries.filter(({ served }) => served === undefined);
      expect(loser!.says).toMatch(taken(port));
      expect(loser!.says).toStartWith("exit code 1");
      winner!.served!.signal("SIGKILL");
      await winner!.served!.exited;
    }
  });

  test("a port that another program binds while the server starts belongs to exactly one of them", async () => {
    const moments = closingIn();
    const outcomes: boolean[] = [];
    for (let tries = 0; tries < 14; tries++) {
      const delay = moments.next();
      const port = freePort();
      const starting = tryPort(port);
      await Bun.sleep(delay);
      const other = bound(port);
      const { served, says } = await starting;
      outcomes.push(served !== undefined);
      expect(served === undefined).toBe(other !== undefined);
      if (served === undefined) {
        moments.early(delay);
        expect(says).toMatch(taken(port));
        expect(says).toStartWith("exit code 1");
      } else {
        moments.late(delay);
        await serves(served.port);
        served.signal("SIGKILL");
      }
      other?.close();
    }
    expect(outcomes).toContain(true);
    expect(outcomes).toContain(false);
  });
});

describe.skipIf(!hasProc)("a signal while the server starts, whenever that is,", () => {
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    test(`${signal} during the start kills the server or stops it with 0 and its totals; nothing listens afterwards`, async () => {
      const moments = closingIn();
      const outcomes: boolean[] = [];
      for (let tries = 0; tries < 14; tries++) {
        const delay = moments.next();
        const port = freePort();
        const child = Bun.spawn([process.execPath, "run", `${ROOT}/src/server.ts`, "--port", String(port)], {
          ...({ stdin: "ignore", stdout: "pipe", stderr: "pipe", timeout: 10_000 } as const),
          env: { ...process.env, HOST: "", PORT: "" },
        });
        await Bun.sleep(delay);
        child.kill(signal);
        const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
        const { exitCode: code, signalCode } = child;
        const serving = stdout !== "";
        outcomes.push(serving);
        (serving ? moments.late : moments.early)(delay);
        if (signalCode !== null) {
          // What it says that it serves would be a lie to who has heard it: by then its own end is in place.
          expect({ signalCode, stdout, stderr }).toEqual({ signalCode: signal, stdout: "", stderr: "" });
        } else {
          expect({ code, stdout }).toEqual({ code: 0, stdout: `listening on 127.0.0.1:${port}\n` });
          expect(stderr).toBe("0 connections, 0 bytes in, 0 bytes out, 0 bytes copied\n");
        }
        const free = bound(port);
        expect(free).toBeDefined();
        free?.close();
      }
      expect(outcomes).toContain(true);
      expect(outcomes).toContain(false);
    });
  }
});
