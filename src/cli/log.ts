/**
 * Lines on stdout and stderr. A log that cannot be written must not stop the service: nothing here blocks on
 * a full pipe or terminal.
 */
import { canWrite } from "../os/descriptor.ts";
import { writeSync } from "node:fs";

/** How often a full stdout is polled. */
const LOOK_MS = 100;

/**
 * Writes lines to stderr at once, so that they are out before an exit. If stderr is full, they are dropped.
 */
export function say(lines: string): void {
  if (!canWrite(2)) return;
  try {
    writeSync(2, `${lines}\n`);
  } catch {
    // stderr is closed or its disk is full: there is no way left to report it.
  }
}

/**
 * Writes one line to stdout, as soon as it has room.
 * @param failed called with the reason if the line cannot be written now, or ever
 */
export function announce(line: string, failed: (reason: string) => void): void {
  const write = (): void => {
    try {
      writeSync(1, `${line}\n`);
    } catch (error) {
      // The reader of stdout has gone, or the disk is full. The peers are still there.
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
