import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { worldChanges } from "#model";
import type { KubeObject, MeshConfig } from "#objects";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage } from "./proto/api.ts";
import { messageNameOf } from "./resource.ts";
import { snapshotOf } from "./snapshot.ts";

const world: readonly KubeObject[] = [
  {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: "shop", namespace: "default" },
    spec: {
      clusterIP: "10.96.0.7",
      selector: { app: "shop" },
      ports: [
        { name: "http-web", port: 80, targetPort: 8080 },
        { name: "tcp-raw", port: 9000 },
      ],
    },
  },
  {
    apiVersion: "networking.istio.io/v1",
    kind: "ServiceEntry",
    metadata: { name: "out", namespace: "default" },
    spec: {
      hosts: ["a.example.com"],
      resolution: "DNS",
      ports: [{ name: "https", number: 443, protocol: "HTTPS" }],
    },
  },
  {
    apiVersion: "networking.istio.io/v1",
    kind: "DestinationRule",
    metadata: { name: "shop", namespace: "default" },
    spec: { host: "shop", subsets: [{ name: "v1", labels: { version: "v1" } }] },
  },
];

function shown(mesh: MeshConfig, type: string, name: string): string {
  const engine = new Engine();
  engine.apply(worldChanges(world, { rootNamespace: "istio-d", mesh }));
  const all = Object.values(snapshotOf(engine, proxyOf({ labels: { app: "shop" } }))).flat();
  const found = all.find((one) => one.type === type && one.name === name);
  assert.ok(found, name);
  return JSON.stringify(decodeMessage(messageNameOf(found.type), found.bytes));
}

function statNameOf(mesh: MeshConfig, cluster: string): string | undefined {
  return (JSON.parse(shown(mesh, "cluster", cluster)) as { altStatName?: string }).altStatName;
}

const every =
  "%SERVICE%_%SERVICE_NAME%_%SERVICE_FQDN%_%SERVICE_PORT%_%SERVICE_PORT_NAME%_%TARGET_PORT%_%SUBSET_NAME%_%OTHER%";
const host = "shop.default.svc.cluster.local";

describe("names of clusters in statistics", () => {
  test("of the outbound side follow the pattern, by service and subset", () => {
    const mesh = { outboundClusterStatName: every };
    assert.equal(
      statNameOf(mesh, `outbound|80|v1|${host}`),
      `shop.default_shop_${host}_80_http-web_0_v1_%OTHER%;`,
    );
    assert.equal(
      statNameOf(mesh, "outbound|443||a.example.com"),
      "a.example.com_a.example.com_a.example.com_443_https_0__%OTHER%;",
    );
    assert.equal(statNameOf(mesh, "inbound|8080||"), undefined);
  });

  test("of the inbound side follow theirs, with the port of the application", () => {
    const mesh = { inboundClusterStatName: every };
    assert.equal(statNameOf(mesh, "inbound|8080||"), `shop.default_shop_${host}_80_http-web_8080__%OTHER%;`);
    assert.equal(statNameOf(mesh, `outbound|80||${host}`), undefined);
  });

  test("are those of TCP proxies as well", () => {
    const prefix = (name: string) => `"statPrefix":"${name}"`;
    const mesh = { inboundClusterStatName: "in.%SERVICE%", outboundClusterStatName: "out.%SERVICE_PORT%" };
    assert.ok(shown(mesh, "listener", "virtualInbound").includes(prefix("in.shop.default")));
    assert.ok(shown(mesh, "listener", "10.96.0.7_9000").includes(prefix("out.9000")));
    assert.ok(shown({}, "listener", "10.96.0.7_9000").includes(prefix(`outbound|9000||${host}`)));
  });
});
