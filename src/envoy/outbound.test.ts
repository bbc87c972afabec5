import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import type { KubeObject, MeshConfig } from "#objects";
import { objectChange, worldChanges } from "#model";
import { planOf, viewsOf } from "#plan";
import { envoyComplaint, withoutEnvoy } from "../../test/support/envoy.ts";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage, type Message } from "./proto/api.ts";
import { messageNameOf, type EnvoyResource } from "./resource.ts";
import { resourceOf } from "./resources.ts";
import { withHostsInTables } from "./inline-hosts.ts";
import { snapshotOf, type Snapshot } from "./snapshot.ts";

const client = proxyOf({ labels: { app: "sleep" }, serviceAccount: "sleep" });

describe("the outbound side of a sidecar", () => {
  test("a service has a cluster, endpoints, a virtual host and a listener for its port", () => {
    const world = snapshot(bookinfo());
    assert.deepEqual(names(world.cluster), [
      "BlackHoleCluster",
      "PassthroughCluster",
      "outbound|9080||reviews.default.svc.cluster.local",
    ]);
    assert.deepEqual(names(world.listener).filter(outboundOnly), ["0.0.0.0_9080", "virtualOutbound"]);
    const [host] = virtualHosts(world, "9080");
    assert.equal(host?.name, "reviews.default.svc.cluster.local:9080");
    assert.deepEqual(host?.domains, [
      "reviews.default.svc.cluster.local",
      "reviews",
      "reviews.default",
      "reviews.default.svc",
      "10.96.0.1",
    ]);
    const endpoints = decoded(world, "endpoint", "outbound|9080||reviews.default.svc.cluster.local");
    assert.deepEqual(addressesIn(endpoints), ["10.244.0.1", "10.244.0.2"]);
  });

  test("a Service's annotations name further accounts and identities that may answer for it", () => {
    const objects = bookinfo().map((one): KubeObject => {
      if (one.kind !== "Service") return one;
      const annotations = {
        "alpha.istio.io/kubernetes-serviceaccounts": "front, back",
        "alpha.istio.io/canonical-serviceaccounts": "spiffe://elsewhere/ns/a/sa/b",
      };
      return { ...one, metadata: { ...one.metadata, annotations } };
    });
    const cluster = JSON.stringify(
      decoded(snapshot(objects), "cluster", "outbound|9080||reviews.default.svc.cluster.local"),
    );
    for (const identity of [
      "spiffe://cluster.local/ns/default/sa/front",
      "spiffe://cluster.local/ns/default/sa/back",
      "spiffe://elsewhere/ns/a/sa/b",
    ])
      assert.ok(cluster.includes(`"exact":"${identity}"`), identity);
  });

  test("a subset has only the endpoints that bear its labels", () => {
    const world = snapshot([...bookinfo(), subsets()]);
    const name = "outbound|9080|v2|reviews.default.svc.cluster.local";
    assert.deepEqual(addressesIn(decoded(world, "endpoint", name)), ["10.244.0.2"]);
  });

  test("a VirtualService splits by weight and a match goes before", () => {
    const rule = virtualService("reviews", {
      hosts: ["reviews"],
      http: [
        {
          match: [{ headers: { "end-user": { exact: "jason" } } }],
          route: [{ destination: { host: "reviews", subset: "v2" } }],
        },
        {
          route: [
            { destination: { host: "reviews", subset: "v1" }, weight: 80 },
            { destination: { host: "reviews", subset: "v2" }, weight: 20 },
          ],
        },
      ],
    });
    const [host] = virtualHosts(snapshot([...bookinfo(), subsets(), rule]), "9080");
    assert.equal(host?.routes.length, 2);
    assert.equal(host?.routes[0]?.route?.cluster, "outbound|9080|v2|reviews.default.svc.cluster.local");
    assert.deepEqual(
      host?.routes[1]?.route?.weightedClusters?.clusters.map(({ weight }) => weight?.value),
      [80, 20],
    );
  });

  test("another namespace's client sees no short name of one label", () => {
    const world = snapshot(bookinfo(), {}, { ...client, namespace: "other" });
    assert.ok(!virtualHosts(world, "9080")[0]?.domains.includes("reviews"));
  });

  test("a Sidecar keeps services away, and with them their clusters and listeners", () => {
    const sidecar = object("networking.istio.io/v1", "Sidecar", "default", { egress: [{ hosts: ["./*"] }] });
    const far = service("far", 9081, { namespace: "other", clusterIP: "10.96.0.9" });
    assert.ok(names(snapshot([...bookinfo(), far]).listener).includes("0.0.0.0_9081"));
    const world = snapshot([...bookinfo(), far, sidecar]);
    assert.ok(!names(world.listener).includes("0.0.0.0_9081"));
    assert.ok(!names(world.cluster).some((name) => name.includes("far")));
  });

  test("the real Envoy takes everything", { skip: withoutEnvoy }, () => {
    const world = snapshot(wideWorld(), { accessLogFile: "/dev/stdout" });
    assert.equal(envoyComplaint(Object.values(world).flat()), "");
  });

  test("an endpoint edit runs no plan and one resource", () => {
    const { engine, settled } = watched(bookinfo());
    const before = engine.computedTotal;
    engine.apply(objectChange(slice("reviews", 9080, ["10.244.0.1", "10.244.0.3"])));
    const { changed } = engine.settle();
    assert.deepEqual(
      changed.map(({ query }) => query.name),
      ["resource.endpoint"],
    );
    assert.ok(engine.computedTotal - before < 12, `${engine.computedTotal - before} queries ran`);
    assert.ok(settled);
  });

  for (const [routeDelivery, changedAlone] of [
    ["virtual-hosts", "resource.virtualHost"],
    ["tables", "resource.route"],
  ] as const)
    test(`a change inside one virtual host runs no plan and sends one ${changedAlone} (${routeDelivery})`, () => {
      const rule = (timeout: string): KubeObject =>
        virtualService("reviews", {
          hosts: ["reviews"],
          http: [{ timeout, route: [{ destination: { host: "reviews" } }] }],
        });
      const many = Array.from({ length: 50 }, (_, at) =>
        service(`other-${at}`, 9080, { clusterIP: `10.97.0.${at}` }),
      );
      const { engine } = watched([...bookinfo(), ...many, rule("1s")], { routeDelivery });
      const before = engine.computedTotal;
      engine.apply(objectChange(rule("2s")));
      const { changed } = engine.settle();
      assert.deepEqual(
        changed.map(({ query }) => query.name),
        [changedAlone],
      );
      assert.ok(engine.computedTotal - before < 20, `${engine.computedTotal - before} queries ran`);
    });
});

