import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { kinds, resourceName } from "./kinds.ts";
import type { KubeObject } from "./object.ts";
import { problemTable } from "./problems.ts";
import { schemaKinds, schemaOf } from "./schema.ts";
import { admissionProblems, hasErrors, validateObject } from "./validate.ts";

function istioObject(kind: string, spec: unknown, group = "networking.istio.io/v1"): KubeObject {
  return { apiVersion: group, kind, metadata: { name: "a", namespace: "default" }, spec };
}

const said = (object: KubeObject) =>
  validateObject(object).map(({ code, at, text }) => `${code} ${at.path}: ${text}`);

describe("validation by schema", () => {
  test("a problem names the field, what was found and what is expected", () => {
    assert.deepEqual(said(istioObject("VirtualService", { hosts: "reviews" })), [
      'MZ0101 spec.hosts: found "reviews", expected a list',
    ]);
  });

  test("an enum names its words", () => {
    const [problem] = validateObject(
      istioObject("DestinationRule", { host: "a", trafficPolicy: { tls: { mode: "STRICT" } } }),
    );
    assert.equal(problem?.code, "MZ0104");
    assert.match(problem?.text ?? "", /expected one of DISABLE, SIMPLE, MUTUAL, ISTIO_MUTUAL/);
  });

  test("an unknown field is a warning that offers the nearest name", () => {
    const problems = validateObject(
      istioObject("VirtualService", {
        hosts: ["a"],
        http: [{ route: [{ destinaton: {}, destination: { host: "a" } }] }],
      }),
    );
    assert.deepEqual(
      problems.map(({ severity, text }) => [severity, text]),
      [["warning", "destinaton is no field here: is destination meant?"]],
    );
  });

  test("fields that exclude each other are named", () => {
    const spec = {
      hosts: ["a"],
      http: [{ match: [{ uri: { exact: "/a", prefix: "/b" } }], route: [{ destination: { host: "a" } }] }],
    };
    assert.match(
      said(istioObject("VirtualService", spec))[0] ?? "",
      /MZ0106 spec.http\[0\].match\[0\].uri: exact and prefix are set/,
    );
  });

  test("CEL rules speak in our words", () => {
    const spec = { host: "a", trafficPolicy: { connectionPool: { tcp: { connectTimeout: "0s" } } } };
    assert.match(said(istioObject("DestinationRule", spec))[0] ?? "", /must be a duration of at least 1ms/);
  });

  test("Gateway API's rules hold after its defaults were filled in", () => {
    const route = (backend: object) =>
      istioObject("HTTPRoute", { rules: [{ backendRefs: [backend] }] }, "gateway.networking.k8s.io/v1");
    assert.equal(hasErrors(validateObject(route({ name: "a", port: 80 }))), false);
    assert.equal(hasErrors(validateObject(route({ name: "a" }))), true, "a Service needs a port");
  });

  test("an unknown version is a warning that names the served ones", () => {
    const problems = validateObject(istioObject("VirtualService", {}, "networking.istio.io/v7"));
    assert.deepEqual(
      problems.map(({ code }) => code),
      ["MZ0003"],
    );
  });

  test("kinds of Kubernetes are left to their API server", () => {
    assert.deepEqual(
      validateObject({ apiVersion: "v1", kind: "Service", metadata: { name: "a" }, spec: { ports: "x" } }),
      [],
    );
  });
});

