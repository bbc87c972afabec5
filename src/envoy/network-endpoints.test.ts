import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { stringify } from "yaml";
import { Engine } from "#engine";
import { worldChanges } from "#model";
import type { KubeObject, MeshNetworks } from "#objects";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage } from "./proto/api.ts";
import { snapshotOf } from "./snapshot.ts";

const proxy = proxyOf({ labels: { app: "sleep" }, serviceAccount: "sleep", network: "near" });

const entry: KubeObject = {
  apiVersion: "networking.istio.io/v1",
  kind: "ServiceEntry",
  metadata: { name: "shop", namespace: "default" },
  spec: {
    hosts: ["shop.example.com"],
    location: "MESH_INTERNAL",
    resolution: "STATIC",
    ports: [{ number: 80, name: "http", protocol: "HTTP" }],
    endpoints: [
      { address: "10.1.0.1", network: "near" },
      { address: "10.2.0.1", network: "far", serviceAccount: "shop" },
      { address: "10.2.0.2", network: "far", serviceAccount: "shop" },
      { address: "10.2.0.3", network: "far", labels: { sidecar: "none" } },
      { address: "10.3.0.1", network: "open", serviceAccount: "shop" },
      { address: "10.4.0.1", serviceAccount: "shop" },
    ],
  },
};

function gatewayService(name: string, network: string, ip: string, port?: string): KubeObject {
  const labels = {
    "topology.istio.io/network": network,
    ...(port && { "networking.istio.io/gatewayPort": port }),
  };
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name, namespace: "gateways", labels },
    spec: { clusterIP: "10.96.0.3", ports: [{ name: "tls", port: 15443 }] },
    status: { loadBalancer: { ingress: [{ ip }] } },
  };
}

interface Assigned {
  readonly endpoint: { readonly address: { readonly socketAddress: { address: string; portValue: number } } };
  readonly loadBalancingWeight?: { readonly value?: number } | number;
  readonly metadata?: unknown;
}

function endpoints(objects: readonly KubeObject[], client = proxy): readonly string[] {
  const engine = new Engine();
  engine.apply(worldChanges(objects, { rootNamespace: "istio-d" }));
  const found = snapshotOf(engine, client).endpoint.find(
    ({ name }) => name === "outbound|80||shop.example.com",
  );
  assert.ok(found !== undefined);
  const { endpoints: groups } = decodeMessage(
    "envoy.config.endpoint.v3.ClusterLoadAssignment",
    found.bytes,
  ) as unknown as { endpoints: readonly { lbEndpoints: readonly Assigned[] }[] };
  return groups
    .flatMap(({ lbEndpoints }) => lbEndpoints)
    .map(({ endpoint, loadBalancingWeight, metadata }) => {
      const { address, portValue } = endpoint.address.socketAddress;
      const weight =
        typeof loadBalancingWeight === "object" ? loadBalancingWeight.value : loadBalancingWeight;
      const mutual = JSON.stringify(metadata).includes("tlsMode") ? " mtls" : "";
      return `${address}:${portValue} ${weight}${mutual}`;
    })
    .toSorted();
}

const direct = ["10.1.0.1:80 1", "10.3.0.1:80 1 mtls", "10.4.0.1:80 1 mtls"];

describe("endpoints of other networks", () => {
  test("are reached as they are where no network has gateways", () => {
    assert.deepEqual(endpoints([entry]), [
      "10.1.0.1:80 1",
      "10.2.0.1:80 1 mtls",
      "10.2.0.2:80 1 mtls",
      "10.2.0.3:80 1",
      "10.3.0.1:80 1 mtls",
      "10.4.0.1:80 1 mtls",
    ]);
  });

  test("give way to their network's gateway with their weights together, those without mutual TLS to nothing", () => {
    const objects = [entry, gatewayService("east", "far", "192.0.2.5")];
    assert.deepEqual(endpoints(objects), [...direct, "192.0.2.5:15443 2 mtls"].toSorted());
    assert.ok(endpoints(objects, { ...proxy, network: "far" }).includes("10.2.0.3:80 1"));
  });

  test("share their weight among several gateways", () => {
    const gateways = [
      gatewayService("east", "far", "192.0.2.5"),
      gatewayService("west", "far", "192.0.2.6", "443"),
    ];
    assert.deepEqual(
      endpoints([entry, ...gateways]),
      [
        ...direct.map((line) => line.replace(" 1", " 2")),
        "192.0.2.5:15443 2 mtls",
        "192.0.2.6:443 2 mtls",
      ].toSorted(),
    );
  });

  test("are found by MeshNetworks' ranges and gateways as well", () => {
    const networks: MeshNetworks = {
      networks: {
        near: { endpoints: [{ fromRegistry: "Kubernetes" }], gateways: [] },
        far: { endpoints: [{ fromCidr: "10.2.0.0/16" }], gateways: [{ address: "192.0.2.7", port: 15443 }] },
      },
    };
    const map = {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name: "istio", namespace: "istio-d" },
      data: { mesh: "", meshNetworks: stringify(networks) },
    };
    const unnamed = structuredClone(entry) as { spec: { endpoints: { network?: string }[] } };
    for (const endpoint of unnamed.spec.endpoints) delete endpoint.network;
    const found = endpoints([unnamed as unknown as KubeObject, map], { ...proxy, network: "" });
    assert.deepEqual(found, [...direct, "192.0.2.7:15443 2 mtls"].toSorted());
  });
});
