/**
 * Finds the place of a mutation in the source by its method and a pattern, so that the renaming of a field or
 * a local, a new line break or a comment changes nothing. It changes when a pattern can say something else.
 *
 * A pattern is source text. `$name` in it stands for any identifier, the same one wherever it is repeated,
 * and `#$name` for any private one; white space and comments between two words or signs do not count.
 */

/** Strings and templates, numbers, names, private ones and placeholders included, and any other sign. */
const TOKEN = /"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`(?:\\.|[^`\\])*`|\d[\w.]*|#?\$?[A-Za-z_][\w]*|\S/g;

const BETWEEN = String.raw`(?:\s|//[^\n]*\n|/\*[^]*?\*/)*`;

const escaped = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/-]/g, String.raw`\$&`);

/** @returns what matches the pattern; its groups are the placeholders */
function compiled(pattern: string): RegExp {
  const seen = new Set<string>();
  const parts = (pattern.match(TOKEN) ?? []).map((token) => {
    const [, hash, name] = /^(#?)\$([A-Za-z_]\w*)$/.exec(token) ?? [];
    if (name === undefined) return /^[A-Za-z_]/.test(token) ? `\\b${token}\\b` : escaped(token);
    const boundary = hash === "" ? String.raw`(?<![#\w])` : "";
    if (seen.has(name)) return `${boundary}${hash}\\k<${name}>\\b`;
    seen.add(name);
    return `${boundary}${hash}(?<${name}>[A-Za-z_]\\w*)\\b`;
  });
  return new RegExp(parts.join(BETWEEN), "g");
}

/**
 * The part of a file that a name denotes.
 * @param name "function", "Class.method", "Class.#private", "CONSTANT"
 * @throws Error that says what is missing
 */
export function regionOf(source: string, name: string): { start: number; end: number } {
  const [owner, member] = name.includes(".") ? (name.split(".") as [string, string]) : [name];
  const outer = blockAt(
    source,
    0,
    source.length,
    "",
    String.raw`(?:export )?(?:abstract )?(?:async )?(?:class|function\*?|const|let) ${escaped(owner)}\b`,
  );
  if (outer === undefined) throw new Error(`nothing is named ${owner}`);
  if (member === undefined) return outer;
  const modifiers = "(?:(?:static|async|get|set|readonly|override|protected|private) |\\*)*";
  const inner = blockAt(source, outer.start, outer.end, "  ", `${modifiers}${escaped(member)}(?![\\w$])`);
  if (inner === undefined) throw new Error(`${owner} has no ${member}`);
  return inner;
}

/**
 * A declaration by the formatter's layout: up to a closing bracket in its own column, or a statement's end.
 */
function blockAt(
  source: string,
  from: number,
  to: number,
  indent: string,
  opening: string,
): { start: number; end: number } | undefined {
  const found = new RegExp(`^${indent}${opening}`, "m").exec(source.slice(from, to));
  if (found === null) return undefined;
  const start = from + found.index;
  const rest = source.slice(start, to);
  const firstLine = /^[^\n]*/.exec(rest)![0];
  const end = /;$/.test(firstLine) ? firstLine.length : endOf(rest, indent);
  return { start, end: start + end };
}

function endOf(rest: string, indent: string): number {
  // A signature over several lines closes with a bracket in the same column, and then opens the block.
  const closing = new RegExp(`^${indent}[})\\]][^\\n]*`, "gm");
  for (let found = closing.exec(rest); found !== null; found = closing.exec(rest)) {
    if (!/[{(\[]$/.test(found[0])) return found.index + found[0].length;
  }
  return rest.length;
}

export interface Place {
  /** What it is in: see regionOf(). */
  readonly at: string;
  readonly text: string;
  readonly becomes: string;
}

/** The source with the change. @throws Error that says why there is not exactly one place for it */
export function mutated(source: string, { at, text, becomes }: Place): string {
  const { start, end } = regionOf(source, at);
  const region = source.slice(start, end);
  const found = [...region.matchAll(compiled(text))];
  if (found.length !== 1) throw new Error(`${at} has ${found.length} times, and not once: ${text}`);
  const [{ index, groups = {}, 0: old }] = found as [RegExpMatchArray & { index: number }];
  const changed = becomes.replace(/\$([A-Za-z_]\w*)/g, (whole, name: string) => groups[name] ?? whole);
  return source.slice(0, start + index) + changed + source.slice(start + index + old.length);
}
