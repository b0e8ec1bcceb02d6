/** Which engine the process uses. It changes when there is another one to choose. */
import { bunEngine } from "./bun/engine.ts";
import type { Engine } from "./engine.ts";

/** The sockets of Python's module have no argument that could name an engine: they use this one. */
export let engine: Engine = bunEngine;

/** For the simulation. What is open stays with the engine that it has. */
export function setEngine(other: Engine): void {
  engine = other;
}
