import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine, type Table } from "#engine";
import {
  fetchedModules,
  moduleRequests,
  objectProblemsOf,
  worldChanges,
  type FetchedModule,
  type ProxyClass,
} from "#model";
import type { KubeObject, MeshConfig } from "#objects";
import { envoyComplaint, withoutEnvoy } from "../../test/support/envoy.ts";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage, type Message } from "./proto/api.ts";
import type { EnvoyResource } from "./resource.ts";
import { snapshotOf } from "./snapshot.ts";

const reviews = proxyOf({ labels: { app: "reviews" } });
const sleep = proxyOf({ labels: { app: "sleep" } });
const router = proxyOf({ kind: "router", labels: { istio: "edge" }, interception: "NONE" });

function object(
  apiVersion: string,
  kind: string,
  name: string,
  spec: object,
  namespace = "default",
): KubeObject {
  return { apiVersion, kind, metadata: { name, namespace }, spec };
}

const base = [
  object("v1", "Service", "reviews", {
    clusterIP: "10.0.0.1",
    selector: { app: "reviews" },
    ports: [
      { name: "http", port: 9080 },
      { name: "http-admin", port: 9090 },
      { name: "tcp", port: 9000 },
    ],
  }),
  object("v1", "Service", "modules", { clusterIP: "10.0.0.9", ports: [{ name: "http", port: 80 }] }),
  object("networking.istio.io/v1", "Gateway", "edge", {
    selector: { istio: "edge" },
    servers: [{ port: { number: 80, name: "http", protocol: "HTTP" }, hosts: ["*"] }],
  }),
];

function worldOf(objects: readonly KubeObject[], mesh: MeshConfig = {}): Engine {
  const engine = new Engine();
  engine.apply(worldChanges([...base, ...objects], { mesh }));
  return engine;
}

function resourcesOf(engine: Engine, proxy: ProxyClass): EnvoyResource[] {
  return Object.values(snapshotOf(engine, proxy)).flat();
}

interface Stat {
  readonly name: string;
  readonly tags: readonly { readonly name: string; readonly valueFormat: string }[];
}

interface Manager {
  readonly httpFilters: readonly { readonly name: string }[];
  readonly accessLog: readonly Message[];
}

interface NetworkFilter {
  readonly name: string;
  readonly typedConfig: Partial<Manager>;
}

/** Network filters of a listener, by the port of their chain. */
function chains(
  engine: Engine,
  proxy: ProxyClass,
  listener: string,
): readonly (readonly [number, readonly NetworkFilter[]])[] {
  const found = resourcesOf(engine, proxy).find(({ name, type }) => type === "listener" && name === listener);
  assert.ok(found, listener);
  const { filterChains } = decodeMessage("envoy.config.listener.v3.Listener", found.bytes) as unknown as {
    filterChains: {
      filterChainMatch?: { destinationPort?: { value: number } };
      filters: NetworkFilter[];
    }[];
  };
  return filterChains.map(({ filterChainMatch, filters }) => [
    filterChainMatch?.destinationPort?.value ?? 0,
    filters,
  ]);
}

/** Connection managers of a listener, by the port of their chain. */
function managers(
  engine: Engine,
  proxy: ProxyClass,
  listener: string,
): readonly (readonly [number, Manager])[] {
  return chains(engine, proxy, listener).flatMap(([port, filters]) =>
    filters.flatMap(({ typedConfig }) =>
      typedConfig.httpFilters === undefined ? [] : [[port, typedConfig as Manager] as const],
    ),
  );
}

const extension = (name: string, spec: object): KubeObject =>
  object("extensions.istio.io/v1alpha1", "TrafficExtension", name, {
    lua: { inlineCode: "function envoy_on_request(handle) end" },
    ...spec,
  });

const policies = [
  object("security.istio.io/v1", "AuthorizationPolicy", "p", { rules: [{}] }),
  object("security.istio.io/v1", "RequestAuthentication", "r", {
    jwtRules: [{ issuer: "i", jwksUri: "https://i.example.com/" }],
  }),
];