/** Watches a proxy's plans and resources as the xDS server does. */
function watched(
  objects: readonly KubeObject[],
  options: Parameters<typeof worldChanges>[1] = {},
): { engine: Engine; settled: boolean } {
  const engine = new Engine();
  engine.apply(worldChanges(objects, options));
  for (const view of engine.watch(viewsOf, client)) {
    const plan = engine.watch(planOf, view);
    for (const [type, chunks] of Object.entries(plan)) {
      for (const { key } of chunks.flatMap(({ entries }) => entries)) {
        engine.watch(resourceOf[type as keyof typeof resourceOf], key as never);
      }
    }
  }
  const { failures } = engine.settle();
  assert.deepEqual(failures, []);
  return { engine, settled: true };
}

function snapshot(objects: readonly KubeObject[], mesh: MeshConfig = {}, proxy = client): Snapshot {
  const engine = new Engine();
  engine.apply(worldChanges(objects, { mesh }));
  const world = snapshotOf(engine, proxy);
  assert.deepEqual(engine.settle().failures, []);
  return world;
}

function names(resources: readonly EnvoyResource[]): string[] {
  return resources
    .map(({ name }) => name)
    .filter((name) => !name.startsWith("inbound") && !name.startsWith("Inbound"));
}

function outboundOnly(name: string): boolean {
  return name !== "virtualInbound";
}

interface DecodedHost {
  readonly name: string;
  readonly domains: readonly string[];
  readonly routes: readonly {
    readonly route?: {
      readonly cluster?: string;
      readonly weightedClusters?: {
        readonly clusters: readonly { readonly weight?: { readonly value: number } }[];
      };
    };
  }[];
}

function virtualHosts(world: Snapshot, table: string): readonly DecodedHost[] {
  const route = withHostsInTables(Object.values(world).flat()).filter(({ type }) => type === "route");
  return decoded({ ...world, route }, "route", table)["virtualHosts"] as readonly DecodedHost[];
}

