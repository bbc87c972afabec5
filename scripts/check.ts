// `npm run check`: format, lint, types, walls and unit tests, in a few seconds. Exit code 1 when one of them fails; all are run.

import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { root, runStep, sourceSteps } from "./steps.ts";

let failed = 0;
for (const step of sourceSteps) {
  const result = runStep(step);
  console.log(
    `${result.passed ? "ok  " : "FAIL"} ${step.name.padEnd(8)} ${(result.tookMs / 1000).toFixed(1)} s`,
  );
  if (!result.passed) {
    failed += 1;
    console.log(`${result.output.trimEnd()}\n${step.name}: ${step.remedy}`);
  }
}

const startedMs = performance.now();
const tests = spawnSync(
  join(root, "node_modules/.bin/node"),
  ["--test", "--test-concurrency=2", "--test-reporter=dot", "test/walls.test.ts", "test/units.ts"],
  { cwd: root, encoding: "utf8", env: { ...process.env, MIZZEN_TESTS: "fast" }, maxBuffer: 64 << 20 },
);
const passed = tests.status === 0;
if (!passed) failed += 1;
console.log(
  `${passed ? "ok  " : "FAIL"} ${"tests".padEnd(8)} ${((performance.now() - startedMs) / 1000).toFixed(1)} s`,
);
if (!passed) console.log(`${tests.stdout}${tests.stderr}`.trimEnd());
process.exit(failed === 0 ? 0 : 1);
