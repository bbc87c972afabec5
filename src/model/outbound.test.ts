import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import type { KubeObject } from "#objects";
import { proxyOf } from "../../test/support/proxies.ts";
import { mergedRule, rulesFor } from "./destination-rule.ts";
import { bySpecificity, fullHost, hostCovers, hostGroups, wildcardsOf } from "./hosts.ts";
import { endpointsOf, serviceAccountsOf } from "./endpoints.ts";
import { listenerProtocol, selectProtocol } from "./protocol.ts";
import { isImported, outboundScopeOf, unknownTrafficOf, visibleService } from "./scope.ts";
import { serviceOf, servicesOfNamespace } from "./services.ts";
import { httpRoutesOf, routesFor } from "./virtual-service.ts";
import { worldChanges } from "./world.ts";

describe("hosts", () => {
  test("a name without a dot is completed in its namespace", () => {
    assert.equal(fullHost("reviews", "a", "cluster.local"), "reviews.a.svc.cluster.local");
    assert.equal(fullHost("reviews.a", "b", "cluster.local"), "reviews.a");
    assert.equal(fullHost("*", "b", "cluster.local"), "*");
  });

  test("a cluster's own host is found under its short name too", () => {
    assert.deepEqual(hostGroups("reviews.a.svc.cluster.local", "cluster.local"), [
      "reviews.a.svc.cluster.local",
      "a/reviews",
    ]);
    assert.deepEqual(hostGroups("example.com", "cluster.local"), ["example.com"]);
  });

  test("wildcards cover by whole labels, the most specific first", () => {
    assert.ok(hostCovers("*.example.com", "a.example.com"));
    assert.ok(!hostCovers("*.example.com", "example.com"));
    assert.ok(!hostCovers("*.example.com", "anexample.com"));
    assert.deepEqual(wildcardsOf("a.b.c"), ["*.b.c", "*.c", "*"]);
    assert.deepEqual(["*", "*.c", "a.c", "*.b.c"].toSorted(bySpecificity), ["a.c", "*.b.c", "*.c", "*"]);
  });
});

describe("protocols", () => {
  const cases = [
    [{ port: 80, name: "http-web" }, "http"],
    [{ port: 80, name: "grpc-web-x" }, "grpc-web"],
    [{ port: 80, name: "web" }, "auto"],
    [{ port: 80 }, "auto"],
    [{ port: 3306 }, "tcp"],
    [{ port: 3306, name: "http" }, "http"],
    [{ port: 80, name: "tcp", appProtocol: "http2" }, "http2"],
    [{ port: 80, appProtocol: "kubernetes.io/h2c" }, "http2"],
    [{ port: 53, name: "http", protocol: "UDP" }, "udp"],
    [{ port: 443, name: "HTTPS" }, "https"],
  ] as const;
  for (const [port, protocol] of cases) {
    test(`${JSON.stringify(port)} is ${protocol}`, () => assert.equal(selectProtocol(port), protocol));
  }

  test("UDP is left alone, TLS is a stream", () => {
    assert.equal(listenerProtocol("udp"), "none");
    assert.equal(listenerProtocol("https"), "tcp");
  });
});

describe("services and endpoints", () => {
  test("a Pod behind an EndpointSlice gives its labels, identity and locality", () => {
    const engine = world([
      service("reviews", "a"),
      slice("reviews", "a", "10.0.0.1"),
      pod("reviews-v1-abc", "a", "10.0.0.1", { version: "v1", "security.istio.io/tlsMode": "istio" }),
      {
        apiVersion: "v1",
        kind: "Node",
        metadata: {
          name: "n1",
          labels: { "topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z" },
        },
      },
    ]);
    const key = "a/reviews.a.svc.cluster.local";
    const [endpoint] = engine.get(endpointsOf, key);
    assert.equal(endpoint?.address, "10.0.0.1");
    assert.equal(endpoint?.port, 8080);
    assert.equal(endpoint?.locality, "r/z");
    assert.equal(endpoint?.mesh, true);
    assert.deepEqual(engine.get(serviceAccountsOf, key), ["a/bookinfo"]);
  });

  test("ServiceEntries of one namespace with one host are one service with both's ports", () => {
    const entry = (name: string, number: number): KubeObject =>
      object("ServiceEntry", "a", name, {
        hosts: ["api.example.com"],
        resolution: "STATIC",
        ports: [{ number, name: `p${number}`, protocol: "HTTP" }],
        endpoints: [{ address: `192.0.2.${number}` }],
      });
    const engine = world([entry("one", 80), entry("two", 81)]);
    assert.deepEqual(engine.get(servicesOfNamespace, "a"), ["a/api.example.com"]);
    const found = engine.get(serviceOf, "a/api.example.com");
    assert.deepEqual(
      found?.ports.map(({ port }) => port),
      [80, 81],
    );
    assert.equal(engine.get(endpointsOf, "a/api.example.com").length, 4);
  });

  test("what is exported to other namespaces only is not seen", () => {
    const hidden = service("hidden", "b");
    const engine = world([
      { ...hidden, metadata: { ...hidden.metadata, annotations: { "networking.istio.io/exportTo": "." } } },
    ]);
    const host = "hidden.b.svc.cluster.local";
    const see = (namespace: string): string | undefined => {
      const scope = engine.get(outboundScopeOf, { ...client, namespace });
      return engine.get(visibleService, { outlet: { scope, port: 0 }, host });
    };
    assert.equal(see("a"), undefined);
    assert.equal(see("b"), `b/${host}`);
  });
});

