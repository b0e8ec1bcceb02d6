/** The program in its own process, and what /proc says about it. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

export const ROOT = join(import.meta.dir, "../..");
const SERVER = join(ROOT, "src/server.ts");

/** A child must not inherit what the test run's own environment says of HOST and PORT. */
const environment = (extra: Record<string, string> = {}): Record<string, string | undefined> => ({
  ...process.env,
  HOST: undefined,
  PORT: undefined,
  ...extra,
});

export interface Finished {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Runs the program to its end. */
export async function run(args: string[], env?: Record<string, string>): Promise<Finished> {
  const child = Bun.spawn([process.execPath, "run", SERVER, ...args], {
    env: environment(env),
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: 10_000,
  });
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  await child.exited;
  return { code: child.exitCode, stdout, stderr };
}

export interface Program {
  readonly pid: number;
  readonly port: number;
  /** All of stdout and stderr so far. */
  readonly stdout: string;
  readonly stderr: string;
  signal(name: NodeJS.Signals): void;
  readonly exited: Promise<number>;
  /** When it has ended by itself or by a signal. */
  readonly finished: Promise<Finished>;
}

const running = new Set<{ kill: (signal: NodeJS.Signals) => void }>();

/** Kills what a test has left running. */
export function killAll(): void {
  for (const child of running) child.kill("SIGKILL");
  running.clear();
}

/**
 * Starts the program on a free port and waits for its line.
 * @param stderr another descriptor for its stderr, which is then not read
 * @param shell a command that runs before it in the same shell, to set limits: "ulimit -n 100"
 * @param within a program that becomes it, with its arguments: ["nsenter", ...]
 * @param preload what Bun runs before it, in the same process
 */
export async function launch(
  args: string[] = [],
  { shell = "", within = [] as string[], preload = "", env = {}, stderr = "pipe" as "pipe" | number } = {},
): Promise<Program> {
  const first = preload === "" ? [] : ["--preload", preload];
  const command = [...within, process.execPath, "run", ...first, SERVER, "--port", "0", ...args];
  const whole = shell === "" ? command : ["sh", "-c", `${shell} && exec "$@"`, "sh", ...command];
  const child = Bun.spawn(whole, { env: environment(env), stdin: "ignore", stdout: "pipe", stderr });
  running.add(child);
  const text = { stdout: "", stderr: "" };
  let toldPort: (port: number) => void;
  let failed: (error: Error) => void;
  const listening = new Promise<number>((resolve, reject) => {
    toldPort = resolve;
    failed = reject;
  });
  const gather = async (name: "stdout" | "stderr"): Promise<void> => {
    const decoder = new TextDecoder();
    const output = child[name];
    if (!(output instanceof ReadableStream)) return;
    for await (const bytes of output) {
      text[name] += decoder.decode(bytes, { stream: true });
      const [, port] = /^listening on .+:(\d+)\n/.exec(text.stdout) ?? [];
      if (port !== undefined) toldPort(Number(port));
    }
  };
  const finished = Promise.all([gather("stdout"), gather("stderr"), child.exited]).then(() => {
    running.delete(child);
    failed(new Error(`exit code ${child.exitCode}, did not start: ${text.stderr}`));
    return { code: child.exitCode, ...text };
  });
  const port = await listening;
  return {
    pid: child.pid,
    port,
    finished,
    exited: child.exited,
    signal: (name) => child.kill(name),
    get stdout() {
      return text.stdout;
    },
    get stderr() {
      return text.stderr;
    },
  };
}

/** Whether this platform shows processes in /proc. */
export const hasProc = process.platform === "linux";

export const descriptors = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length;

export { residentBytes as resident } from "../../bench/system.ts";

/** CPU time of all threads so far, in seconds. */
export function cpuSeconds(pid: number): number {
  let ns = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    ns += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8").split(" ")[0]);
  }
  return ns / 1e9;
}
