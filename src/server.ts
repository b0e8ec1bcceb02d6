#!/usr/bin/env bun
/**
 * The program's file: `bun run src/server.ts`, or `ringback` where the package is installed. It looks at the
 * runtime before it loads the rest, which another runtime, or an older Bun, could not even load.
 */

/** As in package.json, engines. */
const NEEDED = "1.4.5";

function suffices(version: string): boolean {
  const [has, needs] = [version, NEEDED].map((one) => one.split("."));
  const i = needs!.findIndex((part, at) => Number.parseInt(has![at]!) !== Number(part));
  return i === -1 || Number.parseInt(has![i]!) > Number(needs![i]);
}

// Node before 24.2 does not know import.meta.main.
if (import.meta.main ?? true) {
  const bun = (globalThis as { Bun?: { version: string } }).Bun?.version;
  if (bun !== undefined && (bun === NEEDED || suffices(bun))) {
    const { main } = await import("./cli/main.ts");
    await main();
  } else {
    const found = bun === undefined ? `Node ${process.versions.node}` : `Bun ${bun}`;
    console.error(`ringback: it needs Bun ${NEEDED} or later, and this is ${found}; see https://bun.sh`);
    process.exitCode = 1;
  }
}
