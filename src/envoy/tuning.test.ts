import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { accessLogServiceField, tracerField } from "#base";
import { Engine } from "#engine";
import { worldChanges, type ProxyClass, type ProxyTuning } from "#model";
import type { KubeObject, MeshConfig, MeshProxyConfig } from "#objects";
import { envoyComplaint, withoutEnvoy } from "../../test/support/envoy.ts";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage, messageNameOf, type EnvoyResource, type Message } from "./index.ts";
import { snapshotOf } from "./snapshot.ts";

const client = proxyOf({ labels: { app: "sleep" } });
const server = proxyOf({ labels: { app: "shop" } });
const gateway = proxyOf({ kind: "router", labels: { istio: "edge" }, interception: "NONE" });

function object(apiVersion: string, kind: string, name: string, spec: object): KubeObject {
  return { apiVersion, kind, metadata: { name, namespace: "default" }, spec };
}

const rewritten = { route: [{ destination: { host: "shop" } }], rewrite: { authority: "other.example.com" } };
const objects = [
  object("v1", "Service", "shop", {
    clusterIP: "10.96.0.7",
    selector: { app: "shop" },
    ports: [
      { port: 80, name: "http", targetPort: 8080 },
      { port: 90, name: "web", targetPort: 9090 },
    ],
  }),
  object("networking.istio.io/v1", "Gateway", "edge", {
    selector: { istio: "edge" },
    servers: [{ port: { number: 80, name: "http", protocol: "HTTP" }, hosts: ["*"] }],
  }),
  object("networking.istio.io/v1", "VirtualService", "shop", {
    hosts: ["shop.default.svc.cluster.local"],
    gateways: ["mesh", "edge"],
    http: [rewritten],
  }),
];

function resources(
  proxy: ProxyClass,
  defaultConfig: MeshProxyConfig = {},
  more: MeshConfig = {},
  others: readonly KubeObject[] = [],
): readonly EnvoyResource[] {
  const engine = new Engine();
  engine.apply(
    worldChanges([...objects, ...others], { rootNamespace: "istio-d", mesh: { ...more, defaultConfig } }),
  );
  return Object.values(snapshotOf(engine, proxy)).flat();
}

const names = {
  listener: { client: "0.0.0.0_80", server: "virtualInbound", gateway: "0.0.0.0_80" },
  cluster: {
    client: "outbound|80||shop.default.svc.cluster.local",
    server: "inbound|8080||",
    gateway: "outbound|80||shop.default.svc.cluster.local",
  },
} as const;
const proxies = { client, server, gateway };
type Side = keyof typeof proxies;

function message(all: readonly EnvoyResource[], type: "listener" | "cluster", name: string): Message {
  const found = all.find((one) => one.type === type && one.name === name);
  assert.ok(found, `${type} ${name}`);
  return decodeMessage(messageNameOf(type), found.bytes);
}

/** The first connection manager of a side's listener. */
function managerOf(all: readonly EnvoyResource[], side: Side): Message {
  const { filterChains } = message(all, "listener", names.listener[side]) as unknown as {
    readonly filterChains: readonly { readonly filters: readonly { readonly typedConfig: Message }[] }[];
  };
  const found = filterChains
    .flatMap(({ filters }) => filters.map(({ typedConfig }) => typedConfig))
    .find((config) => "httpFilters" in config);
  assert.ok(found);
  return found;
}

function routerOf(manager: Message): Message {
  const { httpFilters } = manager as unknown as { readonly httpFilters: { readonly typedConfig: Message }[] };
  return httpFilters.at(-1)?.typedConfig ?? {};
}

/** Virtual hosts and tables, as text. */
function routesText(all: readonly EnvoyResource[]): string {
  const found = all.filter(({ type }) => type === "route" || type === "virtualHost");
  return JSON.stringify(found.map(({ type, bytes }) => decodeMessage(messageNameOf(type), bytes)));
}

