import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { worldChanges, type ProxyClass, type RouteDelivery } from "#model";
import type { EnvoyFilter, KubeObject } from "#objects";
import { envoyComplaint, withoutEnvoy } from "../../test/support/envoy.ts";
import { envoyFilterMismatches } from "./envoy-filter.ts";
import { withHostsInTables } from "./inline-hosts.ts";
import { decodeMessage, type Message } from "./proto/api.ts";
import { messageNameOf, type EnvoyResource } from "./resource.ts";
import { snapshotOf } from "./snapshot.ts";

const service: KubeObject = {
  apiVersion: "v1",
  kind: "Service",
  metadata: { name: "reviews", namespace: "default" },
  spec: {
    clusterIP: "10.0.0.1",
    selector: { app: "reviews" },
    ports: [{ name: "http", port: 9080 }],
  },
};

function sidecar(namespace: string, labels: Readonly<Record<string, string>>): ProxyClass {
  return {
    kind: "sidecar",
    namespace,
    labels,
    serviceAccount: "default",
    network: "",
    locality: "",
    clusterId: "Kubernetes",
    dnsDomain: `${namespace}.svc.cluster.local`,
    interception: "REDIRECT",
    envoyVersion: "1.40.0",
    metadata: {},
  };
}

const reviews = sidecar("default", { app: "reviews" });

function envoyFilter(...configPatches: object[]): EnvoyFilter {
  return {
    apiVersion: "networking.istio.io/v1alpha3",
    kind: "EnvoyFilter",
    metadata: { name: "own", namespace: "default" },
    spec: { workloadSelector: { labels: { app: "reviews" } }, configPatches } as EnvoyFilter["spec"],
  };
}

function resourcesOf(proxy: ProxyClass, ...objects: KubeObject[]): EnvoyResource[] {
  const engine = new Engine();
  engine.apply(worldChanges([service, ...objects]));
  return Object.values(snapshotOf(engine, proxy)).flat();
}

/** The virtual hosts of table 9080 under some patches, however they travel. */
function tableOf(routeDelivery: RouteDelivery, ...patches: object[]): readonly Message[] {
  const engine = new Engine();
  engine.apply(worldChanges([service, envoyFilter(...patches)], { routeDelivery }));
  const resources = withHostsInTables(Object.values(snapshotOf(engine, reviews)).flat());
  return decoded(find(resources, "9080"))["virtualHosts"] as readonly Message[];
}

function find(resources: readonly EnvoyResource[], name: string): EnvoyResource {
  const found = resources.find((resource) => resource.name === name && resource.type !== "endpoint");
  assert.ok(found, `${name} is missing`);
  return found;
}

function decoded(resource: EnvoyResource): Message {
  return decodeMessage(messageNameOf(resource.type), resource.bytes);
}

const luaBeforeRouter = {
  applyTo: "HTTP_FILTER",
  match: {
    context: "SIDECAR_INBOUND",
    listener: {
      portNumber: 9080,
      filterChain: {
        filter: {
          name: "envoy.filters.network.http_connection_manager",
          subFilter: { name: "envoy.filters.http.router" },
        },
      },
    },
  },
  patch: {
    operation: "INSERT_BEFORE",
    value: {
      name: "envoy.lua",
      typed_config: {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
        default_source_code: { inline_string: "function envoy_on_request(h) h:logInfo('x') end" },
      },
    },
  },
};