describe("validation by rules", () => {
  test("weights that add up to nothing are refused", () => {
    const route = [{ destination: { host: "a" } }, { destination: { host: "b" } }];
    assert.match(
      said(istioObject("VirtualService", { hosts: ["a"], http: [{ route }] }))[0] ?? "",
      /no destination has a weight/,
    );
  });

  test("a route behind one that takes everything is a warning", () => {
    const route = [{ destination: { host: "a" } }];
    const problems = validateObject(
      istioObject("VirtualService", {
        hosts: ["a"],
        http: [{ route }, { match: [{ uri: { prefix: "/a" } }], route }],
      }),
    );
    assert.deepEqual(
      problems.map(({ code, severity }) => [code, severity]),
      [["MZ0252", "warning"]],
    );
  });

  test("a regex with look-ahead is refused, since Envoy has none", () => {
    const spec = {
      hosts: ["a"],
      http: [{ match: [{ uri: { regex: "^(?!a)" } }], route: [{ destination: { host: "a" } }] }],
    };
    assert.match(said(istioObject("VirtualService", spec))[0] ?? "", /not a regex of RE2's syntax/);
  });

  test("an EnvoyFilter's patch is judged by what the caller hands in", () => {
    const spec = {
      configPatches: [{ applyTo: "CLUSTER", patch: { operation: "MERGE", value: { nmae: "a" } } }],
    };
    const object = istioObject("EnvoyFilter", spec, "networking.istio.io/v1alpha3");
    assert.equal(hasErrors(validateObject(object)), false);
    assert.equal(
      hasErrors(
        validateObject(object, {
          envoyFilter: () => [{ path: "spec.configPatches[0].patch.value.name", text: "expected a string" }],
        }),
      ),
      true,
    );
  });
});

describe("tables", () => {
  test("every kind of Istio and Gateway API has a schema in each of its versions", () => {
    for (const { kind, group, versions, family } of kinds)
      if (family !== "kubernetes")
        for (const version of versions)
          assert.ok(schemaOf(`${group}/${version}`, kind), `${group}/${version} ${kind}`);
    assert.ok(schemaKinds().length >= 25);
  });

  test("no two kinds share a resource's name", () => {
    assert.equal(new Set(kinds.map(resourceName)).size, kinds.length);
  });

  test("every code has a title and a remedy", () => {
    for (const [code, row] of Object.entries(problemTable)) {
      assert.match(code, /^MZ\d{4}$/);
      assert.ok(row.title.length > 0 && row.remedy.endsWith("."));
    }
  });
});

test("what a Pod's template says of its own proxy is read: fields without effect are named with the reason, mistakes told", () => {
  const said = (text: string) => {
    const template = { metadata: { annotations: { "proxy.istio.io/config": text } } };
    const metadata = { name: "shop", namespace: "default" };
    const object = { apiVersion: "apps/v1", kind: "Deployment", metadata, spec: { template } };
    return admissionProblems(object).map(({ at, text: fault }) => `${at.path} ${fault}`);
  };
  const at = 'spec.template.metadata.annotations["proxy.istio.io/config"]';
  assert.deepEqual(said("proxyHeaders: { server: { value: mine } }"), []);
  const unnamed = said("statNameLength: 300").join();
  assert.ok(unnamed.startsWith(`${at}.statNameLength this field has no effect: Envoy bounds`), unnamed);
  assert.match(
    said("connectionSettings: { httpMaxConcurrentStreams: 0 }")[0] ?? "",
    /httpMaxConcurrentStreams: 0 is too small/,
  );
  assert.match(said("proxyHeaders: { server: { value: 'a\\nb' } }").join(), /^$/);
  assert.match(said('proxyHeaders: { server: { value: "a\\nb" } }')[0] ?? "", /no header may hold/);
});

test("the mesh's settings are judged in their ConfigMap: wrong ones refuse it, those without effect are named", () => {
  const said = (name: string, data: Readonly<Record<string, string>>) =>
    admissionProblems({
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name, namespace: "istio-d" },
      data,
    } as KubeObject).map(({ severity, at, text }) => `${severity} ${at.path}: ${text}`);
  assert.deepEqual(said("istio", { mesh: "enableAutoMtls: true", meshNetworks: "networks: {}" }), []);
  assert.match(
    said("istio", { mesh: "hboneIdleTimeout: 5s" }).join("\n"),
    /^warning data\.mesh\.hboneIdleTimeout: this field has no effect/,
  );
  const [wrong = ""] = said("istio", { mesh: "connectTimeout: 5x" });
  assert.match(wrong, /^error data\.mesh\.connectTimeout: "5x" is not a duration/);
  assert.match(said("istio-canary", { mesh: "a: [" })[0] ?? "", /^error data\.mesh: /);
  assert.match(
    said("istio", { meshNetworks: "networks: {a: {gateways: [{port: 0, address: b}]}}" })[0] ?? "",
    /^error data\.meshNetworks\.networks/,
  );
  assert.deepEqual(said("other", { mesh: "connectTimeout: 5x" }), []);
});

test("annotations and labels without effect are named on Services and in what makes Pods, those with effect are not", () => {
  const metadata = (annotations: Readonly<Record<string, string>>) => ({
    name: "shop",
    namespace: "default",
    annotations,
  });
  const said = (object: KubeObject) => admissionProblems(object).map(({ text }) => text);
  const service = metadata({
    "networking.istio.io/exportTo": ".",
    "topology.istio.io/controlPlaneClusters": "a",
    "example.com/own": "b",
  });
  assert.deepEqual(said({ apiVersion: "v1", kind: "Service", metadata: service }), [
    "annotation topology.istio.io/controlPlaneClusters has no effect yet",
  ]);
  const template = {
    metadata: {
      annotations: { "sidecar.istio.io/proxyCPU": "1", "sidecar.istio.io/proxyCpu": "1" },
      labels: { app: "shop", "istio.io/dataplane-mode": "ambient" },
    },
  };
  const deployment = {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: metadata({}),
    spec: { template },
  };
  assert.deepEqual(said(deployment), [
    "annotation sidecar.istio.io/proxyCpu is not known",
    "label istio.io/dataplane-mode has no effect yet",
  ]);
});

test("a module's URL that names nothing is taken with a warning, as Istio takes it", () => {
  const said = (url: string): string[] =>
    admissionProblems(istioObject("WasmPlugin", { url }, "extensions.istio.io/v1alpha1")).map(
      ({ code, severity, at }) => `${severity} ${code} ${at.path}`,
    );
  for (const url of ["oci://ghcr.io/a:1", "ghcr.io/a", "https://a.example.com/m.wasm", "file:///m.wasm"])
    assert.deepEqual(said(url), [], url);
  assert.deepEqual(said("oci://ghcr.io/Upper"), ["warning MZ0613 spec.url"]);
});
