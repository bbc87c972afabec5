import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { worldChanges, type ProxyClass } from "#model";
import type { KubeObject, MeshConfig } from "#objects";
import { viewsOf, viewText } from "#plan";
import { envoyComplaint, withoutEnvoy } from "../../test/support/envoy.ts";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage } from "./proto/api.ts";
import { messageNameOf, type EnvoyResource } from "./resource.ts";
import { snapshotOf } from "./snapshot.ts";

/** By name: where it is, and its label `version`. */
const workloads = {
  near: ["r1/z1", "v1"],
  zone: ["r1/z2", "v2"],
  far: ["r2/z1", "v1"],
  other: ["r3/z1", "v2"],
} as const;
const names = Object.keys(workloads);

const world: readonly KubeObject[] = [
  {
    apiVersion: "networking.istio.io/v1",
    kind: "ServiceEntry",
    metadata: { name: "web", namespace: "default" },
    spec: {
      hosts: ["web.example.com"],
      location: "MESH_INTERNAL",
      resolution: "STATIC",
      ports: [{ name: "http", number: 80, protocol: "HTTP" }],
      workloadSelector: { labels: { app: "web" } },
    },
  },
  ...Object.entries(workloads).map(([name, [locality, version]], at): KubeObject => ({
    apiVersion: "networking.istio.io/v1",
    kind: "WorkloadEntry",
    metadata: { name, namespace: "default" },
    spec: { address: `192.0.2.${at}`, locality, labels: { app: "web", version } },
  })),
];

const client = proxyOf({ labels: { app: "caller", version: "v2" }, locality: "r1/z1" });

function rule(trafficPolicy: object): KubeObject {
  const spec = { host: "web.example.com", trafficPolicy };
  return {
    apiVersion: "networking.istio.io/v1",
    kind: "DestinationRule",
    metadata: { name: "web", namespace: "default" },
    spec,
  };
}

const ejecting = rule({ outlierDetection: { consecutive5xxErrors: 3 } });

function engineOf(mesh: MeshConfig, objects: readonly KubeObject[]): Engine {
  const engine = new Engine();
  engine.apply(worldChanges([...world, ...objects], { rootNamespace: "istio-d", mesh }));
  return engine;
}

function resourcesOf(mesh: MeshConfig, objects: readonly KubeObject[] = [], proxy: ProxyClass = client) {
  return Object.values(snapshotOf(engineOf(mesh, objects), proxy)).flat();
}

function shown(all: readonly EnvoyResource[], type: string, name = "outbound|80||web.example.com"): string {
  const found = all.find((one) => one.type === type && one.name === name);
  return JSON.stringify(found && decodeMessage(messageNameOf(found.type), found.bytes));
}

interface Group {
  readonly priority?: number;
  readonly loadBalancingWeight?: number | { readonly value: number };
  readonly lbEndpoints: readonly {
    readonly endpoint: { readonly address: { readonly socketAddress: { readonly address: string } } };
  }[];
}

/** Of each workload's endpoint, by name. */
function each<T>(all: readonly EnvoyResource[], of: (group: Group) => T): Record<string, T> {
  const { endpoints = [] } = JSON.parse(shown(all, "endpoint")) as { readonly endpoints?: readonly Group[] };
  return Object.fromEntries(
    endpoints.flatMap((group) =>
      group.lbEndpoints.map(({ endpoint }): [string, T] => [
        names[Number(endpoint.address.socketAddress.address.split(".")[3])] ?? "",
        of(group),
      ]),
    ),
  );
}

const priorities = (all: readonly EnvoyResource[]) => each(all, ({ priority = 0 }) => priority);
const weights = (all: readonly EnvoyResource[]) =>
  each(all, ({ loadBalancingWeight: weight = 0 }) => (typeof weight === "number" ? weight : weight.value));
const alike = { near: 0, zone: 0, far: 0, other: 0 };

