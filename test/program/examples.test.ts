/** The example programs beside the tutorial's own in Python: the same bytes, the same output. */
import { afterEach, describe, expect, test } from "bun:test";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { exchange, pattern, peer, until } from "../support/peers.ts";
import {
  CONCURRENT,
  CONCURRENT_CLIENT,
  freePort,
  HTTP_CLIENT,
  HTTP_SERVER,
  killAll,
  RESET_CLIENT,
  run,
  SEQUENTIAL,
  SEQUENTIAL_CLIENT,
  start,
  type Program,
} from "../support/tutorial.ts";

afterEach(killAll);

const EXAMPLES = join(import.meta.dir, "../../src/examples");
const example = (name: string): string[] => [process.execPath, "run", join(EXAMPLES, `${name}.ts`)];
// -u: what it prints comes when it prints it. -I: nothing in the environment changes what it is.
const python = (source: string): string[] => ["python3", "-I", "-u", "-c", source];

const withoutPython = Bun.which("python3") === null;
const asked = withoutPython ? " (skipped: there is no python3 here)" : "";
const BANNER = "Welcome to the server. Type something and hit enter\n";
const START = "Socket created\nSocket bind complete\nSocket now listening\n";
const connected = (ports: number[]): string =>
  ports.map((port) => `Connected with 127.0.0.1:${port}\n`).join("");

interface Seen {
  ports: number[];
  got: string[];
}

/** What a client in Python, which is given the port and what to say, has seen of a server. */
async function visit(client: string, { port }: Program, say: unknown): Promise<Seen> {
  const { stdout, stderr, code } = await run([...python(client), String(port), JSON.stringify(say)]);
  expect({ stderr, code }).toEqual({ stderr: "", code: 0 });
  return JSON.parse(stdout.toString()) as Seen;
}

test("each example has fewer than 30 lines", async () => {
  const names = (await readdir(EXAMPLES)).filter((name) => name.endsWith(".ts"));
  expect(names.sort()).toEqual([
    "echo-concurrent.ts",
    "echo-idiomatic.ts",
    "echo-sequential.ts",
    "http-client.ts",
  ]);
  for (const name of names) {
    const source = await Bun.file(join(EXAMPLES, name)).text();
    expect(source.trimEnd().split("\n").length).toBeLessThan(30);
    expect(source).toContain('import * as socket from "../socket.ts";');
  }
});

describe("echo-sequential", () => {
  const messages = ["hello", "x", "y".repeat(1024), "z".repeat(3000), "äöü"];

  test.skipIf(withoutPython)(
    `echo-sequential sends and prints what the tutorial's does, to the last byte${asked}`,
    async () => {
      const [ours, theirs] = await Promise.all([
        start(example("echo-sequential")),
        start(python(SEQUENTIAL)),
      ]);
      const seen = await visit(SEQUENTIAL_CLIENT, ours, messages);
      const model = await visit(SEQUENTIAL_CLIENT, theirs, messages);
      expect(model.got).toEqual([...messages.map((text) => `OK...${text.slice(0, 1024)}`), ""]);
      expect(seen.got).toEqual(model.got);
      // A client that sends nothing has ended both.
      expect(await Promise.all([ours.finished, theirs.finished])).toEqual([0, 0]);
      expect(theirs.stdout).toBe(START + connected(model.ports));
      expect(ours.stdout).toBe(START + connected(seen.ports));
      expect(ours.stderr).toBe("");
    },
  );

  test("echo-sequential with port 0 prints its port and closes after each reply", async () => {
    const program = await start(example("echo-sequential"), 0);
    expect(program.stdout).toBe(`${START}${program.port}\n`);
    expect((await exchange(program.port, Buffer.from("one"))).toString()).toBe("OK...one");
    expect((await exchange(program.port, Buffer.from("two"))).toString()).toBe("OK...two");
    expect((await exchange(program.port, Buffer.alloc(0))).toString()).toBe("");
    expect(await program.finished).toBe(0);
  });

  test("echo-sequential serves one client after the other", async () => {
    const { port } = await start(example("echo-sequential"), 0);
    const first = await peer(port);
    const second = await peer(port);
    second.socket.write("second");
    // Only what the first one says lets the second one have its turn.
    await Promise.race([second.ended, Bun.sleep(200)]);
    expect(second.count).toBe(0);
    first.socket.end("first");
    await first.ended;
    expect(await second.ended).toBe("FIN");
    expect(second.got.toString()).toBe("OK...second");
    for (const { socket } of [first, second]) socket.destroy();
  });
});

