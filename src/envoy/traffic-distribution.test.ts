import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { worldChanges, type ProxyClass } from "#model";
import type { KubeObject } from "#objects";
import { viewsOf, viewText } from "#plan";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage } from "./proto/api.ts";
import { snapshotOf } from "./snapshot.ts";

const host = "web.default.svc.cluster.local";
const placeLabels = { region: "topology.kubernetes.io/region", zone: "topology.kubernetes.io/zone" };

/** Two nodes of one zone, one of another zone, one of another region; a Pod of `web` on each. */
const nodes = { one: "r1/z1", two: "r1/z1", near: "r1/z2", far: "r2/z1" };

const cluster: readonly KubeObject[] = Object.entries(nodes).flatMap(([name, locality], at): KubeObject[] => {
  const [region = "", zone = ""] = locality.split("/");
  return [
    {
      apiVersion: "v1",
      kind: "Node",
      metadata: { name, labels: { [placeLabels.region]: region, [placeLabels.zone]: zone } },
    },
    {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: `web-${name}`, namespace: "default", labels: { app: "web" } },
      spec: { nodeName: name, containers: [{ name: "web" }] },
      status: { podIP: `10.244.0.${at + 1}` },
    },
  ];
});

const slice = {
  apiVersion: "discovery.k8s.io/v1",
  kind: "EndpointSlice",
  metadata: { name: "web-1", namespace: "default", labels: { "kubernetes.io/service-name": "web" } },
  addressType: "IPv4",
  endpoints: Object.keys(nodes).map((name, at) => ({
    addresses: [`10.244.0.${at + 1}`],
    conditions: { ready: true },
    targetRef: { kind: "Pod", name: `web-${name}`, namespace: "default" },
  })),
  ports: [{ name: "http", port: 8080, protocol: "TCP" }],
};

function service(trafficDistribution?: string): KubeObject {
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: "web", namespace: "default" },
    spec: {
      clusterIP: "10.96.0.9",
      selector: { app: "web" },
      ports: [{ name: "http", port: 80, targetPort: 8080 }],
      ...(trafficDistribution === undefined ? {} : { trafficDistribution }),
    },
  };
}

function meshOf(...objects: readonly KubeObject[]): Engine {
  const engine = new Engine();
  engine.apply(worldChanges([...cluster, slice as KubeObject, ...objects]));
  return engine;
}

function clientOn(node: keyof typeof nodes, facts: Partial<ProxyClass> = {}): ProxyClass {
  return proxyOf({ node, locality: nodes[node], ...facts });
}

/** The priority of each Pod's endpoint, by its node. */
function prioritiesFor(engine: Engine, client: ProxyClass): Record<string, number> {
  const found = Object.values(snapshotOf(engine, client))
    .flat()
    .find(({ type, name }) => type === "endpoint" && name === `outbound|80||${host}`);
  assert.ok(found);
  const { endpoints = [] } = decodeMessage(
    "envoy.config.endpoint.v3.ClusterLoadAssignment",
    found.bytes,
  ) as unknown as {
    readonly endpoints?: readonly {
      readonly priority?: number;
      readonly lbEndpoints: readonly {
        readonly endpoint: { readonly address: { readonly socketAddress: { readonly address: string } } };
      }[];
    }[];
  };
  return Object.fromEntries(
    endpoints.flatMap(({ priority = 0, lbEndpoints }) =>
      lbEndpoints.map(({ endpoint }) => {
        const at = Number(endpoint.address.socketAddress.address.split(".")[3]) - 1;
        return [Object.keys(nodes)[at] ?? "", priority];
      }),
    ),
  );
}

function viewsShared(engine: Engine, one: ProxyClass, other: ProxyClass): readonly boolean[] {
  const texts = [one, other].map((proxy) => engine.get(viewsOf, proxy).map(viewText));
  return (texts[0] ?? []).map((text, at) => text === texts[1]?.[at]);
}

