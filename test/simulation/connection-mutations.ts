/**
 * Defects of the ring, the connection and the socket under it, as mutations.ts describes them. It changes
 * with that source.
 */
import type { Mutation } from "./mutations.ts";

export const CONNECTION_MUTATIONS: readonly Mutation[] = [
  // The ring.
  {
    breaks: "the ring forgets how much of its first chunk is gone: bytes are sent twice",
    file: "core/ring-buffer.ts",
    text: "this.#offset += bytes;",
    becomes: "",
  },
  {
    breaks: "one slot too many: the oldest chunk is overwritten",
    file: "core/ring-buffer.ts",
    text: "return this.#count === RING_SLOTS || this.#memory >= this.capacity;",
    becomes: "return this.#count > RING_SLOTS || this.#memory >= this.capacity;",
  },
  {
    breaks: "a chunk goes into the wrong slot when the ring wraps around",
    file: "core/ring-buffer.ts",
    text: "(this.#first + this.#count) & MASK",
    becomes: "this.#count & MASK",
  },
  {
    breaks: "the limit counts the bytes that wait, not the memory that they keep alive",
    file: "core/ring-buffer.ts",
    text: "this.#memory += chunk.length;",
    becomes: "this.#memory += chunk.length - offset;",
  },
  {
    breaks: "a slice is not taken from where the last one ended",
    file: "core/ring-buffer.ts",
    text: "head.subarray(start, end);",
    becomes: "head.subarray(0, end - start);",
  },
  {
    breaks: "low water counts no slots: reading goes on with a ring that is nearly full",
    file: "core/ring-buffer.ts",
    text: "return this.#count <= RING_SLOTS / 2 && this.#memory <= this.capacity / 2;",
    becomes: "return this.#memory <= this.capacity / 2;",
  },
  // The connection.
  {
    breaks: "the rest of a short write is dropped",
    file: "core/connection.ts",
    text: "this.hold(chunk, sent);",
    becomes: "",
  },
  {
    breaks: "new bytes are written past those that wait",
    file: "core/connection.ts",
    text: 'if (this.#ring === null && this.#kernel === "ready" && length <= limit && !this.budget.exhausted) {',
    becomes: "if (length <= limit) {",
  },
  {
    breaks: "nobody pauses a peer that sends more than is held",
    file: "core/connection.ts",
    text: "this.#paused = true;\n    this.#transport.pause();\n  }\n\n  #resumeIfLow",
    becomes: "}\n\n  #resumeIfLow",
  },
  {
    breaks: "nobody resumes: the peer waits for ever",
    file: "core/connection.ts",
    text: "this.#paused = false;\n    this.#transport.resume();",
    becomes: "",
  },
  {
    breaks: "resumed without low water",
    file: "core/connection.ts",
    text: "if (this.#ring?.low === false || this.#memory > this.#rings.capacity / 2) return;",
    becomes: "",
  },
  {
    breaks: "the FIN goes out before what is held",
    file: "core/connection.ts",
    text: 'if (this.#sending !== "finishing" || this.held > 0 || this.closed) return;',
    becomes: 'if (this.#sending !== "finishing" || this.closed) return;',
  },
  {
    breaks: "after a tail is out, the FIN that waits for it is forgotten",
    file: "core/connection.ts",
    text: "this.#handler.onDrain(this);\n    this.#finishIfFlushed();",
    becomes: "this.#handler.onDrain(this);",
  },
  {
    breaks: "a second FIN, at whatever comes after the first",
    file: "core/connection.ts",
    text: 'this.#sending = "shut";\n    this.#transport.shutdown();\n    this.#discardInput();',
    becomes: "this.#transport.shutdown();\n    this.#discardInput();",
  },
  {
    breaks: "closing twice is told twice",
    file: "core/connection.ts",
    text: "if (transport === closedTransport) return;",
    becomes: "",
  },
  {
    breaks: "after the close, the socket is still used",
    file: "core/connection.ts",
    text: "this.#transport = closedTransport;",
    becomes: "",
  },
  {
    breaks: "what comes in spite of a pause, at a reset, overfills the ring",
    file: "core/connection.ts",
    text: "if (this.#paused) {\n      this.#lost = true;",
    becomes: "if (this.closed) {\n      this.#lost = true;",
  },
  {
    breaks: "the tail is sent from its start again",
    file: "core/connection.ts",
    text: "this.#tailOffset += sent;",
    becomes: "",
  },
  {
    breaks: "bytes behind our FIN are handed to the user",
    file: "core/connection.ts",
    text: 'this.#receiving = "dropping";\n    this.#resumeIfLow();',
    becomes: "this.#resumeIfLow();",
  },
  {
    breaks: "a connection's turn comes, and nothing is written",
    file: "core/connection.ts",
    text: "try {\n      this.#handler.onDrain(this);",
    becomes: "try {",
  },
  {
    breaks: "the memory of a chunk is given back while a part of it waits",
    file: "core/connection.ts",
    text: "if (ring.head !== head) freeChunk(head);",
    becomes: "freeChunk(head);",
  },
  {
    breaks: "the limit ignores the piece that waits in the tail",
    file: "core/connection.ts",
    text: "if (this.#paused || !(this.#ring?.full || this.#memory >= this.#rings.capacity)) return;",
    becomes: "if (this.#paused || !this.#ring?.full) return;",
  },
  {
    breaks: "what a reset brings in spite of a pause vanishes, and the connection goes on",
    file: "core/connection.ts",
    text: 'return this.abort(osError({ code: "ECONNRESET", syscall: "recv" }));',
    becomes: "return;",
  },
  {
    breaks: "resumed as soon as it is not full",
    file: "core/connection.ts",
    text: "if (this.#ring?.low === false || this.#memory > this.#rings.capacity / 2) return;",
    becomes: "if (this.#ring?.full || this.#memory >= this.#rings.capacity) return;",
  },
  {
    breaks: "paused when three quarters are full",
    file: "core/connection.ts",
    text: "if (this.#paused || !(this.#ring?.full || this.#memory >= this.#rings.capacity)) return;",
    becomes:
      "if (this.#paused || !(this.#ring?.full || this.#memory >= this.#rings.capacity * 0.75)) return;",
  },
  {
    breaks: "what is lost in a failed write counts as answered",
    file: "core/connection.ts",
    text: 'this.#lost = true;\n    this.abort(osError({ code: "EPIPE", syscall: "send" }));',
    becomes: 'this.abort(osError({ code: "EPIPE", syscall: "send" }));',
  },
  {
    breaks: "the tail is forgotten before it is known what was lost",
    file: "core/connection.ts",
    text: "this.#transport = closedTransport;\n",
    becomes: "this.#transport = closedTransport;\n    this.#tail = null;\n",
  },
  {
    breaks: "what is held resumes reading that was stopped for good",
    file: "core/connection.ts",
    text: 'if (!this.#paused || this.#receiving === "stopped") return;',
    becomes: "if (!this.#paused) return;",
    test: "test/unit/core/connection-ends.test.ts",
  },
  {
    breaks: "after the FIN that followed a stop of reading, nothing is read, and the peer's FIN neither",
    file: "core/connection.ts",
    text: 'this.#receiving = "dropping";\n    this.#resumeIfLow();',
    becomes: 'this.#receiving = "dropping";',
  },
  {
    breaks: "a connection that waits for its turn writes all the same",
    file: "core/connection.ts",
    text: 'this.#kernel = "yielded";',
    becomes: "",
    test: "test/unit/core/turn-budget.test.ts",
  },
  // What a turn may cost.
  {
    breaks: "a turn has no end of work",
    file: "core/turn-budget.ts",
    text: "if (this.#armed) this.exhausted = true;",
    becomes: "if (this.#armed) this.exhausted = false;",
    test: "test/unit/core/turn-budget.test.ts",
  },
  {
    breaks: "those who wait for their turn are forgotten",
    file: "core/turn-budget.ts",
    text: "if (!this.#armed) this.#arm();\n  }\n\n  #arm",
    becomes: "}\n\n  #arm",
  },
  {
    breaks: "of two that wait for their turn, one is lost",
    file: "core/turn-budget.ts",
    text: "else this.#last.nextYielded = connection;",
    becomes: "",
  },
  {
    breaks: "the queue uses up what the events of its turn may cost",
    file: "core/turn-budget.ts",
    text: "one.onTurn();\n    }\n    // The events of this turn have units of their own: a peer with a small message does not wait for the\n    // queue.\n    this.#refill();",
    becomes: "one.onTurn();\n    }",
    test: "test/unit/core/turn-budget.test.ts",
  },
  {
    breaks: "a throw in the turn after a rest ends the process",
    file: "core/connection.ts",
    text: "      this.abort(error);\n    }\n  }\n\n  onEnd",
    becomes: "      throw error;\n    }\n  }\n\n  onEnd",
  },
  {
    breaks: "a throw in a handler leaves its connection as it is",
    file: "engine/bun/transport.ts",
    text: "else socket.data.abort(error);",
    becomes: "",
  },
  // The socket under it.
  {
    breaks: "of a message that goes in two calls, only the second is counted",
    file: "engine/bun/transport.ts",
    text: "return more < 0 ? more : taken + more;",
    becomes: "return more;",
  },
  {
    breaks: "Bun is not told of a short send, and announces no drain",
    file: "engine/bun/transport.ts",
    text: "if (sent === length) return sent;",
    becomes: "if (sent >= 0) return sent;",
  },
  {
    breaks: "what send(2) took is written again",
    file: "engine/bun/transport.ts",
    text: "const taken = sent > 0 ? sent : 0;",
    becomes: "const taken = 0;",
  },
  {
    breaks: "a send that failed leaves the connection writable",
    file: "core/connection.ts",
    text: '      this.#sending = "shut";\n      return -1;',
    becomes: "      return -1;",
    test: "test/unit/core/connection-ends.test.ts",
  },
  {
    breaks: "drop() counts nothing",
    file: "core/connection.ts",
    text: "this.dropped += ring.held;",
    becomes: "",
    test: "test/unit/core/connection-ends.test.ts",
  },
  {
    breaks: "after shutdown and drop, the peer's FIN does not close",
    file: "core/connection.ts",
    text: 'if (this.#sending === "shut" && !wanted) return this.close();',
    becomes: "",
    test: "test/unit/core/connection-ends.test.ts",
  },
];
