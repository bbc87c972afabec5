// The second witness: the resources that a scenario is about, as they stand in `<claim>.golden.json` beside it. A change of
// generated configuration shows as a difference of that file. `MIZZEN_REWRITE_GOLDENS=1` writes them anew, and only after
// the real Envoy has taken the whole configuration.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { decodeMessage, messageNameOf, type EnvoyResource } from "#envoy";
import type { ExplainedWorld } from "./explained.ts";
import { workloadText, type Scenario } from "./scenario.ts";

export const rewritesGoldens = process.env["MIZZEN_REWRITE_GOLDENS"] === "1";

const goldenFile = (scenario: Scenario): string => join(import.meta.dirname, `${scenario.name}.golden.json`);

/**
 * By caller: the virtual hosts of the hosts that its requests name. They carry what VirtualServices, weights, faults and
 * retries become, and are small enough to be read in a review.
 */
export function renderGolden(world: ExplainedWorld, scenario: Scenario): string {
  const golden: Record<string, Record<string, unknown>> = {};
  for (const { from, send } of scenario.requests) {
    const [service = "", namespace = from.namespace] = send.url.hostname.split(".");
    const wanted = `/${service}.${namespace}.svc.cluster.local:${send.url.port || 80}`;
    const found = world
      .resourcesOf(from)
      .find(({ type, name }) => type === "virtualHost" && name.endsWith(wanted));
    golden[workloadText(from)] = {
      ...golden[workloadText(from)],
      [wanted.slice(1)]: found && decoded(found),
    };
  }
  return `${JSON.stringify(golden, undefined, 2)}\n`;
}

export function storedGolden(scenario: Scenario): string {
  const file = goldenFile(scenario);
  return existsSync(file) ? readFileSync(file, "utf8") : "";
}

export function storeGolden(scenario: Scenario, text: string): void {
  writeFileSync(goldenFile(scenario), text);
}

function decoded(resource: EnvoyResource): unknown {
  return decodeMessage(messageNameOf(resource.type), resource.bytes);
}
