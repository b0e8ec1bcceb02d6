/** What is wrong with a command line, in one line that a terminal shows as it is. It changes when its form does. */

/** What a terminal would act on, or not show, stands as its number. */
const printable = (text: string): string =>
  text.replace(/\p{C}/gu, (one) => `\\u{${one.codePointAt(0)!.toString(16)}}`);

export class UsageError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(printable(message), options);
  }
}

/** What parseArgs() says, without its advice on positional arguments. */
export function flagsRefused(error: unknown): UsageError {
  const { message } = error as Error;
  const [what] = message.split(
    /(?<=')\. (?:To specify a positional|This command does not)|\. ?\n|\n(?=Did you)/,
  );
  return new UsageError(`${what}; --help lists the flags`, { cause: error });
}
