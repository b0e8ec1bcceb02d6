/**
 * A histogram of times in whole nanoseconds, by buckets that grow with the value, so that every percentile is
 * known to half a percent, whatever the range. It changes when its precision or its JSON does.
 *
 * The buckets are the ones that a double has already: its exponent is the octave, the upper bits of its
 * mantissa the place in it. So an index is a shift, without a logarithm, and recording allocates nothing.
 */

/** Significant bits: 128 buckets per octave, each at most 1/128 of its value wide. */
const BITS = 7;
const PER_OCTAVE = 1 << BITS;
/** Up to 2^40 ns, 18 minutes. What is longer counts as the last bucket; max stays exact. */
const OCTAVES = 40;
/** Zero has a bucket of its own, in front. */
const BUCKETS = 1 + OCTAVES * PER_OCTAVE;
const EXPONENT_OF_ONE = 1023 << BITS;

const double = new Float64Array(1);
/** The same eight bytes; [1] is the upper half, as every machine that Bun runs on is little-endian. */
const halves = new Uint32Array(double.buffer);

function bucketOf(value: number): number {
  if (value < 1) return 0;
  double[0] = value;
  return Math.min(1 + (halves[1]! >>> (20 - BITS)) - EXPONENT_OF_ONE, BUCKETS - 1);
}

/**
 * The whole number in the middle of a bucket; below 256, where no bucket holds two of them, the number
 * itself.
 */
function middleOf(bucket: number): number {
  if (bucket === 0) return 0;
  const octave = 2 ** ((bucket - 1) >> BITS);
  const min = octave * (1 + ((bucket - 1) & (PER_OCTAVE - 1)) / PER_OCTAVE);
  const wholeNumbers = Math.max(1, octave / PER_OCTAVE);
  return min + Math.floor((wholeNumbers - 1) / 2);
}

export interface HistogramJSON {
  unit: "ns";
  bucketsPerOctave: number;
  count: number;
  min: number;
  max: number;
  sum: number;
  /** The non-empty buckets in order: distance to the previous one, number of values, and so on. */
  buckets: number[];
}

export class Histogram {
  readonly #counts = new Float64Array(BUCKETS);
  #count = 0;
  #sum = 0;
  #min = Infinity;
  #max = 0;

  get count(): number {
    return this.#count;
  }

  /** The smallest value, exactly; 0 of none. */
  get min(): number {
    return this.#count === 0 ? 0 : this.#min;
  }

  /** The largest value, exactly; 0 of none. */
  get max(): number {
    return this.#max;
  }

  /** Of the values themselves, not of their buckets; 0 of none. */
  get mean(): number {
    return this.#count === 0 ? 0 : this.#sum / this.#count;
  }

  /** @param nanoseconds rounded to a whole number */
  record(nanoseconds: number): void {
    const value = Math.round(nanoseconds);
    if (!(value >= 0 && value < Infinity)) throw new RangeError(`a time of ${nanoseconds} ns was measured`);
    const bucket = bucketOf(value);
    this.#counts[bucket] = this.#counts[bucket]! + 1;
    this.#count++;
    this.#sum += value;
    if (value < this.#min) this.#min = value;
    if (value > this.#max) this.#max = value;
  }

  /**
   * The value which p percent of the values do not exceed (by nearest rank), within half a percent; 0 of
   * none.
   * @param p from 0, which gives min, to 100, which gives max
   */
  percentile(p: number): number {
    if (!(p >= 0 && p <= 100)) throw new RangeError(`there is no percentile ${p}: it goes from 0 to 100`);
    if (this.#count === 0) return 0;
    // 99.9 % of 1000 is 999 and not, by an error in the last binary digit, 1000.
    const rank = Math.ceil(((p * this.#count) / 100) * (1 - 2 ** -50));
    if (rank <= 1) return this.#min;
    if (rank === this.#count) return this.#max;
    let [bucket, seen] = [0, this.#counts[0]!];
    while (seen < rank) seen += this.#counts[++bucket]!;
    return Math.max(this.#min, Math.min(this.#max, middleOf(bucket)));
  }

  /** Takes in all values of another one, which stays as it is. */
  merge(other: Histogram): void {
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      this.#counts[bucket] = this.#counts[bucket]! + other.#counts[bucket]!;
    }
    this.#count += other.#count;
    this.#sum += other.#sum;
    this.#min = Math.min(this.#min, other.#min);
    this.#max = Math.max(this.#max, other.#max);
  }

  toJSON(): HistogramJSON {
    const buckets: number[] = [];
    let before = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      if (this.#counts[bucket] === 0) continue;
      buckets.push(bucket - before, this.#counts[bucket]!);
      before = bucket;
    }
    return {
      unit: "ns",
      bucketsPerOctave: PER_OCTAVE,
      count: this.#count,
      min: this.min,
      max: this.#max,
      sum: this.#sum,
      buckets,
    };
  }

  /** @throws when it is not what toJSON gives: then it is of another program, or damaged */
  static fromJSON(json: HistogramJSON): Histogram {
    const refuse = (why: string): never => {
      throw new Error(`this is no histogram of ours: ${why}`);
    };
    if (json?.unit !== "ns" || json.bucketsPerOctave !== PER_OCTAVE || !Array.isArray(json.buckets))
      refuse(`its unit is not "ns", or it has not ${PER_OCTAVE} buckets an octave`);
    const read = new Histogram();
    let bucket = 0;
    for (let i = 0; i < json.buckets.length; i += 2) {
      const [ahead, count] = [json.buckets[i]!, json.buckets[i + 1]!];
      bucket += ahead;
      const ordered = Number.isInteger(ahead) && ahead >= (i === 0 ? 0 : 1) && bucket < BUCKETS;
      if (!ordered || !Number.isSafeInteger(count) || count < 1) refuse(`its buckets are wrong at ${i}`);
      read.#counts[bucket] = count;
      read.#count += count;
    }
    if (read.#count !== json.count) refuse(`it claims ${json.count} values and has ${read.#count}`);
    if (read.#count === 0) return read;
    const { min, max, sum } = json;
    if (![min, max, sum].every((value) => Number.isFinite(value) && value >= 0))
      refuse("a figure is missing");
    if (read.#counts[bucketOf(min)] === 0 || bucketOf(max) !== bucket || min > max)
      refuse(`min ${min} and max ${max} do not fit its buckets`);
    read.#min = min;
    read.#max = max;
    read.#sum = sum;
    return read;
  }
}
