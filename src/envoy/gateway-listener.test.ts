import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import {
  gatewayProblemsOf,
  gatewayScopeOf,
  mergedGatewayOf,
  worldChanges,
  type GatewayScope,
  type WorldOptions,
} from "#model";
import { planOf } from "#plan";
import type { KubeObject } from "#objects";
import { envoyComplaint, withoutEnvoy } from "../../test/support/envoy.ts";
import { proxyOf } from "../../test/support/proxies.ts";
import { readersOfSecrets } from "../../test/support/secret-readers.ts";
import { gatewayListener } from "./gateway-listener.ts";
import { decodeMessage } from "./proto/api.ts";
import type { EnvoyResource } from "./resource.ts";

const proxy = proxyOf({
  kind: "router",
  namespace: "sm-gateways",
  labels: { istio: "ingressgateway" },
  serviceAccount: "istio-ingressgateway",
  dnsDomain: "sm-gateways.svc.cluster.local",
  interception: "NONE",
});

const service: KubeObject = {
  apiVersion: "v1",
  kind: "Service",
  metadata: { name: "istio-ingressgateway", namespace: "sm-gateways" },
  spec: {
    selector: { istio: "ingressgateway" },
    ports: [
      { name: "http2", port: 80, targetPort: 8080 },
      { name: "https", port: 443, targetPort: 8443 },
      { name: "tcp", port: 31400, targetPort: 31400 },
    ],
  },
};

let age = 0;
function gateway(name: string, servers: unknown, namespace = "sm-gateways"): KubeObject {
  return {
    apiVersion: "networking.istio.io/v1",
    kind: "Gateway",
    metadata: { name, namespace, creationTimestamp: `2026-01-01T00:00:${String(10 + age++)}Z` },
    spec: { selector: { istio: "ingressgateway" }, servers },
  };
}

function server(
  number: number,
  protocol: string,
  hosts: readonly string[],
  tls?: unknown,
  name?: string,
): unknown {
  return { port: { number, protocol, name: name ?? protocol.toLowerCase() }, hosts, ...(tls ? { tls } : {}) };
}

function virtualService(name: string, spec: object): KubeObject {
  return {
    apiVersion: "networking.istio.io/v1",
    kind: "VirtualService",
    metadata: { name, namespace: "default" },
    spec,
  };
}

interface World {
  readonly engine: Engine;
  readonly scope: GatewayScope;
}

function worldOf(...objects: readonly KubeObject[]): World {
  const engine = new Engine();
  engine.apply(worldChanges([service, ...objects]));
  return { engine, scope: engine.get(gatewayScopeOf, proxy) };
}

function listenersOf({ engine, scope }: World): EnvoyResource[] {
  const read = engine.get.bind(engine);
  return engine
    .get(mergedGatewayOf, scope)
    .listeners.flatMap(({ name }) => gatewayListener(read, { kind: "gateway", scope, name }) ?? []);
}

function serverNames(resource: EnvoyResource | undefined): (readonly string[])[] {
  assert.ok(resource);
  const { filterChains } = decodeMessage("envoy.config.listener.v3.Listener", resource.bytes) as unknown as {
    readonly filterChains: readonly {
      readonly filterChainMatch?: { readonly serverNames?: readonly string[] };
    }[];
  };
  return filterChains.map(({ filterChainMatch }) => filterChainMatch?.serverNames ?? []);
}

/** What the router may ask for. */
function secretsOf({ engine }: World): readonly { readonly name: string; readonly key: unknown }[] {
  return engine.get(planOf, { kind: "gateway", proxy }).secret.flatMap(({ entries }) => entries);
}

function secretNames(world: World): string[] {
  return secretsOf(world).map(({ name }) => name);
}

/** Row keys of the Secrets behind it. */
function secretRows(world: World): string[] {
  return secretsOf(world).map(({ key }) => (key as { readonly secret: string }).secret);
}