describe("a Service's trafficDistribution", () => {
  test("PreferSameNode goes to the client's node, then its zone, then its region, then the rest", () => {
    const engine = meshOf(service("PreferSameNode"));
    assert.deepEqual(prioritiesFor(engine, clientOn("one")), { one: 0, two: 1, near: 2, far: 3 });
    assert.deepEqual(prioritiesFor(engine, clientOn("two")), { one: 1, two: 0, near: 2, far: 3 });
  });

  test("PreferSameNode holds at gateways", () => {
    const route: KubeObject = {
      apiVersion: "networking.istio.io/v1",
      kind: "VirtualService",
      metadata: { name: "web", namespace: "default" },
      spec: { hosts: ["*"], gateways: ["door"], http: [{ route: [{ destination: { host: "web" } }] }] },
    };
    const gateway: KubeObject = {
      apiVersion: "networking.istio.io/v1",
      kind: "Gateway",
      metadata: { name: "door", namespace: "default" },
      spec: {
        selector: { istio: "ingressgateway" },
        servers: [{ port: { number: 80, name: "http", protocol: "HTTP" }, hosts: ["*"] }],
      },
    };
    const engine = meshOf(service("PreferSameNode"), gateway, route);
    const router = clientOn("two", { kind: "router", labels: { istio: "ingressgateway" } });
    assert.deepEqual(prioritiesFor(engine, router), { one: 1, two: 0, near: 2, far: 3 });
  });

  test("PreferSameNode of a client whose node is not known goes by zone", () => {
    const engine = meshOf(service("PreferSameNode"));
    const machine = proxyOf({ locality: "r1/z1" });
    assert.deepEqual(prioritiesFor(engine, machine), { one: 0, two: 0, near: 1, far: 2 });
  });

  test("PreferSameZone, and the annotation before it, go by zone alone", () => {
    const byZone = { one: 0, two: 0, near: 1, far: 2 };
    assert.deepEqual(prioritiesFor(meshOf(service("PreferSameZone")), clientOn("one")), byZone);
    const annotated = service("PreferSameNode");
    const annotations = { "networking.istio.io/traffic-distribution": "PreferClose" };
    const engine = meshOf({ ...annotated, metadata: { ...annotated.metadata, annotations } });
    assert.deepEqual(prioritiesFor(engine, clientOn("one")), byZone);
  });

  test("clients of different nodes share their views until a service asks for the node; the inbound side always", () => {
    const [one, two] = [clientOn("one"), clientOn("two")];
    assert.deepEqual(viewsShared(meshOf(service()), one, two), [true, true]);
    assert.deepEqual(viewsShared(meshOf(service("PreferSameNode")), one, two), [false, true]);
    const routers = [one, two].map((proxy): ProxyClass => ({ ...proxy, kind: "router" }));
    assert.deepEqual(viewsShared(meshOf(service()), routers[0]!, routers[1]!), [true]);
  });

  test("a DestinationRule's failoverPriority may name the node, and the network of endpoints", () => {
    const rule = (failoverPriority: readonly string[]): KubeObject => ({
      apiVersion: "networking.istio.io/v1",
      kind: "DestinationRule",
      metadata: { name: "web", namespace: "default" },
      spec: {
        host,
        trafficPolicy: {
          outlierDetection: { consecutive5xxErrors: 3 },
          loadBalancer: { localityLbSetting: { failoverPriority } },
        },
      },
    });
    const byNode = meshOf(service(), rule(["kubernetes.io/hostname"]));
    assert.deepEqual(prioritiesFor(byNode, clientOn("far")), { one: 1, two: 1, near: 1, far: 0 });
    const elsewhere = clientOn("far", { namespace: "elsewhere" });
    assert.deepEqual(prioritiesFor(byNode, elsewhere), { one: 1, two: 1, near: 1, far: 0 });
    const byNetwork = meshOf(service(), rule(["topology.istio.io/network"]));
    assert.deepEqual(prioritiesFor(byNetwork, clientOn("far")), { one: 0, two: 0, near: 0, far: 0 });
  });
});
