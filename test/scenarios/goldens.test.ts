import assert from "node:assert/strict";
import { test } from "node:test";
import { envoyComplaint, withoutEnvoy } from "../support/envoy.ts";
import { ExplainedWorld } from "./explained.ts";
import { renderGolden, rewritesGoldens, storedGolden, storeGolden } from "./golden.ts";
import { scenarios, workloadText, workloadsOf } from "./scenario.ts";

const all = scenarios();
const workloads = workloadsOf(all);

for (const scenario of all) {
  const world = new ExplainedWorld(scenario, workloads);
  test(`taken by the real Envoy: ${scenario.name}`, { skip: withoutEnvoy }, () => {
    const callers = new Map(scenario.requests.map(({ from }) => [workloadText(from), from]));
    for (const [name, caller] of callers) assert.equal(envoyComplaint(world.resourcesOf(caller)), "", name);
  });
  test(`as it stands in its golden: ${scenario.name}`, () => {
    const golden = renderGolden(world, scenario);
    if (rewritesGoldens) storeGolden(scenario, golden);
    assert.equal(
      golden,
      storedGolden(scenario),
      "look at the difference, then run with MIZZEN_REWRITE_GOLDENS=1",
    );
  });
}
