/** The texts of --help and --version, in a file of their own so that a normal start does not load them. */
import { version } from "../../package.json";
import { FLAGS } from "./command.ts";
import { listFlags, listRows } from "./flags-help.ts";
import { statsMeanings } from "./report.ts";

export const versionText = (): string => `ringback ${version}\n`;

export function helpText(program: string): string {
  return `An echo server that never loses a byte: it sends back whatever a peer sends.

Usage: ${program} [options]

Options:
${listFlags(FLAGS)}

A size is a number of bytes; 64k, 64KB and 64KiB are all 65536. Times may be fractional: 0.5.
Without --port, PORT of the environment counts (one from a .env file does not).

SIGTERM, SIGINT or SIGHUP stops it: it serves what peers have sent, waits for them, exits with 0.
SIGTERM or SIGINT more than a second later ends it at once. A signal that is ignored when it starts
(nohup) stays ignored. Exit code 1: it could not start. 2: a wrong flag.

Statistics, a row at each interval of --stats, on stderr; the last line has the totals in bytes:
${listRows(statsMeanings())}

Try it:
  ${program}
  echo hello | nc -N 127.0.0.1 8101
`;
}