describe("an EnvoyFilter", () => {
  test("inserts an HTTP filter where it says, and the real Envoy takes it", { skip: withoutEnvoy }, () => {
    const resources = resourcesOf(reviews, envoyFilter(luaBeforeRouter));
    const listener = find(resources, "virtualInbound");
    const text = JSON.stringify(decoded(listener));
    assert.ok(
      text.indexOf("envoy.lua") > 0 && text.indexOf("envoy.lua") < text.lastIndexOf("filters.http.router"),
    );
    assert.equal(text.split('"envoy.lua"').length - 1, 2, "in both chains of the port, and in no other");
    assert.deepEqual(listener.origins[0]?.object, { kind: "EnvoyFilter", namespace: "default", name: "own" });
    assert.equal(envoyComplaint([listener, find(resources, "inbound|9080||")]), "");
  });

  test(
    "of a wrong type or a bad expression is what the real Envoy complains of",
    { skip: withoutEnvoy },
    () => {
      const merge = (value: object): EnvoyFilter =>
        envoyFilter({
          applyTo: "VIRTUAL_HOST",
          match: { context: "SIDECAR_INBOUND" },
          patch: { operation: "MERGE", value },
        });
      const badRegex = merge({
        routes: [{ match: { safe_regex: { regex: "(" } }, direct_response: { status: 200 } }],
      });
      assert.match(envoyComplaint([find(resourcesOf(reviews, badRegex), "virtualInbound")]), /missing \)/);
      const unknown = envoyFilter({
        ...luaBeforeRouter,
        patch: {
          operation: "INSERT_BEFORE",
          value: { name: "no.such", typed_config: { "@type": "type.googleapis.com/no.such.Filter", a: 1 } },
        },
      });
      assert.match(envoyComplaint([find(resourcesOf(reviews, unknown), "virtualInbound")]), /no\.such/);
    },
  );

  test("changes clusters, adds some and takes some away", () => {
    const filter = envoyFilter(
      {
        applyTo: "CLUSTER",
        match: { context: "SIDECAR_OUTBOUND", cluster: { service: "reviews.default.svc.cluster.local" } },
        patch: { operation: "MERGE", value: { connect_timeout: "1.5s", dns_lookup_family: "V4_ONLY" } },
      },
      { applyTo: "CLUSTER", patch: { operation: "ADD", value: { name: "extra", type: "STATIC" } } },
      {
        applyTo: "CLUSTER",
        match: { cluster: { name: "PassthroughCluster" } },
        patch: { operation: "REMOVE" },
      },
    );
    const resources = resourcesOf(reviews, filter);
    const cluster = find(resources, "outbound|9080||reviews.default.svc.cluster.local");
    assert.deepEqual(decoded(cluster)["connectTimeout"], { seconds: 1, nanos: 500_000_000 });
    assert.equal(decoded(cluster)["dnsLookupFamily"], "V4_ONLY");
    assert.equal(find(resources, "extra").type, "cluster");
    assert.ok(!resources.some(({ name }) => name === "PassthroughCluster"));
  });

  for (const routeDelivery of ["virtual-hosts", "tables"] as const) {
    test(`finds virtual hosts under Istio's names and changes, adds and removes them (${routeDelivery})`, () => {
      const name = "reviews.default.svc.cluster.local:9080";
      const match = { context: "SIDECAR_OUTBOUND", routeConfiguration: { name: "9080", vhost: { name } } };
      const changed = tableOf(
        routeDelivery,
        { applyTo: "HTTP_ROUTE", match, patch: { operation: "MERGE", value: { route: { timeout: "7s" } } } },
        {
          applyTo: "VIRTUAL_HOST",
          match: { context: "SIDECAR_OUTBOUND", routeConfiguration: { name: "9080" } },
          patch: { operation: "ADD", value: { name: "extra", domains: ["extra.com"] } },
        },
      );
      assert.deepEqual(
        changed.map((host) => host["name"]),
        [name, "allow_any", "extra"],
      );
      const [route] = (changed[0]?.["routes"] ?? []) as readonly { readonly route: Message }[];
      assert.deepEqual(route?.route["timeout"], { seconds: 7 });
      const removed = tableOf(routeDelivery, {
        applyTo: "VIRTUAL_HOST",
        match,
        patch: { operation: "REMOVE" },
      });
      assert.deepEqual(
        removed.map((host) => host["name"]),
        ["allow_any"],
      );
    });
  }

  test("leaves the bytes of everyone else alone", () => {
    const other = sidecar("other", { app: "x" });
    const versions = (resources: EnvoyResource[]): string[] =>
      resources.map(({ name, version }) => `${name} ${version}`);
    assert.deepEqual(
      versions(resourcesOf(other, envoyFilter(luaBeforeRouter))),
      versions(resourcesOf(other)),
    );
  });

  test("that does not fit Envoy's API is left out, with the field's path", () => {
    const filter = envoyFilter({
      ...luaBeforeRouter,
      patch: {
        operation: "INSERT_BEFORE",
        value: {
          name: "x",
          typed_config: {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            nonsense: 1,
          },
        },
      },
    });
    const [mismatch] = envoyFilterMismatches(filter);
    assert.equal(mismatch?.path, "spec.configPatches[0].patch.value.typed_config.nonsense");
    assert.deepEqual(
      find(resourcesOf(reviews, filter), "virtualInbound").version,
      find(resourcesOf(reviews), "virtualInbound").version,
    );
  });
});
