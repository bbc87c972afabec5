// The checks of the sources as tests, so that `npm test` is everything.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { runStep, sourceSteps } from "../scripts/steps.ts";

for (const step of sourceSteps) {
  test(`the sources pass: ${step.name}`, () => {
    const result = runStep(step);
    assert.ok(result.passed, `${step.command.join(" ")} fails; ${step.remedy}\n${result.output}`);
  });
}

test("the README says how many fields work, as the page of supported fields does", () => {
  const read = (path: string): string => readFileSync(join(import.meta.dirname, "..", path), "utf8");
  const [, works, all] = /^(\d+) of (\d+) rows work/m.exec(read("docs/reference/supported-fields.md")) ?? [];
  assert.ok(read("README.md").includes(`[${works} of ${all} fields]`), `${works} of ${all}`);
});
