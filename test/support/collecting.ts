/**
 * Loaded before the program: at SIGUSR2 it collects its garbage, and says on stdout how many bytes are left
 * in its heap.
 */
import { writeSync } from "node:fs";
import { heapStats } from "bun:jsc";

process.on("SIGUSR2", () => {
  Bun.gc(true);
  const { heapSize, extraMemorySize } = heapStats();
  writeSync(1, `heap ${heapSize + extraMemorySize}\n`);
});
