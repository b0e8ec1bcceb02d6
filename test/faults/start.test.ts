/** A port that somebody else takes while the server starts. */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { serves } from "../support/faults.ts";
import { hasProc, killAll, launch } from "../support/program.ts";
import { bound, freePort, hasRaw } from "../support/raw-peer.ts";

setDefaultTimeout(30_000);
afterEach(killAll);

const taken = (port: number): RegExp =>
  new RegExp(
    `ringback: listen 127\\.0\\.0\\.1:${port}: .*\\(EADDRINUSE\\); stop the program that listens there`,
  );

/** Starts it on this port: the port, when it serves there; what it says, when it does not. */
async function tryPort(port: number) {
  try {
    return { served: await launch(["--port", String(port)]), says: "" };
  } catch (error) {
    return { served: undefined, says: (error as Error).message };
  }
}

describe.skipIf(!hasProc || !hasRaw)("a port that is free when the server starts", () => {
  test("and that two servers ask for at the same moment: one serves, the other names it and exits with 1", async () => {
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

  test("and that another program binds before it does, whenever that is: exactly one of them has it", async () => {
    // Halves the time between "before it" and "after it", and so comes close to the very moment.
    let [early, late] = [0, 400];
    const outcomes: boolean[] = [];
    for (let tries = 0; tries < 12; tries++) {
      const delay = tries === 0 ? 0 : (early + late) / 2;
      const port = freePort();
      const starting = tryPort(port);
      await Bun.sleep(delay);
      const other = bound(port);
      const { served, says } = await starting;
      outcomes.push(served !== undefined);
      expect(served === undefined).toBe(other !== undefined);
      if (served === undefined) {
        early = delay;
        expect(says).toMatch(taken(port));
        expect(says).toStartWith("exit code 1");
      } else {
        late = delay;
        await serves(served.port);
        served.signal("SIGKILL");
      }
      other?.close();
    }
    expect(outcomes).toContain(true);
    expect(outcomes).toContain(false);
  });
});
