// State-of-the-world ADS with a real Envoy as its client.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { withoutEnvoy } from "./support/envoy.ts";
import { freePorts } from "./support/free-ports.ts";
import { DiscoveryBench } from "./support/discovery-bench.ts";

const world = (port: number, backendPort: number): string => `
apiVersion: v1
kind: ConfigMap
metadata: { name: istio, namespace: istio-d }
data: { mesh: "enableAutoMtls: false" }
---
apiVersion: v1
kind: Pod
metadata:
  name: sleep-1
  namespace: default
  labels: { app: sleep }
  annotations: { sidecar.istio.io/interceptionMode: NONE }
spec: { serviceAccountName: sleep, containers: [{ name: app }] }
status: { phase: Running, podIP: 127.0.0.1 }
---
${service("reviews", port, backendPort)}
`;

const service = (name: string, port: number, backendPort: number): string => `
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: default }
spec: { clusterIP: 10.96.1.1, selector: { app: ${name} }, ports: [{ name: http, port: ${port}, protocol: TCP }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: ${name}-1, namespace: default, labels: { kubernetes.io/service-name: ${name} } }
addressType: IPv4
ports: [{ name: http, port: ${backendPort}, protocol: TCP }]
endpoints: [{ addresses: [127.0.0.1], conditions: { ready: true } }]
`;

const route = (mark: string): string => `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: reviews, namespace: default }
spec:
  hosts: [reviews]
  http:
    - headers: { response: { set: { x-route: ${mark} } } }
      route: [{ destination: { host: reviews } }]
`;

/** Envoy refuses it: no such status. */
const badFilter = `
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: { name: bad, namespace: default }
spec:
  configPatches:
    - applyTo: CLUSTER
      match: { context: SIDECAR_OUTBOUND, cluster: { service: reviews.default.svc.cluster.local } }
      patch: { operation: MERGE, value: { connect_timeout: -1s } }
`;

describe("state-of-the-world ADS with Envoy", { skip: withoutEnvoy }, () => {
  const bench = new DiscoveryBench({}, "GRPC");
  let ports: readonly number[] = [];

  before(async () => {
    ports = await freePorts(2);
    bench.write("routes.yaml", route("first"));
    await bench.start((backendPort) => world(ports[0] ?? 0, backendPort));
  });
  after(() => bench.close());

  test("a sidecar gets everything that it needs, with whole route tables", async () => {
    const [port = 0] = ports;
    assert.deepEqual(await bench.firstAnswer(port, "reviews.default"), { status: 200, route: "first" });
    const held = await bench.debug<{ types: { type: string }[] }[]>("/debug/syncz");
    assert.deepEqual(
      held[0]?.types.map(({ type }) => type),
      ["cluster", "endpoint", "listener", "route"],
    );
  });

  test("changes of routes, and services that come and go, arrive", async () => {
    const [port = 0, otherPort = 0] = ports;
    bench.write("routes.yaml", route("second"));
    await bench.untilRoute(port, "reviews.default", "second");
    bench.write("other.yaml", service("other", otherPort, bench.backendPort));
    assert.equal((await bench.firstAnswer(otherPort, "other")).status, 200);
    bench.write("other.yaml", "");
    await untilHeld("cluster.manager.cluster_removed", (count) => count > 0);
    assert.equal((await bench.ask(port, "reviews.default")).status, 200);
  });

  test("what Envoy rejects is named, and the rest goes on", async () => {
    const [port = 0] = ports;
    bench.write("bad.yaml", badFilter);
    const untilMs = performance.now() + 20_000;
    let rejections: { name: string }[] = [];
    while (rejections.length === 0 && performance.now() < untilMs)
      rejections = await bench.debug<{ name: string }[]>("/debug/rejectz");
    assert.deepEqual(
      rejections.map(({ name }) => name),
      [`outbound|${port}||reviews.default.svc.cluster.local`],
    );
    bench.write("routes.yaml", route("third"));
    await bench.untilRoute(port, "reviews.default", "third");
  });

  test("after a restart of the control plane changes arrive again", async () => {
    const [port = 0] = ports;
    await bench.stopControlPlane();
    bench.write("bad.yaml", "");
    bench.write("routes.yaml", route("fourth"));
    await bench.startControlPlane();
    await bench.untilRoute(port, "reviews.default", "fourth");
  });

  async function untilHeld(stat: string, isSo: (value: number) => boolean): Promise<void> {
    const untilMs = performance.now() + 20_000;
    let value = 0;
    while (performance.now() < untilMs) if (isSo((value = await bench.envoyStat(stat)))) return;
    assert.fail(`${stat} stays ${value}`);
  }
});
