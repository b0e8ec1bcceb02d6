/** The texts of errors. */
import { expect, test } from "bun:test";
import { constants } from "node:os";
import { osError } from "../../../src/os/errors.ts";
import { askPython, python } from "../../support/sockets.ts";

test.skipIf(python === null)("an error's text is the C library's, as in Python", () => {
  const program = `
import json, os, sys
json.dump([os.strerror(n) for n in json.load(sys.stdin)], sys.stdout)
`;
  const codes = Object.entries(constants.errno);
  const ours = codes.map(([code]) => osError({ code, syscall: "recv" }).strerror);
  expect(ours).toEqual(
    askPython(
      program,
      codes.map(([, errno]) => errno),
    ) as string[],
  );
});

test("an error code without a number is its own text", () => {
  expect(osError({ code: "EUNKNOWN", syscall: "recv" })).toMatchObject({ errno: 0, strerror: "EUNKNOWN" });
});