/** A setting, what a connection manager says of it, and on which sides. */
const ofManagers: readonly (readonly [string, ProxyTuning, readonly Side[], Message])[] = [
  [
    "no setting",
    {},
    ["server", "gateway"],
    { serverName: "istio-envoy", serverHeaderTransformation: undefined },
  ],
  ["no setting to the application beside", {}, ["client"], { serverName: "envoy" }],
  [
    "server.value",
    { proxyHeaders: { server: { value: "mine" } } },
    ["client", "server", "gateway"],
    { serverName: "mine" },
  ],
  [
    "server.disabled",
    { proxyHeaders: { server: { disabled: true } } },
    ["client", "server", "gateway"],
    { serverName: undefined, serverHeaderTransformation: "PASS_THROUGH" },
  ],
  [
    "requestId.disabled",
    { proxyHeaders: { requestId: { disabled: true } } },
    ["client", "server", "gateway"],
    { generateRequestId: {} },
  ],
  [
    "forwardedClientCert",
    { proxyHeaders: { forwardedClientCert: "SANITIZE" } },
    ["server"],
    { forwardClientCertDetails: undefined },
  ],
  [
    "forwardedClientCert, which gatewayTopology is for at gateways",
    { proxyHeaders: { forwardedClientCert: "FORWARD_ONLY" } },
    ["gateway"],
    { forwardClientCertDetails: "SANITIZE_SET" },
  ],
  [
    "setCurrentClientCertDetails",
    {
      proxyHeaders: {
        setCurrentClientCertDetails: { subject: true, cert: true, chain: true, dns: false, uri: false },
      },
    },
    ["server"],
    { setCurrentClientCertDetails: { subject: { value: true }, cert: true, chain: true } },
  ],
  [
    "preserveHttp1HeaderCase",
    { proxyHeaders: { preserveHttp1HeaderCase: true } },
    ["client", "server", "gateway"],
    {
      httpProtocolOptions: {
        acceptHttp_10: true,
        defaultHostForHttp_10: "http10.invalid",
        headerKeyFormat: {
          statefulFormatter: {
            name: "preserve_case",
            typedConfig: {
              "@type":
                "type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig",
            },
          },
        },
      },
    },
  ],
  [
    "xForwardedPort",
    { proxyHeaders: { xForwardedPort: { enabled: true } } },
    ["client", "server", "gateway"],
    { appendXForwardedPort: true },
  ],
  [
    "metadataExchangeHeaders, which stock Envoys never send",
    { proxyHeaders: { metadataExchangeHeaders: { mode: "IN_MESH" } } },
    ["client", "server", "gateway"],
    { generateRequestId: { value: true } },
  ],
  [
    "time limits",
    {
      connectionSettings: {
        httpIdleTimeout: "7s",
        httpMaxConnectionDuration: "8s",
        httpMaxStreamDuration: "9s",
        httpDrainTimeout: "1.5s",
        httpRequestTimeout: "11s",
        httpRequestHeadersTimeout: "12s",
        httpStreamIdleTimeout: "13s",
      },
    },
    ["client", "server", "gateway"],
    {
      commonHttpProtocolOptions: {
        idleTimeout: { seconds: 7 },
        maxConnectionDuration: { seconds: 8 },
        maxStreamDuration: { seconds: 9 },
      },
      drainTimeout: { seconds: 1, nanos: 500_000_000 },
      requestTimeout: { seconds: 11 },
      requestHeadersTimeout: { seconds: 12 },
      streamIdleTimeout: { seconds: 13 },
    },
  ],
  [
    "HTTP/2",
    {
      connectionSettings: {
        httpMaxConcurrentStreams: 50,
        http2InitialStreamWindowSize: 70_000,
        http2InitialConnectionWindowSize: 80_000,
      },
    },
    ["client", "server", "gateway"],
    {
      http2ProtocolOptions: {
        maxConcurrentStreams: { value: 50 },
        initialStreamWindowSize: { value: 70_000 },
        initialConnectionWindowSize: { value: 80_000 },
      },
    },
  ],
  [
    "paths and names of headers, which go before MeshConfig's pathNormalization",
    {
      connectionSettings: {
        httpMergeSlashes: true,
        httpPathWithEscapedSlashesAction: "REJECT_REQUEST",
        httpHeadersWithUnderscoresAction: "HEADERS_WITH_UNDERSCORES_DROP_HEADER",
      },
    },
    ["client", "server", "gateway"],
    {
      mergeSlashes: true,
      pathWithEscapedSlashesAction: "REJECT_REQUEST",
      commonHttpProtocolOptions: {
        idleTimeout: { seconds: 3600 },
        headersWithUnderscoresAction: "DROP_HEADER",
      },
    },
  ],
  [
    "EDGE, at gateways",
    { connectionSettings: { profile: "EDGE", httpRequestTimeout: "1s" } },
    ["gateway"],
    {
      mergeSlashes: true,
      pathWithEscapedSlashesAction: "UNESCAPE_AND_REDIRECT",
      requestTimeout: { seconds: 1 },
      requestHeadersTimeout: { seconds: 60 },
      streamIdleTimeout: { seconds: 300 },
      commonHttpProtocolOptions: {
        idleTimeout: { seconds: 3600 },
        headersWithUnderscoresAction: "REJECT_REQUEST",
      },
      http2ProtocolOptions: {
        maxConcurrentStreams: { value: 100 },
        initialStreamWindowSize: { value: 65_536 },
        initialConnectionWindowSize: { value: 1_048_576 },
      },
    },
  ],
  [
    "EDGE, which has no defaults for sidecars",
    { connectionSettings: { profile: "EDGE" } },
    ["client", "server"],
    {
      mergeSlashes: undefined,
      streamIdleTimeout: {},
      http2ProtocolOptions: { maxConcurrentStreams: { value: 1024 } },
    },
  ],
];

