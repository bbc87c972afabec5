// Runs the folder `samples`: is each of Istio's sample files taken as it is? A file fails with the first problem that would refuse it.

import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";

import {
  parseManifest,
  placeProblem,
  renderPosition,
  unsupportedFieldWarnings,
  validateObject,
  type ManifestProblem,
} from "#objects";

import type { Failure, Score } from "./score.ts";

const name = "samples";

export function run(folder: string): Promise<Score> {
  const files = globSync("**/*.yaml", { cwd: folder }).toSorted();
  const failures = files.flatMap((file): Failure[] => {
    const first = errorsOf(readFileSync(join(folder, file), "utf8"), file)[0];
    return first === undefined
      ? []
      : [
          {
            id: file,
            reason: `${renderPosition(first)}: ${first.at.path ?? ""} ${first.text} [${first.code}]`,
          },
        ];
  });
  return Promise.resolve({
    name,
    passed: files.length - failures.length,
    failed: failures.length,
    knownDifferences: 0,
    failures,
  });
}

function errorsOf(text: string, file: string): readonly ManifestProblem[] {
  const { documents, problems } = parseManifest(text, file);
  const found = documents.flatMap((document) =>
    [...validateObject(document.object), ...unsupportedFieldWarnings(document.object)].map((problem) =>
      placeProblem(problem, document),
    ),
  );
  return [...problems, ...found].filter(({ severity }) => severity === "error");
}
