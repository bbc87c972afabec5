import assert from "node:assert/strict";
import { test } from "node:test";
import { decideInjection, injectPod, mergeValues, type Pod } from "./index.ts";

const settings = {
  namespace: "default",
  values: mergeValues(),
  mesh: { trustDomain: "cluster.local" },
  revision: "",
  nativeSidecars: true,
};

function reviews(change: Partial<Pod> = {}): Pod {
  return {
    metadata: {
      generateName: "reviews-v1-6d8-",
      labels: { app: "reviews", version: "v1", "pod-template-hash": "6d8" },
      ownerReferences: [
        { apiVersion: "apps/v1", kind: "ReplicaSet", name: "reviews-v1-6d8", controller: true },
      ],
      ...change.metadata,
    },
    spec: {
      containers: [{ name: "reviews", image: "reviews", ports: [{ containerPort: 9080 }] }],
      ...change.spec,
    },
  };
}

function environmentOf(pod: Pod): Record<string, string | undefined> {
  const proxy = [...(pod.spec?.initContainers ?? []), ...(pod.spec?.containers ?? [])].find(
    ({ name }) => name === "istio-proxy",
  );
  return Object.fromEntries((proxy?.env ?? []).map(({ name, value }) => [name, value]));
}

test("a pod gets capture first and then a native sidecar, and its Deployment is named", () => {
  const { pod, problems } = injectPod(reviews(), settings);
  assert.deepEqual(problems, []);
  assert.deepEqual(
    pod.spec?.initContainers?.map(({ name }) => name),
    ["istio-init", "istio-proxy"],
  );
  assert.equal(pod.spec?.initContainers?.[1]?.restartPolicy, "Always");
  const environment = environmentOf(pod);
  assert.equal(environment["ISTIO_META_WORKLOAD_NAME"], "reviews-v1");
  assert.equal(environment["CA_ADDR"], "istiod.istio-d.svc:15012");
  assert.equal(pod.metadata?.labels?.["service.istio.io/canonical-revision"], "v1");
});

test("the pod that comes in is left as it is, its probes too, which go to the agent in the result", () => {
  const readinessProbe = { httpGet: { path: "/health", port: 9080 }, periodSeconds: 2 };
  const pod = reviews({ spec: { containers: [{ name: "reviews", image: "reviews", readinessProbe }] } });
  const before = structuredClone(pod);
  const { pod: injected } = injectPod(pod, settings);
  assert.deepEqual(pod, before);
  const rewritten = injected.spec?.containers?.find(({ name }) => name === "reviews")?.readinessProbe;
  assert.deepEqual(rewritten, {
    httpGet: { path: "/app-health/reviews/readyz", port: 15020 },
    periodSeconds: 2,
  });
  assert.match(environmentOf(injected)["ISTIO_KUBE_APP_PROBERS"] ?? "", /"path":"\/health","port":9080/);
});

test("without native sidecars the proxy is the last container, or the first when it holds the application back", () => {
  const last = injectPod(reviews(), { ...settings, nativeSidecars: false }).pod;
  assert.deepEqual(
    last.spec?.containers?.map(({ name }) => name),
    ["reviews", "istio-proxy"],
  );
  const mesh = { defaultConfig: { holdApplicationUntilProxyStarts: true } };
  const first = injectPod(reviews(), { ...settings, mesh, nativeSidecars: false }).pod;
  assert.deepEqual(
    first.spec?.containers?.map(({ name }) => name),
    ["istio-proxy", "reviews"],
  );
});

test("a gateway pod becomes a router without capture, and keeps what its author wrote about the proxy", () => {
  const { pod } = injectPod(
    {
      metadata: { annotations: { "inject.istio.io/templates": "gateway" } },
      spec: { containers: [{ name: "istio-proxy", image: "auto", resources: { limits: { cpu: "3" } } }] },
    },
    settings,
  );
  const [proxy] = pod.spec?.containers ?? [];
  assert.equal(pod.spec?.initContainers, undefined);
  assert.deepEqual(proxy?.args?.slice(0, 2), ["proxy", "router"]);
  assert.equal(proxy?.image, "mizzen/proxyv2:0.1.0");
  assert.deepEqual(proxy?.resources, { limits: { cpu: "3" } });
});

test("an operator's template goes on top of the built-in one and reads the pod", () => {
  const sidecar =
    "metadata: { annotations: { team: '${pod.metadata.labels[app]}' } }\nspec: { containers: [{ name: '*', env: [{ name: ZONE, value: '${values.zone|none}' }] }] }";
  const values = mergeValues({ sidecarInjectorWebhook: { templates: { sidecar } } });
  const { pod } = injectPod(reviews(), { ...settings, values });
  assert.equal(pod.metadata?.annotations?.["team"], "reviews");
  assert.deepEqual(pod.spec?.containers?.[0]?.env, [{ name: "ZONE", value: "none" }]);
});

