import assert from "node:assert/strict";
import { test } from "node:test";
import { renderBootstrap, nodeIdOf } from "./bootstrap.ts";
import { ConfigError, durationMs, parseConfig, parseDownward } from "./config.ts";

const env = {
  POD_NAME: "reviews-v1-abc",
  POD_NAMESPACE: "default",
  INSTANCE_IP: "10.244.0.7",
  SERVICE_ACCOUNT: "reviews",
  ISTIO_META_WORKLOAD_NAME: "reviews-v1",
  ISTIO_META_CLUSTER_ID: "Kubernetes",
  ISTIO_METAJSON_EXTRA: '{"DEPTH": 3}',
  ISTIO_CPU_LIMIT: "2",
  PROXY_CONFIG:
    '{"drainDuration":"45s","terminationDrainDuration":"7s","proxyMetadata":{"ISTIO_META_X":"y"}}',
};
const labels = { app: "reviews", version: "v1" };
const inputs = {
  env,
  args: ["sidecar", "--domain", "default.svc.cluster.local", "--proxyLogLevel=info"],
  labels,
};
const config = parseConfig({ ...inputs, annotations: {}, envoyPath: "envoy" });

test("the injected environment becomes the node that the control plane knows", () => {
  assert.equal(nodeIdOf(config), "sidecar~10.244.0.7~reviews-v1-abc.default~default.svc.cluster.local");
  assert.equal(config.serviceCluster, "reviews.default");
  assert.equal(config.metadata["WORKLOAD_NAME"], "reviews-v1");
  assert.equal(config.metadata["DEPTH"], 3);
  assert.equal(config.metadata["X"], "y");
  assert.equal(config.terminationDrainMs, 7_000);
  assert.equal(config.concurrency, 2);
  assert.equal(config.logLevel, "info");
});

test("only the mesh's own annotations are told to the control plane", () => {
  const annotations = {
    "kubectl.kubernetes.io/last-applied-configuration": "{...}",
    "sidecar.istio.io/inject": "true",
  };
  const told = parseConfig({ ...inputs, annotations, envoyPath: "envoy" }).metadata["ANNOTATIONS"];
  assert.deepEqual(told, { "sidecar.istio.io/inject": "true" });
});

test("a missing name or broken JSON is said in one sentence", () => {
  const broken = (change: object): void =>
    void parseConfig({ ...inputs, env: { ...env, ...change }, annotations: {}, envoyPath: "envoy" });
  assert.throws(
    () => broken({ POD_NAME: "" }),
    new ConfigError("the environment variable POD_NAME is missing"),
  );
  assert.throws(() => broken({ PROXY_CONFIG: "{" }), /PROXY_CONFIG is not JSON/);
  assert.throws(() => broken({ PROXY_CONFIG: '{"drainDuration":"soon"}' }), /"soon" is not a duration/);
});

test("durations are read as Go and protobuf write them", () => {
  assert.equal(durationMs("1m30s", 0), 90_000);
  assert.equal(durationMs("250ms", 0), 250);
  assert.equal(durationMs("5", 0), 5_000);
  assert.equal(durationMs(undefined, 7), 7);
});

test("the downward API's quoting is undone", () => {
  const text = 'app="reviews"\nnote="a \\"b\\"\\nc"\n\nversion="v1"';
  assert.deepEqual(parseDownward(text), { app: "reviews", note: 'a "b"\nc', version: "v1" });
});

test("the bootstrap trusts the control plane only under its name and by the mesh's root", () => {
  const text = JSON.stringify(renderBootstrap(config));
  assert.match(text, /"exact":"istiod\.istio-d\.svc"/);
  assert.match(text, /"api_type":"DELTA_GRPC"/);
  assert.match(text, /"name":"ROOTCA"/);
  assert.match(text, /"admin":\{"address":\{"socket_address":\{"address":"127\.0\.0\.1","port_value":15000/);
});

test("statistics that an annotation asks for are kept", () => {
  const annotations = { "sidecar.istio.io/statsInclusionPrefixes": "cluster.outbound,http" };
  const bootstrap = JSON.stringify(renderBootstrap({ ...config, annotations }));
  assert.match(bootstrap, /"prefix":"cluster\.outbound"/);
});
