// What proxies send to collectors: spans of one call from both of its sides, and access logs as OpenTelemetry has them. And what they
// run: a Wasm module of a registry.

import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { stringify } from "yaml";
import type { KubeObject } from "#objects";
import type { Collected } from "./collector.ts";
import { deployEchoes, echoIn, order, podIp } from "./echoes.ts";
import { configText, eventually, type Mesh, patchConfig, pause, root, startMesh } from "./mesh.ts";

const name = "telemetry-e2e";
const port = 14_317;
const host = "collector.example.org";
const ports = [{ name: "http", servicePort: 80, workloadPort: 8080, flag: "http" }] as const;
const providers = [
  { name: "zipkin", zipkin: { service: host, port } },
  {
    name: "otel",
    opentelemetry: {
      service: host,
      port: port + 1,
      serviceAttributeEnrichment: "OTEL_SEMANTIC_CONVENTIONS",
    },
  },
  { name: "logs", envoyOtelAls: { service: host, port: port + 1, logFormat: { text: "told %REQ(:PATH)%" } } },
];

let mesh: Mesh;
let collector: ChildProcess | undefined;
let registry: ChildProcess | undefined;
let front = "";
let nodeAddress = "";
const collected: Collected[] = [];

before(async () => {
  mesh = await startMesh({ name, port: 18_790 });
  await mesh.kubectl(["create", "namespace", "shop"]);
  await mesh.kubectl(["label", "namespace", "shop", "istio-injection=enabled"]);
  await deployEchoes(
    mesh,
    ["front", "back"].map((app) => ({ name: app, namespace: "shop", ports })),
  );
  front = await podIp(mesh, "shop", "app=front");
  await startCollector();
  const known = await configText(mesh, "istio", "mesh");
  await patchConfig(mesh, "istio", {
    mesh: `${known}\n${stringify({ extensionProviders: providers, enableEnvoyAccessLogService: true })}`,
  });
});
after(async () => {
  collector?.kill("SIGKILL");
  registry?.kill("SIGKILL");
  await mesh?.down();
});

