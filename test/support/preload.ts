import { setDefaultTimeout } from "bun:test";

// Bun's own 5 seconds are short for a machine that is busy with something else; a hang is a hang after 30 as well.
setDefaultTimeout(30_000);
