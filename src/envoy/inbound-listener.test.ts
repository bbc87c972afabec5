import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine, type Read, type Source } from "#engine";
import { worldChanges, type InboundScope } from "#model";
import type { KubeObject } from "#objects";
import { envoyComplaint, withoutEnvoy } from "../../test/support/envoy.ts";
import { inboundCluster, inboundPassthroughCluster } from "./inbound-cluster.ts";
import { virtualInbound } from "./inbound-listener.ts";
import { decodeMessage } from "./proto/api.ts";
import type { EnvoyResource } from "./resource.ts";

const scope: InboundScope = {
  namespace: "default",
  labels: { app: "reviews" },
  addresses: [],
  interception: "REDIRECT",
};

const service: KubeObject = {
  apiVersion: "v1",
  kind: "Service",
  metadata: { name: "reviews", namespace: "default" },
  spec: {
    selector: { app: "reviews" },
    ports: [
      { name: "http", port: 80, targetPort: 9080 },
      { name: "tcp-data", port: 7000 },
      { name: "any", port: 7001 },
    ],
  },
};

function policy(kind: string, name: string, spec: unknown, namespace = "default"): KubeObject {
  return {
    apiVersion: "security.istio.io/v1",
    kind,
    metadata: { name, namespace, creationTimestamp: "2026-01-01T00:00:00Z" },
    spec,
  };
}

function listenerOf(objects: readonly KubeObject[]): EnvoyResource {
  const engine = new Engine();
  engine.apply(worldChanges(objects, { mesh: { accessLogFile: "/dev/stdout" } }));
  return virtualInbound(readerOf(engine), { kind: "virtual-inbound", scope });
}

function readerOf(engine: Engine): Read {
  return <K, V>(source: Source<K, V>, key: K): V => engine.get(source, key);
}

interface Chain {
  readonly name: string;
  readonly filterChainMatch: {
    readonly destinationPort?: number | { readonly value: number };
    readonly transportProtocol?: string;
    readonly applicationProtocols?: readonly string[];
  };
  readonly transportSocket?: unknown;
}

function chainsOf(objects: readonly KubeObject[], port?: number): readonly string[] {
  const { filterChains } = decodeMessage(
    "envoy.config.listener.v3.Listener",
    listenerOf(objects).bytes,
  ) as unknown as {
    readonly filterChains: readonly Chain[];
  };
  return filterChains
    .filter(({ filterChainMatch: { destinationPort } }) => portOf(destinationPort) === port)
    .map(({ name, filterChainMatch: { transportProtocol, applicationProtocols }, transportSocket }) =>
      [name, transportProtocol, applicationProtocols?.[0], transportSocket === undefined ? "" : "ends TLS"]
        .filter(Boolean)
        .join(" "),
    );
}

function portOf(port: Chain["filterChainMatch"]["destinationPort"]): number | undefined {
  return typeof port === "object" ? port.value : port;
}

describe("virtualInbound", () => {
  test("takes mutual TLS and plaintext when nothing is said", () => {
    assert.deepEqual(chainsOf([service], 9080), [
      "0.0.0.0_9080 tls istio ends TLS",
      "0.0.0.0_9080 raw_buffer",
    ]);
    assert.deepEqual(chainsOf([service], 7000), [
      "0.0.0.0_7000 tls istio ends TLS",
      "0.0.0.0_7000 tls",
      "0.0.0.0_7000 raw_buffer",
    ]);
    assert.equal(chainsOf([service], 7001).length, 5);
  });

  test("takes mutual TLS only under STRICT, but for the port that a workload's policy opens", () => {
    const strict = policy("PeerAuthentication", "default", { mtls: { mode: "STRICT" } }, "istio-d");
    const open = policy("PeerAuthentication", "reviews", {
      selector: { matchLabels: { app: "reviews" } },
      portLevelMtls: { 7000: { mode: "DISABLE" }, 8000: { mode: "PERMISSIVE" } },
    });
    const objects = [service, strict, open];
    assert.deepEqual(chainsOf(objects, 9080), ["0.0.0.0_9080 tls ends TLS"]);
    assert.deepEqual(chainsOf(objects, 7000), ["0.0.0.0_7000 raw_buffer"]);
    assert.equal(chainsOf(objects, 8000).length, 5, "a port without service has chains of its own");
    assert.deepEqual(chainsOf(objects), [
      "virtualInbound-catchall-http tls istio-http/1.0 ends TLS",
      "virtualInbound tls ends TLS",
    ]);
  });

  test("names the objects it comes from", () => {
    const deny = policy("AuthorizationPolicy", "deny", { action: "DENY", rules: [{}] });
    const names = listenerOf([service, deny]).origins.map(({ object }) => `${object.kind} ${object.name}`);
    assert.ok(names.includes("AuthorizationPolicy deny"));
    assert.ok(names.includes("Service reviews"));
  });

  test("is taken by the real Envoy", { skip: withoutEnvoy }, () => {
    const objects = [
      service,
      policy("AuthorizationPolicy", "allow", {
        rules: [
          {
            from: [{ source: { namespaces: ["default"], notPrincipals: ["cluster.local/ns/a/sa/b"] } }],
            to: [{ operation: { methods: ["GET"], paths: ["/a/*", "/b/{*}/c"], hosts: ["*.x.com"] } }],
            when: [{ key: "request.headers[x]", values: ["*"] }],
          },
        ],
      }),
      policy("AuthorizationPolicy", "deny", {
        action: "DENY",
        rules: [{ to: [{ operation: { ports: ["7000"] } }] }],
      }),
    ];
    const engine = new Engine();
    engine.apply(worldChanges(objects));
    const read = readerOf(engine);
    const cluster = inboundCluster(read, {
      kind: "inbound",
      servicePort: 80,
      port: 9080,
      upstream: { kind: "original" },
      protocol: "http",
      http2: false,
      services: [{ host: "reviews.default.svc.cluster.local", name: "reviews", namespace: "default" }],
    });
    const unknown = inboundPassthroughCluster(read, { kind: "inbound-passthrough" });
    assert.equal(envoyComplaint([listenerOf(objects), cluster, unknown]), "");
  });
});
