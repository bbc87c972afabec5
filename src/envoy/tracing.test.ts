import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { objectProblemsOf, worldChanges, type ProxyClass } from "#model";
import type { KubeObject, MeshConfig } from "#objects";
import { envoyComplaint, withoutEnvoy } from "../../test/support/envoy.ts";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage, type Message } from "./proto/api.ts";
import type { EnvoyResource } from "./resource.ts";
import { snapshotOf } from "./snapshot.ts";

const reviews = proxyOf({ labels: { app: "reviews" } });
const router = proxyOf({ kind: "router", labels: { istio: "edge" }, interception: "NONE" });
const collector = "collector.telemetry.svc.cluster.local";

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
      { name: "tcp", port: 9000 },
    ],
  }),
  object(
    "v1",
    "Service",
    "collector",
    {
      clusterIP: "10.0.0.9",
      ports: [
        { name: "http", port: 9411 },
        { name: "grpc", port: 4317 },
      ],
    },
    "telemetry",
  ),
  object("networking.istio.io/v1", "Gateway", "edge", {
    selector: { istio: "edge" },
    servers: [{ port: { number: 80, name: "http", protocol: "HTTP" }, hosts: ["*"] }],
  }),
];

const mesh: MeshConfig = {
  extensionProviders: [
    { name: "zipkin", zipkin: { service: collector, port: 9411, maxTagLength: 64, path: "/spans" } },
    { name: "otel", opentelemetry: { service: `telemetry/${collector}`, port: 4317 } },
    {
      name: "otel-http",
      opentelemetry: {
        service: collector,
        port: 9411,
        http: { path: "/v1/traces", timeout: "2s", headers: [{ name: "x-key", value: "k" }] },
      },
    },
    { name: "gone", zipkin: { service: "gone.example.com", port: 9411 } },
    {
      name: "otel-logs",
      envoyOtelAls: { service: collector, port: 4317, logFormat: { text: "%PROTOCOL%", labels: { a: "b" } } },
    },
    {
      name: "http-logs",
      envoyHttpAls: { service: collector, port: 4317, additionalRequestHeadersToLog: ["x"] },
    },
    { name: "tcp-logs", envoyTcpAls: { service: collector, port: 4317 } },
  ],
};

function tracing(...entries: object[]): KubeObject {
  return object("telemetry.istio.io/v1", "Telemetry", "own", { tracing: entries });
}

const to = (name: string): object => ({ providers: [{ name }] });

function worldOf(objects: readonly KubeObject[], more: MeshConfig = {}): Engine {
  const engine = new Engine();
  engine.apply(worldChanges([...base, ...objects], { mesh: { ...mesh, ...more } }));
  return engine;
}

function resourcesOf(engine: Engine, proxy: ProxyClass): EnvoyResource[] {
  return Object.values(snapshotOf(engine, proxy)).flat();
}

interface Manager {
  readonly tracing?: Message;
  readonly requestIdExtension?: Message;
  readonly accessLog: readonly { readonly name: string }[];
  readonly httpFilters?: unknown;
}

/** Of each filter of a listener that logs. */
function filtersOf(engine: Engine, proxy: ProxyClass, listener: string): Manager[] {
  const found = resourcesOf(engine, proxy).find(({ name, type }) => type === "listener" && name === listener);
  assert.ok(found, listener);
  const { filterChains } = decodeMessage("envoy.config.listener.v3.Listener", found.bytes) as unknown as {
    filterChains: { filters: { typedConfig: Partial<Manager> }[] }[];
  };
  return filterChains.flatMap(({ filters }) =>
    filters.flatMap(({ typedConfig }) =>
      typedConfig.accessLog === undefined ? [] : [typedConfig as Manager],
    ),
  );
}

function tracedBy(engine: Engine, listener: string, proxy = reviews): Message | undefined {
  return filtersOf(engine, proxy, listener).find(({ httpFilters }) => httpFilters !== undefined)?.tracing;
}