function decoded(world: Snapshot, type: "route" | "endpoint" | "cluster", name: string): Message {
  const found = world[type].find((resource) => resource.name === name);
  assert.ok(found, `no ${type} ${name} among ${world[type].map((one) => one.name).join(", ")}`);
  return decodeMessage(messageNameOf(type), found.bytes);
}

function addressesIn(assignment: Message): string[] {
  const localities = assignment["endpoints"] as readonly {
    readonly lbEndpoints: readonly {
      readonly endpoint: { readonly address: { readonly socketAddress: { readonly address: string } } };
    }[];
  }[];
  return localities.flatMap(({ lbEndpoints }) =>
    lbEndpoints.map(({ endpoint }) => endpoint.address.socketAddress.address),
  );
}

function bookinfo(): KubeObject[] {
  return [
    service("reviews", 9080, { clusterIP: "10.96.0.1" }),
    slice("reviews", 9080, ["10.244.0.1", "10.244.0.2"]),
    pod("reviews-v1", "10.244.0.1", { app: "reviews", version: "v1", "security.istio.io/tlsMode": "istio" }),
    pod("reviews-v2", "10.244.0.2", { app: "reviews", version: "v2" }),
  ];
}

function subsets(): KubeObject {
  return object("networking.istio.io/v1", "DestinationRule", "reviews", {
    host: "reviews",
    subsets: [
      { name: "v1", labels: { version: "v1" } },
      { name: "v2", labels: { version: "v2" } },
    ],
  });
}

