/** Text for a terminal: lines that fit, quotes that stay short and harmless. */

/** Every line of output fits into so many columns. */
export const WIDTH = 100;

/**
 * Breaks a text at its spaces into lines that fit; a word that is longer than a line is cut.
 * @param indent what each line after the first begins with
 */
export function fold(text: string, indent = "  ", width = WIDTH): string {
  const lines: string[] = [];
  for (const paragraph of text.split("\n")) {
    let rest = paragraph;
    let start = "";
    while (start.length + rest.length > width) {
      const room = width - start.length;
      const space = rest.lastIndexOf(" ", room);
      const end = space > 0 ? space : room;
      lines.push(start + rest.slice(0, end).trimEnd());
      rest = rest.slice(end).trimStart();
      start = indent;
    }
    lines.push(start + rest);
  }
  return lines.join("\n");
}

/** Replaces what a terminal would act on, or not show, by its number. */
export const printable = (text: string): string =>
  text.replace(/\p{C}/gu, (one) => `\\u{${one.codePointAt(0)!.toString(16)}}`);

const QUOTED_MAX = 40;

/** The beginning of a text that somebody typed: enough to recognize it. */
export const shortened = (text: string): string =>
  text.length > QUOTED_MAX ? `${text.slice(0, QUOTED_MAX)}…` : text;

export const plural = (count: number, word: string): string => `${count} ${word}${count === 1 ? "" : "s"}`;
