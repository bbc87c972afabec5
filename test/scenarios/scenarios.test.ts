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
        const answer = world.ask(request);
        // Whom a hash chooses is Envoy's to say; among whom, the configuration's.
        const comparable =
          request.gets.kind === "one-of" && answer.kind === "answered"
            ? { kind: "one-of" as const, names: [...answer.by.keys()] }
            : answer;
        assert.deepEqual(plain(comparable), plain(request.gets), line);
      }
    });
}

/** Both sides in one comparable form; shares rounded, as thirds do not add up. */
function plain(answer: Expected | Explained): unknown {
  if (answer.kind === "one-of") return answer.names.toSorted();
  if (answer.kind !== "answered") return answer;
  return Object.fromEntries([...answer.by].toSorted().map(([name, weight]) => [name, Math.round(weight)]));
}