describe("tracing", () => {
  test("is off without a word of it, and for who gets no collector", () => {
    for (const objects of [[], [tracing({ randomSamplingPercentage: 50 })], [tracing(to("gone"))]])
      for (const listener of ["virtualInbound", "0.0.0.0_9080"])
        assert.equal(tracedBy(worldOf(objects), listener), undefined, JSON.stringify(objects));
    const sidecar = object("networking.istio.io/v1", "Sidecar", "default", { egress: [{ hosts: ["./*"] }] });
    assert.equal(tracedBy(worldOf([tracing(to("zipkin")), sidecar]), "virtualInbound"), undefined);
    assert.ok(tracedBy(worldOf([tracing(to("zipkin"))]), "virtualInbound"));
  });

  test("goes by the side, by what a later entry changes, and by MeshConfig where no Telemetry says it", () => {
    const client = worldOf([
      tracing({ ...to("otel"), match: { mode: "CLIENT" } }, { randomSamplingPercentage: 25 }),
    ]);
    assert.equal(tracedBy(client, "virtualInbound"), undefined);
    assert.deepEqual(tracedBy(client, "0.0.0.0_9080")?.["randomSampling"], { value: 25 });
    const byDefault = worldOf([], {
      defaultProviders: { tracing: ["zipkin"] },
      defaultConfig: { tracing: { sampling: 10, customTags: { a: { literal: { value: "b" } } } } },
    });
    const found = tracedBy(byDefault, "0.0.0.0_9080");
    assert.deepEqual(found?.["randomSampling"], { value: 10 });
    assert.match(JSON.stringify(found), /"tag":"a","literal":\{"value":"b"\}/);
    const off = worldOf([tracing({ disableSpanReporting: true })], {
      defaultProviders: { tracing: ["otel"] },
    });
    assert.equal(tracedBy(off, "0.0.0.0_9080"), undefined);
  });

  test("carries tags of the workload and of its own, and samples anew where it is told to", () => {
    const customTags = {
      l: { literal: { value: "v" } },
      e: { environment: { name: "HOME", defaultValue: "x" } },
      h: { header: { name: "x-user" } },
      f: { formatter: { value: "%REQ(:PATH)%" } },
    };
    const entry = { ...to("zipkin"), customTags, useRequestIdForTraceSampling: false };
    const engine = worldOf([tracing({ ...entry, disableContextPropagation: true })]);
    const manager = filtersOf(engine, reviews, "virtualInbound").find(
      ({ httpFilters }) => httpFilters !== undefined,
    );
    const said = JSON.stringify(manager?.tracing);
    assert.match(said, /"tag":"istio\.canonical_service","environment":\{"name":"MIZZEN_CANONICAL_SERVICE"/);
    for (const part of [
      '"tag":"e","environment":{"name":"HOME","defaultValue":"x"}',
      '"tag":"f","value":"%REQ(:PATH)%"',
      '"tag":"h","requestHeader":{"name":"x-user"}',
      '"noContextPropagation":true',
      '"maxPathTagLength":{"value":64}',
      `"uri":"http://${collector}:9411/spans","cluster":"outbound|9411||${collector}"`,
    ])
      assert.ok(said.includes(part), part);
    assert.match(
      JSON.stringify(manager?.requestIdExtension),
      /"useRequestIdForTraceSampling":\{\}/,
      "false, as it is decoded",
    );
    const bare = tracedBy(worldOf([tracing({ ...to("otel"), enableIstioTags: false })]), "virtualInbound");
    assert.deepEqual(bare?.["customTags"] ?? [], []);
  });

  test(
    "is taken by the real Envoy with every provider, at sidecars and gateways",
    { skip: withoutEnvoy },
    () => {
      for (const name of ["zipkin", "otel", "otel-http"])
        for (const proxy of [reviews, router]) {
          const customTags = { f: { formatter: { value: "%REQ(:PATH)%" } } };
          const engine = worldOf([tracing({ ...to(name), customTags, useRequestIdForTraceSampling: false })]);
          assert.ok(tracedBy(engine, proxy === router ? "0.0.0.0_80" : "0.0.0.0_9080", proxy), name);
          const resources = resourcesOf(engine, proxy);
          assert.ok(resources.some((one) => one.type === "cluster" && one.name.endsWith(`||${collector}`)));
          assert.equal(envoyComplaint(resources), "", name);
        }
    },
  );

  test("to a provider that takes no spans is told in the object's status", () => {
    const told = (name: string): string =>
      worldOf([tracing(to(name))])
        .get(objectProblemsOf, "Telemetry default/own")
        .map(({ text }) => text)
        .join();
    assert.equal(told("otel"), "");
    assert.match(
      told("gone"),
      /gone has no service in the mesh \(gone\.example\.com:9411\): nothing is traced/,
    );
    assert.match(told("otel-logs"), /is not of OpenTelemetry or Zipkin/);
  });
});

describe("access logs over the network", () => {
  const logging = (...names: string[]): KubeObject =>
    object("telemetry.istio.io/v1", "Telemetry", "own", {
      accessLogging: [{ providers: names.map((name) => ({ name })) }],
    });
  const namesOf = (engine: Engine, listener: string): (readonly string[])[] =>
    filtersOf(engine, reviews, listener).map(({ accessLog }) =>
      accessLog.map(({ name }) => name.replace("envoy.access_loggers.", "")),
    );

  test("are written where their protocol fits, and the real Envoy takes them", { skip: withoutEnvoy }, () => {
    const engine = worldOf([logging("otel-logs", "http-logs", "tcp-logs")]);
    const [http = []] = namesOf(engine, "0.0.0.0_9080");
    const [tcp = []] = namesOf(engine, "10.0.0.1_9000");
    assert.deepEqual(http.slice(0, 2), ["open_telemetry", "http_grpc"]);
    assert.deepEqual(tcp.slice(0, 2), ["open_telemetry", "tcp_grpc"]);
    assert.ok(!http.includes("tcp_grpc") && !tcp.includes("http_grpc"));
    for (const proxy of [reviews, router]) assert.equal(envoyComplaint(resourcesOf(engine, proxy)), "");
    assert.deepEqual(engine.get(objectProblemsOf, "Telemetry default/own"), []);
  });

  test("of MeshConfig's default providers hold without any Telemetry", () => {
    const engine = worldOf([], { defaultProviders: { accessLogging: ["otel-logs"] } });
    assert.equal(namesOf(engine, "0.0.0.0_9080")[0]?.[0], "open_telemetry");
    const counting = (of: Engine): number => namesOf(of, "0.0.0.0_9080")[0]?.length ?? 0;
    assert.equal(counting(engine), counting(worldOf([])) + 1);
  });
});
