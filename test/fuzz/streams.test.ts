/**
 * Random programs of socket calls on two connected ends, against a model (stream-game.ts).
 *
 * A failure names its seed. It replays by `FUZZ_SEED=17 bun test test/fuzz/streams.test.ts`; with
 * `FUZZ_RUNS=500`, the 499 seeds after it are played as well.
 */
import { describe, test } from "bun:test";
import * as socket from "../../src/socket.ts";
import { Game, type End, type Pair } from "./stream-game.ts";

const FIRST = Number(process.env["FUZZ_SEED"] ?? 1);
const RUNS = Number(process.env["FUZZ_RUNS"] ?? (process.env["FUZZ_SEED"] === undefined ? 60 : 1));
/** No program takes a second on an idle machine. */
const HANG_MS = 15_000;

/** Plays one seed, which must come to its end; a failure says how to replay it. */
async function played(seed: number, pair: () => Promise<Pair>): Promise<void> {
  const ends = await pair();
  const game = new Game(seed, ends);
  let hang: Timer | undefined;
  try {
    await Promise.race([
      game.play(),
      new Promise((_, reject) => {
        hang = setTimeout(() => reject(new Error("it hangs")), HANG_MS);
      }),
    ]);
  } catch (error) {
    const state = game.directions.map(
      ({ sent, maybe, received }) => `${sent}+${maybe} sent, ${received} got`,
    );
    const story = [`ending ${game.ending} by ${"ab"[game.breaker]}`, ...state, ...game.log].join("\n  ");
    throw new Error(
      `seed ${seed}: ${(error as Error).message}\n  replay: FUZZ_SEED=${seed} bun test test/fuzz/streams.test.ts\n  ${story}`,
      { cause: error },
    );
  } finally {
    clearTimeout(hang);
    for (const end of ends) end[Symbol.dispose]();
  }
}

async function tcp(): Promise<Pair> {
  using listener = socket.create_server(["127.0.0.1", 0]);
  const client = await socket.create_connection(listener.getsockname());
  const [accepted] = await listener.accept();
  return [client as unknown as End, accepted as unknown as End];
}

const unix = (): Promise<Pair> => Promise.resolve(socket.socketpair() as unknown as Pair);

describe("two ends make any calls: received bytes are the sent ones", () => {
  for (const [name, pair] of [
    ["TCP", tcp],
    ["socketpair", unix],
  ] as const) {
    test(
      `random calls over ${name} receive what was sent, ${RUNS} seeds from ${FIRST}`,
      async () => {
        for (let seed = FIRST; seed < FIRST + RUNS; seed++) await played(seed, pair);
      },
      30_000 + RUNS * 1000,
    );
  }
});
