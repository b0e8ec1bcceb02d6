/**
 * The client of the suites: one connection that sends messages and counts what comes back, with as little of
 * its own as can be, so that the server's share shows. It changes when what a lap is does.
 */

const handlers: Bun.SocketHandler<Client> = {
  data: (socket, chunk) => socket.data.received(chunk.length),
  drain: (socket) => socket.data.send(),
  // Without allowHalfOpen, Bun closes at the peer's FIN: `close` reports every end.
  close: (socket, error) => socket.data.closed(error),
  error: (socket, error) => socket.data.closed(error),
};

/** Everything is timed in nanoseconds. */
export class Client {
  /** @throws Error when no server listens there */
  static async connect(port: number): Promise<Client> {
    const client = new Client();
    client.#socket = await Bun.connect({ hostname: "127.0.0.1", port, data: client, socket: handlers });
    return client;
  }

  #socket!: Bun.Socket<Client>;
  #message = new Uint8Array(0);
  #toSend = 0;
  #toCome = 0;
  #began = 0;
  #over = false;
  #resolve: (ns: number) => void = () => {};
  #reject: (error: Error) => void = () => {};
  readonly #gone = Promise.withResolvers<void>();

  /**
   * Sends the message `count` times, each by a write of its own, and waits until all bytes are back.
   * @returns how long that took
   * @throws Error when the connection ends before, or when more comes back
   */
  exchange(message: Uint8Array<ArrayBuffer>, count = 1): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
      if (this.#over) return this.closed();
      this.#message = message;
      this.#toSend = this.#toCome = message.length * count;
      this.#began = Bun.nanoseconds();
      this.send();
    });
  }

  /** FIN, and waits for the server's: it has nothing left to do for this connection then. */
  close(): Promise<void> {
    this.#socket.shutdown();
    return this.#gone.promise;
  }

  send(): void {
    const message = this.#message;
    while (this.#toSend > 0) {
      const left = this.#toSend % message.length || message.length;
      const sent = this.#socket.write(message, message.length - left, left);
      if (sent < 0) return this.closed();
      this.#toSend -= sent;
      // `drain` goes on.
      if (sent < left) return;
    }
  }

  received(bytes: number): void {
    this.#toCome -= bytes;
    if (this.#toCome === 0) return this.#resolve(Bun.nanoseconds() - this.#began);
    if (this.#toCome > 0) return;
    this.#reject(new Error(`the server sent ${-this.#toCome} bytes more than it was sent`));
    this.#over = true;
    this.#socket.terminate();
  }

  closed(error?: Error): void {
    this.#over = true;
    this.#gone.resolve();
    this.#reject(new Error(`the connection ended before ${this.#toCome} bytes came back`, { cause: error }));
  }
}
