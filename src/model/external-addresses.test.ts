import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import type { KubeObject } from "#objects";
import { externalReach } from "./external-addresses.ts";
import { gatewaysOfNetwork } from "./networks.ts";
import { worldChanges } from "./world.ts";

function node(
  name: string,
  labels: Readonly<Record<string, string>>,
  ...external: readonly string[]
): KubeObject {
  const addresses = [
    { type: "InternalIP", address: "10.0.0.1" },
    ...external.map((address) => ({ type: "ExternalIP", address })),
  ];
  return { apiVersion: "v1", kind: "Node", metadata: { name, labels }, status: { addresses } };
}

const nodes = [
  node("a", { edge: "yes" }, "203.0.113.2"),
  node("b", { edge: "yes" }, "203.0.113.1"),
  node("inner", { edge: "yes" }),
  node("other", {}, "203.0.113.9"),
];

function service(
  spec: object,
  more: { annotations?: object; labels?: object; status?: object } = {},
): KubeObject {
  const { status, ...metadata } = more;
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: "edge", namespace: "d", ...(metadata as object) },
    spec: { ports: [{ port: 15_443, nodePort: 31_443 }], ...spec } as object,
    ...(status === undefined ? {} : { status }),
  };
}

function engineOf(...objects: readonly KubeObject[]): Engine {
  const engine = new Engine();
  engine.apply(worldChanges([...nodes, ...objects]));
  return engine;
}

const selecting = (text: string) => ({ annotations: { "traffic.istio.io/nodeSelector": text } });
const network = { labels: { "topology.istio.io/network": "far" } };
const onNodes = { type: "NodePort" };
const balanced = {
  status: { loadBalancer: { ingress: [{ ip: "198.51.100.1" }, { hostname: "lb.example.com" }] } },
};

describe("where a Service is reached from outside", () => {
  const addressesOf = (object: KubeObject): readonly string[] =>
    engineOf(object).get(externalReach, "d/edge").addresses;

  test("at its load balancer, and at what an operator has led there", () => {
    const spec = { type: "LoadBalancer", externalIPs: ["192.0.2.7"] };
    assert.deepEqual(addressesOf(service(spec, balanced)), ["198.51.100.1", "lb.example.com", "192.0.2.7"]);
  });

  test("of type NodePort, at the external addresses of the nodes that its annotation selects", () => {
    const found = addressesOf(service(onNodes, selecting('{"edge":"yes"}')));
    assert.deepEqual(found, ["203.0.113.1", "203.0.113.2"]);
    assert.deepEqual(addressesOf(service(onNodes)), [], "nodes count only where the annotation names them");
    assert.deepEqual(addressesOf(service({ type: "ClusterIP" }, selecting("{}"))), []);
    assert.deepEqual(addressesOf(service(onNodes, selecting("edge: yes"))), [], "no JSON selects no node");
  });

  test("another network's gateway is called at the node's port, and follows the nodes", () => {
    const engine = engineOf(service(onNodes, { ...selecting('{"edge":"yes"}'), ...network }));
    assert.deepEqual(engine.get(gatewaysOfNetwork, "far"), [
      { address: "203.0.113.1", port: 31_443 },
      { address: "203.0.113.2", port: 31_443 },
    ]);
    engine.apply(worldChanges([node("b", {}, "203.0.113.1")]));
    assert.deepEqual(engine.get(gatewaysOfNetwork, "far"), [{ address: "203.0.113.2", port: 31_443 }]);
  });
});