test("a template that reads what a pod does not have is refused with its name", () => {
  const values = mergeValues({
    sidecarInjectorWebhook: { templates: { sidecar: "metadata: { labels: { a: '${pod.nothing}' } }" } },
  });
  const { problems } = injectPod(reviews(), { ...settings, values });
  assert.match(problems[0]?.text ?? "", /template sidecar reads \$\{pod\.nothing\}/);
});

test("an annotation that cannot work is refused with what is expected", () => {
  const bad = reviews({
    metadata: { annotations: { "traffic.sidecar.istio.io/includeOutboundIPRanges": "ten" } },
  });
  const { problems } = injectPod(bad, settings);
  assert.match(problems[0]?.text ?? "", /a list of networks/);
});

test("the pod's own proxy configuration goes over the mesh's, metadata by name", () => {
  const mesh = { defaultConfig: { concurrency: 1, proxyMetadata: { A: "1", B: "2" } } };
  const own = reviews({
    metadata: { annotations: { "proxy.istio.io/config": "concurrency: 4\nproxyMetadata: { B: '3' }" } },
  });
  const environment = environmentOf(injectPod(own, { ...settings, mesh }).pod);
  assert.deepEqual(JSON.parse(environment["PROXY_CONFIG"] ?? ""), {
    concurrency: 4,
    proxyMetadata: { A: "1", B: "3" },
  });
  assert.deepEqual([environment["A"], environment["B"]], ["1", "3"]);
});

test("where a tracing provider goes by OpenTelemetry's conventions, the proxy is told what its service is", () => {
  const conventional = { serviceAttributeEnrichment: "OTEL_SEMANTIC_CONVENTIONS" };
  const mesh = { extensionProviders: [{}, { opentelemetry: conventional }] };
  const told = (more: Pod, own: object = mesh) =>
    environmentOf(injectPod(reviews(more), { ...settings, mesh: own }).pod)["OTEL_RESOURCE_ATTRIBUTES"];
  const image = (name: string): Pod => ({ spec: { containers: [{ name: "app", image: name }] } });
  const instance = "service.instance.id=default.$(POD_NAME).app";
  assert.equal(told({}, {}), undefined);
  assert.equal(told({}, { extensionProviders: [{ opentelemetry: {} }] }), undefined);
  const wanted: readonly (readonly [Pod, string])[] = [
    [image("registry:5000/app"), ""],
    [image("registry:5000/app:1.2"), "service.version=1.2,"],
    [image("app:1.2@sha256:ab"), "service.version=1.2@sha256:ab,"],
    [
      { ...image("app:1.2"), metadata: { labels: { "app.kubernetes.io/version": "v3" } } },
      "service.version=v3,",
    ],
  ];
  for (const [pod, version] of wanted)
    assert.equal(told(pod), `service.namespace=default,${version}${instance}`);
  const annotations = Object.fromEntries(
    ["namespace", "version", "instance.id"].map((name) => [
      `resource.opentelemetry.io/service.${name}`,
      `a,b=${name}`,
    ]),
  );
  assert.equal(
    told({ ...image("app:1.2"), metadata: { annotations } }),
    "service.namespace=a%2Cb%3Dnamespace,service.version=a%2Cb%3Dversion,service.instance.id=a%2Cb%3Dinstance.id",
  );
  const proxyMetadata = { OTEL_RESOURCE_ATTRIBUTES: "team=a" };
  assert.equal(told({}, { ...mesh, defaultConfig: { proxyMetadata } }), "team=a");
});

test("policy: the pod decides over its namespace, and the host's network over all", () => {
  const enabled = { name: "default", labels: { "istio-injection": "enabled" } };
  const plain = { name: "default", labels: {} };
  const asks = (value: string) => reviews({ metadata: { labels: { "sidecar.istio.io/inject": value } } });
  const cases: [Pod, typeof enabled | typeof plain, boolean][] = [
    [reviews(), enabled, true],
    [reviews(), plain, false],
    [asks("false"), enabled, false],
    [asks("true"), plain, true],
    [reviews({ spec: { hostNetwork: true } }), enabled, false],
    [reviews(), { name: "kube-system", labels: { "istio-injection": "enabled" } }, false],
    [injectPod(reviews(), settings).pod, enabled, false],
    [reviews(), { name: "default", labels: { "istio.io/rev": "canary" } } as unknown as typeof plain, true],
  ];
  for (const [pod, namespace, expected] of cases) {
    const decision = decideInjection(pod, namespace, settings.values);
    assert.equal(decision.inject, expected, decision.reason);
  }
});
