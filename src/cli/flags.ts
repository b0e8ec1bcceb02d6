/**
 * Command-line flags from one table: what --help lists, how a command line is read, which values are allowed.
 * It knows no program; each program has a table of its own.
 */
import { parseArgs, type ParseArgsConfig } from "node:util";
import { printable, shortened } from "./text.ts";

/** A one-line usage error. Control characters in quoted input are escaped. */
export class UsageError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(printable(message), options);
  }
}

/** The kind of value that a flag takes. */
export interface Kind<T> {
  /** Stands for the value in --help. */
  readonly placeholder: string;
  /** Completes the error "... is not": "a whole number from 1 to 9". */
  readonly expected: string;
  /** @returns undefined for any other text */
  read(text: string): T | undefined;
}

/** A flag without a kind is a switch. */
export interface Flag<T = unknown> {
  readonly help: string;
  readonly short?: string;
  readonly kind?: Kind<T>;
  /** The default, as a user would write it. */
  readonly preset?: string;
  /** The default in words, for a flag whose absence is no value. */
  readonly otherwise?: string;
  /** Whether the flag can be given several times. */
  readonly multiple?: true;
}

export type Flags = Readonly<Record<string, Flag>>;

type Value<F extends Flag> = F extends { kind: Kind<infer T> }
  ? F extends { multiple: true }
    ? T[]
    : F extends { preset: string }
      ? T
      : T | undefined
  : boolean;

/** The value of every flag: given, or its default, or undefined. */
export type Values<F extends Flags> = { [Name in keyof F]: Value<F[Name]> };

interface Range {
  min: number;
  max: number;
}

interface NumberRange extends Range {
  placeholder?: string;
  /** The unit, in the plural: "connections". */
  unit?: string;
}

const within = (value: number, { min, max }: Range): number | undefined =>
  value >= min && value <= max ? value : undefined;

function numberKind(what: string, form: RegExp, range: NumberRange): Kind<number> {
  const of = range.unit === undefined ? "" : ` of ${range.unit}`;
  return {
    placeholder: range.placeholder ?? "number",
    expected: `${what}${of} from ${range.min} to ${range.max}`,
    read: (text) => (form.test(text) ? within(Number(text), range) : undefined),
  };
}

export const whole = (range: NumberRange): Kind<number> => numberKind("a whole number", /^\d+$/, range);

/** A number that may have a fraction. */
export const decimal = (range: NumberRange): Kind<number> =>
  numberKind("a number", /^(\d+|\d*\.\d+)$/, { placeholder: range.unit ?? "number", ...range });

export const seconds = (range: Range): Kind<number> => decimal({ ...range, unit: "seconds" });

const UNITS = ["", "k", "M", "G"];

function sizeText(bytes: number): string {
  let unit = 0;
  while (unit < UNITS.length - 1 && bytes > 0 && bytes % 1024 === 0) [bytes, unit] = [bytes / 1024, unit + 1];
  return `${bytes}${UNITS[unit]}`;
}

/** A number of bytes: 65536, 64k, 64KB or 64KiB. Every unit is a power of 1024, in either case. */
export const size = (range: Range): Kind<number> => ({
  placeholder: "size",
  expected: `a size from ${sizeText(range.min)} to ${sizeText(range.max)} (bytes, or k, M, G of 1024)`,
  read(text) {
    const [, digits, unit] = /^(\d+)(?:([kmg])(?:i?b)?)?$/i.exec(text) ?? [];
    if (digits === undefined) return undefined;
    const power = UNITS.findIndex((one) => one.toLowerCase() === (unit ?? "").toLowerCase());
    return within(Number(digits) * 1024 ** power, range);
  },
});

/** Any text: a file, a name, a command. */
export const text = (placeholder: string): Kind<string> => ({
  placeholder,
  expected: "a text",
  read: (given) => given,
});

export const choice = <const T extends string>(names: readonly T[]): Kind<T> => ({
  placeholder: names.join("|"),
  expected: names.join(" or "),
  read: (text) => names.find((name) => name === text),
});

/** The value of an absent flag from elsewhere, and the name for it in an error: "PORT". */
export interface Fallback {
  from: string;
  text: string;
}

interface Program<F extends Flags> {
  /** How the program was started, for the hint at --help in an error. */
  name: () => string;
  /** Receives the arguments that are not flags; without it they are refused. */
  operands?: string[];
  fallbacks?: { [Name in keyof F]?: Fallback | undefined };
}

/** @throws UsageError */
export function readFlags<const F extends Flags>(
  flags: F,
  args: readonly string[],
  program: Program<F>,
): Values<F> {
  const { fallbacks } = program;
  const given = tokens(flags, args, program);
  const values: Record<string, unknown> = {};
  for (const [name, { kind, preset, multiple }] of Object.entries<Flag>(flags)) {
    const texts = given.filter(({ flag }) => flag === name) as Fallback[];
    const fallback = fallbacks?.[name];
    if (texts.length === 0 && fallback !== undefined) texts.push(fallback);
    if (texts.length === 0 && preset !== undefined) texts.push({ from: `--${name}`, text: preset });
    if (kind === undefined) values[name] = texts.length > 0;
    else {
      // A later value replaces an earlier one, which must be valid all the same.
      const all = texts.map((one) => readValue(kind, one));
      values[name] = multiple ? all : all.at(-1);
    }
  }
  return values as Values<F>;
}

function readValue<T>(kind: Kind<T>, { from, text }: Fallback): T {
  const value = kind.read(text);
  if (value !== undefined) return value;
  throw new UsageError(`${from}: ${JSON.stringify(shortened(text))} is not ${kind.expected}`);
}

function tokens(
  flags: Flags,
  args: readonly string[],
  { name: program, operands }: Pick<Program<Flags>, "name" | "operands">,
): (Fallback & { flag: string })[] {
  const options: NonNullable<ParseArgsConfig["options"]> = {};
  for (const [name, { kind, short }] of Object.entries(flags)) {
    options[name] = { type: kind === undefined ? "boolean" : "string", ...(short && { short }) };
  }
  const parsed = parseArgs({
    args: [...args],
    options,
    strict: false,
    allowPositionals: true,
    tokens: true,
  }).tokens;
  const refuse = (what: string): never => {
    throw new UsageError(`${what}; try "${program()} --help"`);
  };
  return parsed.flatMap((token) => {
    if (token.kind === "option-terminator") return [];
    if (token.kind === "positional") {
      if (operands === undefined) return refuse(`Unexpected argument '${shortened(token.value)}'`);
      operands.push(token.value);
      return [];
    }
    const { name, rawName, value, inlineValue } = token;
    if (!Object.hasOwn(flags, name)) return refuse(`Unknown option '${shortened(rawName)}'`);
    if (flags[name]!.kind === undefined) {
      if (value !== undefined) return refuse(`${rawName}: it takes no value`);
    } else if (value === undefined || (!inlineValue && /^-./s.test(value))) {
      return refuse(`${rawName}: its value is missing, or looks like a flag`);
    }
    return [{ flag: name, from: rawName, text: value ?? "" }];
  });
}
