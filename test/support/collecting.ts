/**
 * Loaded before the program: at SIGUSR2 it collects garbage and prints how many bytes are left
 * in the heap.
 */
import { writeSync } from "node:fs";
import { heapStats } from "bun:jsc";

process.on("SIGUSR2", () => {
  Bun.gc(true);
  const { heapSize, extraMemorySize } = heapStats();
  writeSync(1, `heap ${heapSize + extraMemorySize}\n`);
});
