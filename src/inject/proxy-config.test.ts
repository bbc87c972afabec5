import assert from "node:assert/strict";
import { test } from "node:test";
import type { ProxyConfig, ProxyConfigSpec } from "#objects";
import { injectPod, mergeValues, type Pod } from "./index.ts";
import { mergeProxyConfigs } from "./proxy-config.ts";

function proxyConfig(
  name: string,
  namespace: string,
  spec: ProxyConfigSpec,
  at = "2026-01-01T00:00:00Z",
): ProxyConfig {
  return {
    apiVersion: "networking.istio.io/v1beta1",
    kind: "ProxyConfig",
    metadata: { name, namespace, creationTimestamp: at },
    spec,
  };
}

const forMesh = proxyConfig("mesh", "istio-d", {
  concurrency: 3,
  environmentVariables: { A: "mesh", B: "mesh", C: "mesh", D: "mesh" },
});
const forNamespace = proxyConfig("shop", "shop", {
  environmentVariables: { B: "namespace", C: "namespace", D: "namespace" },
});
const forPods = proxyConfig("reviews", "shop", {
  selector: { matchLabels: { app: "reviews" } },
  concurrency: 4,
  environmentVariables: { C: "pods", D: "pods" },
  image: { imageType: "debug" },
});
const younger = proxyConfig(
  "younger",
  "shop",
  { environmentVariables: { B: "younger" } },
  "2026-02-01T00:00:00Z",
);
const elsewhere = proxyConfig("elsewhere", "other", { concurrency: 9 });

function injected(annotation?: string, labels: Readonly<Record<string, string>> = { app: "reviews" }) {
  const annotations: Record<string, string> =
    annotation === undefined ? {} : { "proxy.istio.io/config": annotation };
  const pod: Pod = {
    metadata: { name: "reviews", labels, annotations },
    spec: { containers: [{ name: "reviews", image: "reviews" }] },
  };
  const { pod: result, problems } = injectPod(pod, {
    namespace: "shop",
    values: mergeValues(),
    mesh: { defaultConfig: { concurrency: 1, proxyMetadata: { A: "default", Z: "default" } } },
    proxyConfigs: [younger, forPods, elsewhere, forNamespace, forMesh],
    revision: "",
    nativeSidecars: false,
  });
  assert.deepEqual(problems, []);
  const proxy = result.spec?.containers?.find(({ name }) => name === "istio-proxy");
  const env = Object.fromEntries((proxy?.env ?? []).map(({ name, value }) => [name, value ?? ""]));
  const config = JSON.parse(env["PROXY_CONFIG"] ?? "{}") as { concurrency?: number };
  const words = ["A", "B", "C", "D", "Z"].map((name) => env[name]).join(" ");
  return { concurrency: config.concurrency, words, image: proxy?.image ?? "" };
}

test("the nearer ProxyConfig goes before the wider, and the pod's annotation before all", () => {
  const given = injected("{ concurrency: 5, proxyMetadata: { D: own } }");
  assert.equal(given.concurrency, 5);
  assert.equal(given.words, "mesh namespace pods own default");
  assert.match(given.image, /-debug$/);
});

test("of serviceCluster and tracingServiceName the nearer goes before", () => {
  const merged = (...configs: Parameters<typeof mergeProxyConfigs>[0]) => mergeProxyConfigs(configs);
  const cluster = { serviceCluster: "mine" };
  const scheme = { tracingServiceName: "CANONICAL_NAME_ONLY" };
  assert.deepEqual(merged(cluster, scheme), scheme);
  assert.deepEqual(merged(scheme, cluster), cluster);
  assert.deepEqual(merged({ ...cluster, ...scheme }), { ...cluster, ...scheme });
});

test("without an annotation the pods' own ProxyConfig decides, and a pod that it does not select has the namespace's", () => {
  assert.equal(injected().concurrency, 4);
  const other = injected(undefined, { app: "ratings" });
  assert.equal(other.concurrency, 3);
  assert.equal(other.words, "mesh namespace namespace namespace default");
  assert.doesNotMatch(other.image, /-debug$/);
});