describe("a TrafficExtension", () => {
  test(
    "stands at the place of its phase, higher priorities first, and the real Envoy takes it",
    { skip: withoutEnvoy },
    () => {
      const engine = worldOf([
        ...policies,
        extension("last", {}),
        extension("counted", { phase: "STATS" }),
        extension("second", { phase: "AUTHN", priority: 1 }),
        extension("first", { phase: "AUTHN", priority: 2 }),
        extension("before-authorization", { phase: "AUTHZ" }),
      ]);
      const [, manager] = managers(engine, reviews, "virtualInbound").find(([port]) => port === 9080)!;
      assert.deepEqual(
        manager.httpFilters.map(({ name }) => name.replace(/^envoy\.filters\.http\./, "")),
        [
          "default.first",
          "default.second",
          "jwt_authn",
          "default.before-authorization",
          "rbac",
          "default.counted",
          "grpc_stats",
          "fault",
          "cors",
          "default.last",
          "router",
        ],
      );
      for (const proxy of [reviews, router]) assert.equal(envoyComplaint(resourcesOf(engine, proxy)), "");
    },
  );

  test("is for the workloads, the side and the ports that it names", () => {
    const engine = worldOf([
      extension("mine", {
        selector: { matchLabels: { app: "reviews" } },
        match: [{ mode: "SERVER", ports: [{ number: 9080 }] }],
      }),
      extension("callers", { selector: { matchLabels: { app: "sleep" } }, match: [{ mode: "CLIENT" }] }),
    ]);
    const portsWith = (proxy: ProxyClass, listener: string, name: string): number[] =>
      managers(engine, proxy, listener).flatMap(([port, { httpFilters }]) =>
        httpFilters.some((filter) => filter.name === `default.${name}`) ? [port] : [],
      );
    assert.deepEqual([...new Set(portsWith(reviews, "virtualInbound", "mine"))], [9080]);
    assert.deepEqual(portsWith(reviews, "0.0.0.0_9080", "mine"), [], "the other side");
    assert.equal(portsWith(sleep, "0.0.0.0_9080", "callers").length, 1);
    assert.deepEqual(portsWith(sleep, "virtualInbound", "callers"), []);
    assert.deepEqual(portsWith(reviews, "0.0.0.0_9080", "callers"), [], "another workload");
    const listener = resourcesOf(engine, reviews).find(({ name }) => name === "virtualInbound");
    assert.equal(listener?.origins[0]?.object.kind, "TrafficExtension");
  });
});

