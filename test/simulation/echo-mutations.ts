/** Defects of the echo service, as mutations.ts describes them. It changes with that source. */
import type { Mutation } from "./mutations.ts";

export const ECHO_MUTATIONS: readonly Mutation[] = [
  {
    breaks: "the limit of connections is ignored",
    file: "echo/echo-server.ts",
    text: "if (this.#open.size >= maxConnections) {",
    becomes: "if (this.#open.size > maxConnections) {",
  },
  {
    breaks: "the peer's FIN is not answered",
    file: "echo/echo-server.ts",
    text: "ended: (connection) => connection.finish(),",
    becomes: "ended: () => undefined,",
  },
  {
    breaks: "a stop does not wait for what its peers have sent",
    file: "echo/echo-server.ts",
    text: "(quiet >= QUIET_MS && connection.held === 0)) connection.finish();",
    becomes: "quiet >= QUIET_MS) connection.close();",
  },
  {
    breaks: "a stop's timeout is ignored",
    file: "echo/echo-server.ts",
    text: "if (elapsed >= timeoutMs) this.#expel(connection);\n        else if",
    becomes: "if",
  },
  {
    breaks: "the interval of a stopped server goes on",
    file: "echo/echo-server.ts",
    text: "await emptied;\n    clearInterval(this.#sweeper);",
    becomes: "await emptied;",
  },
  {
    breaks: "an idle peer is closed though bytes are held for it",
    file: "echo/echo-server.ts",
    text: "else if (connection.held > 0) connection.abort(timedOut());\n      else connection.finish();",
    becomes: "else connection.close();",
  },
  {
    breaks: "a reply is composed with the slices' sizes wrong",
    file: "echo/reply.ts",
    text: "bytes.subarray(from, from + recvSize);",
    becomes: "bytes.subarray(from, from + recvSize - 1);",
  },
  {
    breaks: "the tutorial answers what is held only when a chunk comes",
    file: "echo/reply.ts",
    text: "drained: answer,",
    becomes: "drained() {},",
  },
  {
    breaks: "nobody looks for idle peers",
    file: "echo/echo-server.ts",
    text: "if (this.#idleMs > 0) this.#sweepEvery(this.#sweepMs);",
    becomes: "",
  },
  {
    breaks: "an idle peer that never ends keeps its connection",
    file: "echo/echo-server.ts",
    text: "if (connection.lingered >= LINGER_MS) connection.close();\n      else if (quiet",
    becomes: "if (quiet",
  },
  {
    breaks: "who came shortly before a sweep is idle a sweep too early",
    file: "echo/echo-server.ts",
    text: "connection.quiet = -this.#sweepMs;",
    becomes: "",
  },
  {
    breaks: "an idle peer is closed at once: what the kernel holds for it is lost if it sends",
    file: "echo/echo-server.ts",
    text: "else if (connection.held > 0) connection.abort(timedOut());\n      else connection.finish();",
    becomes: "else if (connection.held > 0) connection.abort(timedOut());\n      else connection.close();",
  },
  {
    breaks: "a stop does not wait until a peer is quiet",
    file: "echo/echo-server.ts",
    text: "const QUIET_MS = 1_000;",
    becomes: "const QUIET_MS = 0;",
  },
  {
    breaks: "who was quiet before a stop is given no time in it",
    file: "echo/echo-server.ts",
    text: "      connection.quiet = 0;\n      if (connection.lingering)",
    becomes: "      if (connection.lingering)",
  },
  {
    breaks: "a stop resets who has connected, and is not accepted yet",
    file: "echo/echo-server.ts",
    text: "await new Promise((resolve) => setTimeout(resolve, 1));",
    becomes: "",
  },
  {
    breaks: "a stop closes on a peer that it has sent FIN, before its timeout",
    file: "echo/echo-server.ts",
    text: "else if (lingering.has(connection) && connection.lingered >= LINGER_MS)",
    becomes: "else if (connection.lingered >= LINGER_MS)",
  },
  {
    breaks: "the backlog is ignored",
    file: "net/acceptor.ts",
    text: "listenDescriptor(this.#fd, this.#backlog);",
    becomes: "",
  },
  {
    breaks: "an accept that fails is tried again and again",
    file: "net/acceptor.ts",
    text: "if (stands && this.#suspicious) return this.#pause();",
    becomes: "",
  },
  {
    breaks: "accepting does not go on after a pause",
    file: "net/acceptor.ts",
    text: "this.#timer = setTimeout(() => this.#resume(), this.#nextPause);",
    becomes: "",
  },
  {
    breaks: "a stop during a pause resets who could be accepted by then",
    file: "echo/echo-server.ts",
    text: "this.#listening.hurry();",
    becomes: "",
  },
  {
    breaks: "a peer that takes nothing is given the idle time twice",
    file: "echo/echo-server.ts",
    text: "if (quiet === period && quiet < this.#idleMs) connection.delivering();",
    becomes: "",
    // The worlds' own bound on an idle connection leaves room for a second look.
    test: "test/faults/peers.test.ts",
  },
  {
    breaks: "a peer that goes on acknowledging is idle",
    file: "net/connection.ts",
    text: "if (moved) this.quiet = 0;",
    becomes: "if (moved) this.quiet += 0;",
  },
];