/** Every kind of port, resolution and rule that the outbound side knows. */
function wideWorld(): KubeObject[] {
  return [
    ...bookinfo(),
    subsets(),
    object(
      "v1",
      "Service",
      "many",
      {
        clusterIP: "10.96.0.2",
        ports: [
          { name: "http", port: 80 },
          { name: "auto", port: 81 },
          { name: "tcp", port: 82 },
          { name: "tls", port: 83 },
          { name: "https", port: 443 },
          { name: "grpc", port: 85 },
          { name: "udp", port: 86, protocol: "UDP" },
          { name: "mysql", port: 3306 },
        ],
      },
      "default",
    ),
    object("v1", "Service", "web", {
      clusterIP: "None",
      ports: [
        { name: "http", port: 8000 },
        { name: "tcp", port: 8001 },
      ],
    }),
    {
      ...slice("web", 8001, ["10.244.0.7"]),
      ports: [
        { name: "tcp", port: 8001 },
        { name: "http", port: 8000 },
      ],
    } as KubeObject,
    object("v1", "Service", "alias", {
      type: "ExternalName",
      externalName: "reviews.default.svc.cluster.local",
    }),
    object("networking.istio.io/v1", "ServiceEntry", "static", {
      hosts: ["static.example.com"],
      addresses: ["192.0.2.0/24"],
      resolution: "STATIC",
      endpoints: [{ address: "192.0.2.1", locality: "r1/z1" }, { address: "unix:///var/run/x.sock" }],
      ports: [
        { number: 9000, name: "tcp", protocol: "TCP" },
        { number: 9001, name: "https", protocol: "HTTPS" },
      ],
    }),
    object("networking.istio.io/v1", "ServiceEntry", "dns", {
      hosts: ["api.example.com"],
      resolution: "DNS",
      ports: [
        { number: 80, name: "http", protocol: "HTTP" },
        { number: 443, name: "tls", protocol: "TLS" },
      ],
    }),
    object("networking.istio.io/v1", "ServiceEntry", "none", {
      hosts: ["*.wild.example.com"],
      resolution: "NONE",
      ports: [{ number: 443, name: "tls", protocol: "TLS" }],
    }),
    object("networking.istio.io/v1", "DestinationRule", "api", {
      host: "api.example.com",
      trafficPolicy: {
        portLevelSettings: [{ port: { number: 80 }, tls: { mode: "SIMPLE" } }],
      },
    }),
    object("networking.istio.io/v1", "DestinationRule", "many", {
      host: "many.default.svc.cluster.local",
      trafficPolicy: {
        loadBalancer: { consistentHash: { httpCookie: { name: "user", ttl: "3600s" } } },
        connectionPool: {
          tcp: { maxConnections: 10, connectTimeout: "2s", tcpKeepalive: { time: "60s", interval: "5s" } },
          http: { http2MaxRequests: 10, maxRequestsPerConnection: 5, idleTimeout: "30s", maxRetries: 3 },
        },
        outlierDetection: { consecutive5xxErrors: 3, interval: "5s", baseEjectionTime: "30s" },
        tls: { mode: "ISTIO_MUTUAL" },
        proxyProtocol: { version: "V2" },
      },
    }),
    virtualService("everything", {
      hosts: ["many", "nobody.example.com", "*.nowhere.example.com"],
      http: [
        {
          name: "a",
          match: [{ uri: { exact: "/a" } }, { uri: { regex: "/b.*" }, method: { exact: "GET" } }],
          redirect: { uri: "/c", authority: "x.example.com", port: 8080, scheme: "https", redirectCode: 307 },
        },
        {
          match: [
            {
              queryParams: { q: { regex: "x+" } },
              withoutHeaders: { "x-no": { prefix: "n" }, "x-any": {} },
              ignoreUriCase: true,
              uri: { prefix: "/d" },
            },
          ],
          directResponse: { status: 418, body: { string: "teapot" } },
        },
        {
          match: [
            {
              authority: { exact: "many" },
              scheme: { exact: "http" },
              sourceLabels: { app: "sleep" },
              port: 80,
            },
          ],
          route: [
            {
              destination: { host: "reviews", port: { number: 9080 }, subset: "v1" },
              headers: { request: { set: { Host: "elsewhere" } } },
            },
          ],
          rewrite: { uriRegexRewrite: { match: "/x/(.*)", rewrite: "/\\1" } },
          mirror: { host: "many" },
          mirrorPercentage: { value: 12.5 },
          fault: {
            delay: { fixedDelay: "1s", percentage: { value: 10 } },
            abort: { httpStatus: 503, percentage: { value: 5 } },
          },
          corsPolicy: {
            allowOrigins: [{ exact: "https://a" }],
            allowMethods: ["GET"],
            maxAge: "24h",
            allowCredentials: true,
          },
          retries: { attempts: 3, perTryTimeout: "1s", retryOn: "5xx,429", retryRemoteLocalities: true },
          timeout: "5s",
          headers: {
            request: { add: { "x-a": "b" }, remove: ["x-c"] },
            response: { set: { "x-d": "%PROTOCOL%" } },
          },
        },
        { delegate: { name: "delegate" }, match: [{ uri: { prefix: "/deleg" } }] },
        { route: [{ destination: { host: "many" } }] },
      ],
      tcp: [
        {
          match: [{ port: 82 }],
          route: [
            { destination: { host: "many", port: { number: 82 } }, weight: 50 },
            { destination: { host: "reviews", port: { number: 9080 } }, weight: 50 },
          ],
        },
      ],
      tls: [
        {
          match: [{ port: 443, sniHosts: ["many.default.svc.cluster.local"] }],
          route: [{ destination: { host: "many", port: { number: 443 } } }],
        },
      ],
    }),
    virtualService("delegate", {
      http: [{ match: [{ uri: { prefix: "/delegated" } }], route: [{ destination: { host: "reviews" } }] }],
    }),
  ];
}

function service(
  name: string,
  port: number,
  { namespace = "default", clusterIP = "" }: { namespace?: string; clusterIP?: string },
): KubeObject {
  return object(
    "v1",
    "Service",
    name,
    { clusterIP, selector: { app: name }, ports: [{ name: "http", port }] },
    namespace,
  );
}

function slice(name: string, port: number, addresses: readonly string[]): KubeObject {
  return {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: { name: `${name}-1`, namespace: "default", labels: { "kubernetes.io/service-name": name } },
    addressType: "IPv4",
    endpoints: addresses.map((address) => ({ addresses: [address], conditions: { ready: true } })),
    ports: [{ name: "http", port }],
  } as KubeObject;
}

function pod(name: string, podIP: string, labels: Readonly<Record<string, string>>): KubeObject {
  const made = object("v1", "Pod", name, { serviceAccountName: "bookinfo-reviews" });
  return { ...made, metadata: { ...made.metadata, labels }, status: { podIP } };
}

function virtualService(name: string, spec: object): KubeObject {
  return object("networking.istio.io/v1", "VirtualService", name, spec);
}

function object(
  apiVersion: string,
  kind: string,
  name: string,
  spec: object,
  namespace = "default",
): KubeObject {
  return { apiVersion, kind, metadata: { name, namespace, creationTimestamp: "2026-01-01T00:00:00Z" }, spec };
}
