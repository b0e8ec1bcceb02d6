/**
 * Defects to put into the source, one at a time, each of which the simulation or a named test must see. It changes
 * with the source: each text must be there exactly once.
 */

export interface Mutation {
  /** What breaks, in words. */
  readonly breaks: string;
  /** Below src. */
  readonly file: string;
  readonly text: string;
  readonly becomes: string;
  /** A test file that sees it where the simulation cannot. */
  readonly test?: string;
}

export const MUTATIONS: readonly Mutation[] = [
  // The ring.
  {
    breaks: "the ring forgets how much of its first chunk is gone: bytes are sent twice",
    file: "net/ring-buffer.ts",
    text: "this.#offset += bytes;",
    becomes: "",
  },
  {
    breaks: "one slot too many: the oldest chunk is overwritten",
    file: "net/ring-buffer.ts",
    text: "return this.#count === RING_SLOTS || this.#memory >= this.capacity;",
    becomes: "return this.#count > RING_SLOTS || this.#memory >= this.capacity;",
  },
  {
    breaks: "a chunk goes into the wrong slot when the ring wraps around",
    file: "net/ring-buffer.ts",
    text: "(this.#first + this.#count) & MASK",
    becomes: "this.#count & MASK",
  },
  {
    breaks: "the limit counts the bytes that wait, not the memory that they keep alive",
    file: "net/ring-buffer.ts",
    text: "this.#memory += chunk.length;",
    becomes: "this.#memory += chunk.length - offset;",
  },
  {
    breaks: "a slice is not taken from where the last one ended",
    file: "net/ring-buffer.ts",
    text: "head.subarray(start, end);",
    becomes: "head.subarray(0, end - start);",
  },
  {
    breaks: "low water counts no slots: reading goes on with a ring that is nearly full",
    file: "net/ring-buffer.ts",
    text: "return this.#count <= RING_SLOTS / 2 && this.#memory <= this.capacity / 2;",
    becomes: "return this.#memory <= this.capacity / 2;",
  },
  // The connection.
  {
    breaks: "the rest of a short write is dropped",
    file: "net/connection.ts",
    text: "this.#push(chunk, sent);",
    becomes: "",
  },
  {
    breaks: "new bytes are written past those that wait",
    file: "net/connection.ts",
    text: "if (this.#ring === null && !this.#blocked && length <= limit) {",
    becomes: "if (length <= limit) {",
  },
  {
    breaks: "nobody pauses a peer that sends more than is held",
    file: "net/connection.ts",
    text: "this.#paused = true;\n    this.#socket.pause();",
    becomes: "",
  },
  {
    breaks: "nobody resumes: the peer waits for ever",
    file: "net/connection.ts",
    text: "this.#paused = false;\n    this.#socket.resume();",
    becomes: "",
  },
  {
    breaks: "resumed without low water",
    file: "net/connection.ts",
    text: "if (!this.#paused || this.#ring?.low === false || this.#memory > this.#rings.capacity / 2) return;",
    becomes: "if (!this.#paused) return;",
  },
  {
    breaks: "the FIN goes out before what is held",
    file: "net/connection.ts",
    text: "if (!this.#finishing || this.held > 0 || this.closed) return;",
    becomes: "if (!this.#finishing || this.closed) return;",
  },
  {
    breaks: "after a tail is out, the FIN that waits for it is forgotten",
    file: "net/connection.ts",
    text: "this.#user.drained(this);\n    this.#settle();",
    becomes: "this.#user.drained(this);",
  },
  {
    breaks: "a second FIN, at whatever comes after the first",
    file: "net/connection.ts",
    text: "if (!this.#shut) {\n      this.#shut = true;",
    becomes: "if (!this.#shut) {",
  },
  {
    breaks: "closing twice is told twice",
    file: "net/connection.ts",
    text: "if (socket === closedSocket) return;\n    this.#user.closed(this, error);",
    becomes: "this.#user.closed(this, error);",
  },
  {
    breaks: "after the close, the socket is still used",
    file: "net/connection.ts",
    text: "this.#socket = closedSocket;",
    becomes: "",
  },
  {
    breaks: "what comes in spite of a pause, at a reset, overfills the ring",
    file: "net/connection.ts",
    text: "if (this.#paused) {\n      release(chunk);",
    becomes: "if (this.closed) {\n      release(chunk);",
  },
  {
    breaks: "the tail is sent from its start again",
    file: "net/connection.ts",
    text: "this.#tailOffset += sent;",
    becomes: "",
  },
  {
    breaks: "bytes behind our FIN are handed to the user",
    file: "net/connection.ts",
    text: "this.#dropping = true;\n    if (!this.#shut) {",
    becomes: "if (!this.#shut) {",
  },
  {
    breaks: "a rest ends before anybody is told that writing goes on",
    file: "net/connection.ts",
    text: "        this.onDrain();\n      } catch (error) {",
    becomes: "      } catch (error) {",
  },
  {
    breaks: "the memory of a chunk is given back while a part of it waits",
    file: "net/connection.ts",
    text: "if (ring.head !== head) release(head);",
    becomes: "release(head);",
  },
  {
    breaks: "the limit ignores the piece that waits in the tail",
    file: "net/connection.ts",
    text: "if (this.#paused || !(this.#ring?.full || this.#memory >= this.#rings.capacity)) return;",
    becomes: "if (this.#paused || !this.#ring?.full) return;",
  },
  {
    breaks: "what a reset brings in spite of a pause is kept for a relay",
    file: "net/connection.ts",
    text: "if (this.#paused) {\n      release(chunk);",
    becomes: "if (this.#paused && !this.#relaying) {\n      release(chunk);",
  },
  {
    breaks: "resumed as soon as it is not full",
    file: "net/connection.ts",
    text: "if (!this.#paused || this.#ring?.low === false || this.#memory > this.#rings.capacity / 2) return;",
    becomes: "if (!this.#paused || this.#ring?.full || this.#memory >= this.#rings.capacity) return;",
  },
  {
    breaks: "paused when three quarters are full",
    file: "net/connection.ts",
    text: "if (this.#paused || !(this.#ring?.full || this.#memory >= this.#rings.capacity)) return;",
    becomes:
      "if (this.#paused || !(this.#ring?.full || this.#memory >= this.#rings.capacity * 0.75)) return;",
  },
  {
    breaks: "a connection ages though bytes move",
    file: "net/connection.ts",
    text: "this.quiet = moved === this.#movedBefore ? this.quiet + period : 0;",
    becomes: "this.quiet += period;",
  },
  {
    breaks: "a peer that is still taking what the kernel holds for it is idle",
    file: "net/connection.ts",
    text: "if (moved) this.quiet = 0;\n    return moved;",
    becomes: "return false;",
  },
  {
    breaks: "a throw in the turn after a rest ends the process",
    file: "net/connection.ts",
    text: "        this.abort(error);\n      }\n    });",
    becomes: "        throw error;\n      }\n    });",
  },
  {
    breaks: "a throw in a handler leaves its connection as it is",
    file: "net/connection.ts",
    text: "else socket.data.abort(error);",
    becomes: "",
  },
  {
    breaks: "a peer that has acknowledged as much as has been sent since is idle",
    file: "net/connection.ts",
    text: "const moved = left > 0 && acknowledged !== this.#acknowledged;\n    this.#acknowledged = acknowledged;",
    becomes: "const moved = left > 0 && left !== this.#acknowledged;\n    this.#acknowledged = left;",
  },
  // The socket under it.
  {
    breaks: "of a message that goes in two calls, only the second is counted",
    file: "net/stream-socket.ts",
    text: "return more < 0 ? more : taken + more;",
    becomes: "return more;",
  },
  {
    breaks: "Bun is not told of a short send, and announces no drain",
    file: "net/stream-socket.ts",
    text: "if (sent === length) return sent;",
    becomes: "if (sent >= 0) return sent;",
  },
  {
    breaks: "what send(2) took is written again",
    file: "net/stream-socket.ts",
    text: "const taken = sent > 0 ? sent : 0;",
    becomes: "const taken = 0;",
  },
  // The awaited stream.
  {
    breaks: "a pending recv is lost when the connection closes",
    file: "net/stream.ts",
    text: "if (reason === undefined) this.#reader.resolve(NOTHING);\n    else if (this.#reader.waiting) this.#reader.reject(reason);\n    else this.#error = reason;",
    becomes: "this.#error = reason;",
  },
  {
    breaks: "a pending sendall is lost when the connection closes",
    file: "net/stream.ts",
    text: "this.#rejectWriters((call) => (reason === undefined ? brokenPipe(call) : told(reason, call)));",
    becomes: "",
  },
  {
    breaks: "what waited when the connection ended cannot be received",
    file: "net/stream.ts",
    text: "this.#rest.push(rest);",
    becomes: "",
  },
  {
    breaks: "a sendall is done when the kernel has taken a part of it",
    file: "net/stream.ts",
    text: "if (all ? writer.offset < writer.bytes.length : sent === 0) return;",
    becomes: "if (sent === 0) return;",
  },
  {
    breaks: "calls interleave: the second sendall goes before the first",
    file: "net/stream.ts",
    text: "this.#writers.push(writer);",
    becomes: "this.#writers.unshift(writer);",
  },
  {
    breaks: "shutdown does not wait for pending calls",
    file: "net/stream.ts",
    text: "if (!this.owing) this.#sendFin();",
    becomes: "this.#connection.shutdown();",
  },
  {
    breaks: "a FIN that waits for a pending call is never sent",
    file: "net/stream.ts",
    text: "else if (this.#finWanted) this.#sendFin();",
    becomes: "",
  },
  {
    breaks: "close does not deliver what sendall has accepted",
    file: "net/stream.ts",
    text: "if (!this.owing) return this.#finish();",
    becomes: "return this.#finish();",
  },
  {
    breaks: "after close, a peer that never ends keeps the descriptor for ever",
    file: "net/stream.ts",
    text: "this.#closing!.set(LINGER_MS);",
    becomes: "",
  },
  {
    breaks: "after close, a peer that takes nothing keeps the descriptor for ever",
    file: "net/stream.ts",
    text: "this.#closing.set(FLUSH_MS);",
    becomes: "",
  },
  {
    breaks: "a recv that does not wait gets bytes of a socket that is closed meanwhile",
    file: "net/stream.ts",
    text: 'this.#error = closedError("recv");\n    this.#connection.drop();',
    becomes: "",
  },
  {
    breaks: "a recv gets more than it asked for",
    file: "net/stream.ts",
    text: "if (chunk.length <= this.#size) return reader.resolve(chunk as Buffer);",
    becomes: "return reader.resolve(chunk as Buffer);",
  },
  {
    breaks: "a second recv takes the first one's place",
    file: "net/stream.ts",
    text: "if (this.#reader.waiting || this.#turning) return",
    becomes: "if (this.#turning) return",
  },
  {
    breaks: "a recv that does not wait is overtaken by a second one",
    file: "net/stream.ts",
    text: "if (this.#reader.waiting || this.#turning) return",
    becomes: "if (this.#reader.waiting) return",
  },
  {
    breaks: "after close, a peer is given up after a fifth of its time",
    file: "net/stream.ts",
    text: "const FLUSH_MS = 10_000;",
    becomes: "const FLUSH_MS = 2_000;",
  },
  {
    breaks: "after close, a peer is given up although it takes what it is owed",
    file: "net/stream.ts",
    text: "if (this.#connection.sent === this.#sentAtAlarm) return",
    becomes: "return",
  },
  {
    breaks: "after close, a peer that still sends is given no time",
    file: "net/stream.ts",
    text: "const LINGER_MS = 2_000;",
    becomes: "const LINGER_MS = 0;",
  },
  {
    breaks: "after close, a call that gives up leaves what went before it without a FIN",
    file: "net/stream.ts",
    text: "return this.#connection.lingering ? this.#connection.close() : this.#finish();",
    becomes: "return this.#connection.close();",
  },
  // Waiting.
  {
    breaks: "a deadline that was met ends the next call",
    file: "net/waiter.ts",
    text: "if (this.deadline !== Infinity) waiting.delete(this);\n    this.deadline = Infinity;",
    becomes: "",
  },
  {
    breaks: "a signal keeps a listener of a call that is over",
    file: "net/waiter.ts",
    text: 'this.#signal.removeEventListener("abort", this);',
    becomes: "",
  },
  {
    breaks: "the timer is not armed again for the deadlines that are left",
    file: "net/waiter.ts",
    text: "if (next < armedFor) arm(next);",
    becomes: "",
  },
  // Listening and connecting.
  {
    breaks: "one connection more than the backlog waits",
    file: "net/listener.ts",
    text: ">= this.#backlog + this.#pendingAccepts;",
    becomes: "> this.#backlog + this.#pendingAccepts;",
  },
  {
    breaks: "the connections that wait are not reset when the listener closes",
    file: "net/listener.ts",
    text: "for (const stream of this.#queue.splice(0)) stream.abort();",
    becomes: "",
  },
  {
    breaks: "an accept that waits is lost when the listener closes",
    file: "net/listener.ts",
    text: 'for (const waiter of this.#accepts.splice(0)) waiter.reject(closedError("accept"));',
    becomes: "",
  },
  {
    breaks: "a connection goes to an accept that has given up",
    file: "net/listener.ts",
    text: "if (waiter.waiting) return waiter.resolve(stream);",
    becomes: "return waiter.resolve(stream);",
  },
  {
    breaks: "the newest connection is accepted first",
    file: "net/listener.ts",
    text: "const waiting = this.#queue.shift();",
    becomes: "const waiting = this.#queue.pop();",
  },
  {
    breaks: "a connect that is given up leaves its connection open",
    file: "net/open-stream.ts",
    text: "else stream.abort();",
    becomes: "",
  },
  {
    breaks: "connecting is over before the connection stands",
    file: "net/open-stream.ts",
    text: "if (connected && tls === undefined) settle();",
    becomes: "settle();",
  },
  // The echo service.
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
    file: "echo/echo-server.ts",
    text: "if (backlog !== undefined) setBacklog(fd, backlog);",
    becomes: "",
  },
  // The socket.
  {
    breaks: "recv ignores its deadline",
    file: "net/socket.ts",
    text: "return stream.recv(bufsize, this.#timeout);",
    becomes: "return stream.recv(bufsize, null);",
  },
  {
    breaks: "after a connect that failed, the socket has no descriptor to try again with",
    file: "net/own-descriptor.ts",
    text: "      this.fd = fd;\n    } catch {",
    becomes: "    } catch {",
  },
  {
    breaks: "close leaves a connect under way",
    file: "net/own-descriptor.ts",
    text: "this.#connecting?.abort(reason);",
    becomes: "",
  },
];
