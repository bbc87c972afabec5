import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { worldChanges, type ProxyClass } from "#model";
import type { KubeObject, MeshConfig } from "#objects";
import { proxyOf } from "../../test/support/proxies.ts";
import type { OutboundListenerKey } from "./keys.ts";
import { planOf } from "./plan-of.ts";
import type { Plan, Planned } from "./plan.ts";
import { viewsOf, type OutboundView } from "./views.ts";

const client = proxyOf({ labels: { app: "sleep" }, serviceAccount: "sleep" });

const services = ["reviews", "ratings", "mirror", "authz", "limits"].map(service);

describe("clusters on demand in a plan", () => {
  test("the Pod's annotation goes before the namespace's label, and that before MeshConfig", () => {
    const label = namespace("on-demand");
    const onDemand: MeshConfig = { defaultConfig: { proxyMetadata: { CLUSTER_DISCOVERY: "on-demand" } } };
    const eager: MeshConfig = { defaultConfig: { proxyMetadata: { CLUSTER_DISCOVERY: "eager" } } };
    assert.equal(modeOf([], {}), "eager");
    assert.equal(modeOf([], onDemand), "on-demand");
    assert.equal(modeOf([label], eager), "on-demand");
    assert.equal(modeOf([namespace("eager")], onDemand), "eager");
    assert.equal(modeOf([label], onDemand, { ...client, clusterDiscovery: "eager" }), "eager");
    assert.equal(modeOf([namespace("eager")], {}, { ...client, clusterDiscovery: "on-demand" }), "on-demand");
    assert.equal(modeOf([label], {}, { ...client, clusterDiscovery: "nonsense" }), "on-demand");
  });

  test("an Envoy before 1.40 and a client that names no version get all clusters", () => {
    for (const envoyVersion of ["1.39.2", ""])
      assert.equal(modeOf([namespace("on-demand")], {}, { ...client, envoyVersion }), "eager");
  });

  test("all clusters are offered, and none but the well-known ones sent unasked", () => {
    const plan = planFor(services);
    assert.deepEqual(unasked(plan), ["BlackHoleCluster", "PassthroughCluster"]);
    const eager = planFor(services, {}, { ...client, clusterDiscovery: "eager" });
    assert.deepEqual(namesOf(plan).toSorted(), namesOf(eager).toSorted());
    assert.deepEqual(plan.virtualHost, eager.virtualHost);
  });

  test("what is mirrored to, stands behind a provider or is named in an EnvoyFilter is sent unasked", () => {
    const mirror = object("networking.istio.io/v1", "VirtualService", "reviews", {
      hosts: ["reviews"],
      http: [
        { route: [{ destination: { host: "reviews" } }], mirrors: [{ destination: { host: "mirror" } }] },
      ],
    });
    const filter = object("networking.istio.io/v1alpha3", "EnvoyFilter", "limits", {
      configPatches: [
        {
          applyTo: "HTTP_FILTER",
          match: { context: "SIDECAR_INBOUND" },
          patch: {
            operation: "INSERT_BEFORE",
            value: { typed_config: { cluster_name: "outbound|9080||limits.default.svc.cluster.local" } },
          },
        },
      ],
    });
    const providers: MeshConfig = {
      extensionProviders: [
        { name: "a", envoyExtAuthzGrpc: { service: "default/authz.default.svc.cluster.local", port: 9080 } },
      ],
    };
    assert.deepEqual(unasked(planFor([...services, mirror, filter], providers)), [
      "BlackHoleCluster",
      "PassthroughCluster",
      ...["authz", "limits", "mirror"].map((name) => `outbound|9080||${name}.default.svc.cluster.local`),
    ]);
  });

  test("what a workload's own filters fetch keys from is sent to it unasked, whatever selects it", () => {
    const tokens = object("security.istio.io/v1", "RequestAuthentication", "tokens", {
      selector: { matchLabels: { app: "sleep" } },
      jwtRules: [{ issuer: "me", jwksUri: "http://authz.default.svc.cluster.local:9080/keys" }],
    });
    const engine = new Engine();
    engine.apply(worldChanges([...services, tokens]));
    const plan = engine.get(planOf, { kind: "inbound", proxy: onDemandClient });
    const name = "outbound|9080||authz.default.svc.cluster.local";
    assert.ok(unasked(plan).includes(name));
    assert.ok(plan.endpoint.some(({ entries }) => entries.some((entry) => entry.name === name)));
    const other = { ...onDemandClient, labels: { app: "other" } };
    assert.ok(!unasked(engine.get(planOf, { kind: "inbound", proxy: other })).includes(name));
  });

  test("every listener of the outbound side asks for clusters that are not there", () => {
    const entries = planFor(services).listener.flatMap(
      (chunk) => chunk.entries,
    ) as Planned<OutboundListenerKey>[];
    assert.ok(entries.length > 1);
    for (const { name, key } of entries) assert.equal(key.discoversClusters, true, name);
  });

  test("before there is any service a plan says that it offers clusters", () => {
    assert.ok(planFor([]).cluster.some(({ onDemand }) => onDemand === true));
  });
});

function planFor(objects: readonly KubeObject[], mesh: MeshConfig = {}, proxy = onDemandClient): Plan {
  const engine = new Engine();
  engine.apply(worldChanges(objects, { mesh }));
  return engine.get(planOf, outboundView(engine, proxy));
}

const onDemandClient: ProxyClass = { ...client, clusterDiscovery: "on-demand" };

function modeOf(objects: readonly KubeObject[], mesh: MeshConfig, proxy = client): string {
  const engine = new Engine();
  engine.apply(worldChanges(objects, { mesh }));
  return outboundView(engine, proxy).clusters;
}

function outboundView(engine: Engine, proxy: ProxyClass): OutboundView {
  const view = engine.get(viewsOf, proxy).find(({ kind }) => kind === "outbound");
  assert.ok(view?.kind === "outbound");
  return view;
}

function unasked({ cluster }: Plan): string[] {
  const chunks = cluster.filter(({ onDemand }) => onDemand !== true);
  return chunks.flatMap(({ entries }) => entries.map(({ name }) => name)).toSorted();
}

function namesOf({ cluster }: Plan): string[] {
  return cluster.flatMap(({ entries }) => entries.map(({ name }) => name));
}

function namespace(mode: string): KubeObject {
  return {
    apiVersion: "v1",
    kind: "Namespace",
    metadata: { name: "default", labels: { "mizzen.io/cluster-discovery": mode } },
  };
}

function service(name: string, at: number): KubeObject {
  const ports = [{ name: "http", port: 9080, protocol: "TCP" }];
  return object("v1", "Service", name, { clusterIP: `10.96.0.${at + 1}`, selector: { app: name }, ports });
}

function object(apiVersion: string, kind: string, name: string, spec: unknown): KubeObject {
  return { apiVersion, kind, metadata: { name, namespace: "default" }, spec } as KubeObject;
}
