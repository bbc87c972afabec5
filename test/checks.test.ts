// The checks of the sources as tests, so that `npm test` is everything.

import assert from "node:assert/strict";
import { test } from "node:test";
import { runStep, sourceSteps } from "../scripts/steps.ts";

for (const step of sourceSteps) {
  test(`the sources pass: ${step.name}`, () => {
    const result = runStep(step);
    assert.ok(result.passed, `${step.command.join(" ")} fails; ${step.remedy}\n${result.output}`);
  });
}
