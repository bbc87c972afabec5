import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { worldChanges } from "#model";
import type { KubeObject, MeshConfig } from "#objects";
import { envoyComplaint, withoutEnvoy } from "../../test/support/envoy.ts";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage, typed } from "./proto/api.ts";
import { messageNameOf, resource } from "./resource.ts";
import { snapshotOf } from "./snapshot.ts";

const world: readonly KubeObject[] = [
  {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: "keys", namespace: "vault" },
    spec: { clusterIP: "10.96.2.1", selector: { app: "keys" }, ports: [{ name: "grpc", port: 8234 }] },
  },
  {
    apiVersion: "networking.istio.io/v1",
    kind: "Gateway",
    metadata: { name: "door", namespace: "edge" },
    spec: {
      selector: { istio: "edge" },
      servers: [
        {
          port: { number: 443, name: "https", protocol: "HTTPS" },
          hosts: ["*"],
          tls: { mode: "MUTUAL", credentialName: "sds://shop" },
        },
      ],
    },
  },
];
const proxy = proxyOf({ kind: "router", namespace: "edge", labels: { istio: "edge" } });
const cluster = "outbound|8234||keys.vault.svc.cluster.local";

function resourcesOf(mesh: MeshConfig) {
  const engine = new Engine();
  engine.apply(worldChanges(world, { rootNamespace: "istio-d", mesh }));
  return Object.values(snapshotOf(engine, proxy)).flat();
}

const served = resourcesOf({
  extensionProviders: [{ name: "keys", sds: { service: "keys.vault.svc.cluster.local", port: 8234 } }],
});

describe("an extension provider of secrets", () => {
  test("serves gateways what they name by sds://, certificate and CA", () => {
    const listener = served.find(({ type }) => type === "listener");
    assert.ok(listener);
    const built = JSON.stringify(decodeMessage(messageNameOf("listener"), listener.bytes));
    for (const name of ["shop", "shop-cacert"])
      assert.ok(built.includes(`{"name":"${name}","sdsConfig":{"apiConfigSource":{"apiType":"GRPC"`), built);
    assert.ok(built.includes(`"clusterName":"${cluster}","authority":"keys.vault.svc.cluster.local"`));
    assert.ok(served.some(({ type, name }) => type === "cluster" && name === cluster));
    assert.ok(
      !resourcesOf({}).some(({ name }) => name === cluster),
      "without it the gateway needs no cluster",
    );
  });

  test("is taken by the real Envoy", { skip: withoutEnvoy }, () => {
    // Among the static clusters of a validation Envoy takes no secrets of one by EDS, as it does of clusters that are discovered.
    const standIn = resource("cluster", cluster, {
      name: cluster,
      type: "STATIC",
      connectTimeout: { seconds: 1 },
      typedExtensionProtocolOptions: {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
          "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
          { explicitHttpConfig: { http2ProtocolOptions: {} } },
        ),
      },
    });
    const others = served.filter(({ name }) => name !== cluster);
    assert.equal(envoyComplaint([...others, standIn]), "");
  });
});