/** Outside of the mesh, on the node itself, where every pod reaches it. */
async function startCollector(): Promise<void> {
  const words = [process.execPath, join(root, "test/e2e/collector.ts"), String(port)];
  collector = spawn("nsenter", [`--net=/run/netns/mizzen-${name}`, "--", ...words], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let rest = "";
  collector.stdout?.on("data", (chunk: Buffer) => {
    const lines = `${rest}${chunk.toString()}`.split("\n");
    rest = lines.pop() ?? "";
    collected.push(...lines.map((line) => JSON.parse(line) as Collected));
  });
  const route = await mesh.inNode(["ip", "-4", "route", "get", front]);
  const [, address = ""] = / src (\S+)/.exec(route.stdout) ?? [];
  nodeAddress = address;
  await apply("networking.istio.io/v1", "ServiceEntry", "collector", {
    hosts: [host],
    location: "MESH_EXTERNAL",
    resolution: "STATIC",
    ports: [
      { number: port, name: "http", protocol: "HTTP" },
      { number: port + 1, name: "grpc", protocol: "GRPC" },
    ],
    endpoints: [{ address }],
  });
}

/** Calls a service until something collected is of that call, by the trace id that the service has seen. */
async function traced(isOf: (traceId: string) => boolean, to = "back"): Promise<void> {
  await eventually("the spans of both sides, under one trace id", async () => {
    // Envoy sends spans once it has five, or after some seconds.
    const [result] = await order(mesh, front, { url: `http://${to}/traced`, count: 6 });
    const headers = echoIn(result)?.headers ?? {};
    const traceId = headers["traceparent"]?.split("-")[1] ?? headers["x-b3-traceid"] ?? "";
    assert.notEqual(traceId, "", "the application sees the trace");
    for (let tried = 0; tried < 80 && !isOf(traceId); tried++) await pause(100);
    return isOf(traceId) ? true : undefined;
  });
}

test("both sidecars of a call report spans of one trace to Zipkin", async () => {
  await telemetry({ tracing: [{ providers: [{ name: "zipkin" }], randomSamplingPercentage: 100 }] });
  await traced((traceId) => {
    const spans = collected
      .filter(({ path }) => path === "/api/v2/spans")
      .flatMap(({ text }) => JSON.parse(text) as Span[])
      .filter((span) => span.traceId === traceId);
    const sides = spans.map(({ kind, localEndpoint }) => `${kind} ${localEndpoint.serviceName}`).toSorted();
    return (
      sides.join() === "CLIENT front.shop,SERVER back.shop" &&
      spans.every(
        ({ tags }) => tags["istio.canonical_service"] !== undefined && tags["istio.namespace"] === "shop",
      )
    );
  });
});

interface Span {
  readonly traceId: string;
  readonly kind: string;
  readonly localEndpoint: { readonly serviceName: string };
  readonly tags: Readonly<Record<string, string>>;
}

test("and to OpenTelemetry, with the workloads' names", async () => {
  await telemetry({ tracing: [{ providers: [{ name: "otel" }], randomSamplingPercentage: 100 }] });
  await traced((traceId) => {
    const bytes = Buffer.from(traceId, "hex").toString("latin1");
    const of = collected.filter(
      ({ path, text }) => path.endsWith("TraceService/Export") && text.includes(bytes),
    );
    return ["front.shop", "back.shop"].every((service) => of.some(({ text }) => text.includes(service)));
  });
});

test("a Pod made since the provider goes by OpenTelemetry's conventions names its service, version and instance so", async () => {
  // Those of before keep Istio's names: what a proxy's environment holds is of its start.
  const service = { address: `${nodeAddress}:${port + 1}`, tcpKeepalive: { probes: 3 } };
  const annotations = {
    "proxy.istio.io/config": stringify({
      envoyAccessLogService: service,
      envoyMetricsService: service,
      tracing: { zipkin: { address: `${nodeAddress}:${port}` }, sampling: 100 },
    }),
    "sidecar.istio.io/statsFlushInterval": "1s",
  };
  const labels = { "app.kubernetes.io/version": "7.1" };
  await deployEchoes(mesh, [{ name: "named", namespace: "shop", ports, labels, annotations }]);
  await traced((traceId) => {
    const bytes = Buffer.from(traceId, "hex").toString("latin1");
    const of = collected.filter(
      ({ path, text }) => path.endsWith("TraceService/Export") && text.includes(bytes),
    );
    const told = of.find(({ text }) => text.includes("service.instance.id"))?.text ?? "";
    return (
      /shop\.named-[\w-]+\.echo/.test(told) &&
      ["service.version", "7.1"].every((one) => told.includes(one)) &&
      /service\.name.{2,8}named(?!\.shop)/s.test(told)
    );
  }, "named");
});

test("its own services for access logs and statistics are told, and proxies that know none are not disturbed by that", async () => {
  const told = (path: string, text: string) =>
    collected.some((one) => one.path === `/envoy.service.${path}` && one.text.includes(text)) || undefined;
  await eventually("the access log of a call", async () => {
    await order(mesh, front, { url: "http://named/told" });
    return told("accesslog.v3.AccessLogService/StreamAccessLogs", "/told");
  });
  await eventually("statistics", async () =>
    told("metrics.v3.MetricsService/StreamMetrics", "istio_requests_total"),
  );
});

test("access logs go to OpenTelemetry, in the provider's format", async () => {
  await telemetry({ accessLogging: [{ providers: [{ name: "logs" }] }] });
  await eventually("a line of each side", async () => {
    await order(mesh, front, { url: "http://back/logged" });
    const lines = collected.filter(
      ({ path, text }) => path.endsWith("LogsService/Export") && text.includes("told /logged"),
    );
    return lines.length >= 2 ? true : undefined;
  });
});

test("metrics get and lose tags as Telemetry says", async () => {
  const tagOverrides = {
    path: { value: "request.path" },
    response_code: { operation: "REMOVE" },
    source_app: { value: "'mine'" },
  };
  await telemetry({ metrics: [{ overrides: [{ match: { metric: "REQUEST_COUNT" }, tagOverrides }] }] });
  await eventually("the tags on the client's side", async () => {
    await order(mesh, front, { url: "http://back/tagged" });
    const scraped = await mesh.inNode(["curl", "-s", `http://${front}:15020/stats/prometheus`]);
    const line = scraped.stdout
      .split("\n")
      .find((one) => one.startsWith("istio_requests_total{") && one.includes('path="/tagged"'));
    assert.match(line ?? "", /source_app="mine"/);
    assert.doesNotMatch(line ?? "", /response_code=|removed=/);
    assert.match(line ?? "", /destination_service_name="back"/);
    return true;
  });
});

test("without a Telemetry nothing is sent any more", async () => {
  await mesh.kubectl(["delete", "telemetry", "own", "-n", "shop"]);
  await eventually("a call without a trace", async () => {
    const [result] = await order(mesh, front, { url: "http://back/" });
    const headers = echoIn(result)?.headers ?? {};
    return headers["traceparent"] === undefined && headers["x-b3-traceid"] === undefined ? true : undefined;
  });
});

test("a Wasm module of a private registry runs in sidecars, and closes its workload until it can be fetched", async () => {
  const [user, password, registryPort] = ["ann", "not-for-everybody", 5_000];
  const words = [process.execPath, join(root, "test/e2e/registry.ts"), String(registryPort), user, password];
  registry = spawn("nsenter", [`--net=/run/netns/mizzen-${name}`, "--", ...words], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await new Promise((resolve) => registry?.stdout?.once("data", resolve));
  const registryHost = `${nodeAddress}:${registryPort}`;
  const plugin = (more: object): Promise<void> =>
    apply("extensions.istio.io/v1alpha1", "WasmPlugin", "tag", {
      selector: { matchLabels: { app: "back" } },
      url: `oci://${registryHost}/team/tag:1`,
      ...more,
    });
  const calls = async (status: number, header: string | undefined): Promise<true> => {
    const [result] = await order(mesh, front, { url: "http://back/" });
    assert.deepEqual([result?.status, result?.headers["x-image"]], [status, header]);
    return true;
  };

  const says = (why: RegExp): Promise<true> =>
    eventually<true>(`the status says ${why.source}`, async () => {
      const status = await mesh.kubectl([
        "get",
        "wasmplugin",
        "tag",
        "-n",
        "shop",
        "-o",
        "jsonpath={.status}",
      ]);
      assert.match(status, why);
      return true;
    });

  await plugin({});
  await says(
    /speaks no TLS, and is not among WASM_INSECURE_REGISTRIES; what it would see is answered with 503/,
  );
  // Connections from before go on under the filters that they came with, until Envoy has drained them.
  await eventually("calls are refused without the module, on every connection", async () => {
    const results = await order(mesh, front, { url: "http://back/", count: 40 });
    assert.deepEqual([...new Set(results.map(({ status }) => status))], [503]);
    return true;
  });
  // A control plane that starts anew does not open what was closed.
  const statuses = new Set<number | undefined>();
  let isOver = false;
  const watching = (async () => {
    while (!isOver) {
      const [result] = await order(mesh, front, { url: "http://back/" });
      statuses.add(result?.status);
      await pause(100);
    }
  })();
  const istiod = ["deployment/istiod", "-n", "istio-d"];
  try {
    await mesh.kubectl(["set", "env", ...istiod, `WASM_INSECURE_REGISTRIES=${registryHost}`]);
    await mesh.kubectl(["rollout", "status", ...istiod, "--timeout=60s"]);
    await says(/gives it to no one without credentials; what it would see is answered with 503/);
  } finally {
    isOver = true;
    await watching;
  }
  assert.deepEqual([...statuses], [503]);
  const named = [
    `--docker-server=${registryHost}`,
    `--docker-username=${user}`,
    `--docker-password=${password}`,
  ];
  await mesh.kubectl(["create", "secret", "docker-registry", "pull", "-n", "shop", ...named]);
  await plugin({ imagePullSecret: "pull" });
  await eventually("the module runs", () => calls(200, "yes"));
  const log = await mesh.kubectl(["logs", "-n", "istio-d", "-l", "app=istiod", "--tail=1000"]);
  assert.match(log, /a Wasm module cannot be fetched/);
  assert.ok(!log.includes(password));
});

function telemetry(spec: object): Promise<void> {
  return apply("telemetry.istio.io/v1", "Telemetry", "own", spec);
}

async function apply(apiVersion: string, kind: string, named: string, spec: object): Promise<void> {
  const object: KubeObject = { apiVersion, kind, metadata: { name: named, namespace: "shop" }, spec };
  await mesh.kubectl(["apply", "-f", "-"], stringify(object));
}

test("but a proxy whose Pod names a Zipkin by its address, and traces by itself", async () => {
  await eventually("a span of its side alone", async () => {
    await order(mesh, front, { url: "http://named/by-itself", count: 6 });
    const spans = collected
      .filter(({ path }) => path === "/api/v2/spans")
      .flatMap(({ text }) => JSON.parse(text) as Span[])
      .filter(({ tags }) => tags["http.url"]?.endsWith("/by-itself"));
    assert.deepEqual(
      [...new Set(spans.map(({ kind, localEndpoint }) => `${kind} ${localEndpoint.serviceName}`))],
      spans.length === 0 ? [] : ["SERVER named.shop"],
    );
    return spans.length === 0 ? undefined : true;
  });
});
