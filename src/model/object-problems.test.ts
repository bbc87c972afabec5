import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { parseAllDocuments } from "yaml";
import { Engine } from "#engine";
import type { KubeObject } from "#objects";
import { objectProblemsOf } from "./object-problems.ts";
import { objectChange, worldChanges } from "./world.ts";

function objects(text: string): KubeObject[] {
  return parseAllDocuments(text).map((document) => document.toJS() as KubeObject);
}

function engineOf(text: string): Engine {
  const engine = new Engine();
  engine.apply(worldChanges(objects(text)));
  return engine;
}

function told(engine: Engine, key: string): string[] {
  return engine.get(objectProblemsOf, key).map(({ code, at, text }) => `${code} ${at.path}: ${text}`);
}

const reviews = `
apiVersion: v1
kind: Service
metadata: { name: reviews, namespace: default }
spec: { ports: [{ port: 9080, name: http }], clusterIP: 10.0.0.1, selector: { app: reviews } }
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: reviews, namespace: default }
spec: { host: reviews, subsets: [{ name: v1, labels: { version: v1 } }] }
`;

const endpoint = objects(`
apiVersion: v1
kind: Pod
metadata: { name: reviews-1, namespace: default, labels: { app: reviews, version: v1 } }
spec: { containers: [{ name: app }] }
status: { podIP: 10.1.0.1, podIPs: [{ ip: 10.1.0.1 }], phase: Running, conditions: [{ type: Ready, status: "True" }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: reviews-1, namespace: default, labels: { kubernetes.io/service-name: reviews } }
addressType: IPv4
ports: [{ name: http, port: 9080, protocol: TCP }]
endpoints:
  - { addresses: [10.1.0.1], conditions: { ready: true }, targetRef: { kind: Pod, name: reviews-1, namespace: default } }
`);

function virtualService(name: string, spec: string): string {
  return `
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: ${name}, namespace: default, creationTimestamp: "2026-01-0${name.length % 9}T00:00:00Z" }
spec: ${spec}
`;
}

