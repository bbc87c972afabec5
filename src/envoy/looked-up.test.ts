import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { worldChanges } from "#model";
import type { KubeObject, MeshConfig } from "#objects";
import { envoyComplaint, withoutEnvoy } from "../../test/support/envoy.ts";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage } from "./proto/api.ts";
import { messageNameOf, type EnvoyResource } from "./resource.ts";
import { snapshotOf } from "./snapshot.ts";

const services: readonly KubeObject[] = [
  {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: "shop", namespace: "default" },
    spec: {
      clusterIP: "10.96.0.7",
      ports: [
        { port: 80, name: "http" },
        { port: 3306, name: "mysql" },
      ],
    },
  },
];

function resourcesOf(outboundTrafficPolicy: MeshConfig["outboundTrafficPolicy"], objects = services) {
  const engine = new Engine();
  const mesh: MeshConfig = outboundTrafficPolicy === undefined ? {} : { outboundTrafficPolicy };
  engine.apply(worldChanges(objects, { rootNamespace: "istio-d", mesh }));
  return Object.values(snapshotOf(engine, proxyOf({}))).flat();
}

function shown(all: readonly EnvoyResource[], type: string, name: string): string {
  const found = all.find((one) => one.type === type && one.name === name);
  return found === undefined ? "" : JSON.stringify(decodeMessage(messageNameOf(found.type), found.bytes));
}

const cluster = "AllowAnyDynamicDNSCluster";
const filter = /envoy\.filters\.http\.dynamic_forward_proxy/;
const lookUp = { mode: "ALLOW_ANY_DYNAMIC_DNS" } as const;

describe("outboundTrafficPolicy ALLOW_ANY_DYNAMIC_DNS", () => {
  const all = resourcesOf(lookUp);

  test("has HTTP to unknown hosts looked up, on ports of services and on others", () => {
    assert.match(shown(all, "cluster", cluster), /envoy\.clusters\.dynamic_forward_proxy/);
    assert.match(
      shown(all, "route", "80"),
      /"name":"allow_any_dynamic_dns".*"cluster":"AllowAnyDynamicDNSCluster"/,
    );
    assert.match(shown(all, "listener", "0.0.0.0_80"), filter);
    const catchAll = shown(all, "listener", "virtualOutbound");
    assert.match(catchAll, filter);
    assert.match(catchAll, /"cluster":"AllowAnyDynamicDNSCluster"/);
  });

  test("passes other traffic on as it was sent, and holds up no server that speaks first on a service's port", () => {
    const catchAll = shown(all, "listener", "virtualOutbound");
    assert.match(catchAll, /"statPrefix":"PassthroughCluster","cluster":"PassthroughCluster"/);
    assert.match(catchAll, /"destinationPortRange":\{"start":3306,"end":3307\}/);
    assert.doesNotMatch(shown(all, "listener", "0.0.0.0_80"), /tcp_proxy.*AllowAnyDynamicDNSCluster/);
  });

  test("speaks TLS to them as the policy says, by the name that is asked for", () => {
    assert.doesNotMatch(shown(all, "cluster", cluster), /transport_sockets\.tls/);
    const simple = shown(resourcesOf({ ...lookUp, tls: { mode: "SIMPLE" } }), "cluster", cluster);
    assert.match(simple, /transport_sockets\.tls.*file-root:system/);
    assert.match(simple, /"autoSni":true,"autoSanValidation":true/);
    const mutual = shown(
      resourcesOf({
        ...lookUp,
        tls: { mode: "MUTUAL", clientCertificate: "/c.pem", privateKey: "/k.pem", sni: "fixed.example.com" },
      }),
      "cluster",
      cluster,
    );
    assert.match(mutual, /file-cert:\/c\.pem~\/k\.pem/);
    assert.match(mutual, /"sni":"fixed\.example\.com"/);
    const mesh = shown(resourcesOf({ ...lookUp, tls: { mode: "ISTIO_MUTUAL" } }), "cluster", cluster);
    assert.match(mesh, /"name":"ROOTCA"/);
  });

  test("leaves a Sidecar with a policy of its own, and a mesh without it, as they were", () => {
    const own: KubeObject = {
      apiVersion: "networking.istio.io/v1",
      kind: "Sidecar",
      metadata: { name: "own", namespace: "default" },
      spec: { egress: [{ hosts: ["*/*"] }], outboundTrafficPolicy: { mode: "REGISTRY_ONLY" } },
    };
    for (const others of [resourcesOf(lookUp, [...services, own]), resourcesOf(undefined)]) {
      assert.equal(shown(others, "cluster", cluster), "");
      for (const { type, name } of others)
        if (type === "listener") assert.doesNotMatch(shown(others, type, name), filter);
    }
  });

  test("is taken by the real Envoy", { skip: withoutEnvoy }, () => {
    assert.equal(envoyComplaint(all), "");
    assert.equal(envoyComplaint(resourcesOf({ ...lookUp, tls: { mode: "SIMPLE" } })), "");
    assert.equal(envoyComplaint(resourcesOf({ ...lookUp, tls: { mode: "ISTIO_MUTUAL" } })), "");
  });
});
