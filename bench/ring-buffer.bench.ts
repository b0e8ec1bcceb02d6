/**
 * The ring against what is usually written instead: a ring of bytes that copies, an array of chunks,
 * Buffer.concat. Each takes chunks in and gives them out in slices that may be kept, as recv() does for a
 * slow reader.
 */
import { do_not_optimize } from "mitata";
import { RingBuffer } from "../src/core/ring-buffer.ts";
import { bench, group, runSuite, summary } from "./suite.ts";

const CAPACITY = 65_536;
const ring = new RingBuffer(CAPACITY);

function ringBuffer(chunk: Uint8Array, chunks: number, size: number): number {
  let bytes = 0;
  for (let i = 0; i < chunks; i++) ring.push(chunk);
  for (let slice = ring.take(size); slice !== undefined; slice = ring.take(size)) {
    do_not_optimize(slice);
    bytes += slice.length;
  }
  return bytes;
}

const storage = Buffer.alloc(CAPACITY);
let first = 0;
let held = 0;

/** Bytes in at the end, which may be in two parts where the storage ends. */
function putBytes(chunk: Uint8Array): void {
  const at = (first + held) % CAPACITY;
  const room = Math.min(chunk.length, CAPACITY - at);
  storage.set(room === chunk.length ? chunk : chunk.subarray(0, room), at);
  if (room < chunk.length) storage.set(chunk.subarray(room));
  held += chunk.length;
}

/** Bytes out: a copy, since what comes next may take their place. */
function takeBytes(size: number): Uint8Array {
  const length = Math.min(size, held);
  const slice = Buffer.allocUnsafe(length);
  const room = Math.min(length, CAPACITY - first);
  storage.copy(slice, 0, first, first + room);
  if (room < length) storage.copy(slice, room, 0, length - room);
  first = (first + length) % CAPACITY;
  held -= length;
  return slice;
}

function byteRing(chunk: Uint8Array, chunks: number, size: number): number {
  let bytes = 0;
  for (let i = 0; i < chunks; i++) putBytes(chunk);
  while (held > 0) {
    const slice = takeBytes(size);
    do_not_optimize(slice);
    bytes += slice.length;
  }
  return bytes;
}

const waiting: Uint8Array[] = [];
/** How much of the first one has been taken. */
let taken = 0;

function arrayOfChunks(chunk: Uint8Array, chunks: number, size: number): number {
  let bytes = 0;
  for (let i = 0; i < chunks; i++) waiting.push(chunk);
  for (let head = waiting[0]; head !== undefined; head = waiting[0]) {
    const end = Math.min(taken + size, head.length);
    const slice = taken === 0 && end === head.length ? head : head.subarray(taken, end);
    taken = end;
    if (end === head.length) {
      waiting.shift();
      taken = 0;
    }
    do_not_optimize(slice);
    bytes += slice.length;
  }
  return bytes;
}

const NOTHING = Buffer.alloc(0);

function bufferConcat(chunk: Uint8Array, chunks: number, size: number): number {
  let bytes = 0;
  let all = NOTHING;
  for (let i = 0; i < chunks; i++) all = Buffer.concat([all, chunk]);
  for (; all.length > 0; all = all.subarray(size)) {
    const slice = all.subarray(0, size);
    do_not_optimize(slice);
    bytes += slice.length;
  }
  return bytes;
}

const contenders = {
  RingBuffer: ringBuffer,
  "byte ring, copied in and out": byteRing,
  "array of chunks": arrayOfChunks,
  "Buffer.concat": bufferConcat,
};

for (const { length, chunks, size } of [
  { length: 64, chunks: 1, size: 1024 },
  { length: 1024, chunks: 8, size: 700 },
  { length: 16_384, chunks: 4, size: 4096 },
]) {
  // As a socket hands them over.
  const chunk = Buffer.alloc(length, "x");
  group(`${chunks} of ${length} bytes in, out in slices of at most ${size}`, () => {
    summary(() => {
      for (const [name, run] of Object.entries(contenders)) {
        const bytes = run(chunk, chunks, size);
        if (bytes !== length * chunks) throw new Error(`${name}: ${bytes} bytes of ${length * chunks}`);
        bench(name, () => do_not_optimize(run(chunk, chunks, size))).baseline(run === ringBuffer);
      }
    });
  });
}

await runSuite();
