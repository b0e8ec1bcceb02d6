/**
 * Defects to put into the source, one at a time, each of which the simulation or a named test must see. It
 * changes with the source: each text must be there exactly once.
 */
import { CONNECTION_MUTATIONS } from "./connection-mutations.ts";
import { ECHO_MUTATIONS } from "./echo-mutations.ts";
import { LIBRARY_MUTATIONS } from "./library-mutations.ts";

export interface Mutation {
  /** What breaks, in words. */
  readonly breaks: string;
  /** Below src. */
  readonly file: string;
  readonly text: string;
  readonly becomes: string;
  /** A test file that sees it where the simulation cannot. */
  readonly test?: string;
}

export const MUTATIONS: readonly Mutation[] = [
  ...CONNECTION_MUTATIONS,
  ...LIBRARY_MUTATIONS,
  ...ECHO_MUTATIONS,
];