describe("problems of an object as the mesh stands", () => {
  test("a destination that leads nowhere and a subset that nobody defines are told once, with their place", () => {
    const engine = engineOf(
      reviews +
        virtualService(
          "v",
          `{ hosts: [reviews], gateways: [mesh, edge], http: [
               { route: [{ destination: { host: reviews, subset: v1 } }] },
               { route: [{ destination: { host: reviews, subset: v9 } }, { destination: { host: nowhere } }] },
               { route: [{ destination: { host: nowhere } }], mirror: { host: other.example.com } }] }`,
        ),
    );
    assert.deepEqual(told(engine, "VirtualService default/v"), [
      "MZ0604 spec.gateways[1]: There is no Gateway default/edge.",
      "MZ0602 spec.http[1].route[0].destination.subset: No DestinationRule for reviews.default.svc.cluster.local defines the subset v9.",
      "MZ0601 spec.http[1].route[1].destination.host: No service has the host nowhere.default.svc.cluster.local.",
      "MZ0601 spec.http[2].mirror.host: No service has the host other.example.com.",
    ]);
  });

  test("a subset without endpoints is told until one comes, and only that wakes the question", () => {
    const engine = engineOf(reviews);
    const key = "DestinationRule default/reviews";
    engine.watch(objectProblemsOf, key);
    assert.deepEqual(told(engine, key), [
      "MZ0603 spec.subsets[0]: No endpoint of reviews.default.svc.cluster.local is in subset v1.",
    ]);
    engine.apply(endpoint.flatMap(objectChange));
    assert.equal(engine.settle().changed.length, 1);
    assert.deepEqual(told(engine, key), []);
    const [, slice] = endpoint as [KubeObject, KubeObject & { endpoints: object[] }];
    const more = {
      ...slice,
      endpoints: [...slice.endpoints, { addresses: ["10.1.0.2"], conditions: { ready: true } }],
    };
    engine.apply(objectChange(more as KubeObject));
    assert.equal(engine.settle().changed.length, 0, "another endpoint changes no answer");
  });

  test("of two objects for one host the second is told who goes first", () => {
    const engine = engineOf(
      reviews +
        virtualService("a", "{ hosts: [reviews], http: [{ route: [{ destination: { host: reviews } }] }] }") +
        virtualService("bb", "{ hosts: [reviews], http: [{ route: [{ destination: { host: reviews } }] }] }"),
    );
    assert.deepEqual(told(engine, "VirtualService default/a"), []);
    assert.deepEqual(told(engine, "VirtualService default/bb"), [
      "MZ0606 spec.hosts[0]: VirtualService default/a goes first for host reviews.default.svc.cluster.local.",
    ]);
  });

  test("a rule for another namespace's host is told that it holds for its own namespace alone, and takes nothing over", () => {
    const rule =
      "{ hosts: [reviews.default.svc.cluster.local], http: [{ directResponse: { status: 418 } }] }";
    const foreign = virtualService("a", rule).replace("namespace: default", "namespace: other");
    const objects = reviews + foreign + virtualService("bb", rule);
    const engine = engineOf(objects);
    assert.deepEqual(told(engine, "VirtualService other/a"), [
      "MZ0614 spec.hosts[0]: Host reviews.default.svc.cluster.local belongs to namespace default: only calls from namespace other are routed.",
    ]);
    assert.deepEqual(
      told(engine, "VirtualService default/bb"),
      [],
      "the older rule from elsewhere is no rival",
    );
  });

  test("a ServiceEntry with a name or an address of another namespace's Service is told, and one of its own is not", () => {
    const entry = (namespace: string): string => `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: { name: claim, namespace: ${namespace} }
spec: { hosts: [free.example.com, reviews.default], addresses: [10.0.0.1, 192.0.2.1], ports: [{ number: 80, name: http }] }
`;
    const engine = engineOf(`${reviews}---${entry("other")}---${entry("default")}---${entry("istio-d")}`);
    assert.deepEqual(told(engine, "ServiceEntry other/claim"), [
      "MZ0614 spec.hosts[1]: reviews.default belongs to namespace default: only calls from namespace other go by this entry.",
      "MZ0614 spec.addresses[0]: 10.0.0.1 belongs to namespace default: only calls from namespace other go by this entry.",
    ]);
    for (const namespace of ["default", "istio-d"])
      assert.deepEqual(told(engine, `ServiceEntry ${namespace}/claim`), []);
  });

  test("delegates that are missing, go round in a circle or further are told", () => {
    const delegating = (name: string, to: string, hosts = ""): string =>
      virtualService(name, `{ ${hosts} http: [{ delegate: { name: ${to} } }] }`);
    const engine = engineOf(
      reviews +
        delegating("root", "missing", "hosts: [reviews],") +
        delegating("self", "self") +
        delegating("ping", "pong") +
        delegating("pong", "ping"),
    );
    const textOf = (name: string): string => told(engine, `VirtualService default/${name}`).join();
    assert.match(
      textOf("root"),
      /^MZ0605 spec\.http\[0\]\.delegate: There is no VirtualService default\/missing/,
    );
    assert.match(textOf("self"), /delegates to itself/);
    assert.match(textOf("ping"), /default\/pong delegates back/);
  });

  test("a Gateway says that nobody serves it, or which of its credentials cannot be used", () => {
    const gateway = `
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: { name: edge, namespace: default }
spec:
  selector: { istio: edge }
  servers:
    - { port: { number: 443, name: https, protocol: HTTPS }, hosts: [a.com], tls: { mode: SIMPLE, credentialName: cert } }
`;
    const pod = `
---
apiVersion: v1
kind: Pod
metadata: { name: edge-1, namespace: gw, labels: { istio: edge }, annotations: { inject.istio.io/templates: gateway } }
spec: { containers: [{ name: istio-proxy }] }
`;
    assert.deepEqual(told(engineOf(reviews + gateway), "Gateway default/edge"), [
      "MZ0608 spec.selector: No gateway's pod has the labels of the selector.",
    ]);
    assert.deepEqual(told(engineOf(reviews + gateway + pod), "Gateway default/edge"), [
      "MZ0402 spec.servers[0].tls.credentialName: Secret gw/cert does not exist.",
    ]);
  });

  test("ten thousand routes are judged in a moment, each destination once", () => {
    const routes = Array.from({ length: 10_000 }, (_, at) => ({
      match: [{ uri: { exact: `/${at}` } }],
      route: [{ destination: { host: "nowhere" } }],
    }));
    const engine = engineOf(reviews);
    const metadata = { name: "many", namespace: "default" };
    const spec = { hosts: ["reviews"], http: routes };
    const many = { apiVersion: "networking.istio.io/v1", kind: "VirtualService", metadata, spec };
    engine.apply(objectChange(many));
    const startedMs = performance.now();
    assert.equal(told(engine, "VirtualService default/many").length, 1);
    assert.ok(performance.now() - startedMs < 2_000);
  });
});
