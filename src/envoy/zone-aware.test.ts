import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { worldChanges, type ProxyClass } from "#model";
import type { KubeObject } from "#objects";
import { envoyComplaint, withoutEnvoy } from "../../test/support/envoy.ts";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage, type Message } from "./proto/api.ts";
import { messageNameOf } from "./resource.ts";
import { snapshotOf } from "./snapshot.ts";

const metadata = { name: "web", namespace: "default" };
const places = { one: "r1/z1", two: "r1/z2", far: "r2/z1", other: "r3/z1" };
const web: KubeObject = {
  apiVersion: "networking.istio.io/v1",
  kind: "ServiceEntry",
  metadata,
  spec: {
    hosts: ["web.example.com"],
    location: "MESH_INTERNAL",
    resolution: "STATIC",
    ports: [{ name: "http", number: 80, protocol: "HTTP" }],
    workloadSelector: { labels: { app: "web" } },
  },
};
const entries = Object.entries(places).map(([name, locality], at): KubeObject => ({
  apiVersion: "networking.istio.io/v1",
  kind: "WorkloadEntry",
  metadata: { name, namespace: "default" },
  spec: { address: `192.0.2.${at + 1}`, locality, labels: { app: "web" } },
}));
const proxy = proxyOf({
  labels: { app: "web" },
  serviceAccount: "web",
  locality: "r1/z1",
  metadata: { ENABLE_SELF_DISCOVERY: "true" },
});
const cluster = "outbound|80||web.example.com";

function ruled(loadBalancer: object): KubeObject {
  const spec = { host: "web.example.com", trafficPolicy: { loadBalancer } };
  return { apiVersion: "networking.istio.io/v1", kind: "DestinationRule", metadata, spec };
}

function resourcesOf(objects: readonly KubeObject[], client: ProxyClass = proxy) {
  const engine = new Engine();
  engine.apply(worldChanges([web, ...entries, ...objects]));
  return Object.values(snapshotOf(engine, client)).flat();
}

function found(all: ReturnType<typeof resourcesOf>, type: string, name: string): Message | undefined {
  const one = all.find((resource) => resource.type === type && resource.name === name);
  return one && decodeMessage(messageNameOf(one.type), one.bytes);
}

function prioritiesIn(message: Message | undefined): Record<string, number> {
  const { endpoints = [] } = message as {
    endpoints?: { locality: { region: string; zone: string }; priority?: number }[];
  };
  return Object.fromEntries(
    endpoints.map(({ locality, priority = 0 }) => [`${locality.region}/${locality.zone}`, priority]),
  );
}

describe("zone-aware balancing", () => {
  const aware = { zoneAwareLbSetting: { minClusterSize: 2, failover: [{ from: "r1", to: "r3" }] } };

  test("zones of the client's region come first and together, then the region that is named, then the rest", () => {
    const all = resourcesOf([ruled(aware)]);
    const { commonLbConfig } = found(all, "cluster", cluster) as { commonLbConfig: object };
    assert.deepEqual(commonLbConfig, {
      zoneAwareLbConfig: { routingEnabled: { value: 100 }, minClusterSize: { value: 2 } },
    });
    assert.deepEqual(prioritiesIn(found(all, "endpoint", cluster)), {
      "r1/z1": 0,
      "r1/z2": 0,
      "r2/z1": 2,
      "r3/z1": 1,
    });
  });

  test("turned off, it keeps Envoy from balancing by zone of itself, and orders nothing", () => {
    const all = resourcesOf([ruled({ zoneAwareLbSetting: { enabled: false } })]);
    const { commonLbConfig } = found(all, "cluster", cluster) as { commonLbConfig: object };
    assert.deepEqual(commonLbConfig, { zoneAwareLbConfig: { routingEnabled: {} } });
    assert.deepEqual(new Set(Object.values(prioritiesIn(found(all, "endpoint", cluster)))), new Set([0]));
  });

  test("a proxy that knows itself gets how its own service is spread over its region, and no other does", () => {
    const own = prioritiesIn(found(resourcesOf([]), "endpoint", "local_cluster"));
    assert.deepEqual(Object.keys(own), ["r1/z1", "r1/z2"]);
    const unaware = resourcesOf([], { ...proxy, metadata: {} });
    assert.equal(found(unaware, "endpoint", "local_cluster"), undefined);
    const ofNobody = resourcesOf([], { ...proxy, labels: { app: "alone" } });
    assert.deepEqual(prioritiesIn(found(ofNobody, "endpoint", "local_cluster")), {});
  });

  test("is taken by the real Envoy", { skip: withoutEnvoy }, () => {
    assert.equal(envoyComplaint(resourcesOf([ruled(aware)])), "");
  });
});
