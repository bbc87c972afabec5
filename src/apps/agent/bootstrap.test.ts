import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { envoyPath, withoutEnvoy } from "../../../test/support/envoy.ts";
import { renderBootstrap } from "./bootstrap.ts";
import { parseConfig, type AgentConfig, type ProxyConfig } from "./config.ts";
import { envoyArgs, envoyEnvironment } from "./envoy.ts";

function configOf(
  annotations: Readonly<Record<string, string>>,
  proxyConfig: ProxyConfig = {},
  role = "sidecar",
): AgentConfig {
  const named = Object.entries(annotations).map(([name, value]) => [`sidecar.istio.io/${name}`, value]);
  return parseConfig({
    env: {
      POD_NAME: "a",
      POD_NAMESPACE: "default",
      INSTANCE_IP: "10.0.0.1",
      HOST_IP: "192.0.2.7",
      ISTIO_META_WORKLOAD_NAME: "shop-v1",
      PROXY_CONFIG: JSON.stringify(proxyConfig),
    },
    args: [role],
    labels: { app: "shop", "service.istio.io/canonical-name": "store" },
    annotations: Object.fromEntries(named) as Record<string, string>,
    envoyPath,
  });
}

function bootstrapOf(...told: Parameters<typeof configOf>): Record<string, unknown> {
  return renderBootstrap(configOf(...told)) as Record<string, unknown>;
}

