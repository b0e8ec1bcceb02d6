/** The server as a program: command line in, server up, signals, exit code. */
import { isTerminal } from "../os/descriptor.ts";
import { writeSync } from "node:fs";
import { constants } from "node:os";
import { connectionLimit, EchoServer } from "../echo/echo-server.ts";
import { hostMistake } from "../echo/endpoint.ts";
import { OSError } from "../os/errors.ts";
import { ignore, startVariable } from "../os/process.ts";
import { readCommand, type ServerOptions } from "./command.ts";
import { UsageError } from "./flags.ts";
import { announce, say } from "./log.ts";
import { advice, statsHeader, statsRow, stopping, totals } from "./report.ts";
import { onStopSignals, type StopSignal } from "./signals.ts";
import { fold } from "./text.ts";

/** What package.json installs, bin. */
const COMMAND = "ringback";

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

/** After how many rows of statistics the header comes again. */
const HEADER_EVERY = 20;
/** After this time, a stop has accepted the connections that were waiting in the kernel. */
const TAKEN_OVER_MS = 20;

/** Runs the program to its end, or until it serves. */
export async function main(): Promise<void> {
  // A background job that writes to a terminal with `stty tostop` would be suspended.
  if (isTerminal(1) || isTerminal(2)) ignore("SIGTTOU");
  const program = (): string => programName(process.argv[1]!, process.cwd(), startVariable("_"));
  try {
    const command = readCommand(process.argv.slice(2), { PORT: startVariable("PORT") }, program);
    if ("serve" in command) return await serve(command.serve);
    const { helpText, versionText } = await import("./help.ts");
    writeSync(1, command.show === "help" ? helpText(program()) : versionText());
  } catch (error) {
    // An error without a code is internal: show its trace.
    const known = error instanceof UsageError || typeof (error as NodeJS.ErrnoException).code === "string";
    if (!known) throw error;
    say(fold(`ringback: ${(error as Error).message}`));
    process.exit(error instanceof UsageError ? EXIT_USAGE : EXIT_FAILED);
  }
}

async function serve(options: ServerOptions): Promise<void> {
  const { maxConnections, drainTimeout, stats } = options;
  const max = connectionLimit();
  // If no connection fits at all, EchoServer.listen() says so; the flag is not to blame.
  if (maxConnections !== undefined && maxConnections > max && max > 0) {
    throw new UsageError(
      `--max-connections: ${maxConnections} is more than the descriptor limit allows, ${max}; raise it with ulimit -n`,
    );
  }
  const mistake = hostMistake(options.host);
  if (mistake !== undefined) throw new UsageError(`--host: ${JSON.stringify(options.host)}: ${mistake}`);
  const server = await start(options);
  stopOnSignals(server, drainTimeout);
  if (stats > 0) printStatistics(server, stats);
  const line = `listening on ${server.address}`;
  announce(line, (reason) => say(`${reason}; ${line}`));
  if (isTerminal(1)) say(hint(server));
}

async function start(options: ServerOptions): Promise<EchoServer> {
  const onDefect = (error: unknown): void =>
    say(`a connection was closed by an internal error: ${Bun.inspect(error)}`);
  const onAcceptError = (error: OSError): void =>
    say(fold(`${error.message}; connections wait in the kernel and are served when there is room`));
  try {
    return await EchoServer.listen({ ...options, onDefect, onAcceptError });
  } catch (error) {
    if (!(error instanceof OSError)) throw error;
    say(fold(`ringback: ${error.message}${advice(error, options)}`));
    return process.exit(EXIT_FAILED);
  }
}

function hint({ host, port }: EchoServer): string {
  const near = host === "::" || host === "0.0.0.0" ? "127.0.0.1" : host;
  return fold(`try it in another terminal: nc ${near} ${port}      Ctrl-C stops the server`);
}

/** The first signal stops gracefully, a later one immediately. */
function stopOnSignals(server: EchoServer, drainTimeout: number): void {
  const end = (code: number): never => {
    // One line, however long: programs read it.
    say(totals(server.figures));
    process.exit(code);
  };
  const sayStopping = (signal: StopSignal): boolean => {
    const { open } = server.figures;
    if (open > 0) say(stopping(signal, open, drainTimeout));
    return open > 0;
  };
  onStopSignals(
    (signal) => {
      if (!sayStopping(signal)) setTimeout(() => sayStopping(signal), TAKEN_OVER_MS);
      void server.stop(drainTimeout).then(() => end(0));
    },
    (signal) => end(128 + constants.signals[signal]),
  );
}

function printStatistics(server: EchoServer, seconds: number): void {
  let before = server.figures;
  let then = performance.now();
  let rows = 0;
  setInterval(() => {
    const [now, at] = [server.figures, performance.now()];
    const row = statsRow({ now, before, seconds: (at - then) / 1000 });
    // In one write, so that a full pipe takes both or none.
    say(rows++ % HEADER_EVERY === 0 ? `${statsHeader()}\n${row}` : row);
    [before, then] = [now, at];
  }, seconds * 1000).unref();
}

/**
 * The command that started the program, as a user would type it.
 * @param file the program's own file
 * @param folder the current folder
 * @param typed what the shell ran (the variable `_`), where it says so: the file of a linked package is
 *   elsewhere
 */
export function programName(file: string, folder: string, typed = ""): string {
  const parts = file.split(/[\\/]/);
  if (typed.split("/").at(-1) === COMMAND || parts.includes("node_modules")) return COMMAND;
  return `bun run ${file.startsWith(`${folder}/`) ? file.slice(folder.length + 1) : file}`;
}
