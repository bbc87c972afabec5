import assert from "node:assert/strict";
import { test } from "node:test";
import { renderProblem } from "#base";
import { Engine } from "#engine";
import type { KubeObject } from "#objects";
import { worldChanges } from "../world.ts";
import { ingressAdmissionProblems, ingressProblemsOf } from "./ingress-problems.ts";

const service = (name: string, namespace = "default"): KubeObject => ({
  apiVersion: "v1",
  kind: "Service",
  metadata: { name, namespace },
  spec: { clusterIP: "10.0.0.1", ports: [{ name: "web", port: 80 }] },
});

const ingressClass: KubeObject = {
  apiVersion: "networking.k8s.io/v1",
  kind: "IngressClass",
  metadata: { name: "istio" },
  spec: { controller: "istio.io/ingress-controller" },
};

function ingress(name: string, created: number, spec: object, className = "istio"): KubeObject {
  return {
    apiVersion: "networking.k8s.io/v1",
    kind: "Ingress",
    metadata: { name, namespace: "default", creationTimestamp: `${created}-01-01T00:00:00Z` },
    spec: { ingressClassName: className, ...spec },
  };
}

function problems(name: string, ...objects: readonly KubeObject[]): readonly string[] {
  const engine = new Engine();
  const around = [ingressClass, service("a"), service("istio-ingressgateway", "sm-gateways")];
  engine.apply(worldChanges([...around, ...objects]));
  return engine
    .get(ingressProblemsOf, `default/${name}`)
    .map((problem) => renderProblem({ ...problem, at: { path: problem.at.path ?? "" } }));
}

const to = (...backends: readonly object[]): object => ({
  rules: [{ host: "a.org", http: { paths: backends.map((backend) => ({ path: "/", backend })) } }],
});

test("a backend that leads nowhere is told with its place", () => {
  const backends = [
    { service: { name: "a", port: { number: 80 } } },
    { service: { name: "a", port: { name: "web" } } },
    { service: { name: "gone", port: { number: 80 } } },
    { service: { name: "a", port: { number: 81 } } },
    { service: { name: "a", port: { name: "other" } } },
    { resource: { kind: "Bucket", name: "b" } },
  ];
  const told = problems("shop", ingress("shop", 2020, to(...backends)));
  const expected = [
    [2, /There is no Service default\/gone/],
    [3, /Service default\/a has no port 81/],
    [4, /Service default\/a has no port other/],
    [5, /Only a Service can be a backend/],
  ] as const;
  assert.equal(told.length, expected.length, told.join("\n"));
  for (const [index, [at, text]] of expected.entries()) {
    assert.match(told[index]!, text);
    assert.ok(told[index]!.includes(`spec.rules[0].http.paths[${at}].backend`), told[index]!);
  }
});

test("a Secret that is not beside the gateway, and a host that an older Ingress secures, are told", () => {
  const secured = { tls: [{ hosts: ["a.org"], secretName: "cert" }] };
  const both = [ingress("old", 2020, secured), ingress("new", 2021, secured)];
  const [missing, ...none] = problems("old", ...both);
  assert.match(missing ?? "", /spec\.tls\[0\]\.secretName.*Secret sm-gateways\/cert does not exist/);
  assert.deepEqual(none, []);
  assert.match(problems("new", ...both)[1] ?? "", /Ingress default\/old secures a\.org already/);
  assert.deepEqual(problems("new", ingress("new", 2021, secured, "another")), [], "another controller's");
});

test("whoever applies an Ingress is warned of what others have already, and of nothing that may come with it", () => {
  const paths = (...given: readonly (readonly [string, string])[]): object => ({
    rules: [
      {
        host: "A.org",
        http: {
          paths: given.map(([pathType, path]) => ({
            pathType,
            path,
            backend: { service: { name: "gone", port: { number: 80 } } },
          })),
        },
      },
    ],
  });
  const secured = { tls: [{ hosts: ["a.org"], secretName: "cert" }] };
  const engine = new Engine();
  const old = ingress("old", 2020, { ...secured, ...paths(["Prefix", "/a"], ["Exact", "/b"]) });
  engine.apply(worldChanges([ingressClass, old]));
  const told = (object: KubeObject): readonly string[] =>
    ingressAdmissionProblems(engine.get.bind(engine), object).map((problem) => {
      assert.equal(problem.severity, "warning");
      return `${problem.at.path}: ${problem.text}`;
    });
  const late = { ...secured, ...paths(["Prefix", "/a/"], ["Exact", "/a"], ["Exact", "/b"]) };
  assert.deepEqual(told(ingress("new", 2021, late)), [
    "spec.tls[0].hosts[0]: Ingress default/old secures a.org already: its certificate is served.",
    "spec.rules[0].http.paths[0]: Ingress default/old has this path of host a.org already: the older one's is served.",
    "spec.rules[0].http.paths[2]: Ingress default/old has this path of host a.org already: the older one's is served.",
  ]);
  assert.deepEqual(told(old), [], "it does not stand in its own way");
  assert.deepEqual(told(ingress("new", 2021, late, "another")), [], "another controller's");
  const bucket = { defaultBackend: { resource: { kind: "Bucket", name: "b" } } };
  assert.deepEqual(told(ingress("new", 2021, bucket)), [
    "spec.defaultBackend: Only a Service can be a backend.",
  ]);
  const withParameters = {
    ...ingressClass,
    spec: { controller: "istio.io/ingress-controller", parameters: {} },
  };
  assert.match(told(withParameters).join(), /^spec\.parameters: /);
});
