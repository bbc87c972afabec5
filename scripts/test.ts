// `npm test`: everything there is, in one run of node:test with one summary at its end. Files run one after the other, as the
// end-to-end ones each want the machine for themselves. `npm test -- --only walls` runs the files whose path contains the word.

import { spawn } from "node:child_process";
import { globSync } from "node:fs";
import { join } from "node:path";
import { whyNoEndToEnd } from "../test/e2e/able.ts";
import { root } from "./steps.ts";

const onlyAt = process.argv.indexOf("--only");
const only = onlyAt === -1 ? "" : (process.argv[onlyAt + 1] ?? "");

const files = ["test/units.ts", ...globSync("test/**/*.test.ts", { cwd: root }).toSorted()];
const endToEnd = globSync("test/e2e/**/*.e2e.ts", { cwd: root }).toSorted();
const reason = whyNoEndToEnd();
if (reason === undefined) files.push(...endToEnd);
else console.log(`The end-to-end part cannot run here: ${reason}.`);

const chosen = files.filter((file) => file.includes(only));
if (chosen.length === 0) {
  console.error(`no test file's path contains '${only}'`);
  process.exit(2);
}

const child = spawn(
  join(root, "node_modules/.bin/node"),
  ["--test", "--test-concurrency=1", "--test-reporter=spec", ...chosen],
  { cwd: root, stdio: "inherit" },
);
child.once("exit", (code) => process.exit(code ?? 1));
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => child.kill(signal));
