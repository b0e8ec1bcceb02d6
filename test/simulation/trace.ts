/**
 * What happened in a simulation: a hash of every step, the last steps in words, and the fault that ended it.
 * It changes when the report of a failure does.
 */

/** An invariant does not hold, or the fake world was used as the real one must not be. */
export class Fault extends Error {}

const LAST = 64;

/** FNV-1a of a text, once for each text. */
const hashes = new Map<string, number>();
function hashOf(text: string): number {
  const known = hashes.get(text);
  if (known !== undefined) return known;
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  hashes.set(text, hash);
  return hash;
}

export class Trace {
  /** Events delivered and calls made by the world. */
  steps = 0;
  hash = 0x811c9dc5;
  /** Every entry is printed as it comes. */
  readonly loud: boolean;
  /** The first fault, which code under test may have caught. */
  fault: Fault | undefined;
  #entries = 0;
  readonly #texts = new Array<string>(LAST).fill("");
  readonly #numbers = new Int32Array(LAST * 3);

  constructor(loud = false) {
    this.loud = loud;
  }

  /** One event is delivered, or one call made. @param text in which # stands for who and @ for count */
  step(text: string, who: number, count = 0): void {
    this.steps++;
    this.#add(text, who, count);
  }

  /** Something that happens within a step: what the code under test calls. */
  note(text: string, who: number, count = 0): void {
    this.#add(text, who, count);
  }

  #add(text: string, who: number, count: number): void {
    let hash = this.hash ^ hashOf(text);
    hash = Math.imul(hash, 0x01000193) ^ who;
    hash = Math.imul(hash, 0x01000193) ^ count;
    this.hash = Math.imul(hash ^ (hash >>> 15), 0x01000193);
    const slot = this.#entries++ % LAST;
    this.#texts[slot] = text;
    this.#numbers[slot * 3] = this.steps;
    this.#numbers[slot * 3 + 1] = who;
    this.#numbers[slot * 3 + 2] = count;
    if (this.loud) console.log(this.#words(slot));
  }

  #words(slot: number): string {
    const [step, who, count] = this.#numbers.subarray(slot * 3, slot * 3 + 3);
    return `${step}: ${this.#texts[slot]!.replace("#", String(who)).replace("@", String(count))}`;
  }

  /** The last steps, oldest first. */
  last(): string[] {
    const from = Math.max(0, this.#entries - LAST);
    return Array.from({ length: this.#entries - from }, (_, i) => this.#words((from + i) % LAST));
  }

  /** Ends the simulation: kept, because code under test may catch what is thrown. */
  fail(reason: string): never {
    this.fault ??= new Fault(reason);
    throw this.fault;
  }
}
