import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { worldChanges } from "#model";
import type { KubeObject, MeshConfigExtensionProvider } from "#objects";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage } from "./proto/api.ts";
import { snapshotOf } from "./snapshot.ts";

const proxy = proxyOf({ labels: { app: "shop" }, serviceAccount: "shop" });

function service(name: string, ports: readonly object[]): KubeObject {
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name, namespace: "default" },
    spec: { clusterIP: "10.96.0.7", selector: { app: name }, ports },
  };
}

const policy: KubeObject = {
  apiVersion: "security.istio.io/v1",
  kind: "AuthorizationPolicy",
  metadata: { name: "ask", namespace: "default" },
  spec: { action: "CUSTOM", provider: { name: "decider" }, rules: [{}] },
};

const objects = [
  service("shop", [
    { name: "http", port: 80, targetPort: 8080 },
    { name: "tcp-raw", port: 9000 },
  ]),
  service("decider", [
    { name: "http", port: 8000 },
    { name: "grpc", port: 9000 },
  ]),
  policy,
];
const address = { service: "decider.default.svc.cluster.local" };

/** The inbound listener of `shop`, as text, where the provider `decider` is such a one. */
function listenerWith(provider: Omit<MeshConfigExtensionProvider, "name">): string {
  const engine = new Engine();
  const extensionProviders = [{ name: "decider", ...provider }];
  engine.apply(worldChanges(objects, { rootNamespace: "istio-d", mesh: { extensionProviders } }));
  const found = snapshotOf(engine, proxy).listener.find(({ name }) => name === "virtualInbound");
  return JSON.stringify(decodeMessage("envoy.config.listener.v3.Listener", found?.bytes ?? new Uint8Array()));
}

const asksHttp = /envoy\.filters\.http\.ext_authz/;
const asksTcp = /envoy\.filters\.network\.ext_authz/;
const denies = /istio-ext-authz-decider-ns\[default\]-policy\[ask\]-rule\[0\]-deny-due-to-bad-CUSTOM-action/;

describe("a CUSTOM policy's provider", () => {
  test("of HTTP is asked with what its fields say, about requests and not about TCP", () => {
    const built = listenerWith({
      envoyExtAuthzHttp: {
        ...address,
        port: 8000,
        timeout: "2s",
        pathPrefix: "/check",
        failOpen: true,
        statusOnError: "503",
        includeRequestHeadersInCheck: ["x-user", "x-a-*", "*-id"],
        includeAdditionalHeadersInCheck: { "x-b": "2", "x-a": "1" },
        includeRequestBodyInCheck: { maxRequestBytes: 10, allowPartialMessage: true, packAsBytes: true },
        headersToUpstreamOnAllow: ["x-up"],
        headersToDownstreamOnDeny: ["x-deny"],
        headersToDownstreamOnAllow: ["x-allow"],
      },
    });
    assert.match(built, asksHttp);
    assert.doesNotMatch(built, asksTcp);
    for (const part of [
      '"pathPrefix":"/check"',
      '"cluster":"outbound|8000||decider.default.svc.cluster.local"',
      '"timeout":{"seconds":2}',
      '"failureModeAllow":true',
      '"statusOnError":{"code":"ServiceUnavailable"}',
      '"allowedHeaders":{"patterns":[{"exact":"x-user","ignoreCase":true},{"prefix":"x-a-","ignoreCase":true},{"suffix":"-id","ignoreCase":true}]}',
      '"headersToAdd":[{"key":"x-a","value":"1"},{"key":"x-b","value":"2"}]',
      '"withRequestBody":{"maxRequestBytes":10,"allowPartialMessage":true,"packAsBytes":true}',
      '"allowedUpstreamHeaders":{"patterns":[{"exact":"x-up","ignoreCase":true}]}',
      '"allowedClientHeaders":{"patterns":[{"exact":"x-deny","ignoreCase":true}]}',
      '"allowedClientHeadersOnSuccess":{"patterns":[{"exact":"x-allow","ignoreCase":true}]}',
    ])
      assert.ok(built.includes(part), `${part} in ${built}`);
  });

  test("of gRPC is asked about requests and about connections of TCP", () => {
    const built = listenerWith({ envoyExtAuthzGrpc: { ...address, port: 9000, failOpen: true } });
    assert.match(built, asksHttp);
    assert.match(built, asksTcp);
    assert.match(built, /"clusterName":"outbound\|9000\|\|decider\.default\.svc\.cluster\.local"/);
    assert.doesNotMatch(built, denies);
  });

  test("that is faulty is never asked, and what would have been is denied", () => {
    const faulty: readonly Omit<MeshConfigExtensionProvider, "name">[] = [
      { envoyExtAuthzHttp: { ...address, port: 8000, statusOnError: "299" } },
      { envoyExtAuthzHttp: { ...address, port: 8000, pathPrefix: "check" } },
      { envoyExtAuthzHttp: { ...address, port: 8000, headersToUpstreamOnAllow: ["*"] } },
      { envoyExtAuthzHttp: { service: "gone.default.svc.cluster.local", port: 8000 } },
      { envoyExtAuthzGrpc: { ...address } },
      { opentelemetry: { ...address, port: 9000 } },
    ];
    for (const provider of faulty) {
      const built = listenerWith(provider);
      assert.match(built, denies, JSON.stringify(provider));
      assert.doesNotMatch(built, asksHttp);
    }
  });
});
