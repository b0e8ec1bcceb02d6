/** Text for a terminal: folded lines, short and harmless quotes. */

/** Lines of output have at most this many columns. */
export const WIDTH = 100;

/**
 * Breaks a text at its spaces into lines that fit; cuts a word that is longer than a line.
 * @param indent the beginning of each line after the first
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

/** Escapes control and invisible characters by their number. */
export const printable = (text: string): string =>
  text.replace(/\p{C}/gu, (one) => `\\u{${one.codePointAt(0)!.toString(16)}}`);

const QUOTED_MAX = 40;

/** The beginning of a user's text: enough to recognize it. */
export const shortened = (text: string): string =>
  text.length > QUOTED_MAX ? `${text.slice(0, QUOTED_MAX)}…` : text;

export const plural = (count: number, word: string): string => `${count} ${word}${count === 1 ? "" : "s"}`;