describe("tuning of connection managers", () => {
  for (const [setting, tuning, sides, expected] of ofManagers)
    for (const side of sides)
      test(`${setting}: ${side}, said by MeshConfig or by the Pod`, () => {
        const byMesh = managerOf(resources(proxies[side], tuning), side);
        const byPod = managerOf(resources({ ...proxies[side], tuning }), side);
        for (const manager of [byMesh, byPod])
          assert.deepEqual(
            Object.fromEntries(Object.keys(expected).map((key) => [key, manager[key]])),
            expected,
          );
      });

  test("envoyDebugHeaders.disabled keeps the router from adding x-envoy headers", () => {
    for (const side of ["client", "server", "gateway"] as const) {
      const disabled = { proxyHeaders: { envoyDebugHeaders: { disabled: true } } };
      const router = routerOf(managerOf(resources(proxies[side], disabled), side));
      assert.equal(router["suppressEnvoyHeaders"], true, side);
      assert.equal(routerOf(managerOf(resources(proxies[side]), side))["suppressEnvoyHeaders"], undefined);
    }
  });
});

test("the service for access logs is told where MeshConfig says so, by proxies whose bootstrap knows it", () => {
  const enabled = { enableEnvoyAccessLogService: true };
  const knowing = { metadata: { [accessLogServiceField]: "true" } };
  for (const side of ["client", "server", "gateway"] as const) {
    const told = (all: readonly EnvoyResource[]): readonly string[] =>
      (managerOf(all, side)["accessLog"] as readonly { readonly name: string }[])
        .map(({ name }) => name)
        .filter((name) => name.endsWith("http_grpc"));
    assert.deepEqual(told(resources({ ...proxies[side], ...knowing }, {}, enabled)), [
      "envoy.access_loggers.http_grpc",
    ]);
    assert.deepEqual(told(resources({ ...proxies[side], ...knowing })), []);
    assert.deepEqual(told(resources(proxies[side], {}, enabled)), [], "Envoy would refuse the listener");
  }
  const listener = JSON.stringify(
    message(resources({ ...server, ...knowing }, {}, enabled), "listener", "virtualInbound"),
  );
  for (const place of ["http", "tcp", "listener"])
    assert.ok(listener.includes(`"${place}_envoy_accesslog"`), place);
});

