/** Inputs that the fuzzing has found not to be taken as they should, each kept with what is right. */
import { afterEach, describe, expect, test } from "bun:test";
import * as socket from "../src/socket.ts";
import { closeAll, failure, kept } from "./support/sockets.ts";

afterEach(closeAll);

describe("found by fuzzing", () => {
  test("a connect whose signal was none left the socket connecting for ever", async () => {
    const one = kept(socket.socket());
    const signal = 5 as unknown as AbortSignal;
    expect(await failure(() => one.connect(["127.0.0.1", 1], { signal }))).toBeInstanceOf(TypeError);
    expect(await failure(() => one.connect(["127.0.0.1", 1]))).toMatchObject({ code: "ECONNREFUSED" });
  });
});
