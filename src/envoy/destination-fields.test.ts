// Fields of DestinationRules that no scenario shows: what they come to, and that the real Envoy takes it.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { worldChanges, type ProxyClass } from "#model";
import type { KubeObject } from "#objects";
import { planOf, viewsOf } from "#plan";
import { envoyComplaint, withoutEnvoy } from "../../test/support/envoy.ts";
import { proxyOf } from "../../test/support/proxies.ts";
import { readersOfSecrets } from "../../test/support/secret-readers.ts";
import { decodeMessage, type Message } from "./proto/api.ts";
import { messageNameOf } from "./resource.ts";
import { snapshotOf } from "./snapshot.ts";

const client = proxyOf({ labels: { app: "sleep" }, serviceAccount: "sleep", locality: "r1/z1" });

const router: ProxyClass = {
  ...client,
  kind: "router",
  namespace: "sm-gateways",
  labels: { istio: "eastwestgateway" },
  interception: "NONE",
};

function object(kind: string, name: string, spec: object, apiVersion = "networking.istio.io/v1"): KubeObject {
  return { apiVersion, kind, metadata: { name, namespace: "default" }, spec };
}

const services = [
  object("Service", "db", { clusterIP: "10.96.0.7", ports: [{ name: "tcp", port: 5432 }] }, "v1"),
  object(
    "Service",
    "web",
    { clusterIP: "10.96.0.8", selector: { app: "web" }, ports: [{ name: "http", port: 80 }] },
    "v1",
  ),
];

function resources(objects: readonly KubeObject[], proxy: ProxyClass) {
  const engine = new Engine();
  engine.apply(worldChanges([...services, ...objects]));
  return Object.values(snapshotOf(engine, proxy)).flat();
}

function found(all: ReturnType<typeof resources>, type: string, name: string): Message {
  const one = all.find((resource) => resource.type === type && resource.name === name);
  assert.ok(one, `${type} ${name}`);
  return decodeMessage(messageNameOf(one.type), one.bytes);
}

