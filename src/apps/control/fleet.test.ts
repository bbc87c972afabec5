import assert from "node:assert/strict";
import { test } from "node:test";
import { Engine } from "#engine";
import { worldChanges } from "#model";
import type { KubeObject } from "#objects";
import { FleetCount } from "./fleet.ts";

const slice = (name: string, service: string, ...ready: readonly boolean[]): KubeObject =>
  ({
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: { name, namespace: "istio-d", labels: { "kubernetes.io/service-name": service } },
    addressType: "IPv4",
    endpoints: ready.map((one, at) => ({ addresses: [`10.0.0.${at}`], conditions: { ready: one } })),
  }) as unknown as KubeObject;

const pod = (name: string, phase: string, ...containers: readonly string[]): KubeObject => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name, namespace: "default" },
  spec: { containers: containers.map((container) => ({ name: container })) },
  status: { phase },
});

test("replicas are the ready endpoints of the control plane's Service, proxies the running Pods with one", () => {
  const engine = new Engine();
  engine.apply(
    worldChanges([
      slice("istiod-1", "istiod", true, true, false),
      slice("other-1", "other", true, true, true),
      pod("a", "Running", "app", "istio-proxy"),
      pod("b", "Running", "app"),
      pod("c", "Pending", "istio-proxy"),
      pod("d", "Running", "istio-proxy"),
    ]),
  );
  const count = new FleetCount(engine, { namespace: "istio-d", name: "istiod" });
  assert.deepEqual(count.at(0), { replicas: 2, proxies: 2 });
  engine.apply(worldChanges([slice("istiod-2", "istiod", true), pod("b", "Running", "istio-proxy")]));
  assert.deepEqual(count.at(1_000), { replicas: 2, proxies: 2 }, "not counted again at each tick");
});