describe("Sidecars", () => {
  test("the one that selects the workload goes before the namespace's, and that before the mesh's", () => {
    const sidecar = (namespace: string, name: string, labels?: Record<string, string>): KubeObject =>
      object("Sidecar", namespace, name, {
        ...(labels === undefined ? {} : { workloadSelector: { labels } }),
        egress: [{ hosts: ["./*"] }],
      });
    const all = [
      sidecar("istio-d", "mesh"),
      sidecar("a", "namespace"),
      sidecar("a", "own", { app: "sleep" }),
      sidecar("a", "other", { app: "other" }),
    ];
    const chosen = (objects: readonly KubeObject[]): string =>
      world(objects).get(outboundScopeOf, client).sidecar;
    assert.equal(chosen(all), "a/own");
    assert.equal(chosen(all.slice(0, 2)), "a/namespace");
    assert.equal(chosen(all.slice(0, 1)), "istio-d/mesh");
    assert.equal(chosen([]), "");
  });

  test("an excluded host is not imported, whatever else is", () => {
    const imports = [
      { namespace: "*", host: "*", excluded: false },
      { namespace: "b", host: "secret.b.svc.cluster.local", excluded: true },
    ];
    assert.ok(isImported(imports, "b", "open.b.svc.cluster.local"));
    assert.ok(!isImported(imports, "b", "secret.b.svc.cluster.local"));
  });

  test("an egress proxy takes what no service claims", () => {
    const engine = world([
      object("Sidecar", "a", "default", {
        egress: [{ hosts: ["./*"] }],
        outboundTrafficPolicy: { mode: "ALLOW_ANY", egressProxy: { host: "proxy", port: { number: 3128 } } },
      }),
    ]);
    const scope = engine.get(outboundScopeOf, client);
    assert.deepEqual(engine.get(unknownTrafficOf, scope), {
      kind: "proxy",
      host: "proxy.a.svc.cluster.local",
      port: 3128,
      subset: "",
    });
  });
});

