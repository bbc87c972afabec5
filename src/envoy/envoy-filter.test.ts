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

  const atManagers = (context: string, operation: string, value: object, more: object = {}): object => ({
    applyTo: "HTTP_FILTER",
    match: {
      context,
      listener: { filterChain: { filter: { name: "envoy.filters.network.http_connection_manager" } } },
    },
    patch: { operation, value, ...more },
  });
  const lua = (name: string): object => ({
    name,
    typed_config: {
      "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
      default_source_code: { inline_string: "function envoy_on_request(h) end" },
    },
  });
  /** Of the first connection manager. */
  const filterNames = (listener: EnvoyResource): string[] => {
    const { filterChains } = decoded(listener) as unknown as {
      filterChains: { filters: { typedConfig: { httpFilters?: { name: string }[] } }[] }[];
    };
    const managers = filterChains.flatMap(({ filters }) =>
      filters.flatMap(({ typedConfig }) =>
        typedConfig.httpFilters === undefined ? [] : [typedConfig.httpFilters],
      ),
    );
    return (managers[0] ?? []).map(({ name }) => name);
  };

  test("adds HTTP filters after authentication, after authorization, before statistics, or before the router", () => {
    const policy: KubeObject = {
      apiVersion: "security.istio.io/v1",
      kind: "AuthorizationPolicy",
      metadata: { name: "p", namespace: "default" },
      spec: { rules: [{}] },
    };
    const tokens: KubeObject = {
      apiVersion: "security.istio.io/v1",
      kind: "RequestAuthentication",
      metadata: { name: "r", namespace: "default" },
      spec: { jwtRules: [{ issuer: "i", jwksUri: "https://i.example.com/" }] },
    };
    const added = ["AUTHN", "AUTHZ", "STATS", "UNSPECIFIED"].map((filterClass) =>
      atManagers("SIDECAR_INBOUND", "ADD", lua(filterClass), { filterClass }),
    );
    const resources = resourcesOf(reviews, policy, tokens, envoyFilter(...added));
    assert.deepEqual(filterNames(find(resources, "virtualInbound")), [
      "envoy.filters.http.jwt_authn",
      "AUTHN",
      "envoy.filters.http.rbac",
      "AUTHZ",
      "STATS",
      "envoy.filters.http.grpc_stats",
      "envoy.filters.http.fault",
      "envoy.filters.http.cors",
      "UNSPECIFIED",
      "envoy.filters.http.router",
    ]);
  });

  test("finds filters by their former names, and chains that are the default", () => {
    const filter = envoyFilter(
      {
        applyTo: "HTTP_FILTER",
        match: {
          context: "SIDECAR_INBOUND",
          listener: {
            filterChain: {
              filter: { name: "envoy.http_connection_manager", subFilter: { name: "envoy.fault" } },
            },
          },
        },
        patch: { operation: "REMOVE" },
      },
      {
        applyTo: "NETWORK_FILTER",
        match: {
          context: "SIDECAR_OUTBOUND",
          listener: { portNumber: 9080, filterChain: { filter: { name: "envoy.tcp_proxy" } } },
        },
        patch: {
          operation: "MERGE",
          value: {
            typed_config: {
              "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
              idle_timeout: "7s",
            },
          },
        },
      },
    );
    const resources = resourcesOf(reviews, filter);
    assert.ok(!filterNames(find(resources, "virtualInbound")).includes("envoy.filters.http.fault"));
    const { defaultFilterChain } = decoded(find(resources, "0.0.0.0_9080")) as unknown as {
      defaultFilterChain: { filters: { typedConfig: { idleTimeout: object } }[] };
    };
    assert.deepEqual(defaultFilterChain.filters[0]?.typedConfig.idleTimeout, { seconds: 7 });
  });

  test(
    "puts an extension's configuration where a filter asks for it, and the real Envoy takes it",
    { skip: withoutEnvoy },
    () => {
      const asking = {
        name: "by-name",
        config_discovery: {
          config_source: { ads: {} },
          type_urls: ["type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"],
        },
      };
      const filter = envoyFilter(atManagers("SIDECAR_INBOUND", "INSERT_FIRST", asking), {
        applyTo: "EXTENSION_CONFIG",
        match: { context: "SIDECAR_INBOUND" },
        patch: { operation: "ADD", value: lua("by-name") },
      });
      const resources = resourcesOf(reviews, filter);
      const listener = find(resources, "virtualInbound");
      assert.equal(filterNames(listener)[0], "by-name");
      assert.doesNotMatch(JSON.stringify(decoded(listener)), /configDiscovery/);
      assert.equal(envoyComplaint([listener, find(resources, "inbound|9080||")]), "");
    },
  );

  test("merges older fields of a cluster into those that Envoy looks at", { skip: withoutEnvoy }, () => {
    const merge = (value: object): object => ({
      applyTo: "CLUSTER",
      match: { context: "SIDECAR_OUTBOUND", cluster: { service: "reviews.default.svc.cluster.local" } },
      patch: { operation: "MERGE", value },
    });
    const filter = envoyFilter(
      merge({ http2_protocol_options: { max_concurrent_streams: 7 } }),
      merge({
        transport_socket: {
          name: "envoy.transport_sockets.tls",
          typed_config: {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            max_session_keys: 3,
          },
        },
      }),
    );
    const resources = resourcesOf(reviews, filter);
    const cluster = find(resources, "outbound|9080||reviews.default.svc.cluster.local");
    const text = JSON.stringify(decoded(cluster));
    assert.match(text, /"explicitHttpConfig":\{"http2ProtocolOptions":\{"maxConcurrentStreams":\{"value":7/);
    assert.match(text, /"tlsMode-istio".*"maxSessionKeys":\{"value":3/);
    assert.equal(decoded(cluster)["transportSocket"], undefined);
    assert.equal(envoyComplaint([cluster]), "");
  });

  test("replaces lists where it says so, and patches inbound tables by name and port", () => {
    const header = (key: string): object => ({ request_headers_to_add: [{ header: { key, value: "v" } }] });
    const patch = (operation: string, name: string, value: object): object => ({
      applyTo: "VIRTUAL_HOST",
      match: { context: "SIDECAR_INBOUND", routeConfiguration: { name, portNumber: 9080 } },
      patch: { operation, value },
    });
    const filter = envoyFilter(
      patch("MERGE", "inbound|9080||", header("x-a")),
      patch("MERGE_AND_REPLACE_LIST", "inbound|9080||", header("x-b")),
      patch("MERGE", "inbound|9999||", header("x-c")),
    );
    const text = JSON.stringify(decoded(find(resourcesOf(reviews, filter), "virtualInbound")));
    assert.deepEqual([...new Set(text.match(/x-[abc]/g))], ["x-b"]);
  });

  test("is for the versions and the facts of a proxy that it names", () => {
    const blue: ProxyClass = { ...reviews, metadata: { TEAM: "blue" } };
    const names = (proxy: object): string[] => {
      const patch = {
        applyTo: "CLUSTER",
        match: { context: "SIDECAR_OUTBOUND", proxy },
        patch: { operation: "ADD", value: { name: "extra", type: "STATIC" } },
      };
      return resourcesOf(blue, envoyFilter(patch)).flatMap(({ name }) => (name === "extra" ? [name] : []));
    };
    assert.deepEqual(names({ proxyVersion: "^1\\.[23]" }), ["extra"]);
    assert.deepEqual(names({ proxyVersion: "^1\\.9\\." }), []);
    assert.deepEqual(names({ metadata: { CLUSTER_ID: "Kubernetes" } }), ["extra"]);
    assert.deepEqual(names({ metadata: { WHATEVER: "x" } }), [], "what is not known is not so");
    const { serviceAccount } = reviews;
    assert.deepEqual(names({ metadata: { SERVICE_ACCOUNT: serviceAccount, TEAM: "blue" } }), ["extra"]);
    assert.deepEqual(names({ metadata: { SERVICE_ACCOUNT: serviceAccount, TEAM: "red" } }), []);
  });

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
