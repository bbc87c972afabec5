// `npm test`: everything there is, in one run of node:test with one summary at its end. Files that need no mesh run two at a time;
// the end-to-end ones follow one after the other, as each wants the machine for itself. `npm test -- --only walls` runs the files
// whose path contains the word.

import { globSync } from "node:fs";
import { join } from "node:path";
import { run } from "node:test";
import { spec } from "node:test/reporters";
import { whyNoEndToEnd } from "../test/e2e/able.ts";
import { root } from "./steps.ts";

const onlyAt = process.argv.indexOf("--only");
const only = onlyAt === -1 ? "" : (process.argv[onlyAt + 1] ?? "");
const chosen = (files: readonly string[]): string[] =>
  files.filter((file) => file.includes(only)).map((file) => join(root, file));

const reason = whyNoEndToEnd();
if (reason !== undefined) console.log(`The end-to-end part cannot run here: ${reason}.`);
const endToEnd = reason === undefined ? globSync("test/e2e/**/*.e2e.ts", { cwd: root }).toSorted() : [];
const phases = [
  {
    files: chosen(["test/units.ts", ...globSync("test/**/*.test.ts", { cwd: root }).toSorted()]),
    concurrency: 2,
  },
  { files: chosen(endToEnd), concurrency: 1 },
].filter(({ files }) => files.length > 0);
if (phases.length === 0) {
  console.error(`no test file's path contains '${only}'`);
  process.exit(2);
}

const abort = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => abort.abort());

const reporter = new spec();
reporter.pipe(process.stdout);
/** The figures of node's summary, of the phases so far. */
const totals = new Map<string, number>();
for (const [at, { files, concurrency }] of phases.entries()) {
  const isLast = at === phases.length - 1;
  for await (const event of run({ cwd: root, files, concurrency, signal: abort.signal })) {
    if (event.type === "test:fail") process.exitCode = 1;
    const [, name = "", figure = ""] =
      event.type === "test:diagnostic" && event.data.nesting === 0
        ? (/^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) ([\d.]+)$/.exec(
            event.data.message,
          ) ?? [])
        : [];
    // Each phase ends with a summary of its own: the last one says the sum.
    const sum = (totals.get(name) ?? 0) + Number(figure);
    if (name !== "") totals.set(name, sum);
    if (name !== "" && !isLast) continue;
    const shown =
      name === "" || event.type !== "test:diagnostic"
        ? event
        : { ...event, data: { ...event.data, message: `${name} ${sum}` } };
    if (!reporter.write(shown)) await new Promise((resolve) => reporter.once("drain", resolve));
  }
}
reporter.end();
