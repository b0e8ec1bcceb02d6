/**
 * Plays simulated worlds, one for each seed, and says of a failing one how to see it again: `bun run
 * simulate`. It changes when its user's view does.
 */
import { listFlags } from "../../src/cli/flags-help.ts";
import { choice, decimal, readFlags, UsageError, whole } from "../../src/cli/flags.ts";
import { Fault } from "./trace.ts";
import { fakeEngine } from "./fake-engine.ts";
import { currentSockets, real, type World } from "./world.ts";

// bun:ffi is linked when a module is loaded: what uses it is imported after the fakes have taken their
// places.
const { EchoWorld } = await import("./echo-world.ts");
const { LibraryWorld } = await import("./library-world.ts");
const { setEngine } = await import("../../src/engine/current.ts");
const { bunEngine } = await import("../../src/engine/bun/engine.ts");

const fake = fakeEngine(currentSockets);

interface Kind {
  World: new (seed: number, loud: boolean) => World;
  engine: typeof fake;
}

/** The rules on the seam, and on Bun's engine over a fake Bun. */
const WORLDS: Record<string, Kind> = {
  echo: { World: EchoWorld, engine: fake },
  library: { World: LibraryWorld, engine: fake },
  "echo-bun": { World: EchoWorld, engine: bunEngine },
  "library-bun": { World: LibraryWorld, engine: bunEngine },
};

const MAX_SAFE = Number.MAX_SAFE_INTEGER;

const FLAGS = {
  world: {
    kind: choice(["echo", "library", "echo-bun", "library-bun"]),
    help: "one kind of world: the service or the library, on a fake engine, or on Bun's engine over a fake Bun",
    otherwise: "all in turn",
  },
  seed: { kind: whole({ min: 0, max: MAX_SAFE }), help: "the first seed", otherwise: "a random one" },
  count: {
    kind: whole({ min: 1, max: MAX_SAFE }),
    help: "number of seeds",
    otherwise: "1, unless --seconds or --steps is given",
  },
  seconds: { kind: decimal({ min: 0.001, max: 86_400 * 365, unit: "seconds" }), help: "play this long" },
  steps: { kind: whole({ min: 1, max: MAX_SAFE }), help: "play this many steps" },
  length: {
    kind: whole({ min: 1, max: MAX_SAFE }),
    help: "steps of one seed before its end, which are the first ones of its own",
    otherwise: "by the seed",
  },
  trace: { help: "print each step" },
  quiet: { help: "print no progress" },
  help: { short: "h", help: "show this text" },
} as const;

const HELP = `Plays simulated worlds until one of them shows a defect.

Usage: bun run simulate [options]

${listFlags(FLAGS)}

Exit code 1: a defect. 2: a wrong flag.
`;

function flags() {
  try {
    return readFlags(FLAGS, process.argv.slice(2), { name: () => "bun run simulate" });
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(error.message);
    return process.exit(2);
  }
}

const values = flags();

const nextTurn = (): Promise<void> => new Promise((resolve) => void real.turn(() => resolve()));

let unhandled: unknown;
for (const event of ["unhandledRejection", "uncaughtException"]) {
  process.on(event, (error: unknown) => (unhandled ??= error));
}

interface Played {
  steps: number;
  hash: number;
}

/** @throws Fault */
async function play(name: string, seed: number, length: number | undefined): Promise<Played> {
  const { World, engine } = WORLDS[name]!;
  setEngine(engine);
  const world = new World(seed, values.trace);
  world.clock.seam = engine === fake;
  try {
    // The world is synchronous, and must not be called from a microtask: it runs the microtasks itself.
    await nextTurn();
    await new Promise<void>((resolve, reject) => {
      real.turn(() => {
        try {
          // Drawn in any case, so that a seed with a length is the beginning of the same story.
          const own = world.random.between(100, 5000);
          world.live(length ?? own);
          resolve();
        } catch (error) {
          reject(error);
        }
      });
    });
    await nextTurn();
    if (unhandled !== undefined) throw new Fault(`nobody caught: ${Bun.inspect(unhandled)}`);
  } catch (error) {
    const { trace } = world;
    const what = error instanceof Fault ? error.message : Bun.inspect(error);
    console.error(
      `\n${trace.last().join("\n")}\n\nDEFECT in the world ${name}, seed ${seed}, step ${trace.steps}: ${what}`,
    );
    console.error(
      `replay: bun run simulate --world ${name} --seed ${seed}${length === undefined ? "" : ` --length ${length}`}`,
    );
    process.exit(1);
  }
  return { steps: world.trace.steps, hash: world.trace.hash >>> 0 };
}

async function main(): Promise<void> {
  const names = values.world === undefined ? Object.keys(WORLDS) : [values.world];
  const { seconds, steps, length } = values;
  const first = values.seed ?? crypto.getRandomValues(new Uint32Array(1))[0]! >>> 1;
  const count = values.count ?? (seconds === undefined && steps === undefined ? 1 : Infinity);
  const began = real.now();
  const done: Record<string, { seeds: number; steps: number; ms: number }> = {};
  for (const name of names) done[name] = { seeds: 0, steps: 0, ms: 0 };
  let hash = 0;
  let said = began;
  // The machine may be busy with something else: what counts is what a step costs.
  const cpuTime = (): number => {
    const { user, system } = real.cpuUsage();
    return (user + system) / 1000;
  };
  const total = (): number => Object.values(done).reduce((sum, { steps }) => sum + steps, 0);
  const say = (): void => {
    const each = Object.entries(done).map(([name, { seeds, steps, ms }]) => {
      return `${name}: ${seeds} seeds, ${steps} steps, ${Math.round(steps / (ms / 1000))} steps a second of CPU`;
    });
    console.log(`${((real.now() - began) / 1000).toFixed(0)} s  ${each.join("  ")}`);
  };
  const over = (): boolean =>
    (seconds !== undefined && real.now() - began >= seconds * 1000) ||
    (steps !== undefined && total() >= steps);
  for (let seed = first; seed < first + count && !over(); seed++) {
    for (const name of names) {
      const at = cpuTime();
      const played = await play(name, seed, length);
      hash = (Math.imul(hash, 31) + played.hash) >>> 0;
      done[name]!.seeds++;
      done[name]!.steps += played.steps;
      done[name]!.ms += cpuTime() - at;
    }
    if (values.quiet || real.now() - said < 5000) continue;
    said = real.now();
    say();
  }
  say();
  console.log(`clean from seed ${first} on, ${total()} steps, trace ${hash.toString(16).padStart(8, "0")}`);
}

if (values.help) console.log(HELP);
else await main();
process.exit(0);
