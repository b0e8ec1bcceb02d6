import { describe, expect, test } from "bun:test";
import { mutated, regionOf } from "./pattern.ts";

const SOURCE = `const LIMIT = 4;

export class Ring<T> {
  readonly capacity: number;
  #used = 0;

  get full(): boolean {
    return this.#used >= LIMIT;
  }

  push(
    chunk: Uint8Array,
    offset: number,
  ): void {
    if (this.full || offset < 0) {
      throw new Error("full");
    }
    // The part that is gone does not count.
    this.#used += chunk.length - offset;
    this.full2();
  }

  full2(): void {}
}

function grow(ring: Ring): void {
  ring.push(ring.last, 0);
}
`;

const change = (at: string, text: string, becomes: string, source = SOURCE): string =>
  mutated(source, { at, text, becomes });

describe("a region", () => {
  const textOf = (name: string): string => {
    const { start, end } = regionOf(SOURCE, name);
    return SOURCE.slice(start, end);
  };

  test("is a method, whose signature may take several lines", () => {
    expect(textOf("Ring.push")).toStartWith("  push(");
    expect(textOf("Ring.push")).toEndWith("this.full2();\n  }");
  });

  test("is a getter and not the method whose name begins alike, a field, a constant, a function, a class", () => {
    expect(textOf("Ring.full")).toContain("LIMIT");
    expect(textOf("Ring.#used")).toBe("  #used = 0;");
    expect(textOf("LIMIT")).toBe("const LIMIT = 4;");
    expect(textOf("grow")).toEndWith("0);\n}");
    expect(textOf("Ring")).toEndWith("full2(): void {}\n}");
  });

  test("that is missing is an error that names it", () => {
    expect(() => regionOf(SOURCE, "Ring.pop")).toThrow("Ring has no pop");
    expect(() => regionOf(SOURCE, "Pool.push")).toThrow("nothing is named Pool");
  });
});

describe("a pattern", () => {
  const text = "this.#$used += $chunk.length - $offset;";

  test("finds its place, and puts the names of the source into the change", () => {
    expect(change("Ring.push", text, "this.#$used += $chunk.length;")).toContain(
      "this.#used += chunk.length;",
    );
  });

  test("survives a renamed field, a renamed parameter, other line breaks and a new comment", () => {
    const renamed = SOURCE.replaceAll("#used", "#memory")
      .replaceAll("chunk", "bytes")
      .replace("+= bytes.length - offset", "+=\n      bytes.length /* whole */ -\n      offset");
    expect(change("Ring.push", text, "this.#$used += $chunk.length;", renamed)).toContain(
      "this.#memory += bytes.length;",
    );
  });

  test("wants the same identifier wherever a placeholder is repeated, and no private one for a plain one", () => {
    expect(() => change("Ring.push", "$a.length - $a", "")).toThrow("0 times");
    expect(() => change("Ring.push", "this.$used +=", "")).toThrow("0 times");
  });

  test("that is there twice is an error", () => {
    expect(() => change("Ring", "this.#$used", "")).toThrow("Ring has 2 times, and not once: this.#$used");
  });
});
