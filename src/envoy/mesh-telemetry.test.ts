import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { worldChanges } from "#model";
import { parseMeshConfig, type KubeObject, type MeshConfig } from "#objects";
import { envoyComplaint, withoutEnvoy } from "../../test/support/envoy.ts";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage } from "./proto/api.ts";
import { messageNameOf, type EnvoyResource } from "./resource.ts";
import { snapshotOf } from "./snapshot.ts";

function service(name: string, port: number, portName: string): KubeObject {
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name, namespace: "default" },
    spec: { clusterIP: `10.96.1.${port % 200}`, selector: { app: name }, ports: [{ name: portName, port }] },
  };
}

const world = [service("shop", 80, "http"), service("oap", 11_800, "grpc"), service("dd", 8126, "http")];

function resourcesOf(mesh: MeshConfig, objects: readonly KubeObject[] = []) {
  const engine = new Engine();
  engine.apply(worldChanges([...world, ...objects], { rootNamespace: "istio-d", mesh }));
  return Object.values(snapshotOf(engine, proxyOf({ labels: { app: "shop" } }))).flat();
}

function shown(all: readonly EnvoyResource[], type: string, name: string): string {
  const found = all.find((one) => one.type === type && one.name === name);
  return found === undefined ? "" : JSON.stringify(decodeMessage(messageNameOf(found.type), found.bytes));
}

describe("spans of a provider's kind", () => {
  const dd = { service: "dd.default.svc.cluster.local", port: 8126 };
  const extensionProviders = [
    { name: "oap", skywalking: { service: "oap.default.svc.cluster.local", port: 11_800, accessToken: "t" } },
    { name: "dd", datadog: dd },
    {
      name: "dynatrace",
      opentelemetry: {
        service: "oap.default.svc.cluster.local",
        port: 11_800,
        resourceDetectors: { dynatrace: {} },
        dynatraceSampler: {
          tenant: "t1",
          clusterId: 7,
          rootSpansPerMinute: 90,
          httpService: { ...dd, http: { path: "sampling" } },
        },
      },
    },
    {
      name: "one-host",
      opentelemetry: { ...dd, http: { path: "/spans" }, dynatraceSampler: { tenant: "t1" } },
    },
    { name: "no-api", opentelemetry: { ...dd, dynatraceSampler: { tenant: "t1" } } },
  ];
  const named = (name: string) => resourcesOf({ extensionProviders, defaultProviders: { tracing: [name] } });

  test("go to SkyWalking with its token, and a span for each hop, and to Datadog's agent", () => {
    const skywalking = shown(named("oap"), "listener", "0.0.0.0_80");
    assert.match(skywalking, /"spawnUpstreamSpan":\{"value":true\}/);
    assert.match(skywalking, /outbound\|11800\|\|oap\.default.*"backendToken":"t"/);
    assert.match(
      shown(named("dd"), "listener", "0.0.0.0_80"),
      /"collectorCluster":"outbound\|8126\|\|dd\.default\.svc\.cluster\.local"/,
    );
  });

  test("go to OpenTelemetry by Dynatrace's sampler, which sees every request, and with its attributes", () => {
    const own = shown(named("dynatrace"), "listener", "0.0.0.0_80");
    assert.match(own, /resource_detectors\.dynatrace/);
    assert.match(own, /"randomSampling":\{"value":100\}/);
    assert.match(
      own,
      /"tenant":"t1","clusterId":7,"httpService":\{"httpUri":\{"uri":"http:\/\/dd\.default\.svc\.cluster\.local\/sampling","cluster":"outbound\|8126\|\|dd/,
    );
    assert.match(own, /"rootSpansPerMinute":90/);
    const shared = shown(named("one-host"), "listener", "0.0.0.0_80");
    assert.match(shared, /"uri":"http:\/\/dd\.default\.svc\.cluster\.local\/api\/v2\/samplingConfiguration"/);
    assert.doesNotMatch(shown(named("no-api"), "listener", "0.0.0.0_80"), /envoy\.tracers/);
  });

  test("are taken by the real Envoy", { skip: withoutEnvoy }, () => {
    for (const name of ["oap", "dd", "dynatrace"]) assert.equal(envoyComplaint(named(name)), "", name);
  });
});

describe("lines of the access log", () => {
  test("leave out what has no value where a provider says so", () => {
    const { mesh } = parseMeshConfig(`
extensionProviders: [{ name: lines, envoyFileAccessLog: { path: /dev/stdout, omitEmptyValues: true } }]
defaultProviders: { accessLogging: [lines] }
`);
    assert.match(shown(resourcesOf(mesh), "listener", "0.0.0.0_80"), /"omitEmptyValues":true/);
  });

  test("are not written by listeners where MeshConfig turns that off", () => {
    const noChain = /"responseFlagFilter":\{"flags":\["NR"\]\}/;
    assert.match(shown(resourcesOf({ accessLogFile: "/dev/stdout" }), "listener", "virtualInbound"), noChain);
    for (const more of [{}, { defaultProviders: { accessLogging: ["envoy"] } }]) {
      const off = resourcesOf({ accessLogFile: "/dev/stdout", disableEnvoyListenerLog: true, ...more });
      assert.doesNotMatch(shown(off, "listener", "virtualInbound"), noChain);
    }
  });
});

describe("defaultProviders.metrics", () => {
  const counted = (metrics: readonly string[], objects: readonly KubeObject[] = []) => {
    const extensionProviders = [{ name: "prom", prometheus: {} }, { name: "other" }];
    const all = resourcesOf({ extensionProviders, defaultProviders: { metrics } }, objects);
    return shown(all, "listener", "0.0.0.0_80").includes("istio_requests_total");
  };

  test("that name nobody for Prometheus have nothing counted, unless a Telemetry names it", () => {
    assert.deepEqual([counted([]), counted(["prometheus"]), counted(["other", "prom"])], [true, true, true]);
    assert.equal(counted(["other"]), false);
    const telemetry: KubeObject = {
      apiVersion: "telemetry.istio.io/v1",
      kind: "Telemetry",
      metadata: { name: "count", namespace: "default" },
      spec: { metrics: [{ providers: [{ name: "prometheus" }] }] },
    };
    assert.equal(counted(["other"], [telemetry]), true);
  });
});