describe("fields of DestinationRules", () => {
  const tunnel = { protocol: "POST", targetHost: "db.example.com", targetPort: 5432 };
  const rule = object("DestinationRule", "db", { host: "db", trafficPolicy: { tunnel } });

  test("a tunnel asks the service's proxy to connect on", () => {
    const listener = JSON.stringify(found(resources([rule], client), "listener", "10.96.0.7_5432"));
    assert.match(listener, /"hostname":"db.example.com:5432"/);
    assert.match(listener, /"usePost":true/);
  });

  test("a tunnel holds for the only destination of a TCP route too", () => {
    const route = object("VirtualService", "db", {
      hosts: ["db"],
      tcp: [{ route: [{ destination: { host: "db" } }] }],
    });
    const listener = JSON.stringify(found(resources([rule, route], client), "listener", "10.96.0.7_5432"));
    assert.match(listener, /"hostname":"db.example.com:5432"/);
  });

  test("of several destinations of a TCP route the rule for the first one's host has the tunnel, and not its subset", () => {
    const other = { protocol: "CONNECT", targetHost: "subset.example.com", targetPort: 1 };
    const subsets = [{ name: "v1", labels: { version: "v1" }, trafficPolicy: { tunnel: other } }];
    const ruled = object("DestinationRule", "db", { host: "db", trafficPolicy: { tunnel }, subsets });
    const route = object("VirtualService", "db", {
      hosts: ["db"],
      tcp: [
        {
          route: [
            { destination: { host: "db", subset: "v1" }, weight: 50 },
            { destination: { host: "web", port: { number: 80 } }, weight: 50 },
          ],
        },
      ],
    });
    const listener = JSON.stringify(found(resources([ruled, route], client), "listener", "10.96.0.7_5432"));
    assert.match(listener, /"weightedClusters".*"hostname":"db.example.com:5432"/);
    assert.doesNotMatch(listener, /subset\.example\.com/);
  });

  test("a retry budget has its interval", () => {
    const trafficPolicy = { retryBudget: { percent: 10, minRetryConcurrency: 2, budgetInterval: "5s" } };
    const all = resources([object("DestinationRule", "web", { host: "web", trafficPolicy })], client);
    const cluster = JSON.stringify(found(all, "cluster", "outbound|80||web.default.svc.cluster.local"));
    assert.match(cluster, /"budgetInterval":\{"seconds":5/);
  });

  test("the client's own labels decide where failoverPriority names them", () => {
    const localityLbSetting = { failoverPriority: ["app"] };
    const trafficPolicy = { loadBalancer: { localityLbSetting }, outlierDetection: {} };
    const rules = [object("DestinationRule", "web", { host: "web", trafficPolicy })];
    const engine = new Engine();
    engine.apply(
      worldChanges([...services, ...rules, ...endpoints("web", { sleep: "10.0.0.1", other: "10.0.0.2" })]),
    );
    const assignment = snapshotOf(engine, client).endpoint.find(({ name }) => name.includes("web"));
    assert.ok(assignment);
    const { endpoints: groups } = decodeMessage(messageNameOf("endpoint"), assignment.bytes) as unknown as {
      readonly endpoints: readonly { readonly priority?: number }[];
    };
    assert.deepEqual(
      groups.map(({ priority = 0 }) => priority),
      [0, 1],
    );
  });

  test("AUTO_PASSTHROUGH leads to the mesh's services by SNI, for those who speak mutual TLS alone", () => {
    const gateway = object("Gateway", "cross", {
      selector: { istio: "eastwestgateway" },
      servers: [
        {
          port: { number: 15443, name: "tls", protocol: "TLS" },
          hosts: ["*.local"],
          tls: { mode: "AUTO_PASSTHROUGH" },
        },
      ],
    });
    const subsets = object("DestinationRule", "web", {
      host: "web",
      subsets: [{ name: "v1", labels: { version: "v1" } }],
    });
    const pods = endpoints("web", { web: "10.0.0.1", plain: "10.0.0.2" });
    const all = resources([gateway, subsets, ...pods], router);
    const { filterChains } = found(all, "listener", "0.0.0.0_15443") as unknown as {
      readonly filterChains: readonly {
        readonly filterChainMatch: {
          readonly serverNames: readonly string[];
          readonly applicationProtocols: readonly string[];
        };
      }[];
    };
    assert.deepEqual(
      filterChains.map(({ filterChainMatch }) => filterChainMatch.serverNames[0]),
      [
        "outbound_.5432_._.db.default.svc.cluster.local",
        "outbound_.80_._.web.default.svc.cluster.local",
        "outbound_.80_.v1_.web.default.svc.cluster.local",
      ],
    );
    assert.ok(filterChains[0]?.filterChainMatch.applicationProtocols.includes("istio"));
    const name = "outbound_.80_._.web.default.svc.cluster.local";
    assert.equal(found(all, "cluster", name)["transportSocket"], undefined);
    const addresses = JSON.stringify(found(all, "endpoint", name));
    assert.match(addresses, /10\.0\.0\.1/);
    assert.ok(!addresses.includes("10.0.0.2"), "a workload without a sidecar proves nothing");
  });

  test("a router gets the credentials that rules of what is behind it name, of its own namespace alone", () => {
    const gateway = object("Gateway", "edge", {
      selector: { istio: "eastwestgateway" },
      servers: [{ port: { number: 80, name: "http", protocol: "HTTP" }, hosts: ["*"] }],
    });
    const route = object("VirtualService", "web", {
      hosts: ["web.example.com"],
      gateways: ["edge"],
      http: [{ route: [{ destination: { host: "web" } }] }],
    });
    const tls = { mode: "MUTUAL", credentialName: "client" };
    const rule = object("DestinationRule", "web", { host: "web", trafficPolicy: { tls } });
    const engine = new Engine();
    engine.apply(worldChanges([...services, gateway, route, rule]));
    const [view] = engine.get(viewsOf, router);
    assert.ok(view);
    const planned = (): string[] =>
      engine
        .get(planOf, view)
        .secret.flatMap(({ entries }) => entries)
        .map(({ name, key }) => `${name} of ${(key as { readonly secret: string }).secret}`);
    const ca = "kubernetes://client-cacert of sm-gateways/client";
    assert.deepEqual(planned(), [ca], "nobody has said that it may read Secrets");
    engine.apply(readersOfSecrets("sm-gateways/sleep"));
    assert.deepEqual(planned(), ["kubernetes://client of sm-gateways/client", ca]);
  });

  test("the real Envoy takes them", { skip: withoutEnvoy }, () => {
    const trafficPolicy = { retryBudget: { percent: 10, budgetInterval: "5s" } };
    const web = object("DestinationRule", "web", { host: "web", trafficPolicy });
    assert.equal(envoyComplaint(resources([rule, web], client)), "");
  });
});

/** Pods by `app`; `plain` has no sidecar. */
function endpoints(service: string, pods: Readonly<Record<string, string>>): KubeObject[] {
  const slice = {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: { name: service, namespace: "default", labels: { "kubernetes.io/service-name": service } },
    addressType: "IPv4",
    ports: [{ name: "http", port: 80, protocol: "TCP" }],
    endpoints: Object.entries(pods).map(([app, address]) => ({
      addresses: [address],
      conditions: { ready: true },
      targetRef: { kind: "Pod", name: app, namespace: "default" },
    })),
  };
  const objects = Object.entries(pods).map(([app, address]) => ({
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      name: app,
      namespace: "default",
      labels: { app, ...(app === "plain" ? {} : { "security.istio.io/tlsMode": "istio" }) },
    },
    spec: {},
    status: { podIP: address, phase: "Running" },
  }));
  return [slice, ...objects] as unknown as KubeObject[];
}
