// Runs the conformance cases and prints a line a folder: `npm run scores [folder...] [-- -v]`. The cases lie beside the project, or
// where CONFORMANCE_DIR says. A folder `x` is run by test/conformance/x.ts, which exports `run(dir, filter)`, `dir` being the folder of
// its cases; `folder/text` gives it a filter, if it knows of one: the cases whose ids begin with the text.

import { existsSync, readdirSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import { withKnownDifferences } from "../test/conformance/known-differences.ts";
import type { Score } from "../test/conformance/score.ts";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

export const conformanceDirectory = resolve(
  process.env["CONFORMANCE_DIR"] ?? join(root, "../shared/conformance"),
);

/** The score of a folder; undefined when nothing runs it yet. */
export async function runFolder(folder: string, filter?: string): Promise<Score | undefined> {
  const file = join(root, "test/conformance", `${folder}.ts`);
  if (!existsSync(file)) return undefined;
  const runner = (await import(pathToFileURL(file).href)) as {
    readonly run?: (dir: string, filter?: string) => Promise<Score>;
  };
  return runner.run === undefined
    ? undefined
    : withKnownDifferences(await runner.run(join(conformanceDirectory, folder), filter));
}

/** Of the cases that are to be like Istio: known differences count neither for nor against. */
export function percentage({ passed, failed }: Score): number {
  return passed + failed === 0 ? 100 : (100 * passed) / (passed + failed);
}

function line(cells: readonly string[]): string {
  return cells.map((cell, index) => (index === 0 ? cell.padEnd(20) : cell.padStart(10))).join("");
}

async function main(): Promise<void> {
  const verbose = process.argv.includes("-v");
  const asked = new Map<string, string | undefined>(
    process.argv
      .slice(2)
      .filter((argument) => !argument.startsWith("-"))
      .map((argument) => {
        const [, folder = "", filter] = /^([^/]*)(?:\/(.*))?$/.exec(argument) ?? [];
        return [folder, filter];
      }),
  );
  if (!existsSync(conformanceDirectory)) {
    console.log(
      `scores: there are no conformance cases at ${conformanceDirectory}; CONFORMANCE_DIR names another place`,
    );
    return;
  }
  const folders = readdirSync(conformanceDirectory, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && (asked.size === 0 || asked.has(entry.name)))
    .map(({ name }) => name)
    .toSorted();
  console.log(line(["folder", "passed", "failed", "known", "percent"]));
  for (const folder of folders) {
    const score = await scoreOrError(folder, asked.get(folder));
    if (score === undefined) console.log(`${folder.padEnd(20)}  no runner yet`);
    else if (typeof score === "string") console.log(`${folder.padEnd(20)}  the runner failed: ${score}`);
    else {
      const { passed, failed, knownDifferences } = score;
      console.log(
        line([
          folder,
          String(passed),
          String(failed),
          String(knownDifferences),
          `${percentage(score).toFixed(1)} %`,
        ]),
      );
      if (verbose) for (const { id, reason } of score.failures) console.log(`    ${id}: ${reason}`);
    }
  }
}

async function scoreOrError(folder: string, filter?: string): Promise<Score | string | undefined> {
  try {
    return await runFolder(folder, filter);
  } catch (error) {
    process.exitCode = 1;
    return error instanceof Error ? error.message : String(error);
  }
}

if (import.meta.main) await main();
