import assert from "node:assert/strict";
import { test } from "node:test";
import { ExplainedWorld, type Explained } from "./explained.ts";
import { scenarios, workloadsOf, type Expected } from "./scenario.ts";

const all = scenarios();
const workloads = workloadsOf(all);

for (const scenario of all) {
  for (const [routeDelivery, clusters] of [
    ["virtual-hosts", "eager"],
    ["tables", "eager"],
    ["virtual-hosts", "on-demand"],
  ] as const)
    test(`explained: ${scenario.name} (${routeDelivery}, clusters ${clusters})`, () => {
      const world = new ExplainedWorld(scenario, workloads, routeDelivery, clusters);
      for (const request of scenario.requests) {
        const line = `${request.send.method} ${request.send.url.href} from ${request.from.name} (${request.because})`;
        assert.deepEqual(plain(world.ask(request)), plain(request.gets), line);
      }
    });
}

/** Both sides in one comparable form; shares rounded, as thirds do not add up. */
function plain(answer: Expected | Explained): unknown {
  if (answer.kind !== "answered") return answer;
  return Object.fromEntries([...answer.by].toSorted().map(([name, weight]) => [name, Math.round(weight)]));
}
