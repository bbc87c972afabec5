import assert from "node:assert/strict";
import { test } from "node:test";
import { Engine } from "#engine";
import { localityOfLabels, type KubeObject } from "#objects";
import { endpointsOf } from "./endpoints.ts";
import { endpointSelector } from "./place-labels.ts";
import { worldChanges } from "./world.ts";

test("a workload's own label says where it is, the newer name before the older", () => {
  const newer = { "topology.istio.io/locality": "r1.z1.s1" };
  assert.equal(localityOfLabels(newer), "r1/z1/s1");
  assert.equal(localityOfLabels({ "istio-locality": "r2/z2" }), "r2/z2");
  assert.equal(localityOfLabels({ ...newer, "istio-locality": "r2.z2" }), "r1/z1/s1");
  assert.equal(localityOfLabels({}), undefined);
});

test("labels of place select endpoints by what is known of them, whatever their workloads bear", () => {
  const labels = { app: "a", "topology.istio.io/locality": "r1.z1", "topology.kubernetes.io/zone": "a lie" };
  const objects = [
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name: "a", namespace: "d" },
      spec: { ports: [{ port: 80 }], clusterIP: "10.0.0.1" },
    },
    {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: "a", namespace: "d", labels },
      spec: { nodeName: "n1" },
      status: { podIP: "192.0.2.1" },
    },
    {
      apiVersion: "discovery.k8s.io/v1",
      kind: "EndpointSlice",
      metadata: { name: "a", namespace: "d", labels: { "kubernetes.io/service-name": "a" } },
      endpoints: [{ addresses: ["192.0.2.1"] }],
      ports: [{ port: 80 }],
    },
  ] as readonly KubeObject[];
  const engine = new Engine();
  engine.apply(worldChanges(objects, { clusterId: "c1" }));
  const read = engine.get.bind(engine);
  const endpoints = read(endpointsOf, "d/a.d.svc.cluster.local");
  assert.equal(endpoints.length, 1);
  const selected = (wanted: Readonly<Record<string, string>>): boolean =>
    endpoints.some(endpointSelector(read, wanted));
  assert.ok(
    selected({ app: "a", "topology.kubernetes.io/region": "r1", "topology.kubernetes.io/zone": "z1" }),
  );
  assert.ok(selected({ "topology.istio.io/cluster": "c1", "kubernetes.io/hostname": "n1" }));
  assert.ok(!selected({ "topology.kubernetes.io/zone": "a lie" }));
  assert.ok(!selected({ "topology.istio.io/cluster": "c2" }));
  assert.ok(!selected({ "topology.istio.io/subzone": "s1" }));
});
