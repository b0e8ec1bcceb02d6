/**
 * Bun's engine with a clock that runs five times as fast: what takes a server a second takes a test a fifth
 * of it.
 */
import { bunEngine } from "../../src/engine/bun/engine.ts";
import { bunTime } from "../../src/engine/bun/time.ts";
import type { Engine } from "../../src/engine/engine.ts";

export const HASTE = 5;

export const hastyEngine: Engine = {
  ...bunEngine,
  time: {
    ...bunTime,
    now: () => bunTime.now() * HASTE,
    after: (ms, callback, keepsAlive) => bunTime.after(ms / HASTE, callback, keepsAlive),
    every: (ms, callback) => bunTime.every(ms / HASTE, callback),
  },
};