describe("echo-concurrent", () => {
  /** Four clients, three messages each. */
  const rounds = [
    ["a", "b", "c", "d"],
    ["e".repeat(1024), "f".repeat(1025), "g".repeat(2500), "h"],
    ["i", "jj", "kkk", "ll\n"],
  ];

  test.skipIf(withoutPython)(
    `echo-concurrent sends and prints what the tutorial's does, to the last byte${asked}`,
    async () => {
      const [ours, theirs] = await Promise.all([
        start(example("echo-concurrent")),
        start(python(CONCURRENT)),
      ]);
      const seen = await visit(CONCURRENT_CLIENT, ours, rounds);
      const model = await visit(CONCURRENT_CLIENT, theirs, rounds);
      expect(model.got[0]).toBe(`${BANNER}OK...aOK...${"e".repeat(1024)}OK...i`);
      expect(model.got[1]).toContain("fOK...fOK...jj");
      expect(seen.got).toEqual(model.got);
      expect(theirs.stdout).toBe(START + connected(model.ports));
      expect(ours.stdout).toBe(START + connected(seen.ports));
      expect(ours.stderr).toBe("");
    },
  );

  test("echo-concurrent with port 0 prints its port", async () => {
    const program = await start(example("echo-concurrent"), 0);
    expect(program.stdout).toBe(`${START}${program.port}\n`);
  });
});

for (const name of ["echo-concurrent", "echo-idiomatic"]) {
  describe(name, () => {
    test(`${name} greets and answers every client while others are silent`, async () => {
      const { port } = await start(example(name), 0);
      const silent = await Promise.all([peer(port), peer(port)]);
      expect((await exchange(port, Buffer.from("hello"))).toString()).toBe(`${BANNER}OK...hello`);
      await until(() => silent.every(({ count }) => count === BANNER.length), "the silent ones are greeted");
      for (const { socket } of silent) socket.destroy();
    });

    test(`${name} returns 300,000 bytes after OK..., at most 1024 at a time`, async () => {
      const { port } = await start(example(name), 0);
      const bytes = Buffer.alloc(300_000, "abcdefg");
      const reply = (await exchange(port, bytes)).toString();
      expect(reply).toStartWith(BANNER);
      const pieces = reply.slice(BANNER.length).split("OK...").slice(1);
      expect(pieces.every(({ length }) => length > 0 && length <= 1024)).toBe(true);
      expect(pieces.join("")).toBe(bytes.toString());
    });

    test.skipIf(withoutPython)(`${name}: a client that resets ends only its own task${asked}`, async () => {
      const program = await start(example(name), 0);
      const other = await peer(program.port);
      for (let i = 0; i < 3; i++) await run([...python(RESET_CLIENT), String(program.port)]);
      await until(() => /ECONNRESET|EPIPE/.test(program.stderr), "the failure is told");
      other.socket.end("still here");
      await other.ended;
      expect(other.got.toString()).toBe(`${BANNER}OK...still here`);
      expect((await exchange(program.port, Buffer.from("new"))).toString()).toBe(`${BANNER}OK...new`);
      expect(program.child.exitCode).toBeNull();
    });
  });
}

