// Work in proportion to the change, for the inbound side and for routers: counted in runs of queries.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine, type Query } from "#engine";
import { objectChange, worldChanges, type ProxyClass } from "#model";
import { planOf, resourceTypes, type View } from "#plan";
import type { KubeObject } from "#objects";
import { resourceOf } from "./resources.ts";

const servicesTotal = 100;

function proxy(
  kind: ProxyClass["kind"],
  namespace: string,
  labels: Readonly<Record<string, string>>,
): ProxyClass {
  return {
    kind,
    namespace,
    labels,
    serviceAccount: "default",
    network: "",
    locality: "",
    clusterId: "Kubernetes",
    dnsDomain: `${namespace}.svc.cluster.local`,
    interception: kind === "router" ? "NONE" : "REDIRECT",
    envoyVersion: "1.40.0",
    metadata: {},
  };
}

function object(apiVersion: string, kind: string, name: string, fields: object, labels = {}): KubeObject {
  return { apiVersion, kind, metadata: { name, namespace: "default", labels }, ...fields } as KubeObject;
}

function slice(name: string, address: string): KubeObject {
  const fields = { endpoints: [{ addresses: [address] }], ports: [{ name: "http", port: 8080 }] };
  return object("discovery.k8s.io/v1", "EndpointSlice", `${name}-a`, fields, {
    "kubernetes.io/service-name": name,
  });
}

function world(): Engine {
  const services = Array.from({ length: servicesTotal }, (_none, at) => `s${at}`).flatMap((name, at) => [
    object("v1", "Service", name, {
      spec: {
        clusterIP: `10.0.0.${at}`,
        selector: { app: name },
        ports: [{ name: "http", port: 80, targetPort: 8080 }],
      },
    }),
    slice(name, `10.1.0.${at}`),
  ]);
  const gateway = object("networking.istio.io/v1", "Gateway", "web", {
    spec: {
      selector: { istio: "ingress" },
      servers: [{ port: { number: 80, name: "http", protocol: "HTTP" }, hosts: ["*"] }],
    },
  });
  const routes = Array.from({ length: servicesTotal }, (_none, at) => virtualService(`s${at}`, "/"));
  const engine = new Engine();
  engine.apply(worldChanges([...services, gateway, ...routes]));
  return engine;
}

function virtualService(name: string, prefix: string): KubeObject {
  return object("networking.istio.io/v1", "VirtualService", name, {
    spec: {
      hosts: [`${name}.example.com`],
      gateways: ["default/web"],
      http: [{ match: [{ uri: { prefix } }], route: [{ destination: { host: name } }] }],
    },
  });
}

/** Watches a view's plan and all its resources, as the xDS server does. */
function watch(engine: Engine, view: View): void {
  const plan = engine.watch(planOf, view);
  for (const type of resourceTypes) {
    for (const { entries } of plan[type]) {
      for (const { key } of entries)
        engine.watch(resourceOf[type] as unknown as Query<unknown, unknown>, key);
    }
  }
  engine.settle();
}

/** How many queries ran for a change, and which resources came out different. */
function costOf(
  engine: Engine,
  change: KubeObject,
): { readonly runs: number; readonly changed: readonly string[] } {
  const before = engine.computedTotal;
  engine.apply(objectChange(change));
  const { changed, failures } = engine.settle();
  assert.deepEqual(failures, []);
  return { runs: engine.computedTotal - before, changed: changed.map(({ query }) => query.name) };
}

describe("the inbound side of a workload", () => {
  const inbound = (): Engine => {
    const engine = world();
    watch(engine, { kind: "inbound", proxy: proxy("sidecar", "default", { app: "s1" }) });
    return engine;
  };

  test("does nothing when an endpoint changes", () => {
    assert.deepEqual(costOf(inbound(), slice("s1", "10.2.0.1")), { runs: 0, changed: [] });
  });

  test("does next to nothing for a change of another service", () => {
    const other = object("v1", "Service", "s2", {
      spec: { clusterIP: "10.0.9.9", selector: { app: "s2" }, ports: [{ name: "http", port: 81 }] },
    });
    const { runs, changed } = costOf(inbound(), other);
    assert.deepEqual(changed, []);
    assert.ok(runs <= 2, `${runs} runs`);
  });

  test("builds its listener alone when a policy for it changes", () => {
    const policy = object("security.istio.io/v1", "AuthorizationPolicy", "deny", {
      spec: { selector: { matchLabels: { app: "s1" } }, action: "DENY", rules: [{}] },
    });
    const { runs, changed } = costOf(inbound(), policy);
    assert.deepEqual(changed, ["resource.listener"]);
    assert.ok(runs <= 5, `${runs} runs`);
  });
});

describe("a router", () => {
  const router = (): Engine => {
    const engine = world();
    watch(engine, { kind: "gateway", proxy: proxy("router", "default", { istio: "ingress" }) });
    return engine;
  };

  test("builds one set of endpoints when an endpoint changes", () => {
    const { runs, changed } = costOf(router(), slice("s1", "10.2.0.1"));
    assert.deepEqual(changed, ["resource.endpoint"]);
    assert.ok(runs <= 10, `${runs} runs`);
  });

  test("builds one route table, and no plan, when a route changes", () => {
    const { runs, changed } = costOf(router(), virtualService("s1", "/new"));
    assert.deepEqual(changed, ["resource.route"]);
    assert.ok(runs <= 10, `${runs} runs`);
  });
});
