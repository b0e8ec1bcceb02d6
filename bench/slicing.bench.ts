/** A received chunk in slices of recv's size: the ring's take against the calls that cut a Buffer. */
import { do_not_optimize } from "mitata";
import { RingBuffer } from "../src/core/ring-buffer.ts";
import { bench, group, runSuite, summary } from "./suite.ts";

const CHUNK = Buffer.alloc(65_536, "x");
const ring = new RingBuffer(CHUNK.length);

type Cut = (size: number) => number;

const take: Cut = (size) => {
  let bytes = 0;
  ring.push(CHUNK);
  for (let slice = ring.take(size); slice !== undefined; slice = ring.take(size)) {
    do_not_optimize(slice);
    bytes += slice.length;
  }
  return bytes;
};

/** Cuts by a call that gives the bytes from one offset to another. */
const cut =
  (call: (from: number, to: number) => Uint8Array): Cut =>
  (size) => {
    let bytes = 0;
    for (let from = 0; from < CHUNK.length; from += size) {
      const slice = call(from, from + size);
      do_not_optimize(slice);
      bytes += slice.length;
    }
    return bytes;
  };

const contenders: Record<string, Cut> = {
  "RingBuffer.take": take,
  "Buffer.subarray, a view": cut((from, to) => CHUNK.subarray(from, to)),
  "Uint8Array.slice, a copy": cut((from, to) => Uint8Array.prototype.slice.call(CHUNK, from, to)),
  "Buffer.copy": cut((from, to) => {
    const slice = Buffer.allocUnsafe(Math.min(to, CHUNK.length) - from);
    CHUNK.copy(slice, 0, from, to);
    return slice;
  }),
};

for (const size of [64, 1024, 16_384]) {
  group(`${CHUNK.length} bytes in slices of ${size}`, () => {
    summary(() => {
      for (const [name, run] of Object.entries(contenders)) {
        const bytes = run(size);
        if (bytes !== CHUNK.length) throw new Error(`${name}: ${bytes} bytes of ${CHUNK.length}`);
        bench(name, () => do_not_optimize(run(size))).baseline(run === take);
      }
    });
  });
}

await runSuite();
