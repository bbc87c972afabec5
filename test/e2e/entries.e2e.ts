// Hosts beside the cluster's own: their names, their addresses, and who answers for them.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { stringify } from "yaml";
import type { KubeObject } from "#objects";
import { deployEchoes, order, podIp, type EchoApp, type Result } from "./echoes.ts";
import { leftovers } from "./leftovers.ts";
import { eventually, startMesh, type Mesh } from "./mesh.ts";

const name = "entries-e2e";
const namespace = "default";
const ports = [
  { name: "http", servicePort: 9080, workloadPort: 8080, flag: "http" },
  { name: "tcp-raw", servicePort: 9000, workloadPort: 9001, flag: "tcp" },
] as const;
const capturesDns = {
  "proxy.istio.io/config": 'proxyMetadata: { ISTIO_META_DNS_CAPTURE: "true", DNS_UNKNOWN_NAMES: refuse }',
};
const apps: readonly EchoApp[] = [
  { name: "caller", namespace, ports, annotations: capturesDns },
  { name: "plain", namespace, ports },
  { name: "one", namespace, ports },
  { name: "two", namespace, ports },
];

let mesh: Mesh;
const addresses = new Map<string, string>();

before(async () => {
  mesh = await startMesh({ name, port: 18_590 });
  await mesh.kubectl(["label", "namespace", namespace, "istio-injection=enabled", "--overwrite"]);
  await deployEchoes(mesh, apps);
  for (const app of apps) addresses.set(app.name, await podIp(mesh, namespace, `app=${app.name}`));
});
after(async () => {
  await mesh?.down();
  assert.deepEqual(await leftovers(name), [], "nothing of ours is left on the machine");
});

test("hosts without addresses get some, are found by name, and tell two TCP services of one port apart", async () => {
  await apply(entry("one"), entry("two"));
  for (const app of ["one", "two"]) {
    await eventually(`tcp://${app}.example.com reaches ${app}`, async () => {
      const result = await call("caller", { url: `tcp://${app}.example.com:9000`, message: "hello" });
      assert.match(result.body, new RegExp(`"service":"${app}"|${app}`), JSON.stringify(result));
      return true;
    });
  }
  const values = await mesh.kubectl([
    ...["get", "serviceentry", "-n", namespace, "-o"],
    "jsonpath={.items[*].status.addresses[*].value}",
  ]);
  assert.equal(new Set(values.split(" ").filter((value) => value.startsWith("240.240."))).size, 2, values);
});

test("a name that the mesh does not know is refused where the workload asked for it, and only there", async () => {
  const refused = await call("caller", { url: "http://unknown.example.org/" });
  assert.match(refused.error ?? "", /ENOTFOUND/);
  // The cluster's DNS refuses what lies outside of the cluster, and resolvers say so otherwise than "no such name".
  const service = await call("caller", { url: "http://two:9080/" });
  assert.equal(service.status, 200, JSON.stringify(service));
});

function entry(app: string): KubeObject {
  return {
    apiVersion: "networking.istio.io/v1",
    kind: "ServiceEntry",
    metadata: { name: app, namespace },
    spec: {
      hosts: [`${app}.example.com`],
      location: "MESH_INTERNAL",
      resolution: "STATIC",
      ports: [{ number: 9000, name: "tcp-raw", protocol: "TCP", targetPort: 9001 }],
      workloadSelector: { labels: { app } },
    },
  };
}

async function call(from: string, what: Parameters<typeof order>[2]): Promise<Result> {
  const [result] = await order(mesh, addresses.get(from) ?? "", { timeoutMs: 3_000, ...what });
  assert.ok(result !== undefined);
  return result;
}

async function apply(...objects: readonly KubeObject[]): Promise<void> {
  await mesh.kubectl(["apply", "-f", "-"], objects.map((object) => stringify(object)).join("---\n"));
}