describe("a collector of spans that the bootstrap knows", () => {
  const knowing = { metadata: { [tracerField]: "zipkin" } };
  const tracingOf = (proxy: ProxyClass, mesh: MeshConfig, more: readonly KubeObject[] = []) =>
    managerOf(resources(proxy, mesh.defaultConfig, mesh, more), "server")["tracing"] as Message | undefined;
  const telemetry = (spec: object) => object("telemetry.istio.io/v1", "Telemetry", "mine", spec);

  test("gets spans where neither Telemetry nor a provider of MeshConfig has a say", () => {
    const proxy = { ...server, ...knowing };
    const message = tracingOf(proxy, { defaultConfig: { tracing: { sampling: 5, enableIstioTags: false } } });
    assert.match(JSON.stringify(message), /"collectorCluster":"zipkin"/);
    assert.deepEqual(message?.["randomSampling"], { value: 5 });
    assert.equal(message?.["customTags"], undefined);
    assert.match(JSON.stringify(tracingOf(proxy, {})), /"istio.canonical_service"/);
    const datadog = tracingOf({ ...server, metadata: { [tracerField]: "datadog" } }, {});
    assert.match(JSON.stringify(datadog), /"collectorCluster":"datadog_agent".*DatadogConfig/);
    assert.equal(tracingOf(server, {}), undefined, "one whose bootstrap knows none");
    assert.equal(tracingOf(proxy, { enableTracing: false }), undefined);
    assert.equal(tracingOf(proxy, {}, [telemetry({ tracing: [{ disableSpanReporting: true }] })]), undefined);
    assert.equal(tracingOf(proxy, { defaultProviders: { tracing: ["none of them"] } }), undefined);
  });

  test("a Pod's own sampling holds for spans that go to a provider, too", () => {
    const extensionProviders = [
      { name: "spans", zipkin: { service: "shop.default.svc.cluster.local", port: 80 } },
    ];
    const asked = telemetry({ tracing: [{ providers: [{ name: "spans" }] }] });
    const mesh = { extensionProviders, defaultConfig: { tracing: { sampling: 5 } } };
    assert.deepEqual(tracingOf(server, mesh, [asked])?.["randomSampling"], { value: 5 });
    const own = { ...server, tuning: { tracing: { sampling: 50 } } };
    assert.deepEqual(tracingOf(own, mesh, [asked])?.["randomSampling"], { value: 50 });
  });
});

describe("tuning of routes", () => {
  test("attemptCount.disabled takes the count from every virtual host, the catch-all too", () => {
    for (const proxy of [client, gateway]) {
      assert.match(routesText(resources(proxy)), /"includeRequestAttemptCount":true/);
      const disabled = { proxyHeaders: { attemptCount: { disabled: true } } };
      assert.doesNotMatch(routesText(resources(proxy, disabled)), /includeRequestAttemptCount/);
      assert.doesNotMatch(
        routesText(resources({ ...proxy, tuning: disabled })),
        /includeRequestAttemptCount/,
      );
    }
  });

  test("xForwardedHost tells the application of a rewritten host", () => {
    for (const proxy of [client, gateway]) {
      assert.doesNotMatch(routesText(resources(proxy)), /appendXForwardedHost/);
      const enabled = { proxyHeaders: { xForwardedHost: { enabled: true } } };
      assert.match(routesText(resources(proxy, enabled)), /"appendXForwardedHost":true/);
      assert.match(routesText(resources({ ...proxy, tuning: enabled })), /"appendXForwardedHost":true/);
    }
  });
});

