/**
 * Lines on stdout and stderr. A log that cannot be written must not stop the service: nothing here waits for
 * a pipe or a terminal that takes nothing.
 */
import { writeSync } from "node:fs";
import { canWrite } from "../os/libc.ts";

/** How often a stdout that has no room is looked at. */
const LOOK_MS = 100;

/**
 * Writes lines to stderr at once, so that they are out before an exit; without room for them they are left
 * out.
 */
export function say(lines: string): void {
  if (!canWrite(2)) return;
  try {
    writeSync(2, `${lines}\n`);
  } catch {
    // stderr is closed or its disk is full: nobody is left to hear of it.
  }
}

/**
 * Writes one line to stdout as soon as there is room for it.
 * @param failed called with the reason while the line is not out: there is no room yet, or there never will
 *   be
 */
export function announce(line: string, failed: (reason: string) => void): void {
  const write = (): void => {
    try {
      writeSync(1, `${line}\n`);
    } catch (error) {
      // Whoever started the program may have gone, or the disk is full. The peers are still there.
      failed(`stdout cannot be written (${(error as NodeJS.ErrnoException).code})`);
    }
  };
  if (canWrite(1)) return write();
  failed("stdout has no room yet");
  const waiting = setInterval(() => {
    if (!canWrite(1)) return;
    clearInterval(waiting);
    write();
  }, LOOK_MS);
  waiting.unref();
}
