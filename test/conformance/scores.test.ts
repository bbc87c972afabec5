// The scores that were reached must not sink. Without the cases beside the project this says so and passes.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { conformanceDirectory, percentage, runFolder } from "../../scripts/scores.ts";

/** Per cent of the cases that are to be like Istio. */
const floors: Readonly<Record<string, number>> = {
  validation: 99,
  "unit-vectors": 100,
  crds: 100,
  samples: 100,
  "authz-builder": 100,
  "xds-simulation": 98,
  "gateway-api": 100,
  "gateway-deployment": 80,
};

for (const [folder, floor] of Object.entries(floors)) {
  test(`conformance ${folder} reaches ${floor} %`, async (t) => {
    if (!existsSync(join(conformanceDirectory, folder))) {
      t.skip(
        `there are no conformance cases at ${conformanceDirectory}; CONFORMANCE_DIR names another place`,
      );
      return;
    }
    const score = await runFolder(folder);
    assert.ok(score !== undefined, `test/conformance/${folder}.ts is missing`);
    const reached = percentage(score);
    const failed = score.failures.slice(0, 10).map(({ id, reason }) => `${id}: ${reason}`);
    assert.ok(
      reached >= floor,
      `${folder}: ${reached.toFixed(1)} %, expected at least ${floor} %\n${failed.join("\n")}`,
    );
  });
}
