import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { worldChanges } from "#model";
import type { KubeObject, SidecarSpec } from "#objects";
import { envoyComplaint, withoutEnvoy } from "../../test/support/envoy.ts";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage, type Message } from "./proto/api.ts";
import { snapshotOf, type Snapshot } from "./snapshot.ts";

const proxy = proxyOf({ labels: { app: "reviews" }, serviceAccount: "reviews" });

const service: KubeObject = {
  apiVersion: "v1",
  kind: "Service",
  metadata: { name: "reviews", namespace: "default" },
  spec: {
    clusterIP: "10.96.0.9",
    selector: { app: "reviews" },
    ports: [
      { name: "http", port: 9080 },
      { name: "tcp", port: 7000 },
    ],
  },
};

describe("inbound connection pools of a Sidecar", () => {
  const pool = {
    tcp: { maxConnections: 7, connectTimeout: "3s", idleTimeout: "60s" },
    http: { http1MaxPendingRequests: 5, http2MaxRequests: 6, maxRequestsPerConnection: 2 },
  };

  test("hold for every port that a service has", () => {
    const world = worldOf({ inboundConnectionPool: pool });
    for (const port of [9080, 7000]) {
      const cluster = JSON.stringify(clusterOf(world, port));
      assert.match(cluster, /"maxConnections":(\{"value":)?7/);
      assert.match(cluster, /"connectTimeout":\{"seconds":3/);
      assert.match(cluster, /"maxRequestsPerConnection":(\{"value":)?2/);
    }
  });

  test("of the root namespace hold where the workload's own has no Sidecar", () => {
    assert.match(
      JSON.stringify(clusterOf(worldOf({ inboundConnectionPool: pool }, "istio-d"), 9080)),
      /"maxPendingRequests":(\{"value":)?5/,
    );
  });

  test("of an ingress listener go before those of the whole Sidecar", () => {
    const ingress: SidecarSpec["ingress"] = [
      {
        port: { number: 9080, protocol: "HTTP", name: "http" },
        connectionPool: { tcp: { maxConnections: 2 } },
      },
      { port: { number: 7000, protocol: "TCP", name: "tcp" } },
    ];
    const world = worldOf({ ingress, inboundConnectionPool: pool });
    assert.match(JSON.stringify(clusterOf(world, 9080)), /"maxConnections":(\{"value":)?2\b/);
    assert.match(JSON.stringify(clusterOf(world, 7000)), /"maxConnections":(\{"value":)?7/);
  });

  test("say how HTTP/2 is spoken with the application", () => {
    const settings = { maxConcurrentStreams: 9, http2KeepAlive: { interval: "7s", timeout: "3s" } };
    const ingress: SidecarSpec["ingress"] = [
      { port: { number: 9080, protocol: "HTTP2", name: "http2" } },
      { port: { number: 7000, protocol: "HTTP", name: "http" } },
    ];
    const world = worldOf({
      ingress,
      inboundConnectionPool: { http: { ...settings, useClientProtocol: true } },
    });
    for (const port of [9080, 7000]) {
      const cluster = JSON.stringify(clusterOf(world, port));
      assert.match(cluster, /"useDownstreamProtocolConfig".*"maxConcurrentStreams":(\{"value":)?9/);
      assert.match(cluster, /"connectionKeepalive":\{"interval":\{"seconds":7/);
    }
    assert.equal(envoyComplaint(Object.values(world).flat()), "");
  });

  test("are taken by the real Envoy", { skip: withoutEnvoy }, () => {
    const world = worldOf({ inboundConnectionPool: pool });
    assert.equal(envoyComplaint(Object.values(world).flat()), "");
  });

  function worldOf(spec: SidecarSpec, namespace = "default"): Snapshot {
    const sidecar = {
      apiVersion: "networking.istio.io/v1",
      kind: "Sidecar",
      metadata: { name: "default", namespace },
      spec,
    };
    const engine = new Engine();
    engine.apply(worldChanges([service, sidecar], { rootNamespace: "istio-d" }));
    return snapshotOf(engine, proxy);
  }

  function clusterOf(world: Snapshot, port: number): Message {
    const found = world.cluster.find(({ name }) => name === `inbound|${port}||`);
    assert.ok(found !== undefined);
    return decodeMessage("envoy.config.cluster.v3.Cluster", found.bytes);
  }
});
