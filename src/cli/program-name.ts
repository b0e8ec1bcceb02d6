/** How the program was started, as a user would type it again. */
import { basename, relative, sep } from "node:path";

const COMMAND = "ringback";

/**
 * @param file the program's own file
 * @param folder the current folder
 * @param typed what the shell ran (the variable `_`), where it says so: the file of a linked package is elsewhere
 */
export function programName(file: string, folder: string, typed = ""): string {
  if (basename(typed) === COMMAND || file.split(sep).includes("node_modules")) return COMMAND;
  const near = relative(folder, file);
  return `bun run ${near.length < file.length ? near : file}`;
}