describe("a WasmPlugin", () => {
  const plugin = (name: string, spec: object): KubeObject =>
    object("extensions.istio.io/v1alpha1", "WasmPlugin", name, spec);

  test(
    "is fetched by the proxy from a service of the mesh, and the real Envoy takes that",
    { skip: withoutEnvoy },
    () => {
      const engine = worldOf([
        plugin("limits", {
          url: "http://modules.default.svc.cluster.local/limits.wasm",
          sha256: "0".repeat(64),
          pluginName: "limits",
          pluginConfig: { perSecond: 5 },
          failStrategy: "FAIL_OPEN",
          vmConfig: {
            env: [
              { name: "A", value: "b" },
              { name: "HOME", valueFrom: "HOST" },
            ],
          },
        }),
      ]);
      for (const proxy of [reviews, router]) {
        const resources = resourcesOf(engine, proxy);
        assert.match(JSON.stringify(managers(engine, router, "0.0.0.0_80")), /default\.limits/);
        assert.ok(resources.some(({ name }) => name === "outbound|80||modules.default.svc.cluster.local"));
        assert.equal(envoyComplaint(resources), "");
      }
    },
  );

  test("whose URL names none is closed unless it fails open, and its status says so", () => {
    const url = "oci://registry.example.com/NO";
    const engine = worldOf([plugin("p", { url }), plugin("q", { url, failStrategy: "FAIL_OPEN" })]);
    const text = JSON.stringify(managers(engine, reviews, "virtualInbound"));
    assert.match(text, /"name":"default\.p","typedConfig":\{"abort":\{"httpStatus":503,/);
    assert.doesNotMatch(text, /default\.q/);
    const told = (name: string): string =>
      engine.get(objectProblemsOf, `WasmPlugin default/${name}`)[0]?.text ?? "";
    assert.match(
      told("p"),
      /its URL names none; what it would see is answered with 503, by failStrategy FAIL_CLOSE/,
    );
    assert.match(told("q"), /its URL names none; all goes on without it, by failStrategy FAIL_OPEN/);
  });

  test(
    "of type NETWORK sees connections of any protocol, around their authorization",
    { skip: withoutEnvoy },
    () => {
      const servers = { match: [{ mode: "SERVER", ports: [{ number: 9000 }] }] };
      const named = { late: {}, counted: { phase: "STATS" }, early: { phase: "AUTHZ" }, closed: servers };
      const url = "oci://registry.example.com/a:1";
      const plugins = Object.entries(named).map(([name, spec]) =>
        plugin(name, { url, type: "NETWORK", ...spec }),
      );
      const engine = worldOf([...policies, ...plugins]);
      for (const name of Object.keys(named)) {
        const value = name === "closed" ? { failure: "no" } : { sha256: "a".repeat(64) };
        engine.apply([{ table: fetchedModules as Table<unknown>, key: `WasmPlugin/default/${name}`, value }]);
      }
      const short = (name: string): string => name.replace(/^(default|envoy\.filters\.network)\./, "");
      const filtersOf = (listener: string, port: number): string[] =>
        chains(engine, reviews, listener)
          .find(([number]) => number === port)![1]
          .map(({ name }) => short(name));
      const late = ["counted", "late"];
      assert.deepEqual(filtersOf("virtualInbound", 9080), ["early", ...late, "http_connection_manager"]);
      // Nothing stands behind the one that is closed.
      assert.deepEqual(filtersOf("virtualInbound", 9000), ["early", "rbac", "counted", "closed"]);
      assert.deepEqual(filtersOf("10.0.0.1_9000", 0), ["early", "counted", "late", "tcp_proxy"]);
      for (const proxy of [reviews, router]) assert.equal(envoyComplaint(resourcesOf(engine, proxy)), "");
    },
  );

  describe("whose module the control plane fetches", () => {
    const url = "oci://registry.example.com/a:1";
    const sha256 = "a".repeat(64);

    /** The filter of reviews' port 9080, once fetching has come to this, and what the object's status says. */
    function filterFor(state: FetchedModule | undefined, spec: object = {}): [Message | undefined, string] {
      const engine = worldOf([plugin("p", { url, ...spec })]);
      engine.apply([{ table: fetchedModules as Table<unknown>, key: "WasmPlugin/default/p", value: state }]);
      const [, manager] = managers(engine, reviews, "virtualInbound").find(([port]) => port === 9080)!;
      const found = manager.httpFilters.find(({ name }) => name === "default.p") as Message | undefined;
      for (const proxy of [reviews, router])
        if (found !== undefined) assert.equal(envoyComplaint(resourcesOf(engine, proxy)), "");
      const told = engine.get(objectProblemsOf, "WasmPlugin default/p")[0]?.text ?? "";
      return [found?.["typedConfig"] as Message | undefined, told];
    }

    test("gets it over the connection of xDS, by its sum", { skip: withoutEnvoy }, () => {
      const [filter, told] = filterFor({ sha256 });
      const text = JSON.stringify(filter);
      assert.match(text, new RegExp(`"uri":"https://xds-grpc/wasm/${sha256}","cluster":"xds-grpc"`));
      assert.match(text, new RegExp(`"sha256":"${sha256}"`));
      assert.equal(told, "");
      const [stays, whyNot] = filterFor({ sha256, failure: "the answer has status 404" });
      assert.equal(JSON.stringify(stays), text);
      assert.match(whyNot, /the answer has status 404; the one from before stays in use/);
    });

    test("goes on without it as long as it is fetched for the first time", () => {
      assert.deepEqual(filterFor(undefined), [undefined, ""]);
    });

    test("answers 503 where it cannot be fetched, unless it fails open", { skip: withoutEnvoy }, () => {
      const failed = { failure: "no answer" };
      for (const spec of [{}, { failStrategy: "FAIL_CLOSE" }, { failStrategy: "FAIL_RELOAD" }]) {
        const [filter, told] = filterFor(failed, spec);
        assert.match(String(filter?.["@type"]), /HTTPFault$/);
        assert.match(JSON.stringify(filter), /"httpStatus":503/);
        assert.match(told, /cannot be fetched: no answer; what it would see is answered with 503/);
      }
      const [filter, told] = filterFor(failed, { failStrategy: "FAIL_OPEN" });
      assert.equal(filter, undefined);
      assert.match(told, /all goes on without it, by failStrategy FAIL_OPEN/);
    });
  });

  test("is fetched by the control plane unless it is a file, or a service's with its sum", () => {
    const served = "http://modules.default.svc.cluster.local/m.wasm";
    const engine = worldOf([
      plugin("file", { url: "file:///m.wasm" }),
      plugin("service", { url: served, sha256: "0".repeat(64) }),
      plugin("no-sum", { url: served }),
      plugin("elsewhere", { url: "http://nowhere.example.com/m.wasm", sha256: "0".repeat(64) }),
      plugin("tls", { url: "https://a.example.com/m.wasm", imagePullSecret: "s" }),
      plugin("image", { url: "registry.example.com/a", imagePullSecret: "s" }),
      plugin("kept", { url: "oci://a", imagePullPolicy: "IfNotPresent" }),
      object("extensions.istio.io/v1alpha1", "TrafficExtension", "t", { wasm: { url: "oci://b:1" } }),
    ]);
    const asked = engine
      .get(moduleRequests, "")
      .map(({ key, secret, policy }) => [key.replace("/default/", " "), secret, policy].join(" "));
    assert.deepEqual(asked, [
      "TrafficExtension t  if-not-present",
      "WasmPlugin elsewhere  if-not-present",
      "WasmPlugin image s always",
      "WasmPlugin kept  if-not-present",
      "WasmPlugin no-sum  if-not-present",
      "WasmPlugin tls  if-not-present",
    ]);
  });
});

describe("Telemetry's access logs", () => {
  const telemetry = (
    name: string,
    accessLogging: readonly object[],
    more: object = {},
    namespace = "default",
  ): KubeObject => object("telemetry.istio.io/v1", "Telemetry", name, { ...more, accessLogging }, namespace);
  const byName = (...names: string[]): object => ({ providers: names.map((name) => ({ name })) });
  const mesh: MeshConfig = {
    accessLogFile: "/dev/stdout",
    extensionProviders: [
      { name: "short", envoyFileAccessLog: { path: "/dev/stderr", logFormat: { text: "%RESPONSE_CODE%" } } },
      {
        name: "json",
        envoyFileAccessLog: { path: "/dev/stdout", logFormat: { labels: { code: "%RESPONSE_CODE%" } } },
      },
      { name: "other", zipkin: {} } as NonNullable<MeshConfig["extensionProviders"]>[number],
    ],
  };
  /** The loggers that write lines, at the server's side and at the client's. */
  function lines(engine: Engine, proxy: ProxyClass): readonly [string, string] {
    const of = (listener: string): string => {
      const [first] = managers(engine, proxy, listener);
      return (first?.[1].accessLog ?? [])
        .map((log) => String(log["name"]).replace("envoy.access_loggers.", ""))
        .filter((name) => ["file", "stdout", "stderr"].includes(name))
        .join();
    };
    return [of("virtualInbound"), of("0.0.0.0_9080")];
  }

  test("go by the mesh's, the namespace's and the workload's own, the narrowest last", () => {
    const root = telemetry("mesh", [byName("short")], {}, "istio-d");
    assert.deepEqual(lines(worldOf([], mesh), reviews), ["stdout", "stdout"], "MeshConfig's without any");
    assert.deepEqual(lines(worldOf([root], mesh), reviews), ["stderr", "stderr"]);
    const off = telemetry("off", [{ disabled: true }], { selector: { matchLabels: { app: "reviews" } } });
    assert.deepEqual(lines(worldOf([root, off], mesh), reviews), ["", ""]);
    assert.deepEqual(lines(worldOf([root, off], mesh), sleep), ["stderr", "stderr"]);
    const both = telemetry("both", [byName("short", "json")]);
    assert.deepEqual(lines(worldOf([root, both], mesh), sleep), ["stderr,stdout", "stderr,stdout"]);
    const servers = telemetry("servers", [{ ...byName("json"), match: { mode: "SERVER" } }]);
    assert.deepEqual(lines(worldOf([servers], mesh), sleep), ["stdout", ""]);
  });

  test("are filtered by an expression, and the real Envoy takes it", { skip: withoutEnvoy }, () => {
    const filtered = telemetry("t", [{ ...byName("json"), filter: { expression: "response.code >= 400" } }]);
    const engine = worldOf([filtered], mesh);
    assert.match(
      JSON.stringify(managers(engine, reviews, "virtualInbound")),
      /"expression":"response\.code >= 400"/,
    );
    for (const proxy of [reviews, router]) assert.equal(envoyComplaint(resourcesOf(engine, proxy)), "");
  });

  test("of a provider that writes none are told, and keep nobody else from writing", () => {
    const engine = worldOf([telemetry("t", [byName("none", "other", "envoy")])], mesh);
    assert.deepEqual(lines(engine, reviews), ["stdout", "stdout"]);
    assert.deepEqual(
      engine.get(objectProblemsOf, "Telemetry default/t").map(({ at, text }) => `${at.path} ${text}`),
      [
        "spec.accessLogging[0].providers[0].name none is no extension provider: it writes no access log.",
        "spec.accessLogging[0].providers[1].name other is a provider of another kind: it writes no access log.",
      ],
    );
  });
});

describe("Telemetry's metrics", () => {
  const telemetry = (name: string, overrides: readonly object[], more: object = {}): KubeObject =>
    object("telemetry.istio.io/v1", "Telemetry", name, { metrics: [{ overrides, ...more }] });
  /** What the loggers of a listener's first connection manager count. */
  function counted(engine: Engine, listener: string): readonly string[] {
    const [first] = managers(engine, reviews, listener);
    return (first?.[1].accessLog ?? [])
      .filter((log) => log["name"] === "envoy.access_loggers.stats")
      .flatMap(({ typedConfig }) => {
        const { counters = [], histograms = [] } = typedConfig as Record<
          string,
          { readonly stat: { readonly name: string } }[]
        >;
        return [...counters, ...histograms].map(({ stat }) => stat.name);
      });
  }
  const all = [
    "istio_requests_total",
    "istio_request_duration_milliseconds",
    "istio_request_bytes",
    "istio_response_bytes",
  ];

  test("are turned off one by one, by side, or all; and a narrower object turns them on again", () => {
    const off = (match?: object): object => ({ disabled: true, ...(match === undefined ? {} : { match }) });
    assert.deepEqual(counted(worldOf([], {}), "virtualInbound"), all);
    assert.deepEqual(counted(worldOf([telemetry("t", [off()])], {}), "virtualInbound"), []);
    const bytes = worldOf([telemetry("t", [off({ metric: "REQUEST_SIZE", mode: "SERVER" })])], {});
    assert.deepEqual(
      counted(bytes, "virtualInbound"),
      all.filter((name) => name !== "istio_request_bytes"),
    );
    assert.deepEqual(counted(bytes, "0.0.0.0_9080"), all);
    const again = telemetry("t", [off(), { disabled: false, match: { metric: "REQUEST_COUNT" } }]);
    assert.deepEqual(counted(worldOf([again], {}), "virtualInbound"), ["istio_requests_total"]);
  });

  test("get, lose and change tags, and the real Envoy takes it", { skip: withoutEnvoy }, () => {
    const peer = [
      "workload",
      "workload_namespace",
      "app",
      "version",
      "canonical_service",
      "canonical_revision",
    ];
    const gone = [...peer, "cluster"].map((label) => [`source_${label}`, { operation: "REMOVE" }] as const);
    const tagOverrides = {
      request_host: { value: "request.host" },
      team: { value: "'blue'" },
      response_code: { operation: "REMOVE" },
      broken: { value: "((" },
      ...Object.fromEntries(gone),
    };
    const engine = worldOf([telemetry("t", [{ match: { metric: "REQUEST_COUNT" }, tagOverrides }])], {});
    const tagsOf = (listener: string, metric: string): Map<string, string> => {
      const logs = managers(engine, reviews, listener)[0]?.[1].accessLog ?? [];
      const stats = logs
        .filter(({ name }) => name === "envoy.access_loggers.stats")
        .flatMap(({ typedConfig }) => {
          const { counters = [], histograms = [] } = typedConfig as Record<string, { stat: Stat }[]>;
          return [...counters, ...histograms].map(({ stat }) => stat);
        });
      const found = stats.find(({ name }) => name === metric);
      return new Map((found?.tags ?? []).map(({ name, valueFormat }) => [name, valueFormat]));
    };
    const inbound = tagsOf("virtualInbound", "istio_requests_total");
    assert.equal(inbound.get("request_host"), "%CEL(request.host)%");
    assert.equal(inbound.get("team"), "blue");
    assert.match(inbound.get("removed") ?? "", /request_host,response_code,source_app/);
    for (const name of ["response_code", "broken", "peer"]) assert.ok(!inbound.has(name), name);
    assert.ok(
      tagsOf("0.0.0.0_9080", "istio_requests_total").has("peer"),
      "the peer is the destination there",
    );
    assert.ok(!tagsOf("virtualInbound", "istio_request_bytes").has("team"), "another metric");
    assert.equal(envoyComplaint(resourcesOf(engine, reviews)), "");
  });

  test("of another provider than Prometheus say nothing", () => {
    const other = telemetry("t", [{ disabled: true }], { providers: [{ name: "stackdriver" }] });
    assert.deepEqual(counted(worldOf([other], {}), "virtualInbound"), all);
  });

  test("that are off leave a configuration that the real Envoy takes", { skip: withoutEnvoy }, () => {
    const engine = worldOf([telemetry("t", [{ disabled: true }])], {});
    for (const proxy of [reviews, router]) assert.equal(envoyComplaint(resourcesOf(engine, proxy)), "");
    assert.ok(!JSON.stringify(managers(engine, reviews, "virtualInbound")).includes("istio_requests_total"));
  });
});
