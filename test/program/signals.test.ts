/** The signals that stop the program. */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { exchange, pattern, peer, stalled, until } from "../support/peers.ts";
import { hasProc, killAll, launch, ROOT, type Program } from "../support/program.ts";

// Each test has a program of its own, and waits for it: they run side by side.
afterAll(killAll);

// A machine that is busy with something else needs more than Bun's 5 seconds; a hang is one after 30 as well.
setDefaultTimeout(30_000);

describe.concurrent("SIGTERM and SIGINT", () => {
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    test(`${signal} under load loses no byte that a peer had sent`, async () => {
      const program = await launch();
      const peers = await Promise.all(Array.from({ length: 20 }, () => peer(program.port)));
      const block = pattern(300_000);
      // Some read all the while, some do not read at all before the signal.
      for (const [i, { socket }] of peers.entries()) {
        if (i % 3 === 0) socket.pause();
        for (let n = 0; n < 8; n++) socket.write(block);
      }
      // "Sent" is what a peer's kernel has; what a busy test process has not handed over yet is not.
      await until(() => peers.every(({ socket }) => socket.writableLength === 0), "all is with the kernel");
      program.signal(signal);
      await until(() => program.stderr.includes(`${signal}: finishing 20 connections`), "the stop has begun");
      for (const { socket } of peers) socket.resume();
      const ends = await Promise.all(peers.map(({ ended }) => ended));
      expect(new Set(ends)).toEqual(new Set(["FIN"]));
      const whole = Buffer.concat(new Array<Buffer>(8).fill(block));
      for (const { got } of peers) expect(got.equals(whole)).toBe(true);
      for (const { socket } of peers) socket.end();
      const { code, stderr } = await program.finished;
      expect(code).toBe(0);
      const total = 20 * whole.length;
      expect(stderr).toEndWith(`\n20 connections, ${total} bytes in, ${total} bytes out, 0 bytes copied\n`);
    });
  }

  test.skipIf(!hasProc)("connections that the kernel accepted before the signal are served too", async () => {
    const program = await launch();
    // While the process is stopped, connections and their bytes pile up in the kernel, and so does the
    // signal.
    program.signal("SIGSTOP");
    const peers = await Promise.all(Array.from({ length: 100 }, () => peer(program.port)));
    for (const { socket } of peers) socket.end("ping");
    await Promise.all(peers.map(({ socket }) => until(() => socket.bytesWritten === 4, "sent")));
    program.signal("SIGTERM");
    program.signal("SIGCONT");
    expect(new Set(await Promise.all(peers.map(({ ended }) => ended)))).toEqual(new Set(["FIN"]));
    for (const { got } of peers) expect(got.toString()).toBe("ping");
    for (const { socket } of peers) socket.destroy();
    expect((await program.finished).code).toBe(0);
  });

  test("peers that stay are closed at --drain-timeout, and the exit code is 0", async () => {
    const program = await launch(["--drain-timeout", "1"]);
    const [quiet, stuck] = [await peer(program.port), await stalled(program.port)];
    const began = performance.now();
    program.signal("SIGTERM");
    const { code } = await program.finished;
    const took = performance.now() - began;
    expect(code).toBe(0);
    expect(took).toBeGreaterThan(900);
    expect(took).toBeLessThan(2500);
    expect(await quiet.ended).toBe("FIN");
    for (const { socket } of [quiet, stuck]) socket.destroy();
  });

  test("a second signal of any kind within a second is the same request", async () => {
    const program = await launch();
    const client = await peer(program.port);
    client.socket.write("before");
    await until(() => client.count === 6, "the echo is there");
    program.signal("SIGINT");
    await until(() => program.stderr.includes("finishing"), "the stop has begun");
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) program.signal(signal);
    client.socket.write("after");
    await until(() => client.count === 11, "it still serves");
    client.socket.end();
    const { code, stderr } = await program.finished;
    expect(code).toBe(0);
    expect(stderr).toStartWith(
      "SIGINT: finishing 1 connection, at most 10 s; press Ctrl-C again to end now\n1 connection, ",
    );
  });

  test.skipIf(!hasProc)(
    "a signal that waited while the process was suspended is not taken for a later one",
    async () => {
      const program = await launch();
      const client = await peer(program.port);
      client.socket.write("before");
      await until(() => client.count === 6, "the echo is there");
      program.signal("SIGTERM");
      await until(() => program.stderr.includes("finishing"), "the stop has begun");
      program.signal("SIGSTOP");
      program.signal("SIGTERM");
      await Bun.sleep(1100);
      program.signal("SIGCONT");
      client.socket.end("after");
      expect((await program.finished).code).toBe(0);
      expect(client.count).toBe(11);
    },
  );

  test("SIGHUP begins a stop and never hurries one; a later SIGTERM ends it immediately, with the totals", async () => {
    const program = await launch();
    const stuck = await stalled(program.port);
    program.signal("SIGHUP");
    await until(() => program.stderr.includes("SIGHUP: finishing 1 connection"), "the stop has begun");
    const began = performance.now();
    await Bun.sleep(1100);
    for (let i = 0; i < 3; i++) program.signal("SIGHUP");
    expect((await exchangeRefused(program)).code).toBe("ECONNREFUSED");
    program.signal("SIGTERM");
    const { code, stderr } = await program.finished;
    expect(performance.now() - began).toBeLessThan(3000);
    expect(code).toBe(128 + 15);
    expect(stderr).toMatch(/\n1 connection, \d+ bytes in, \d+ bytes out, 0 bytes copied\n$/);
    stuck.socket.destroy();
  });
});

