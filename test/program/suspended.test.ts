import { afterEach, expect, setDefaultTimeout, test } from "bun:test";
import { killAll, launch } from "../support/program.ts";
import { pattern, peer, until } from "../support/peers.ts";

setDefaultTimeout(30_000);
afterEach(killAll);

test("a stop that was suspended still gives its peers their time, and they get everything", async () => {
  const program = await launch(["--drain-timeout", "1"]);
  const client = await peer(program.port);
  client.socket.pause();
  const bytes = pattern(5 << 20);
  client.socket.end(bytes);
  program.signal("SIGTERM");
  await until(() => program.stderr.includes("SIGTERM: finishing"), "the stop has begun");
  program.signal("SIGSTOP");
  // Longer than the whole stop may take.
  await Bun.sleep(1200);
  program.signal("SIGCONT");
  client.socket.resume();
  expect(await client.ended).toBe("FIN");
  expect(client.got.equals(bytes)).toBe(true);
  expect(await program.exited).toBe(0);
});