describe("echo-idiomatic", () => {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    test(`echo-idiomatic on ${signal} finishes its clients, frees the port and exits with 0`, async () => {
      const program = await start(example("echo-idiomatic"), 0);
      expect(program.stdout).toBe(`Socket now listening\n${program.port}\n`);
      const client = await peer(program.port);
      const port = client.socket.localPort!;
      await until(() => client.count === BANNER.length, "it is greeted");
      program.child.kill(signal);
      expect(await client.ended).toBe("FIN");
      client.socket.end();
      expect(await program.finished).toBe(0);
      expect(program.stderr).toBe("");
      expect(program.stdout).toEndWith(connected([port]));
      const again = await start(example("echo-idiomatic"), program.port);
      expect(again.port).toBe(program.port);
    });
  }
});

describe("a busy port", () => {
  for (const [name, before] of [
    ["echo-sequential", "Socket created\n"],
    ["echo-concurrent", "Socket created\n"],
    ["echo-idiomatic", ""],
  ] as const) {
    test(`${name} on a busy port prints 'Bind failed. Error Code' with code and message, and exits with 1`, async () => {
      using busy = Bun.listen({ hostname: "0.0.0.0", port: 0, socket: { data() {} } });
      const { code, stdout, stderr } = await run([...example(name), String(busy.port)]);
      const errno = process.platform === "darwin" ? 48 : 98;
      expect(stdout.toString()).toBe(
        `${before}Bind failed. Error Code : ${errno} Message Address already in use\n`,
      );
      expect({ code, stderr }).toEqual({ code: 1, stderr: "" });
    });
  }

  test.skipIf(withoutPython)(
    `the tutorial's own programs print the same line for a busy port${asked}`,
    async () => {
      using busy = Bun.listen({ hostname: "0.0.0.0", port: 0, socket: { data() {} } });
      const ours = await run([...example("echo-sequential"), String(busy.port)]);
      for (const source of [SEQUENTIAL, CONCURRENT]) {
        const theirs = await run([...python(source), String(busy.port)]);
        expect(ours.stdout.toString()).toBe(theirs.stdout.toString());
      }
    },
  );
});

test("the examples' default ports are the tutorial's: 5000 and 8889", async () => {
  for (const [name, port] of [
    ["echo-sequential", 5000],
    ["echo-concurrent", 8889],
    ["echo-idiomatic", 8889],
  ] as const) {
    // Whoever else has the port, this one finds it taken.
    const busy = await occupied(port);
    const { code, stdout } = await run(example(name));
    expect(stdout.toString()).toContain("Bind failed. Error Code");
    expect(code).toBe(1);
    busy?.stop(true);
  }
});

/** A listener on the port, or nothing when another process has it already. */
async function occupied(port: number): Promise<Bun.TCPSocketListener | undefined> {
  try {
    return Bun.listen({ hostname: "0.0.0.0", port, socket: { data() {} } });
  } catch (error) {
    expect((error as { code?: unknown }).code).toBe("EADDRINUSE");
    return undefined;
  }
}