describe("tuning of listeners and clusters", () => {
  const connectionSettings = {
    listenerPerConnectionBufferLimitBytes: 10_000,
    clusterPerConnectionBufferLimitBytes: 20_000,
  };
  for (const side of ["client", "server", "gateway"] as const) {
    test(`buffers: ${side}`, () => {
      const bufferOf = (all: readonly EnvoyResource[], type: "listener" | "cluster") =>
        message(all, type, names[type][side])["perConnectionBufferLimitBytes"];
      const usual = resources(proxies[side]);
      assert.equal(bufferOf(usual, "listener"), undefined);
      assert.equal(bufferOf(usual, "cluster"), undefined);
      const tuned = [
        resources(proxies[side], { connectionSettings }),
        resources({ ...proxies[side], tuning: { connectionSettings } }),
      ];
      for (const all of tuned) {
        assert.deepEqual(bufferOf(all, "listener"), { value: 10_000 });
        assert.deepEqual(bufferOf(all, "cluster"), { value: 20_000 });
      }
      const edge = resources(proxies[side], { connectionSettings: { profile: "EDGE" } });
      const expected = side === "gateway" ? { value: 32_768 } : undefined;
      assert.deepEqual(bufferOf(edge, "listener"), expected);
      assert.deepEqual(bufferOf(edge, "cluster"), expected);
    });

    test(`the case of headers is kept on the way on as well: ${side}`, () => {
      const kept = resources(proxies[side], { proxyHeaders: { preserveHttp1HeaderCase: true } });
      assert.match(JSON.stringify(message(kept, "cluster", names.cluster[side])), /preserve_case/);
    });
  }

  test("a limit of the mesh does not hold for a Pod that has connection settings without it, as in Istio", () => {
    const all = resources({ ...client, tuning: { connectionSettings: {} } }, { connectionSettings });
    const limits = (["listener", "cluster"] as const).map(
      (type) => message(all, type, names[type].client)["perConnectionBufferLimitBytes"],
    );
    assert.deepEqual(limits, [undefined, undefined]);
  });

  test("headers of a Pod lie over the mesh's one by one", () => {
    const mesh = { proxyHeaders: { server: { value: "mesh" }, requestId: { disabled: true } } };
    const tuning = { proxyHeaders: { server: { value: "pod" } } };
    const manager = managerOf(resources({ ...server, tuning }, mesh), "server");
    assert.equal(manager["serverName"], "pod");
    assert.deepEqual(manager["generateRequestId"], {});
  });

  test("what a Pod's tuning does not touch is the bytes that everyone has", () => {
    const usual = resources(client);
    const tuned = resources({ ...client, tuning: { proxyHeaders: { server: { value: "mine" } } } });
    const changed = tuned.filter((one, at) => one.version !== usual[at]?.version);
    assert.ok(changed.length > 0);
    assert.deepEqual([...new Set(changed.map(({ type }) => type))], ["listener"]);
  });

  test("the real Envoy takes all of it", { skip: withoutEnvoy }, () => {
    const everything: ProxyTuning = {
      proxyHeaders: {
        forwardedClientCert: "APPEND_FORWARD",
        setCurrentClientCertDetails: { subject: true, cert: true, chain: true },
        server: { disabled: true },
        requestId: { disabled: true },
        attemptCount: { disabled: true },
        envoyDebugHeaders: { disabled: true },
        preserveHttp1HeaderCase: true,
        xForwardedHost: { enabled: true },
        xForwardedPort: { enabled: true },
      },
      connectionSettings: {
        profile: "EDGE",
        httpMaxConnectionDuration: "60s",
        httpMaxStreamDuration: "60s",
        httpDrainTimeout: "1s",
      },
    };
    for (const proxy of [client, server, gateway])
      assert.equal(envoyComplaint(resources(proxy, everything)), "");
  });
});
