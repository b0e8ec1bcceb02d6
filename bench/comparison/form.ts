/**
 * The form of a result's file: whether all is there that its readers take, and where it is not. It changes with the
 * file's form.
 */
import { Histogram, type HistogramJSON } from "../histogram.ts";

/** @returns what is wrong, with the place in the file; undefined when nothing is */
type Form = (value: unknown, at: string) => string | undefined;

const is =
  (what: string, holds: (value: unknown) => boolean): Form =>
  (value, at) =>
    holds(value) ? undefined : `${at} is not ${what}`;

const text = is("a text", (value) => typeof value === "string");
const truth = is("true or false", (value) => typeof value === "boolean");
const number = is(
  "a number from 0 on",
  (value) => typeof value === "number" && value >= 0 && value < Infinity,
);
const count = is(
  "a whole number from 1 on",
  (value) => Number.isSafeInteger(value) && (value as number) >= 1,
);

const orNull =
  (form: Form): Form =>
  (value, at) =>
    value === null ? undefined : form(value, at);
const orAbsent =
  (form: Form): Form =>
  (value, at) =>
    value === undefined ? undefined : form(value, at);

const list =
  (form: Form): Form =>
  (value, at) => {
    if (!Array.isArray(value)) return `${at} is not a list`;
    return value.map((one, i) => form(one, `${at}[${i}]`)).find((wrong) => wrong !== undefined);
  };

const object =
  (fields: Record<string, Form>): Form =>
  (value, at) => {
    if (typeof value !== "object" || value === null || Array.isArray(value))
      return `${at || "the file"} is not an object`;
    return Object.entries(fields)
      .map(([name, form]) =>
        form((value as Record<string, unknown>)[name], at === "" ? name : `${at}.${name}`),
      )
      .find((wrong) => wrong !== undefined);
  };

const histogram: Form = (value, at) => {
  try {
    Histogram.fromJSON(value as HistogramJSON);
    return undefined;
  } catch (error) {
    return `${at}: ${(error as Error).message}`;
  }
};

const KINDS = ["closed", "open", "churn", "idle", "stalled", "start"];

const load = object({
  messagesPerSecond: number,
  latency: object({ p50: number, p90: number, p99: number, p999: number }),
  histogram,
  generator: object({ limited: truth }),
  schedule: orNull(object({ late: list(text) })),
  server: orNull(object({ cpuMicrosPerMessage: orNull(number), rssPeak: number })),
});

/** All that the table, the page and the chart read of it. */
export const resultForm: Form = object({
  date: text,
  commit: orNull(text),
  command: text,
  versions: object({ ringback: text, bun: text, node: orNull(text) }),
  machine: object({
    ...{ cpu: text, cores: number, memoryBytes: number, kernel: text },
    pinned: orNull(object({ server: number, load: number })),
  }),
  settings: object({ rounds: number, seconds: number, warmup: number }),
  baseline: text,
  servers: list(object({ name: text, about: text, command: list(text) })),
  cases: list(
    object({
      name: text,
      about: text,
      kind: is(`one of ${KINDS.join(", ")}`, (kind) => KINDS.includes(kind as string)),
    }),
  ),
  notMeasured: list(text),
  measurements: list(
    object({
      ...{ round: number, server: text, case: text, firstEchoMs: orAbsent(number), error: orAbsent(text) },
      load: orAbsent(load),
      memory: orAbsent(object({ connections: count, emptyBytes: number, fullBytes: number })),
    }),
  ),
});
