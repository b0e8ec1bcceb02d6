/** Shared by the contract's tests: the pairs they are given, and how they compare bytes. */
import { expect } from "bun:test";
import * as socket from "../../src/socket.ts";
import { pattern } from "../support/peers.ts";

export type End = socket.Socket<socket.AddressFamily>;
export type MakePair = () => Promise<[a: End, b: End]>;
/**
 * The first end's sending direction is full, because the second does not read; `stuck` is what it sent so
 * far.
 */
export type MakeCloggedPair = () => Promise<[a: End, b: End, stuck: Buffer]>;

/** What a transport cannot do, each with the reason, and how much of it is tested. */
export interface Limits {
  /** It has no reset: of a peer that goes away abruptly, the end is seen. */
  noReset?: string;
  /** Its descriptor is of no use without the object. */
  noDetach?: string;
  /** How many bytes its bulk test moves. */
  bulkBytes?: number;
}

/** Pairs for the tests, closed after each. */
export interface Pairs {
  pair: MakePair;
  cloggedPair: MakeCloggedPair;
  /** Closes this one, too. */
  keep: <E extends { [Symbol.dispose](): void }>(end: E) => E;
  limits: Limits;
}

/** More than any kernel takes while nobody reads. */
export const FILL = pattern(16 << 20);
/** What waits on a pair that is clogged already. */
export const PIECE = pattern(1 << 20, 2);
export const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString();
export const bytes = (of: string): Buffer => Buffer.from(of);

/** All that comes before the end. */
export async function drain(end: End): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for (let piece = await end.recv(1 << 20); piece.length > 0; piece = await end.recv(1 << 20)) {
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

/** Compares without printing megabytes. */
export function expectSame(got: Uint8Array, sent: Uint8Array): void {
  expect(got.length).toBe(sent.length);
  expect(Buffer.compare(got, sent)).toBe(0);
}

/** The error that a call ends with. */
export const failure = (call: Promise<unknown>): Promise<unknown> =>
  call.then(
    () => {
      throw new Error("it did not fail");
    },
    (error: unknown) => error,
  );

/** Some turns of the event loop, in which whatever is there already is handed over. */
export async function turns(): Promise<void> {
  for (let i = 0; i < 5; i++) await new Promise(setImmediate);
}

export async function expectWaiting(call: Promise<unknown>): Promise<void> {
  await turns();
  expect(Bun.peek.status(call)).toBe("pending");
}
