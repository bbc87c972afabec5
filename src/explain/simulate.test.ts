import assert from "node:assert/strict";
import { test } from "node:test";
import type { Call } from "./call.ts";
import type { FilterChain, Listener, Route, RouteConfiguration } from "./shapes.ts";
import { simulate, type ProxyConfiguration } from "./simulate.ts";

const managerType =
  "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const tcpType = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const tlsInspector = {
  name: "envoy.filters.listener.tls_inspector",
  typedConfig: {
    "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
  },
};
const httpInspector = {
  name: "envoy.filters.listener.http_inspector",
  typedConfig: {
    "@type": "type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
  },
};

function http(name: string, routeConfigName: string, extra: Partial<FilterChain> = {}): FilterChain {
  return {
    name,
    filters: [{ name: "http", typedConfig: { "@type": managerType, rds: { routeConfigName } } }],
    ...extra,
  };
}

function tcp(name: string, cluster: string, extra: Partial<FilterChain> = {}): FilterChain {
  return { name, filters: [{ name: "tcp", typedConfig: { "@type": tcpType, cluster } }], ...extra };
}

function listener(name: string, address: string, portValue: number, rest: Partial<Listener>): Listener {
  return { name, address: { socketAddress: { address, portValue } }, ...rest };
}

function table(routes: readonly Route[], domains: readonly string[] = ["reviews"]): RouteConfiguration {
  return { name: "9080", virtualHosts: [{ name: "reviews:9080", domains, routes }] };
}

function world(
  listeners: readonly Listener[],
  tables: readonly RouteConfiguration[] = [],
): ProxyConfiguration {
  return { listeners, routes: new Map(tables.map((routes) => [routes.name ?? "", routes])) };
}

const get: Partial<Call> & Pick<Call, "direction" | "port"> = {
  direction: "outbound",
  port: 9080,
  host: "reviews",
};
const port9080 = listener("0.0.0.0_9080", "0.0.0.0", 9080, { filterChains: [http("c", "9080")] });

test("a request follows listener, virtual host and route to its weighted clusters", () => {
  const weightedClusters = {
    clusters: [
      { name: "v1", weight: { value: 80 } },
      { name: "v2", weight: { value: 20 } },
    ],
  };
  const routes = [{ name: "split", match: { prefix: "/" }, route: { weightedClusters } }];
  const trace = simulate(world([port9080], [table(routes)]), get);
  assert.equal(trace.listener, "0.0.0.0_9080");
  assert.equal(trace.route, "split");
  assert.deepEqual(trace.outcome, {
    kind: "forward",
    to: [
      { cluster: "v1", weight: 80 },
      { cluster: "v2", weight: 20 },
    ],
  });
});

test("the first route whose path, header and query all match wins", () => {
  const routes: Route[] = [
    {
      name: "jason",
      match: { prefix: "/", headers: [{ name: "end-user", stringMatch: { exact: "jason" } }] },
      directResponse: { status: 201 },
    },
    {
      name: "query",
      match: { path: "/q", queryParameters: [{ name: "a", stringMatch: { prefix: "x" } }] },
      directResponse: { status: 202 },
    },
    { name: "regex", match: { safeRegex: { regex: "/re[0-9]+" } }, redirect: { responseCode: "FOUND" } },
    { name: "prefix", match: { pathSeparatedPrefix: "/api" }, directResponse: { status: 203 } },
    {
      name: "post",
      match: { prefix: "/", headers: [{ name: ":method", stringMatch: { exact: "POST" } }] },
      directResponse: { status: 204 },
    },
  ];
  const routed = world([port9080], [table(routes)]);
  const routeFor = (call: Partial<Call>) => simulate(routed, { ...get, ...call }).route;
  assert.equal(routeFor({ headers: { "end-user": "jason" } }), "jason");
  assert.equal(routeFor({ path: "/q?a=xy" }), "query");
  assert.equal(routeFor({ path: "/re12" }), "regex");
  assert.equal(routeFor({ path: "/api/v1" }), "prefix");
  assert.equal(routeFor({ path: "/apis", method: "POST" }), "post");
  const unmatched = simulate(routed, { ...get, path: "/apis" }).outcome;
  assert.ok(unmatched.kind === "refuse" && unmatched.error === "NoRoute");
});

test("an exact domain beats a suffix wildcard, that a prefix wildcard, that the catch-all", () => {
  const hosts = (domain: string) => ({
    name: domain,
    domains: [domain],
    routes: [{ match: { prefix: "/" }, directResponse: { status: 200 } }],
  });
  const routes = {
    name: "9080",
    virtualHosts: ["*", "a.*", "*.example.com", "*.b.example.com", "a.b.example.com"].map(hosts),
  };
  const found = (host: string) => simulate(world([port9080], [routes]), { ...get, host }).virtualHost;
  assert.equal(found("A.b.example.com"), "a.b.example.com");
  assert.equal(found("x.b.example.com"), "*.b.example.com");
  assert.equal(found("x.example.com"), "*.example.com");
  assert.equal(found("a.other"), "a.*");
  assert.equal(found("other"), "*");
});

