import { describe, expect, test } from "bun:test";
import { RING_SLOTS, RingBuffer, RingPool } from "../../../src/core/ring-buffer.ts";
import { Random, withSeed } from "../../support/random.ts";

const chunk = (...bytes: number[]): Uint8Array => Uint8Array.from(bytes);

describe("a ring against a plain array of bytes", () => {
  // The model: the chunks that wait, each with how much of it is gone.
  const play = (seed: number): void => {
    const random = new Random(seed);
    const capacity = random.between(1, 200);
    const ring = new RingBuffer(capacity);
    let model: { chunk: Uint8Array; gone: number }[] = [];
    for (let step = 0; step < 400; step++) {
      const before = ring.full;
      switch (random.between(0, 9)) {
        case 0:
        case 1:
        case 2:
        case 3: {
          const bytes = random.bytes(random.between(1, random.chance(0.1) ? 300 : 40));
          const gone = model.length === 0 && random.chance(0.3) ? random.between(0, bytes.length - 1) : 0;
          if (before) expect(() => ring.push(bytes, gone)).toThrow(RangeError);
          else {
            ring.push(bytes, gone);
            model.push({ chunk: bytes, gone });
          }
          break;
        }
        case 4:
        case 5:
        case 6: {
          const size = random.between(1, 60);
          const slice = ring.take(size);
          const head = model[0];
          if (head === undefined) expect(slice).toBeUndefined();
          else {
            const end = Math.min(head.chunk.length, head.gone + size);
            expect(slice).toEqual(head.chunk.subarray(head.gone, end));
            // The same memory, not a copy of it.
            expect(slice!.buffer).toBe(head.chunk.buffer);
            head.gone = end;
          }
          break;
        }
        case 7:
        case 8: {
          const head = model[0];
          const bytes = head === undefined ? 0 : random.between(0, head.chunk.length - head.gone);
          ring.advance(bytes);
          if (head !== undefined) head.gone += bytes;
          break;
        }
        default:
          if (random.chance(0.05)) {
            ring.clear();
            model = [];
          }
      }
      if (model[0] !== undefined && model[0].gone === model[0].chunk.length) model.shift();
      const held = model.reduce((sum, { chunk, gone }) => sum + chunk.length - gone, 0);
      const memory = model.reduce((sum, { chunk }) => sum + chunk.length, 0);
      expect(ring.held).toBe(held);
      expect(ring.memory).toBe(memory);
      expect(ring.full).toBe(model.length === RING_SLOTS || memory >= capacity);
      expect(ring.low).toBe(model.length <= RING_SLOTS / 2 && memory <= capacity / 2);
      expect(ring.head).toBe(model[0]?.chunk as Uint8Array);
      expect(ring.headOffset).toBe(model[0]?.gone ?? 0);
    }
  };

  test("in 200 seeded runs of 400 calls, a ring equals a plain array of bytes", () => {
    for (let seed = 1; seed <= 200; seed++) withSeed(seed, () => play(seed));
  });
});

describe("a ring refuses, and stays as it was", () => {
  test("a ring refuses a chunk when its slots are used up, however small the chunks", () => {
    const ring = new RingBuffer(1_000_000);
    for (let i = 0; i < RING_SLOTS; i++) ring.push(chunk(i));
    expect(ring.full).toBe(true);
    expect(() => ring.push(chunk(99))).toThrow("the ring is full");
    expect(ring.held).toBe(RING_SLOTS);
    expect(ring.take(1)).toEqual(chunk(0));
  });

  test("a ring refuses a chunk when its bytes are used up; the last one may exceed its capacity", () => {
    const ring = new RingBuffer(4);
    ring.push(chunk(1, 2, 3));
    ring.push(chunk(4, 5, 6, 7, 8, 9));
    expect(ring.held).toBe(9);
    expect(() => ring.push(chunk(10))).toThrow("the ring is full");
  });

  test("a ring is not low while one byte of a large chunk keeps the whole chunk in memory", () => {
    const ring = new RingBuffer(4);
    ring.push(new Uint8Array(100));
    ring.advance(99);
    expect(ring).toMatchObject({ held: 1, memory: 100, full: true, low: false });
    ring.advance(1);
    expect(ring).toMatchObject({ held: 0, memory: 0, full: false, low: true });
  });

  test("a ring refuses an empty chunk, an offset outside the chunk, and an offset after other chunks", () => {
    const ring = new RingBuffer(10);
    expect(() => ring.push(chunk())).toThrow(RangeError);
    expect(() => ring.push(chunk(1), 1)).toThrow(RangeError);
    expect(() => ring.push(chunk(1), -1)).toThrow(RangeError);
    ring.push(chunk(1));
    expect(() => ring.push(chunk(1, 2), 1)).toThrow(RangeError);
    expect(ring.held).toBe(1);
  });

  test("a ring refuses to advance beyond its first chunk or to return an empty slice", () => {
    const ring = new RingBuffer(10);
    ring.push(chunk(1, 2));
    ring.push(chunk(3));
    expect(() => ring.advance(3)).toThrow(RangeError);
    expect(() => ring.advance(-1)).toThrow(RangeError);
    expect(() => ring.take(0)).toThrow(RangeError);
    expect(ring.held).toBe(3);
  });

  test("a ring refuses an invalid capacity", () => {
    for (const capacity of [0, -1, 1.5, NaN, Infinity])
      expect(() => new RingBuffer(capacity)).toThrow(RangeError);
  });
});

