/**
 * Defects of the awaited stream, waiting, listening and connecting, as mutations.ts describes them. It
 * changes with that source.
 */
import type { Mutation } from "./mutations.ts";

export const LIBRARY_MUTATIONS: readonly Mutation[] = [
  // The awaited stream.
  {
    breaks: "a pending recv is lost when the connection closes",
    file: "socket/reader.ts",
    text: "else if (this.#call.waiting) this.#call.reject(error);\n    else this.#error = error;",
    becomes: "else this.#error = error;",
  },
  {
    breaks: "a pending sendall is lost when the connection closes",
    file: "socket/stream.ts",
    text: "this.writer.rejectAll((call) => (reason === undefined ? brokenPipe(call) : withSyscall(reason, call)));",
    becomes: "",
  },
  {
    breaks: "what waited when the connection ended cannot be received",
    file: "core/connection.ts",
    text: "this.#handler.onClose(this, error);\n    this.#tail = null;",
    becomes: "this.#handler.onClose(this, error);\n    this.#ring?.clear();",
  },
  {
    breaks: "a sendall is done when the kernel has taken a part of it",
    file: "socket/writer.ts",
    text: "if (all ? send.offset < bytes.length : sent === 0) return false;",
    becomes: "if (sent === 0) return false;",
  },
  {
    breaks: "calls interleave: the second sendall goes before the first",
    file: "socket/writer.ts",
    text: "this.#sends.push(send);",
    becomes: "this.#sends.unshift(send);",
  },
  {
    breaks: "shutdown does not wait for pending calls",
    file: "socket/writer.ts",
    text: "if (!this.hasPending) this.#sendFin();",
    becomes: "this.#connection.shutdown();",
  },
  {
    breaks: "a FIN that waits for a pending call is never sent",
    file: "socket/writer.ts",
    text: "if (this.#ending) this.#sendFin();",
    becomes: "",
  },
  {
    breaks: "close does not deliver what sendall has accepted",
    file: "socket/stream.ts",
    text: "if (this.writer.hasPending) this.#awaitFlush();\n    else this.#finish();",
    becomes: "this.#finish();",
  },
  {
    breaks: "after close, a peer that never ends keeps the descriptor for ever",
    file: "socket/stream.ts",
    text: "this.#closing!.set(LINGER_MS);",
    becomes: "",
  },
  {
    breaks: "after close, a peer that takes nothing keeps the descriptor for ever",
    file: "socket/stream.ts",
    text: "this.#closing!.set(FLUSH_MS);",
    becomes: "",
    test: "test/unit/socket/waiting.test.ts",
  },
  {
    breaks: "a recv that does not wait gets bytes of a socket that is closed meanwhile",
    file: "socket/reader.ts",
    text: "this.#call.reject(error);\n    this.#error = error;\n  }\n\n  // Internals.",
    becomes: "this.#call.reject(error);\n  }\n\n  // Internals.",
  },
  {
    breaks: "a recv gets more than it asked for",
    file: "socket/reader.ts",
    text: "if (chunk.length <= size) return call.resolve(chunk as Buffer);",
    becomes: "return call.resolve(chunk as Buffer);",
  },
  {
    breaks: "a second recv takes the first one's place",
    file: "socket/reader.ts",
    text: "return this.#call.waiting || this.#polling || this.#collecting;",
    becomes: "return this.#polling || this.#collecting;",
  },
  {
    breaks: "a recv that does not wait is overtaken by a second one",
    file: "socket/reader.ts",
    text: "return this.#call.waiting || this.#polling || this.#collecting;",
    becomes: "return this.#call.waiting || this.#collecting;",
  },
  {
    breaks: "after close, a peer is given up after a fifth of its time",
    file: "socket/stream.ts",
    text: "const FLUSH_MS = 10_000;",
    becomes: "const FLUSH_MS = 2_000;",
  },
  {
    breaks: "after close, a peer is given up although it takes what it is owed",
    file: "socket/stream.ts",
    text: "if (this.#connection.sent === this.#sentAtAlarm) return",
    becomes: "return",
  },
  {
    breaks: "after close, a peer that still sends is given no time",
    file: "socket/stream.ts",
    text: "const LINGER_MS = 2_000;",
    becomes: "const LINGER_MS = 0;",
  },
  {
    breaks: "after close, a call that gives up leaves what went before it without a FIN",
    file: "socket/stream.ts",
    text: "return this.#connection.lingering ? this.#connection.close() : this.#finish();",
    becomes: "return this.#connection.close();",
    test: "test/simulation/simulation.test.ts",
  },
  // Waiting.
  {
    breaks: "a deadline that was met ends the next call",
    file: "socket/pending-call.ts",
    text: "if (this.deadline !== Infinity) waiting.delete(this);\n    this.deadline = Infinity;",
    becomes: "",
  },
  {
    breaks: "a signal keeps a listener of a call that is over",
    file: "socket/pending-call.ts",
    text: 'this.#signal.removeEventListener("abort", this);',
    becomes: "",
  },
  {
    breaks: "the timer is not armed again for the deadlines that are left",
    file: "socket/pending-call.ts",
    text: "if (next < armedFor) arm(next);",
    becomes: "",
  },
  // Listening and connecting.
  {
    breaks: "one connection more than the backlog waits",
    file: "socket/listener.ts",
    text: ">= this.#backlog + this.#pendingAccepts;",
    becomes: "> this.#backlog + this.#pendingAccepts;",
  },
  {
    breaks: "the connections that wait are not reset when the listener closes",
    file: "socket/listener.ts",
    text: "for (const stream of this.#queue.splice(0)) stream.abort();",
    becomes: "",
    test: "test/unit/socket/listener.test.ts",
  },
  {
    breaks: "an accept that waits is lost when the listener closes",
    file: "socket/listener.ts",
    text: 'for (const waiter of this.#accepts.splice(0)) waiter.reject(closedError("accept"));',
    becomes: "",
  },
  {
    breaks: "a connection goes to an accept that has given up",
    file: "socket/listener.ts",
    text: "if (waiter.waiting) return waiter.resolve(stream);",
    becomes: "return waiter.resolve(stream);",
  },
  {
    breaks: "the newest connection is accepted first",
    file: "socket/listener.ts",
    text: "const waiting = this.#queue.shift();",
    becomes: "const waiting = this.#queue.pop();",
  },
  {
    breaks: "a connect that is given up leaves its connection open",
    file: "socket/connect.ts",
    text: "else stream.abort();",
    becomes: "",
  },
  {
    breaks: "connecting is over before the connection stands",
    file: "engine/bun/engine.ts",
    text: "if (connected && plain) arrived();",
    becomes: "arrived();",
  },
  {
    breaks: "a connect goes on although its socket was closed while the name was looked up",
    file: "socket/connector.ts",
    text: "      if (signal.aborted) throw abortReason(signal);\n      try {",
    becomes: "      try {",
  },
  {
    breaks: "an abort just after connect(2) is not heard",
    file: "socket/connector.ts",
    text: "    if (signal.aborted) {",
    becomes: "    if (false) {",
  },
  {
    breaks: "another call reads between a recv_into and its copy",
    file: "socket/reader.ts",
    text: "    this.#polling = true;\n    await RESOLVED;",
    becomes: "    await RESOLVED;",
  },
  // The socket.
  {
    breaks: "recv ignores its deadline",
    file: "socket/transfer-socket.ts",
    text: "return role.reader.recv(bufsize, this.timeoutMs);",
    becomes: "return role.reader.recv(bufsize, null);",
  },
  {
    breaks: "after a connect that failed, the socket has no descriptor to try again with",
    file: "socket/connector.ts",
    text: "      this.fd = fd;\n    } catch {",
    becomes: "    } catch {",
  },
  {
    breaks: "close leaves a connect under way",
    file: "socket/connector.ts",
    text: 'this.#connecting?.abort(closedError("connect"));',
    becomes: "",
  },
];
