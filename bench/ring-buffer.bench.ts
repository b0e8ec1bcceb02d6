/**
 * The ring against what is usually written instead: Buffer.concat of what waits, and an array of chunks. Each takes
 * eight chunks of 1 KiB in and gives them out in slices of 700 bytes, as a slow peer's connection does.
 */
import { bench, do_not_optimize, run, summary } from "mitata";
import { RingBuffer } from "../src/net/ring-buffer.ts";

const CHUNK = Buffer.alloc(1024, "x");
const CHUNKS = 8;
const SLICE = 700;

summary(() => {
  const ring = new RingBuffer(65_536);
  bench("RingBuffer", () => {
    for (let i = 0; i < CHUNKS; i++) ring.push(CHUNK);
    for (let slice = ring.take(SLICE); slice !== undefined; slice = ring.take(SLICE)) do_not_optimize(slice);
  });

  bench("Buffer.concat", () => {
    let held = Buffer.alloc(0);
    for (let i = 0; i < CHUNKS; i++) held = Buffer.concat([held, CHUNK]);
    for (; held.length > 0; held = held.subarray(SLICE)) do_not_optimize(held.subarray(0, SLICE));
  });

  bench("array of chunks, shift and unshift", () => {
    const held: Buffer[] = [];
    for (let i = 0; i < CHUNKS; i++) held.push(CHUNK);
    for (let head = held.shift(); head !== undefined; head = held.shift()) {
      do_not_optimize(head.subarray(0, SLICE));
      if (head.length > SLICE) held.unshift(head.subarray(SLICE));
    }
  });
});

await run();