/** Envoy's complaint about a bootstrap; "" when it takes it. */
function complaint(bootstrap: object): string {
  const folder = mkdtempSync(join(tmpdir(), "envoy-bootstrap-"));
  try {
    const file = join(folder, "bootstrap.json");
    writeFileSync(file, JSON.stringify(bootstrap));
    const words = [
      "--mode",
      "validate",
      "-c",
      file,
      "-l",
      "error",
      "--service-node",
      "a",
      "--service-cluster",
      "a",
    ];
    const { status, stderr } = spawnSync(envoyPath, words, { encoding: "utf8", timeout: 30_000 });
    return status === 0 ? "" : stderr;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

describe("the bootstrap", () => {
  test("has the intervals of its Pod's annotations, the eviction a multiple of the flush", () => {
    const { stats_flush_interval: flush, stats_eviction_interval: eviction } = bootstrapOf({});
    assert.deepEqual([flush, eviction], ["10s", "1800s"]);
    const own = bootstrapOf({ statsFlushInterval: "7s", statsEvictionInterval: "1m30s" });
    assert.deepEqual([own["stats_flush_interval"], own["stats_eviction_interval"]], ["7s", "91s"]);
    const wrong = bootstrapOf({ statsFlushInterval: "often", statsEvictionInterval: "1ms" });
    assert.deepEqual([wrong["stats_flush_interval"], wrong["stats_eviction_interval"]], ["10s", "1800s"]);
  });

  test(
    "has the histogram buckets of its Pod's annotation, and the real Envoy takes them",
    { skip: withoutEnvoy },
    () => {
      const statsHistogramBuckets = JSON.stringify({
        istio_request_duration: [10, 1, 5, 5],
        wrong: ["x"],
        empty: [],
      });
      const bootstrap = bootstrapOf({ statsHistogramBuckets, statsFlushInterval: "7s" });
      const { histogram_bucket_settings: settings } = bootstrap["stats_config"] as Record<string, unknown>;
      assert.deepEqual(settings, [{ match: { prefix: "istio_request_duration" }, buckets: [1, 5, 10] }]);
      assert.equal(complaint(bootstrap), "");
      assert.ok(!("histogram_bucket_settings" in (bootstrapOf({})["stats_config"] as object)));
      assert.ok(
        !(
          "histogram_bucket_settings" in
          (bootstrapOf({ statsHistogramBuckets: "[" })["stats_config"] as object)
        ),
      );
    },
  );
});

/** Of a bootstrap: what its runtime and its overload manager say. */
interface Limits {
  readonly layered_runtime: { readonly layers: readonly { readonly static_layer?: object }[] };
  readonly overload_manager: {
    readonly resource_monitors: readonly {
      readonly typed_config: { readonly max_active_downstream_connections: number };
    }[];
  };
}

function runtimeOf(proxyConfig: ProxyConfig, role?: string): object | undefined {
  return (bootstrapOf({}, proxyConfig, role) as unknown as Limits).layered_runtime.layers[0]?.static_layer;
}

function connectionsMax(proxyConfig: ProxyConfig): number | undefined {
  const { resource_monitors: monitors } = (bootstrapOf({}, proxyConfig) as unknown as Limits)
    .overload_manager;
  return monitors[0]?.typed_config.max_active_downstream_connections;
}

describe("ProxyConfig in the bootstrap", () => {
  test("runtimeValues lie over ours: truths and numbers as such, and an empty text takes one away", () => {
    const usual = { "re2.max_program_size.error_level": 32_768 };
    assert.deepEqual(runtimeOf({}), usual);
    const values = { a: "true", b: "12.5", c: "text", "re2.max_program_size.error_level": "" };
    assert.deepEqual(runtimeOf({ runtimeValues: values }), { a: true, b: 12.5, c: "text" });
  });

  test("connections are limited by connectionSettings, or by the older names, and never without a limit", () => {
    const older = { ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS: "20" };
    const oldest = { "overload.global_downstream_max_connections": "30" };
    assert.equal(connectionsMax({}), 100_000);
    assert.equal(connectionsMax({ runtimeValues: oldest }), 30);
    assert.equal(connectionsMax({ runtimeValues: oldest, proxyMetadata: older }), 20);
    const connectionSettings = { globalDownstreamConnectionLimit: 10 };
    assert.equal(connectionsMax({ connectionSettings, runtimeValues: oldest, proxyMetadata: older }), 10);
    assert.equal(
      connectionsMax({ proxyMetadata: { ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS: "many" } }),
      100_000,
    );
  });

  test("the listeners of capture have their limit; a router's are told theirs as they come", () => {
    const connectionSettings = { listenerConnectionLimit: 7 };
    const limits = Object.entries(runtimeOf({ connectionSettings }) ?? {}).filter(([, value]) => value === 7);
    assert.deepEqual(limits, [
      ["envoy.resource_limits.listener.virtualInbound.connection_limit", 7],
      ["envoy.resource_limits.listener.virtualOutbound.connection_limit", 7],
    ]);
    assert.deepEqual(runtimeOf({ connectionSettings }, "router"), runtimeOf({}));
  });

  test("extraStatTags of ProxyConfig and of the Pod are told apart in names", () => {
    const tagsOf = (annotations: Record<string, string>, proxyConfig: ProxyConfig) =>
      (
        bootstrapOf(annotations, proxyConfig)["stats_config"] as {
          stats_tags: { tag_name: string; regex: string }[];
        }
      ).stats_tags;
    const tags = tagsOf({ extraStatTags: "tier, request.host" }, { extraStatTags: ["tier", "zone"] }).slice(
      3,
    );
    assert.deepEqual(
      tags.map(({ tag_name: name }) => name),
      ["tier", "zone", "request.host"],
    );
    const [, , host] = tags;
    const [, whole, value] = new RegExp(host?.regex ?? "").exec("a.request.host=.=shop.example;.;b") ?? [];
    assert.deepEqual([whole, value], ["request.host=.=shop.example;.;", "shop.example"]);
  });

  test("the page of statistics is compressed by every algorithm, by the Pod's own, or by none", () => {
    const offered = (annotations: Record<string, string>, proxyConfig: ProxyConfig = {}) =>
      [...JSON.stringify(bootstrapOf(annotations, proxyConfig)).matchAll(/"name":"stats_(\w+)"/g)].map(
        ([, name]) => name,
      );
    assert.deepEqual(offered({}), ["brotli", "zstd", "gzip"]);
    assert.deepEqual(offered({ statsCompression: "gzip" }), ["gzip"]);
    assert.deepEqual(offered({ statsCompression: "none of them" }), ["brotli", "zstd", "gzip"]);
    assert.deepEqual(offered({ statsCompression: "gzip" }, { statsCompression: false }), []);
  });

  test("histograms have the Pod's bins, with their buckets and without", () => {
    const annotations = { statsHistogramBins: "20", statsHistogramBuckets: '{"istio_request_bytes":[1,2]}' };
    const { histogram_bucket_settings: settings } = bootstrapOf(annotations)["stats_config"] as Record<
      string,
      unknown
    >;
    assert.deepEqual(settings, [
      { match: { prefix: "istio_request_bytes" }, buckets: [1, 2], bins: 20 },
      { match: { prefix: "istio_" }, bins: 20 },
    ]);
    for (const wrong of ["0", "many", "100000"])
      assert.ok(
        !(
          "histogram_bucket_settings" in
          (bootstrapOf({ statsHistogramBins: wrong })["stats_config"] as object)
        ),
      );
  });

  test("statistics go to statsd as well, once its address is known", () => {
    const sent = JSON.stringify(bootstrapOf({}, { statsdUdpAddress: "10.0.0.9:8125" })["stats_sinks"]);
    assert.match(sent, /StatsdSink.*"address":"10\.0\.0\.9","port_value":8125,"protocol":"UDP"/);
    assert.equal(bootstrapOf({}, { statsdUdpAddress: "statsd.monitoring:8125" })["stats_sinks"], undefined);
  });

  test("roots that are added are for workloads, and not for the control plane", () => {
    const rootsOf = (proxyConfig: ProxyConfig) =>
      [...JSON.stringify(bootstrapOf({}, proxyConfig)).matchAll(/"name":"(ROOTCA[^"]*)"/g)].map(
        ([, name]) => name,
      );
    assert.deepEqual(rootsOf({}), ["ROOTCA"]);
    assert.deepEqual(rootsOf({ caCertificatesPem: ["a root"] }), ["ROOTCA-mesh"]);
  });

  test("the real Envoy takes all of it", { skip: withoutEnvoy }, () => {
    const proxyConfig = {
      runtimeValues: { "envoy.reloadable_features.http_reject_path_with_fragment": "false", mine: "3" },
      extraStatTags: ["tier", "request.host"],
      statsdUdpAddress: "127.0.0.1:8125",
      connectionSettings: { listenerConnectionLimit: 7, globalDownstreamConnectionLimit: 70 },
    };
    assert.equal(complaint(bootstrapOf({ statsHistogramBins: "20" }, proxyConfig)), "");
  });
});

describe("ProxyConfig on Envoy's command line", () => {
  const argsOf = (proxyConfig: ProxyConfig) => envoyArgs(configOf({}, proxyConfig), "/bootstrap.json");
  const after = (args: readonly string[], flag: string) => args[args.indexOf(flag) + 1];

  test("files are flushed as often and as full as it says", () => {
    assert.equal(after(argsOf({}), "--file-flush-interval-msec"), "1000");
    assert.ok(!argsOf({}).includes("--file-flush-min-size-kb"));
    const args = argsOf({ fileFlushInterval: "0.25s", fileFlushMinSizeKb: 16 });
    assert.equal(after(args, "--file-flush-interval-msec"), "250");
    assert.equal(after(args, "--file-flush-min-size-kb"), "16");
  });

  test("a custom configuration stands in place of ours", () => {
    assert.equal(after(argsOf({}), "-c"), "/bootstrap.json");
    assert.equal(after(argsOf({ customConfigFile: "/etc/own.yaml" }), "-c"), "/etc/own.yaml");
  });

  test("another Envoy is run where binaryPath names one; Istio's default names none of ours", () => {
    const pathOf = (binaryPath: string) => configOf({}, { binaryPath }).paths.envoy;
    assert.equal(pathOf("/usr/local/bin/envoy"), envoyPath);
    assert.equal(pathOf("/opt/own/envoy"), "/opt/own/envoy");
  });

  test("the service's name follows tracingServiceName, and a serviceCluster of its own goes before", () => {
    const nameOf = (proxyConfig: ProxyConfig) => configOf({}, proxyConfig).serviceCluster;
    assert.equal(nameOf({}), "shop.default");
    assert.equal(nameOf({ serviceCluster: "istio-proxy" }), "shop.default");
    assert.equal(
      nameOf({ serviceCluster: "istio-proxy", tracingServiceName: "CANONICAL_NAME_ONLY" }),
      "store",
    );
    assert.equal(nameOf({ tracingServiceName: "CANONICAL_NAME_AND_NAMESPACE" }), "store.default");
    assert.equal(nameOf({ tracingServiceName: "APP_LABEL_AND_NAMESPACE" }), "shop.default");
    assert.equal(nameOf({ serviceCluster: "mine", tracingServiceName: "CANONICAL_NAME_ONLY" }), "mine");
  });

  test("a Pod's discoveryAddress goes before the mesh's", () => {
    const proxyConfig = { discoveryAddress: "istiod.istio-d.svc:15012" };
    assert.equal(configOf({}, proxyConfig).discoveryAddress, "istiod.istio-d.svc:15012");
    const own = configOf({ discoveryAddress: "canary.istio-d.svc:15012" }, proxyConfig);
    assert.equal(own.discoveryAddress, "canary.istio-d.svc:15012");
  });
});

describe("the service's name in spans", () => {
  const nameOf = (given: string, annotations: Readonly<Record<string, string>> = {}) => {
    const config = configOf({});
    const named = { ...config, annotations: { ...config.annotations, ...annotations } };
    const attributes = envoyEnvironment(named, given)["OTEL_RESOURCE_ATTRIBUTES"] ?? "";
    return Object.fromEntries(attributes.split(",").map((pair) => pair.split("=")))["service.name"] as string;
  };

  test("is Istio's, and by OpenTelemetry's conventions where a namespace of the service is given", () => {
    assert.equal(nameOf(""), "shop.default");
    assert.equal(nameOf("team=a"), "shop.default");
    assert.equal(nameOf("service.namespace=default,service.version=v1"), "shop-v1");
    const annotations = { "resource.opentelemetry.io/service.name": "storefront" };
    assert.equal(nameOf("team=a,service.namespace=default", annotations), "storefront");
    assert.equal(nameOf("service.namespace=default,service.name=own"), "own");
  });
});

describe("the services that ProxyConfig has Envoy tell", () => {
  interface Cluster {
    readonly name: string;
    readonly type: string;
    readonly upstream_connection_options?: object;
    readonly transport_socket?: object;
  }
  const clusterOf = (proxyConfig: ProxyConfig, name: string): Cluster | undefined => {
    const { clusters } = bootstrapOf({}, proxyConfig)["static_resources"] as { clusters: Cluster[] };
    return clusters.find((one) => one.name === name);
  };
  const address = "metrics.monitoring.svc:15000";

  test("get a cluster each, and statistics a sink", () => {
    assert.equal(clusterOf({}, "envoy_metrics_service"), undefined);
    assert.equal(bootstrapOf({})["stats_sinks"], undefined);
    const proxyConfig = { envoyMetricsService: { address }, statsdUdpAddress: "10.0.0.9:8125" };
    assert.equal(clusterOf(proxyConfig, "envoy_metrics_service")?.type, "STRICT_DNS");
    const sinks = bootstrapOf({}, proxyConfig)["stats_sinks"] as readonly { readonly name: string }[];
    assert.deepEqual(
      sinks.map(({ name }) => name),
      ["envoy.stat_sinks.statsd", "envoy.stat_sinks.metrics_service"],
    );
    assert.equal(
      clusterOf({ envoyMetricsServiceAddress: "10.0.0.9:15000" }, "envoy_metrics_service")?.type,
      "STATIC",
    );
    assert.equal(
      clusterOf({ envoyAccessLogService: { address } }, "envoy_accesslog_service")?.type,
      "STRICT_DNS",
    );
  });

  test("are kept alive and spoken TLS to as they say, with the secrets of the mesh, of files or of the system", () => {
    const service = (tlsSettings: object): Cluster | undefined =>
      clusterOf({ envoyAccessLogService: { address, tlsSettings } }, "envoy_accesslog_service");
    const socketOf = (tlsSettings: object): string =>
      JSON.stringify(service(tlsSettings)?.transport_socket ?? {});
    assert.equal(socketOf({ mode: "DISABLE" }), "{}");
    const ofMesh = socketOf({ mode: "ISTIO_MUTUAL", subjectAltNames: ["spiffe://td/ns/a/sa/b"] });
    assert.match(ofMesh, /"name":"default".*"san_type":"URI","matcher":\{"exact":"spiffe:.*"name":"ROOTCA"/);
    const files = {
      clientCertificate: "/a.pem",
      privateKey: "/a.key",
      caCertificates: "/ca.pem",
      sni: "other",
    };
    const mutual = socketOf({ mode: "MUTUAL", ...files });
    assert.match(mutual, /"sni":"other".*"file-cert:\/a.pem~\/a.key".*"exact":"other".*"file-root:\/ca.pem"/);
    const simple = socketOf({ mode: "SIMPLE" });
    assert.match(simple, /"exact":"metrics.monitoring.svc".*"file-root:system"/);
    assert.doesNotMatch(simple, /tls_certificate_sds/);
    const revoking = socketOf({ mode: "SIMPLE", caCertificates: "/ca.pem", caCrl: "/crl.pem" });
    assert.match(revoking, /"file-crl:\/crl.pem~file-root:\/ca.pem"/);
    assert.doesNotMatch(socketOf({ mode: "SIMPLE", insecureSkipVerify: true }), /validation_context/);
    const tcpKeepalive = { probes: 3, time: "60s", interval: "5s" };
    assert.deepEqual(
      clusterOf({ envoyMetricsService: { address, tcpKeepalive } }, "envoy_metrics_service")
        ?.upstream_connection_options,
      { tcp_keepalive: { keepalive_probes: 3, keepalive_time: 60, keepalive_interval: 5 } },
    );
  });

  test("a Zipkin or a Datadog agent is called over HTTP/1.1, by its older name as well, and may be the Node's own", () => {
    assert.equal(clusterOf({}, "zipkin"), undefined);
    const settings = JSON.stringify(clusterOf({ zipkinAddress: "zipkin.tracing:9411" }, "zipkin"));
    assert.match(settings, /"address":"zipkin.tracing","port_value":9411/);
    assert.doesNotMatch(settings, /http2/);
    const tracing = { zipkin: { address: "$(HOST_IP):9411" }, tlsSettings: { mode: "ISTIO_MUTUAL" } };
    const local = JSON.stringify(clusterOf({ tracing }, "zipkin"));
    assert.match(local, /"type":"STATIC".*"address":"192.0.2.7".*"istio-http\/1.1"/);
    assert.equal(configOf({}, { tracing }).metadata["BOOTSTRAP_TRACER"], "zipkin");
    const datadog = { tracing: { datadog: { address: "$(HOST_IP):8126" } } };
    assert.match(
      JSON.stringify(clusterOf(datadog, "datadog_agent")),
      /"address":"192.0.2.7","port_value":8126/,
    );
    assert.equal(configOf({}, datadog).metadata["BOOTSTRAP_TRACER"], "datadog");
    assert.equal(configOf({}).metadata["BOOTSTRAP_TRACER"], undefined);
  });

  test("are taken by the real Envoy", { skip: withoutEnvoy }, () => {
    const modes = [
      { mode: "ISTIO_MUTUAL" },
      { mode: "SIMPLE" },
      { mode: "SIMPLE", insecureSkipVerify: true },
    ];
    for (const tlsSettings of modes) {
      const service = { address, tlsSettings, tcpKeepalive: { probes: 3 } };
      const tracing = { zipkin: { address: "zipkin:9411" }, tlsSettings };
      const proxyConfig = { envoyAccessLogService: service, envoyMetricsService: service, tracing };
      assert.equal(complaint(bootstrapOf({}, proxyConfig)), "");
    }
  });
});