describe("unshift", () => {
  test("puts bytes before all that waits, without a copy where a slot is free", () => {
    const ring = new RingBuffer(100);
    ring.push(Buffer.from("cd"));
    const first = Buffer.from("ab");
    ring.unshift(first);
    expect([ring.held, ring.memory]).toEqual([4, 4]);
    expect(ring.take(9)).toBe(first);
    expect(`${ring.take(9)}`).toBe("cd");
    expect([ring.held, ring.memory]).toEqual([0, 0]);
    ring.unshift(first);
    expect(ring.take(9)).toBe(first);
  });

  test("joins them with the oldest chunk where a part of it is gone, or no slot is free", () => {
    const used = new RingBuffer(100);
    used.push(Buffer.from("xxcd"), 2);
    used.unshift(Buffer.from("ab"));
    expect([used.held, used.memory, `${used.take(9)}`]).toEqual([4, 4, "abcd"]);
    expect([used.held, used.memory]).toEqual([0, 0]);
    const full = new RingBuffer(1000);
    for (let i = 0; i < RING_SLOTS; i++) full.push(Buffer.from("c"));
    full.unshift(Buffer.from("ab"));
    expect(full.full).toBe(true);
    expect([full.held, full.memory, `${full.take(9)}`]).toEqual([RING_SLOTS + 2, RING_SLOTS + 2, "abc"]);
    for (let i = 1; i < RING_SLOTS; i++) expect(`${full.take(9)}`).toBe("c");
    expect([full.held, full.memory, full.take(1)]).toEqual([0, 0, undefined]);
  });
});

test("an unused chunk comes out of the ring as the same object", () => {
  const ring = new RingBuffer(10);
  const whole = chunk(1, 2, 3);
  ring.push(whole);
  expect(ring.take(3)).toBe(whole);
});

test("the ring does not keep alive what has left it", async () => {
  const ring = new RingBuffer(1 << 20);
  const refs: WeakRef<Uint8Array>[] = [];
  (() => {
    for (let i = 0; i < RING_SLOTS; i++) {
      const bytes = new Uint8Array(1000);
      refs.push(new WeakRef(bytes));
      ring.push(bytes);
    }
    while (ring.head !== undefined) ring.advance(ring.head.length);
  })();
  await Bun.sleep(0);
  Bun.gc(true);
  // The collector scans the stack conservatively, so one or two may stay for a while.
  expect(refs.filter((ref) => ref.deref() !== undefined).length).toBeLessThan(RING_SLOTS / 2);
});

describe("a pool of rings", () => {
  test("a pool lends a returned ring again, emptied", () => {
    const pool = new RingPool(100);
    const ring = pool.borrow();
    ring.push(chunk(1, 2, 3));
    pool.giveBack(ring);
    expect(pool.borrow()).toBe(ring);
    expect(ring).toMatchObject({ held: 0, memory: 0, capacity: 100 });
  });

  test("a pool never lends one ring twice", () => {
    const pool = new RingPool(100);
    const lent = Array.from({ length: 200 }, () => pool.borrow());
    expect(new Set(lent).size).toBe(200);
    for (const ring of lent) pool.giveBack(ring);
    const again = Array.from({ length: 200 }, () => pool.borrow());
    expect(new Set(again).size).toBe(200);
  });
});