describe("rules for a host", () => {
  const rule = (namespace: string, name: string, host: string, spec: object = {}): KubeObject =>
    object("DestinationRule", namespace, name, { host, ...spec });
  const ask = (engine: Engine): readonly string[] =>
    engine.get(rulesFor, {
      client: "a",
      labels: {},
      host: "reviews.b.svc.cluster.local",
      serviceNamespace: "b",
    });

  test("the client's namespace goes before the service's, and that before the root", () => {
    const all = [
      rule("istio-d", "root", "*.svc.cluster.local"),
      rule("b", "service", "reviews"),
      rule("a", "client", "reviews.b.svc.cluster.local"),
    ];
    assert.deepEqual(ask(world(all)), ["a/client"]);
    assert.deepEqual(ask(world(all.slice(0, 2))), ["b/service"]);
    assert.deepEqual(ask(world(all.slice(0, 1))), ["istio-d/root"]);
  });

  test("a short name in the client's namespace means that namespace's service", () => {
    assert.deepEqual(ask(world([rule("a", "client", "reviews")])), []);
  });

  test("several for one host are merged: subsets add up, the oldest policy counts", () => {
    const engine = world([
      rule("b", "one", "reviews", { trafficPolicy: { tls: { mode: "DISABLE" } }, subsets: [{ name: "v1" }] }),
      rule("b", "two", "reviews", { trafficPolicy: { tls: { mode: "SIMPLE" } }, subsets: [{ name: "v2" }] }),
    ]);
    const merged = engine.get(mergedRule, ask(engine).join(","));
    assert.equal(merged.trafficPolicy.tls?.mode, "DISABLE");
    assert.deepEqual(
      merged.subsets.map(({ name }) => name),
      ["v1", "v2"],
    );
  });

  test("an exact VirtualService goes before a wildcard, and the older of two first", () => {
    const route = (name: string, hosts: readonly string[]): KubeObject =>
      object("VirtualService", "a", name, { hosts, http: [{ route: [{ destination: { host: "x" } }] }] });
    const engine = world([
      route("wild", ["*.svc.cluster.local"]),
      route("one", ["reviews"]),
      route("two", ["reviews.a.svc.cluster.local"]),
    ]);
    const outlet = { scope: engine.get(outboundScopeOf, client), port: 0 };
    const found = (host: string): readonly string[] => engine.get(routesFor, { outlet, host });
    assert.deepEqual(found("reviews.a.svc.cluster.local"), ["a/one", "a/two"]);
    assert.deepEqual(found("other.a.svc.cluster.local"), ["a/wild"]);
  });

  test("a host of the mesh is routed by its owner's namespace; others route their own calls of it", () => {
    const objects = [
      service("reviews", "a"),
      object("VirtualService", "b", "foreign", { hosts: ["reviews.a.svc.cluster.local"], http: [{}] }),
    ];
    const routesOf = (engine: Engine, namespace: string): readonly string[] => {
      const outlet = { scope: engine.get(outboundScopeOf, { ...client, namespace }), port: 0 };
      return engine.get(routesFor, { outlet, host: "reviews.a.svc.cluster.local" });
    };
    const engine = world(objects);
    assert.deepEqual(routesOf(engine, "b"), ["b/foreign"]);
    assert.deepEqual(routesOf(engine, "a"), []);
    assert.deepEqual(routesOf(engine, "c"), []);
    const asIstio = new Engine();
    asIstio.apply(worldChanges(objects, { foreignRoutes: "all-clients" }));
    assert.deepEqual(routesOf(asIstio, "a"), ["b/foreign"]);
  });

  test("a delegate's routes stand under the conditions of the route that delegates", () => {
    const engine = world([
      object("VirtualService", "a", "root", {
        hosts: ["reviews"],
        http: [{ match: [{ uri: { prefix: "/x" } }], delegate: { name: "part", namespace: "b" } }],
      }),
      object("VirtualService", "b", "part", {
        http: [
          { match: [{ uri: { prefix: "/x/in" } }], route: [{ destination: { host: "in" } }] },
          { match: [{ uri: { prefix: "/out" } }], route: [{ destination: { host: "out" } }] },
          { route: [{ destination: { host: "rest" } }] },
        ],
      }),
    ]);
    const routes = engine.get(httpRoutesOf, "a/root");
    assert.deepEqual(
      routes.map(({ match, route }) => [match?.[0]?.uri?.prefix, route?.[0]?.destination.host]),
      [
        ["/x/in", "in.b.svc.cluster.local"],
        ["/x", "rest.b.svc.cluster.local"],
      ],
    );
  });

  test("a delegate of another namespace is followed where it is exported to the root's, by itself or by the mesh's default", () => {
    const destinations = (
      exportTo: readonly string[] | undefined,
      mesh: object = {},
    ): readonly (string | undefined)[] => {
      const engine = new Engine();
      const part = { http: [{ route: [{ destination: { host: "in" } }] }], exportTo };
      const objects = [
        object("VirtualService", "a", "root", {
          hosts: ["reviews"],
          http: [{ delegate: { name: "part", namespace: "b" } }],
        }),
        object("VirtualService", "b", "part", part),
      ];
      engine.apply(worldChanges(objects, { mesh }));
      return engine.get(httpRoutesOf, "a/root").map(({ route }) => route?.[0]?.destination.host);
    };
    const followed = ["in.b.svc.cluster.local"];
    for (const exportTo of [undefined, [], ["*"], ["a"], [".", "a"]])
      assert.deepEqual(destinations(exportTo), followed);
    for (const exportTo of [["."], ["c"], ["~"]]) assert.deepEqual(destinations(exportTo), []);
    const ownAlone = { defaultVirtualServiceExportTo: ["."] };
    assert.deepEqual(destinations(undefined, ownAlone), []);
    assert.deepEqual(destinations(["a"], ownAlone), followed);
  });
});

const client = proxyOf({
  namespace: "a",
  labels: { app: "sleep" },
  serviceAccount: "sleep",
  dnsDomain: "a.svc.cluster.local",
});

function world(objects: readonly KubeObject[]): Engine {
  const engine = new Engine();
  engine.apply(worldChanges(objects));
  return engine;
}

function object(kind: string, namespace: string, name: string, spec: object): KubeObject {
  return { apiVersion: "v1", kind, metadata: { namespace, name }, spec };
}

function service(name: string, namespace: string): KubeObject {
  return object("Service", namespace, name, {
    clusterIP: "10.96.0.1",
    ports: [{ name: "http", port: 80, targetPort: 8080 }],
  });
}

function slice(name: string, namespace: string, address: string): KubeObject {
  return {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: { name, namespace, labels: { "kubernetes.io/service-name": name } },
    endpoints: [{ addresses: [address] }],
    ports: [{ name: "http", port: 8080 }],
  } as KubeObject;
}

function pod(
  name: string,
  namespace: string,
  podIP: string,
  labels: Readonly<Record<string, string>>,
): KubeObject {
  const made = object("Pod", namespace, name, { serviceAccountName: "bookinfo", nodeName: "n1" });
  return { ...made, metadata: { ...made.metadata, labels }, status: { podIP } };
}
