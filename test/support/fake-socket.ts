import type { Transport } from "../../src/core/transport.ts";

/**
 * A socket as Bun's is, with a kernel that takes what the test says. It notes every call, and throws at a
 * call that a real descriptor would suffer from: any use after it was closed, a write after the FIN.
 */
export class FakeSocket implements Transport {
  /** How many bytes the kernel still takes. */
  room: number;
  /** The peer reset: every write gives -1, as Bun's does. */
  broken = false;
  /** What the peer has not acknowledged, as the kernel would say. */
  unacked = 0;
  paused = false;
  shutDown = false;
  gone: "end" | "terminate" | undefined;
  /** What the kernel took. */
  readonly taken: Buffer[] = [];
  /** Bytes offered to each write, what was taken, and the other calls by their names. */
  readonly calls: string[] = [];

  readonly fd = -1;
  /** The peer's bytes in the kernel, and whether its FIN follows them. */
  inKernel = 0;
  finished = false;

  constructor(room = Infinity) {
    this.room = room;
  }

  get bytes(): Buffer {
    return Buffer.concat(this.taken);
  }

  write(bytes: Uint8Array, offset: number, length: number): number {
    this.#use("write");
    if (this.shutDown) throw new Error("write behind the FIN");
    if (length <= 0 || offset < 0 || offset + length > bytes.length)
      throw new Error("write outside the chunk");
    if (this.broken) {
      this.calls.push(`write ${length} -> -1`);
      return -1;
    }
    const taken = Math.min(this.room, length);
    this.room -= taken;
    if (taken > 0) this.taken.push(Buffer.from(bytes.subarray(offset, offset + taken)));
    this.calls.push(`write ${length} -> ${taken}`);
    return taken;
  }

  unacknowledged(): number {
    this.#use("unacknowledged");
    return this.unacked;
  }

  unread(): number {
    return this.inKernel;
  }

  peerFinished(): boolean {
    return this.finished;
  }

  pause(): void {
    this.#use("pause");
    if (this.paused) throw new Error("paused twice");
    this.paused = true;
    this.calls.push("pause");
  }

  resume(): void {
    this.#use("resume");
    if (!this.paused) throw new Error("resumed without a pause");
    this.paused = false;
    this.calls.push("resume");
  }

  shutdown(): void {
    this.#use("shutdown");
    if (this.shutDown) throw new Error("shut down twice");
    this.shutDown = true;
    this.calls.push("shutdown");
  }

  end(): void {
    this.#close("end");
  }

  terminate(): void {
    this.#close("terminate");
  }

  #close(how: "end" | "terminate"): void {
    this.#use(how);
    this.gone = how;
    this.calls.push(how);
  }

  #use(call: string): void {
    if (this.gone !== undefined)
      throw new Error(`${call} after ${this.gone}: the descriptor may be another's`);
  }
}
