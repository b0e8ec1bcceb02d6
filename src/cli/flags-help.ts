/** --help's text for a table of flags. */
import type { Flags } from "./flags.ts";
import { fold } from "./text.ts";

/** A line of --help for each flag, with its default. */
export function listFlags(flags: Flags): string {
  const all = Object.entries(flags);
  const indent = all.some(([, { short }]) => short !== undefined) ? "    " : "";
  return listRows(
    all.map(([name, { short, kind, help, preset, otherwise = preset }]) => [
      `${short === undefined ? indent : `-${short}, `}--${name}${kind ? ` <${kind.placeholder}>` : ""}`,
      otherwise === undefined ? help : `${help} (default: ${otherwise})`,
    ]),
  );
}

/** Words and what they mean, in two columns. */
export function listRows(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([word]) => word.length)) + 4;
  const lines = rows.map(([word, meaning]) =>
    fold(`${`  ${word}`.padEnd(width)}${meaning}`, "".padEnd(width)),
  );
  return lines.join("\n");
}