describe("MeshConfig's localityLbSetting", () => {
  test("distribute gives shares to places for services of which no rule says anything", () => {
    const distribute = [{ from: "r1/*", to: { "r1/*": 80, "r2/z1": 20 } }];
    const all = resourcesOf({ localityLbSetting: { distribute } });
    assert.deepEqual(weights(all), { near: 40, zone: 40, far: 20 });
    assert.match(shown(all, "cluster"), /"localityWeightedLbConfig":\{\}/);
    assert.deepEqual(priorities(resourcesOf({})), alike);
  });

  test("failover names the next region, where a rule or the mesh detects outliers", () => {
    const mesh: MeshConfig = { localityLbSetting: { failover: [{ from: "r1", to: "r3" }] } };
    const ordered = { near: 0, zone: 1, other: 2, far: 3 };
    assert.deepEqual(priorities(resourcesOf(mesh)), alike);
    assert.deepEqual(priorities(resourcesOf(mesh, [ejecting])), ordered);
    const ejects: MeshConfig = {
      ...mesh,
      defaultTrafficPolicy: { outlierDetection: { consecutive5xxErrors: 3 } },
    };
    assert.deepEqual(priorities(resourcesOf(ejects)), ordered);
  });

  test("failoverPriority goes by the clients' labels, which their views differ in then and only then", () => {
    const mesh: MeshConfig = { localityLbSetting: { failoverPriority: ["version"] } };
    assert.deepEqual(priorities(resourcesOf(mesh, [ejecting])), { near: 1, zone: 0, far: 1, other: 0 });
    const texts = (given: MeshConfig, version: string) =>
      engineOf(given, [])
        .get(viewsOf, { ...client, labels: { ...client.labels, version } })
        .filter(({ kind }) => kind === "outbound")
        .map(viewText);
    assert.notDeepEqual(texts(mesh, "v1"), texts(mesh, "v2"));
    assert.deepEqual(texts({}, "v1"), texts({}, "v2"));
  });

  test("turned off, it orders nothing and gives no shares, but for rules with a setting of their own", () => {
    const off: MeshConfig = { localityLbSetting: { enabled: false, failoverPriority: ["version"] } };
    const all = resourcesOf(off, [ejecting]);
    assert.deepEqual(priorities(all), alike);
    assert.doesNotMatch(shown(all, "cluster"), /localityWeightedLbConfig/);
    const own = rule({
      outlierDetection: { consecutive5xxErrors: 3 },
      loadBalancer: { localityLbSetting: { enabled: true } },
    });
    assert.deepEqual(priorities(resourcesOf(off, [own])), { near: 0, zone: 1, far: 2, other: 2 });
  });

  test("a rule's own setting prevails", () => {
    const mesh: MeshConfig = { localityLbSetting: { distribute: [{ from: "*", to: { "r3/*": 100 } }] } };
    assert.deepEqual(weights(resourcesOf(mesh)), { other: 100 });
    const own = rule({
      loadBalancer: { localityLbSetting: { distribute: [{ from: "*", to: { "r2/*": 100 } }] } },
    });
    assert.deepEqual(weights(resourcesOf(mesh, [own])), { far: 100 });
  });
});

test("MeshConfig's zoneAwareLbSetting orders by clients' labels, and by regions within them", () => {
  const all = resourcesOf({
    zoneAwareLbSetting: { failoverPriority: ["version"], failover: [{ from: "r1", to: "r3" }] },
    localityLbSetting: { distribute: [{ from: "*", to: { "r3/*": 100 } }] },
  });
  assert.deepEqual(priorities(all), { zone: 0, other: 1, near: 2, far: 3 });
  assert.match(shown(all, "cluster"), /"zoneAwareLbConfig"/);
});

describe("MeshConfig's defaultTrafficPolicy", () => {
  const mesh: MeshConfig = {
    defaultTrafficPolicy: {
      connectionPool: { tcp: { maxConnections: 7, connectTimeout: "3s" }, http: { http2MaxRequests: 8 } },
      outlierDetection: { consecutive5xxErrors: 9, baseEjectionTime: "40s" },
    },
  };
  const pooled = /"connectTimeout":\{"seconds":3\}.*"maxConnections":(\{"value":)?7\b/;
  const detected = /"consecutive_5xx":(\{"value":)?9\b/;

  test("holds for services of which no rule says anything, and as limits of what nobody claims", () => {
    const all = resourcesOf(mesh);
    assert.match(shown(all, "cluster"), pooled);
    assert.match(shown(all, "cluster"), detected);
    assert.match(shown(all, "cluster", "PassthroughCluster"), pooled);
    assert.doesNotMatch(shown(all, "cluster", "PassthroughCluster"), detected);
  });

  test("a rule that has a block replaces the whole block, and no other", () => {
    const all = resourcesOf(mesh, [rule({ connectionPool: { http: { maxRetries: 2 } } })]);
    assert.doesNotMatch(shown(all, "cluster"), pooled);
    assert.match(shown(all, "cluster"), detected);
  });

  test("limits connections to the application as well, for clients without a proxy", () => {
    const service: KubeObject = {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name: "caller", namespace: "default" },
      spec: { clusterIP: "10.96.0.7", selector: { app: "caller" }, ports: [{ name: "http", port: 80 }] },
    };
    assert.match(shown(resourcesOf(mesh, [service]), "cluster", "inbound|80||"), pooled);
    assert.doesNotMatch(shown(resourcesOf({}, [service]), "cluster", "inbound|80||"), pooled);
  });

  test("is taken by the real Envoy", { skip: withoutEnvoy }, () => {
    assert.equal(envoyComplaint(resourcesOf(mesh, [ejecting])), "");
  });
});