describe("a router's listeners", () => {
  test("stand at the target port of the Service that the Gateway's port names", () => {
    const { engine, scope } = worldOf(
      gateway("web", [server(80, "HTTP", ["*"]), server(9000, "HTTP", ["*"])]),
    );
    const merged = engine.get(mergedGatewayOf, scope);
    assert.deepEqual(
      merged.listeners.map(({ name }) => name),
      ["0.0.0.0_8080", "0.0.0.0_9000"],
    );
    assert.deepEqual(Object.keys(merged.routes), ["http.8080", "http.9000"]);
  });

  test("share a route table between plain servers, and report what cannot share a port", () => {
    const { engine, scope } = worldOf(
      gateway("first", [server(80, "HTTP", ["a.com"])]),
      gateway("second", [server(80, "HTTP", ["b.com"])], "other"),
      gateway("third", [server(80, "TCP", ["*"])]),
    );
    const merged = engine.get(mergedGatewayOf, scope);
    assert.deepEqual(
      merged.routes["http.8080"]?.map((one) => one.gateway),
      ["sm-gateways/first", "other/second"],
    );
    assert.deepEqual(
      merged.conflicts.map(({ object }) => object.name),
      ["third"],
    );
  });

  test("tell TLS servers apart by server name; the older Gateway keeps a name", () => {
    const tls = { mode: "SIMPLE", credentialName: "cert" };
    const world = worldOf(
      gateway("first", [server(443, "HTTPS", ["a.com", "*/b.com"], tls)]),
      gateway("second", [server(443, "HTTPS", ["a.com"], tls), server(443, "HTTPS", ["c.com"], tls, "c")]),
    );
    assert.deepEqual(serverNames(listenersOf(world)[0]), [["a.com", "b.com"], ["c.com"]]);
    assert.equal(world.engine.get(mergedGatewayOf, world.scope).conflicts.length, 1);
  });

  test("never have two chains with one server name, whatever the VirtualServices say", () => {
    const world = worldOf(
      gateway("both", [
        server(443, "HTTPS", ["a.com"], { mode: "SIMPLE", credentialName: "cert" }),
        server(443, "TLS", ["*"], { mode: "PASSTHROUGH" }, "pass"),
      ]),
      virtualService("pass", {
        hosts: ["*"],
        gateways: ["sm-gateways/both"],
        tls: [
          {
            match: [{ sniHosts: ["A.com", "b.com"] }],
            route: [{ destination: { host: "db", port: { number: 1 } } }],
          },
        ],
      }),
    );
    assert.deepEqual(serverNames(listenersOf(world)[0]), [["a.com"], ["b.com"]]);
  });

  test("give a Secret to a router of its own namespace only, wherever the Gateway is that names it", () => {
    const tls = { mode: "MUTUAL", credentialName: "cert" };
    const own = worldOf(gateway("own", [server(443, "HTTPS", ["a.com"], tls)]));
    const anywhere = worldOf(gateway("foreign", [server(443, "HTTPS", ["a.com"], tls)], "default"));
    const elsewhere = { ...tls, credentialName: "kubernetes://default/cert" };
    const foreign = worldOf(gateway("own", [server(443, "HTTPS", ["a.com"], elsewhere)]));
    assert.deepEqual(
      secretNames(own),
      ["kubernetes://cert-cacert"],
      "nobody has said that it may read Secrets",
    );
    for (const { engine } of [own, anywhere, foreign])
      engine.apply(readersOfSecrets("sm-gateways/istio-ingressgateway"));
    assert.deepEqual(secretNames(own), ["kubernetes://cert", "kubernetes://cert-cacert"]);
    assert.deepEqual(secretNames(anywhere), secretNames(own));
    assert.deepEqual(secretNames(foreign), []);
  });

  test("are those of Gateways anywhere, or of the proxy's own namespace alone where the mesh says so", () => {
    const own = gateway("own", [server(443, "HTTPS", ["a.com"], { mode: "SIMPLE", credentialName: "cert" })]);
    const foreign = gateway("foreign", [server(443, "HTTPS", ["b.com"], { mode: "SIMPLE" }, "b")], "default");
    const hosts = (options: WorldOptions): readonly string[] => {
      const engine = new Engine();
      engine.apply(worldChanges([service, own, foreign], options));
      const { listeners } = engine.get(mergedGatewayOf, engine.get(gatewayScopeOf, proxy));
      return listeners.flatMap(({ servers }) => servers.flatMap((one) => one.hosts));
    };
    assert.deepEqual(hosts({}), ["a.com", "b.com"]);
    assert.deepEqual(hosts({ gatewaySelectors: "own-namespace" }), ["a.com"]);
  });

  test("name no Secret of another namespace in any spelling", () => {
    const spellings = [
      ...["default/cert", "kubernetes://default/cert", "kubernetes-gateway://default/cert"],
      ...["../default/cert", "kubernetes://../default/cert", "kubernetes://sm-gateways/../default/cert"],
      ...[
        "kubernetes:///cert",
        "kubernetes://default//cert",
        "configmap://default/cert",
        "KUBERNETES://default/cert",
      ],
      ...[
        "file-root:/etc/shadow",
        "file-cert:/a~/b",
        "sds://default/cert",
        "builtin://default/cert",
        "invalid://cert",
      ],
      ...["kubernetes://sm-gateways%2Fcert", "kubernetes://default\\cert", "kubernetes:// default/cert"],
    ];
    const known = ["default/cert", "sm-gateways/cert"].map((key) => `${key}`);
    for (const credentialName of spellings) {
      for (const tls of [
        { mode: "MUTUAL", credentialName },
        { mode: "SIMPLE", credentialNames: [credentialName] },
        { mode: "MUTUAL", credentialName: "own", caCertCredentialName: credentialName },
      ]) {
        const world = worldOf(gateway("own", [server(443, "HTTPS", ["a.com"], tls)]));
        world.engine.apply(readersOfSecrets("sm-gateways/istio-ingressgateway"));
        const secrets = secretRows(world).filter(
          (row) => known.includes(row) || !row.startsWith("sm-gateways/"),
        );
        assert.deepEqual(secrets, [], `${JSON.stringify(tls)}`);
      }
    }
  });

  test("come with a problem for each credential that cannot be used", () => {
    const tls = { mode: "SIMPLE", credentialName: "cert" };
    const { engine, scope } = worldOf(
      gateway("own", [server(443, "HTTPS", ["a.com"], tls)]),
      gateway("foreign", [server(443, "HTTPS", ["b.com"], tls)], "default"),
    );
    assert.deepEqual(
      engine.get(gatewayProblemsOf, scope).map(({ code, at, text }) => [code, at.object?.name, text]),
      [
        ["MZ0402", "own", "Secret sm-gateways/cert does not exist."],
        ["MZ0402", "foreign", "Secret sm-gateways/cert does not exist."],
      ],
    );
  });

  test("are there over QUIC as well where that is on, the Service has the port, and no client certificate is asked for", () => {
    const servers = [
      server(443, "HTTPS", ["a.com"], { mode: "SIMPLE", credentialName: "cert" }, "a"),
      server(443, "HTTPS", ["m.com"], { mode: "MUTUAL", credentialName: "cert" }, "m"),
      server(443, "HTTPS", ["o.com"], { mode: "OPTIONAL_MUTUAL", credentialName: "cert" }, "o"),
      server(443, "TLS", ["p.com"], { mode: "PASSTHROUGH" }, "p"),
      server(8444, "HTTPS", ["a.com"], { mode: "SIMPLE", credentialName: "cert" }, "b"),
    ];
    const withUdp = structuredClone(service) as KubeObject & { spec: { ports: object[] } };
    withUdp.spec.ports.push({ name: "quic", port: 443, targetPort: 8443, protocol: "UDP" });
    const worldWith = (quicListeners: boolean, front: KubeObject): World => {
      const engine = new Engine();
      engine.apply(worldChanges([front, gateway("web", servers)], { quicListeners }));
      return { engine, scope: engine.get(gatewayScopeOf, proxy) };
    };
    const quic = ({ engine, scope }: World): EnvoyResource[] =>
      engine
        .get(mergedGatewayOf, scope)
        .quicListeners.flatMap(
          ({ name }) => gatewayListener(engine.get.bind(engine), { kind: "gateway", scope, name }) ?? [],
        );
    assert.deepEqual(quic(worldWith(false, withUdp)), []);
    assert.deepEqual(quic(worldWith(true, service)), []);
    const listeners = quic(worldWith(true, withUdp));
    assert.deepEqual(
      listeners.map(({ name }) => name),
      ["udp_0.0.0.0_8443"],
    );
    assert.deepEqual(serverNames(listeners[0]), [["a.com"]]);
    if (!withoutEnvoy) assert.equal(envoyComplaint(listeners), "");
  });

  test("are taken by the real Envoy", { skip: withoutEnvoy }, () => {
    const tls = (mode: string, credentialName?: string): object => ({ mode, credentialName });
    const destination = { host: "db.default.svc.cluster.local", port: { number: 5432 } };
    const world = worldOf(
      gateway("all", [
        server(80, "HTTP", ["*"]),
        server(443, "HTTPS", ["a.com"], tls("SIMPLE", "cert")),
        server(443, "HTTPS", ["m.com"], { ...tls("MUTUAL", "mutual"), subjectAltNames: ["x"] }, "mutual"),
        server(443, "TLS", ["p.com"], tls("PASSTHROUGH"), "pass"),
        server(443, "TLS", ["t.com"], tls("SIMPLE", "t"), "term"),
        server(31400, "TCP", ["*"]),
      ]),
      virtualService("pass", {
        hosts: ["p.com"],
        gateways: ["sm-gateways/all"],
        tls: [{ match: [{ port: 443, sniHosts: ["p.com"] }], route: [{ destination }] }],
      }),
      virtualService("db", {
        hosts: ["t.com", "db"],
        gateways: ["sm-gateways/all"],
        tcp: [
          {
            route: [
              { destination, weight: 80 },
              { destination: { ...destination, subset: "v2" }, weight: 20 },
            ],
          },
        ],
      }),
    );
    const listeners = listenersOf(world);
    assert.deepEqual(
      listeners.map(({ name }) => name),
      ["0.0.0.0_31400", "0.0.0.0_8080", "0.0.0.0_8443"],
    );
    assert.deepEqual(serverNames(listeners[2]), [["a.com"], ["m.com"], ["p.com"], ["t.com"]]);
    assert.equal(envoyComplaint(listeners), "");
  });
});
