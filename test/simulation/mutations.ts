/**
 * Defects to put into the source, one at a time, each of which the simulation or a named test must catch. It
 * changes with the rules of the source; renaming and reformatting leave it alone (pattern.ts).
 */
import { CONNECTION_MUTATIONS } from "./connection-mutations.ts";
import { ECHO_MUTATIONS } from "./echo-mutations.ts";
import { LIBRARY_MUTATIONS } from "./library-mutations.ts";
import type { Place } from "./pattern.ts";

export interface Mutation extends Place {
  /** What breaks, in words. */
  readonly breaks: string;
  /** Below src. */
  readonly file: string;
  /** A test file that sees it where the simulation cannot. */
  readonly test?: string;
}

export const MUTATIONS: readonly Mutation[] = [
  ...CONNECTION_MUTATIONS,
  ...LIBRARY_MUTATIONS,
  ...ECHO_MUTATIONS,
];
