import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { worldChanges } from "#model";
import type { KubeObject, MeshConfig } from "#objects";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage } from "./proto/api.ts";
import { inboundRetryPolicy } from "./retry.ts";
import { snapshotOf } from "./snapshot.ts";

const proxy = proxyOf({ labels: { app: "sleep" }, serviceAccount: "sleep" });

const service: KubeObject = {
  apiVersion: "v1",
  kind: "Service",
  metadata: { name: "shop", namespace: "default" },
  spec: { clusterIP: "10.96.0.7", ports: [{ port: 80, name: "http" }] },
};

function clusterWith(mesh: MeshConfig): string {
  const engine = new Engine();
  engine.apply(worldChanges([service], { rootNamespace: "istio-d", mesh }));
  const name = "outbound|80||shop.default.svc.cluster.local";
  const found = snapshotOf(engine, proxy).cluster.find((cluster) => cluster.name === name);
  return JSON.stringify(decodeMessage("envoy.config.cluster.v3.Cluster", found?.bytes ?? new Uint8Array()));
}

describe("MeshConfig in a service's cluster", () => {
  test("h2UpgradePolicy makes HTTP/1.1 into HTTP/2 between proxies", () => {
    assert.match(clusterWith({}), /"explicitHttpConfig":\{"httpProtocolOptions"/);
    assert.match(
      clusterWith({ h2UpgradePolicy: "UPGRADE" }),
      /"explicitHttpConfig":\{"http2ProtocolOptions"/,
    );
  });

  test("meshMTLS names the oldest TLS that is spoken", () => {
    assert.match(clusterWith({}), /"tlsMinimumProtocolVersion":"TLSv1_2"/);
    const strict = clusterWith({ meshMTLS: { minProtocolVersion: "TLSV1_3" } });
    assert.match(strict, /"tlsMinimumProtocolVersion":"TLSv1_3"/);
  });

  test("zoneAwareLbSetting holds for services that no rule says otherwise of", () => {
    assert.doesNotMatch(clusterWith({}), /zoneAwareLbConfig/);
    const aware = clusterWith({ zoneAwareLbSetting: { minClusterSize: 3 } });
    assert.match(
      aware,
      /"zoneAwareLbConfig":\{"routingEnabled":\{"value":100\},"minClusterSize":\{"value":3\}\}/,
    );
  });
});

describe("MeshConfig's defaultInboundHttpRetryPolicy", () => {
  const inbound: KubeObject = {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: "sleep", namespace: "default" },
    spec: { clusterIP: "10.96.0.8", selector: { app: "sleep" }, ports: [{ port: 80, name: "http" }] },
  };
  const listenerWith = (mesh: MeshConfig): string => {
    const engine = new Engine();
    engine.apply(worldChanges([inbound], { rootNamespace: "istio-d", mesh }));
    const found = snapshotOf(engine, proxy).listener.find(({ name }) => name === "virtualInbound");
    return JSON.stringify(
      decodeMessage("envoy.config.listener.v3.Listener", found?.bytes ?? new Uint8Array()),
    );
  };

  test("takes the place of Istio's two tries of what was not sent", () => {
    const usual = /"retryPolicy":\{"retryOn":"reset-before-request","numRetries":\{"value":2\}\}/;
    assert.match(listenerWith({}), usual);
    const own = { attempts: 4, retryOn: "connect-failure,503", backoff: "2s" };
    const built = listenerWith({ defaultInboundHttpRetryPolicy: own });
    assert.doesNotMatch(built, usual);
    assert.match(built, /"retryOn":"connect-failure,retriable-status-codes","numRetries":\{"value":4\}/);
    assert.deepEqual(inboundRetryPolicy(own), {
      retryPolicy: {
        retryOn: "connect-failure,retriable-status-codes",
        retriableStatusCodes: [503],
        numRetries: { value: 4 },
        retryBackOff: { baseInterval: { seconds: 2, nanos: 0 } },
      },
    });
  });

  test("turns retries off with no attempts", () => {
    assert.doesNotMatch(listenerWith({ defaultInboundHttpRetryPolicy: { attempts: 0 } }), /retryPolicy/);
  });
});

test("callers may be of the trust domains that added roots are for", () => {
  const engine = new Engine();
  const mesh: MeshConfig = {
    caCertificates: [{ pem: "...", trustDomains: ["partner.example"] }, { pem: "..." }],
  };
  engine.apply(worldChanges([], { rootNamespace: "istio-d", mesh }));
  const found = snapshotOf(engine, proxy).listener.find(({ name }) => name === "virtualInbound");
  const built = decodeMessage("envoy.config.listener.v3.Listener", found?.bytes ?? new Uint8Array());
  assert.match(
    JSON.stringify(built),
    /"prefix":"spiffe:\/\/cluster\.local\/"\}\},\{"sanType":"URI","matcher":\{"prefix":"spiffe:\/\/partner\.example\/"/,
  );
});