/** It keeps running, and no longer listens. */
async function exchangeRefused({ port }: Program): Promise<NodeJS.ErrnoException> {
  return await exchange(port, Buffer.from("x")).then(
    () => new Error("it listens"),
    (error: NodeJS.ErrnoException) => error,
  );
}

test("a signal that is ignored when the program starts stays ignored, as under nohup", async () => {
  for (const ignored of [["SIGHUP"], ["SIGHUP", "SIGINT", "SIGTERM"]] as const) {
    const names = ignored.map((name) => name.slice(3)).join(" ");
    const program = await launch([], { shell: `trap '' ${names}` });
    for (const signal of ignored) program.signal(signal);
    // The first may still be served by a stopping server, which would not listen for the others.
    for (let i = 0; i < 5; i++) {
      expect((await exchange(program.port, Buffer.from("still"))).toString()).toBe("still");
    }
    if (ignored.length > 1) continue;
    program.signal("SIGTERM");
    expect((await program.finished).code).toBe(0);
  }
});

test.skipIf(!hasProc)(
  "a signal to the process group of `bun run start` counts once and loses no byte",
  async () => {
    const child = Bun.spawn([process.execPath, "run", "start", "--port", "0"], {
      ...({ cwd: ROOT, detached: true, stdin: "ignore", stdout: "pipe", stderr: "pipe" } as const),
      env: { ...process.env, PORT: undefined },
    });
    try {
      let text = "";
      for await (const bytes of child.stdout) {
        text += Buffer.from(bytes).toString();
        if (text.endsWith("\n")) break;
      }
      const client = await peer(Number(/:(\d+)\n/.exec(text)?.[1]));
      const bytes = pattern(4 << 20);
      client.socket.pause();
      client.socket.write(bytes);
      await until(
        () => client.socket.writableLength === 0 || client.socket.bytesWritten > 1 << 20,
        "some is sent",
      );
      process.kill(-child.pid, "SIGTERM");
      client.socket.resume();
      await until(() => client.count === bytes.length, "all is back");
      client.socket.end();
      expect(await child.exited).toBe(0);
    } finally {
      child.kill("SIGKILL");
    }
  },
);