describe("http-client", () => {
  /** What it prints of the server on this port. */
  const get = async (port: number): Promise<Buffer> => {
    const { stdout, stderr, code } = await run([...example("http-client"), "127.0.0.1", String(port)]);
    expect({ stderr, code }).toEqual({ stderr: "", code: 0 });
    return stdout;
  };

  test("http-client prints Bun.serve's status, headers and 5 MB of arbitrary bytes unchanged", async () => {
    const body = pattern(5_000_000);
    const asked: string[] = [];
    using server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch(request) {
        asked.push(`${request.method} ${new URL(request.url).pathname}`);
        return new Response(body, { status: 203 });
      },
    });
    const reply = await get(server.port!);
    expect(asked).toEqual(["GET /"]);
    const head = reply.indexOf("\r\n\r\n");
    expect(reply.subarray(0, head).toString()).toStartWith("HTTP/1.1 203 ");
    expect(reply.subarray(head + 4).equals(body)).toBe(true);
  });

  test("http-client appends to a file", async () => {
    const directory = await mkdtemp(join(tmpdir(), "ringback-"));
    try {
      using server = Bun.serve({
        port: 0,
        hostname: "127.0.0.1",
        fetch: () => new Response("the body".repeat(10_000)),
      });
      const file = join(directory, "reply");
      const command = [...example("http-client"), "127.0.0.1", String(server.port)];
      await Bun.write(file, "before\n");
      await Bun.$`${command} >> ${file}`;
      const text = await Bun.file(file).text();
      expect(text).toStartWith("before\nHTTP/1.1 200 OK\r\n");
      expect(text).toEndWith(`\r\n\r\n${"the body".repeat(10_000)}`);
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  test.skipIf(withoutPython)(
    `http-client and a Python client send the same request to a Python server and print the same${asked}`,
    async () => {
      const reply = async (client: (port: number) => Promise<Buffer>): Promise<[Program, Buffer]> => {
        // A server answers one client.
        const server = await start(python(HTTP_SERVER), 0);
        const got = await client(server.port);
        expect(await server.finished).toBe(0);
        return [server, got];
      };
      const [server, ours] = await reply(get);
      const request = `GET / HTTP/1.1\r\nHost: 127.0.0.1:${server.port}\r\nConnection: close\r\n\r\n`;
      const every = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
      expect(ours.subarray(0, request.length).toString()).toBe(request);
      expect(ours.subarray(request.length).equals(Buffer.concat(new Array<Buffer>(20_000).fill(every)))).toBe(
        true,
      );
      const [other, theirs] = await reply(async (port) => {
        const { stdout } = await run([...python(HTTP_CLIENT), "127.0.0.1", String(port)]);
        return stdout;
      });
      const same = Buffer.from(request.replace(String(server.port), String(other.port)));
      expect(theirs.equals(Buffer.concat([same, ours.subarray(request.length)]))).toBe(true);
    },
  );

  const withoutNginx = Bun.which("nginx") === null;
  test.skipIf(withoutNginx)(
    `http-client prints what nginx answers${withoutNginx ? " (skipped: there is no nginx here)" : ""}`,
    async () => {
      const directory = await mkdtemp(join(tmpdir(), "ringback-"));
      const port = await freePort();
      const body = "nginx says ".repeat(50_000);
      await Bun.write(join(directory, "index.html"), body);
      const configuration = `
        daemon off; master_process off; pid ${directory}/pid; error_log stderr;
        events {}
        http {
          access_log off; client_body_temp_path ${directory}; proxy_temp_path ${directory};
          fastcgi_temp_path ${directory}; uwsgi_temp_path ${directory}; scgi_temp_path ${directory};
          server { listen 127.0.0.1:${port}; root ${directory}; }
        }`;
      await Bun.write(join(directory, "conf"), configuration);
      const nginx = Bun.spawn(["nginx", "-p", directory, "-c", join(directory, "conf")], { stderr: "pipe" });
      try {
        let listening = false;
        while (!listening && nginx.exitCode === null) {
          listening = await peer(port).then(
            ({ socket }) => {
              socket.destroy();
              return true;
            },
            () => false,
          );
        }
        const reply = (await get(port)).toString();
        expect(reply).toStartWith("HTTP/1.1 200 OK\r\nServer: nginx");
        expect(reply).toEndWith(`\r\n\r\n${body}`);
      } finally {
        nginx.kill();
        await nginx.exited;
        await rm(directory, { recursive: true });
      }
    },
  );

  test("http-client names the address of a refused connection and exits with 1", async () => {
    const port = await freePort();
    const { code, stdout, stderr } = await run([...example("http-client"), "127.0.0.1", String(port)]);
    expect(stderr).toContain("ConnectionRefusedError");
    expect(stderr).toContain(`127.0.0.1:${port}`);
    expect({ code, stdout: stdout.toString() }).toEqual({ code: 1, stdout: "" });
  });

  test("http-client without a host prints its usage and exits with 2", async () => {
    const { code, stderr } = await run(example("http-client"));
    expect(stderr).toContain("HOST [PORT]");
    expect(code).toBe(2);
  });
});