test("chains are sieved criterion by criterion, and a silent chain does not come back", () => {
  const chains = [
    tcp("tls-any", "any", { filterChainMatch: { transportProtocol: "tls" } }),
    tcp("sni", "sni", { filterChainMatch: { transportProtocol: "tls", serverNames: ["*.example.com"] } }),
    http("http", "9080", {
      filterChainMatch: { transportProtocol: "raw_buffer", applicationProtocols: ["http/1.1", "h2c"] },
    }),
  ];
  const sniffing = listener("virtualOutbound", "0.0.0.0", 15001, {
    filterChains: chains,
    defaultFilterChain: tcp("default", "PassthroughCluster"),
    listenerFilters: [tlsInspector, httpInspector],
  });
  const chainFor = (call: Partial<Call>) =>
    simulate(world([sniffing]), { ...get, port: 1, ...call }).filterChain;
  assert.equal(chainFor({ tls: "tls", protocol: "tcp", sni: "a.example.com" }), "sni");
  assert.equal(chainFor({ tls: "tls", protocol: "tcp", sni: "other" }), "tls-any");
  assert.equal(chainFor({ protocol: "http" }), "http");
  assert.equal(chainFor({ protocol: "tcp" }), "default");
});

test("plaintext at a chain that terminates mutual TLS is refused, and the mesh's TLS is let in", () => {
  const transportSocket = {
    typedConfig: {
      requireClientCertificate: { value: true },
      commonTlsContext: { tlsCertificateSdsSecretConfigs: [{ name: "default" }] },
    },
  };
  const inbound = listener("virtualInbound", "0.0.0.0", 15006, {
    filterChains: [tcp("strict", "inbound|80||", { transportSocket })],
    listenerFilters: [tlsInspector],
  });
  const call = { direction: "inbound", port: 80, protocol: "tcp" } as const;
  const plain = simulate(world([inbound]), call).outcome;
  assert.ok(plain.kind === "refuse" && plain.error === "TLSError");
  const foreign = simulate(world([inbound]), { ...call, tls: "tls" }).outcome;
  assert.ok(foreign.kind === "refuse" && foreign.error === "MTLSError");
  assert.equal(simulate(world([inbound]), { ...call, tls: "mtls" }).outcome.kind, "forward");
});

test("an ALLOW policy admits its principal and names itself to nobody else", () => {
  const rules = {
    action: "ALLOW",
    policies: {
      "ns[default]-policy[p]-rule[0]": {
        permissions: [
          { andRules: { rules: [{ header: { name: ":method", stringMatch: { exact: "GET" } } }] } },
        ],
        principals: [
          { authenticated: { principalName: { exact: "spiffe://cluster.local/ns/default/sa/a" } } },
        ],
      },
    },
  };
  const rbac = {
    name: "rbac",
    typedConfig: { "@type": "x/envoy.extensions.filters.http.rbac.v3.RBAC", rules },
  };
  const routeConfig = table([{ match: { prefix: "/" }, route: { cluster: "inbound|80||" } }], ["*"]);
  const filters = [{ name: "http", typedConfig: { "@type": managerType, routeConfig, httpFilters: [rbac] } }];
  const inbound = listener("virtualInbound", "0.0.0.0", 15006, { filterChains: [{ name: "in", filters }] });
  const outcomeFor = (call: Partial<Call>) =>
    simulate(world([inbound]), { direction: "inbound", port: 80, ...call }).outcome;
  assert.equal(outcomeFor({ principal: "spiffe://cluster.local/ns/default/sa/a" }).kind, "forward");
  const other = outcomeFor({ principal: "spiffe://cluster.local/ns/default/sa/b" });
  assert.ok(other.kind === "refuse" && other.error === "Denied");
  assert.equal(
    outcomeFor({ principal: "spiffe://cluster.local/ns/default/sa/a", method: "POST" }).kind,
    "refuse",
  );
});

test("a filter in the place of an extension answers all that reach it, before or after the callers are checked", () => {
  const type = (name: string): string => `x/envoy.extensions.filters.http.${name}`;
  const nobody = { name: "rbac", typedConfig: { "@type": type("rbac.v3.RBAC"), rules: { policies: {} } } };
  const fault = type("fault.v3.HTTPFault");
  const shut = {
    name: "default.p",
    typedConfig: { "@type": fault, abort: { httpStatus: 503, percentage: { numerator: 100 } } },
  };
  const open = { name: "fault", typedConfig: { "@type": fault } };
  const outcomeOf = (...httpFilters: readonly object[]) => {
    const routeConfig = table([{ match: { prefix: "/" }, route: { cluster: "inbound|80||" } }], ["*"]);
    const filters = [{ name: "http", typedConfig: { "@type": managerType, routeConfig, httpFilters } }];
    const inbound = listener("virtualInbound", "0.0.0.0", 15006, { filterChains: [{ name: "in", filters }] });
    return simulate(world([inbound]), { direction: "inbound", port: 80 }).outcome;
  };
  assert.equal(outcomeOf(open).kind, "forward");
  assert.deepEqual(outcomeOf(open, shut), { kind: "respond", status: 503 });
  assert.deepEqual(outcomeOf(shut, nobody), { kind: "respond", status: 503 });
  assert.equal(outcomeOf(nobody, shut).kind, "refuse");
});
