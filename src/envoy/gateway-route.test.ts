import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { tables, worldChanges } from "#model";
import type { KubeObject } from "#objects";
import { envoyComplaint, withoutEnvoy } from "../../test/support/envoy.ts";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage } from "./proto/api.ts";
import { snapshotOf, type Snapshot } from "./snapshot.ts";

const proxy = proxyOf({
  kind: "router",
  namespace: "sm-gateways",
  labels: { istio: "ingressgateway" },
  serviceAccount: "istio-ingressgateway",
  dnsDomain: "sm-gateways.svc.cluster.local",
  interception: "NONE",
});

function object(kind: string, name: string, spec: object, namespace = "default"): KubeObject {
  const apiVersion = kind === "Service" ? "v1" : "networking.istio.io/v1";
  return { apiVersion, kind, metadata: { name, namespace }, spec };
}

const reviews = object("Service", "reviews", {
  clusterIP: "10.0.0.1",
  ports: [{ name: "http", port: 9080 }],
});
const untold = object("Service", "untold", { clusterIP: "10.0.0.2", ports: [{ name: "web", port: 8000 }] });

function gateway(hosts: readonly string[], tls?: object): KubeObject {
  const servers = [{ port: { number: 80, name: "http", protocol: "HTTP" }, hosts, tls }];
  return object("Gateway", "web", { selector: { istio: "ingressgateway" }, servers }, "sm-gateways");
}

function virtualService(name: string, hosts: readonly string[], ...http: object[]): KubeObject {
  return object("VirtualService", name, { hosts, gateways: ["sm-gateways/web"], http });
}

function to(host: string, port: number, uri?: object): object {
  return { ...(uri ? { match: [{ uri }] } : {}), route: [{ destination: { host, port: { number: port } } }] };
}

function worldOf(...objects: readonly KubeObject[]): Engine {
  const engine = new Engine();
  engine.apply(worldChanges([reviews, untold, ...objects]));
  return engine;
}

interface VirtualHost {
  readonly name: string;
  readonly domains: readonly string[];
  readonly requireTls?: string;
  readonly routes?: readonly {
    readonly match: { readonly prefix?: string };
    readonly route?: { readonly cluster?: string };
    readonly typedPerFilterConfig?: object;
  }[];
}

function hostsOf({ route }: Snapshot): readonly VirtualHost[] {
  const table = route.find(({ name }) => name === "http.80");
  assert.ok(table);
  const { virtualHosts } = decodeMessage(
    "envoy.config.route.v3.RouteConfiguration",
    table.bytes,
  ) as unknown as {
    readonly virtualHosts: readonly VirtualHost[];
  };
  return virtualHosts;
}

describe("a router's route table", () => {
  test("has the hosts that server and VirtualService have in common, the narrower of each pair", () => {
    const hosts = hostsOf(
      snapshotOf(
        worldOf(
          gateway(["*.example.com", "default/b.org", "other/c.org"]),
          virtualService("first", ["a.example.com", "b.org", "c.org", "d.org"], to("reviews", 9080)),
        ),
        proxy,
      ),
    );
    assert.deepEqual(
      hosts.flatMap(({ domains }) => domains),
      ["a.example.com", "b.org"],
    );
  });

  test("joins the routes of several VirtualServices for one host; what takes everything comes last", () => {
    const [host] = hostsOf(
      snapshotOf(
        worldOf(
          gateway(["*"]),
          virtualService("all", ["a.com"], to("reviews", 9080)),
          virtualService("some", ["a.com"], to("untold", 8000, { prefix: "/some" })),
        ),
        proxy,
      ),
    );
    assert.deepEqual(
      host?.routes?.map(({ match, route }) => `${match.prefix} ${route?.cluster}`),
      [
        "/some outbound|8000||untold.default.svc.cluster.local",
        "/ outbound|9080||reviews.default.svc.cluster.local",
      ],
    );
    assert.deepEqual(
      host?.routes?.map(({ typedPerFilterConfig }) => Object.keys(typedPerFilterConfig ?? {})),
      [["mesh.http_alpn"], []],
      "only a port whose protocol nobody has named needs to be told",
    );
  });

  test("redirects to HTTPS where the server says so, and answers 404 where nothing is bound", () => {
    const redirected = hostsOf(snapshotOf(worldOf(gateway(["a.com"], { httpsRedirect: true })), proxy));
    assert.deepEqual(
      redirected.map(({ domains, requireTls }) => [domains, requireTls]),
      [[["a.com"], "ALL"]],
    );
    const empty = hostsOf(snapshotOf(worldOf(gateway(["a.com"])), proxy));
    assert.deepEqual(
      empty.map(({ name, routes }) => [name, routes ?? []]),
      [["blackhole:80", []]],
    );
  });

  test("brings clusters of the services it routes to, and of no others", () => {
    const { cluster } = snapshotOf(
      worldOf(gateway(["*"]), virtualService("all", ["a.com"], to("reviews", 9080))),
      proxy,
    );
    assert.deepEqual(
      cluster.map(({ name }) => name),
      ["BlackHoleCluster", "outbound|9080||reviews.default.svc.cluster.local"],
    );
  });

  test("does not see VirtualServices that are not exported to the router's namespace", () => {
    const hidden = virtualService("hidden", ["a.com"], to("reviews", 9080));
    const own = { ...hidden, spec: { ...(hidden.spec as object), exportTo: ["."] } };
    assert.equal(hostsOf(snapshotOf(worldOf(gateway(["*"]), own), proxy))[0]?.name, "blackhole:80");
  });

  test("is built anew alone when a route changes: listeners and clusters are not", () => {
    const before = virtualService("all", ["a.com"], to("reviews", 9080));
    const engine = worldOf(gateway(["*"]), before);
    const first = snapshotOf(engine, proxy);
    const after = virtualService("all", ["a.com"], to("reviews", 9080, { prefix: "/new" }));
    engine.set(tables.VirtualService, "default/all", after as never);
    const second = snapshotOf(engine, proxy);
    assert.notEqual(first.route[0]?.version, second.route[0]?.version);
    assert.deepEqual(
      [...first.listener, ...first.cluster].map(({ version }) => version),
      [...second.listener, ...second.cluster].map(({ version }) => version),
    );
  });

  test("is taken by the real Envoy with everything that a router gets", { skip: withoutEnvoy }, () => {
    const snapshot = snapshotOf(
      worldOf(
        gateway(["*"]),
        virtualService("all", ["a.com", "*.b.com"], to("reviews", 9080), to("untold", 8000, { exact: "/x" })),
      ),
      proxy,
    );
    assert.equal(envoyComplaint([...snapshot.listener, ...snapshot.route, ...snapshot.cluster]), "");
  });
});
