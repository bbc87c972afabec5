// The same scenarios that the explainer answers, answered by real Envoys. Any two witnesses that disagree is a bug.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { stringify } from "yaml";
import {
  scenarioPorts,
  scenarios,
  workloadText,
  workloadsOf,
  type ScenarioRequest,
} from "../scenarios/scenario.ts";
import { deployEchoes, echoIn, order, podIp, type EchoApp, type Result } from "./echoes.ts";
import { eventually, startMesh, type Mesh } from "./mesh.ts";

const all = scenarios();
const workloads = workloadsOf(all);
const splitRequests = 100;
/** How far a share of 100 requests may be from its weight. */
const splitSlack = 15;
let mesh: Mesh;
const addresses = new Map<string, string>();

before(async () => {
  mesh = await startMesh({ name: "scenarios", port: 18_090 });
  for (const namespace of new Set(workloads.map((workload) => workload.namespace))) {
    if (namespace !== "default") await mesh.kubectl(["create", "namespace", namespace]);
    await mesh.kubectl(["label", "namespace", namespace, "istio-injection=enabled", "--overwrite"]);
  }
  const apps: EchoApp[] = workloads.map(({ name, namespace, service, version }) => ({
    name,
    namespace,
    service,
    version,
    ports: scenarioPorts,
  }));
  await deployEchoes(mesh, apps);
  for (const { name, namespace, service, version } of workloads) {
    addresses.set(`${namespace}/${name}`, await podIp(mesh, namespace, `app=${service},version=${version}`));
  }
});
after(() => mesh.down());

for (const scenario of all) {
  test(`by real Envoys: ${scenario.name}`, async () => {
    const manifest = scenario.objects.map((object) => stringify(object)).join("---\n");
    if (scenario.objects.length > 0) await mesh.kubectl(["apply", "-f", "-"], manifest);
    try {
      for (const request of scenario.requests) {
        const line = `${request.send.method} ${request.send.url.href} from ${request.from.name} (${request.because})`;
        await eventually(
          `${line}: ${JSON.stringify(request.gets)}`,
          async () => {
            const why = difference(request, await send(request));
            if (why !== undefined) throw new Error(why);
            return true;
          },
          10_000,
        );
      }
    } finally {
      if (scenario.objects.length > 0) await mesh.kubectl(["delete", "-f", "-"], manifest);
    }
  });
}

test("there are scenarios", () => assert.ok(all.length > 5));

async function send({ from, send: sent, gets }: ScenarioRequest): Promise<readonly Result[]> {
  const count = gets.kind === "answered" && gets.by.size > 1 ? splitRequests : 1;
  return order(mesh, addresses.get(workloadText(from)) ?? "", {
    url: sent.url.href,
    method: sent.method,
    headers: sent.headers,
    count,
    concurrency: 4,
    timeoutMs: 3_000,
  });
}

/** Why the results are not what the request should get. */
function difference({ gets }: ScenarioRequest, results: readonly Result[]): string | undefined {
  const [first] = results;
  if (gets.kind === "refused") return first?.status === 0 ? undefined : `status ${first?.status}`;
  if (gets.kind === "status")
    return first?.status === gets.status ? undefined : `status ${first?.status} ${first?.error ?? ""}`;
  const hits = new Map<string, number>();
  for (const result of results) {
    if (result.status !== 200) return `status ${result.status} ${result.error ?? ""}`;
    const echo = echoIn(result);
    const name =
      [...gets.by.keys()].find((key) => answers(key, echo?.service ?? "", echo?.version ?? "")) ??
      `${echo?.service} ${echo?.version}`;
    hits.set(name, (hits.get(name) ?? 0) + 1);
  }
  for (const [name, weight] of gets.by) {
    const share = ((hits.get(name) ?? 0) / results.length) * 100;
    if (Math.abs(share - weight) > (results.length > 1 ? splitSlack : 0))
      return `${name} got ${share} %, expected ${weight}`;
  }
  return undefined;
}

function answers(name: string, service: string, version: string): boolean {
  return workloads.some(
    (workload) =>
      workloadText(workload) === name && workload.service === service && workload.version === version,
  );
}
