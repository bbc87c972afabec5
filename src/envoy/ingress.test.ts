import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { ingressStatusOf, worldChanges, type WorldOptions } from "#model";
import type { KubeObject, MeshConfig } from "#objects";
import { envoyComplaint } from "../../test/support/envoy.ts";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage } from "./proto/api.ts";
import { snapshotOf, type Snapshot } from "./snapshot.ts";

const proxy = proxyOf({
  kind: "router",
  namespace: "edge",
  labels: { istio: "ingressgateway" },
  serviceAccount: "istio-ingressgateway",
  dnsDomain: "edge.svc.cluster.local",
  interception: "NONE",
});

function service(name: string, port = 80): KubeObject {
  const spec = { clusterIP: "10.0.0.1", ports: [{ name: "web", port }] };
  return { apiVersion: "v1", kind: "Service", metadata: { name, namespace: "default" }, spec };
}

const ingressClass: KubeObject = {
  apiVersion: "networking.k8s.io/v1",
  kind: "IngressClass",
  metadata: { name: "istio" },
  spec: { controller: "istio.io/ingress-controller" } as object,
};

interface Path {
  readonly path: string;
  readonly pathType: string;
  readonly to: string;
}

function backend(name: string): object {
  return { service: { name, port: name === "b" ? { name: "web" } : { number: 80 } } };
}

function ingress(
  name: string,
  host: string,
  paths: readonly Path[],
  more: object = {},
  created = "2020",
): KubeObject {
  const http = { paths: paths.map(({ path, pathType, to }) => ({ path, pathType, backend: backend(to) })) };
  return {
    apiVersion: "networking.k8s.io/v1",
    kind: "Ingress",
    metadata: { name, namespace: "default", creationTimestamp: `${created}-01-01T00:00:00Z` },
    spec: { ingressClassName: "istio", rules: [{ ...(host === "" ? {} : { host }), http }], ...more },
  };
}

function world(objects: readonly KubeObject[], options: WorldOptions = {}): Engine {
  const engine = new Engine();
  engine.apply(worldChanges([service("a"), service("b", 8080), ingressClass, ...objects], options));
  return engine;
}

function snapshot(objects: readonly KubeObject[], mesh: MeshConfig = {}): Snapshot {
  return snapshotOf(world(objects, { mesh }), proxy);
}

/** `domain path cluster` of each route of a table. */
function routesOf({ route: tables }: Snapshot, name: string): readonly string[] {
  const table = tables.find((one) => one.name === name);
  if (table === undefined) return [];
  const { virtualHosts } = decodeMessage("envoy.config.route.v3.RouteConfiguration", table.bytes) as {
    readonly virtualHosts: readonly {
      readonly domains: readonly string[];
      readonly routes?: readonly {
        readonly match: Readonly<Record<string, string>>;
        readonly route?: { readonly cluster?: string };
      }[];
    }[];
  };
  return virtualHosts.flatMap(({ domains, routes = [] }) =>
    routes.map(({ match, route }) => {
      const path =
        match["path"] === undefined
          ? `${match["pathSeparatedPrefix"] ?? match["prefix"]}*`
          : `=${match["path"]}`;
      return `${domains.join()} ${path} ${route?.cluster?.split("|").slice(1).join("|") ?? ""}`;
    }),
  );
}

const a = "80||a.default.svc.cluster.local";
const b = "8080||b.default.svc.cluster.local";
const all: Path = { path: "/", pathType: "Prefix", to: "a" };

describe("Kubernetes' Ingress at the ingress gateway", () => {
  test("paths of one host stand by their exactness and length, whichever Ingress they are of", () => {
    const built = snapshot([
      ingress("one", "shop.org", [all, { path: "/cart/", pathType: "Prefix", to: "b" }]),
      ingress("two", "shop.org", [
        { path: "/cart/full", pathType: "Exact", to: "a" },
        { path: "/old/*", pathType: "ImplementationSpecific", to: "b" },
        { path: "/only", pathType: "ImplementationSpecific", to: "b" },
      ]),
    ]);
    assert.deepEqual(routesOf(built, "http.80"), [
      `shop.org =/cart/full ${a}`,
      `shop.org =/only ${b}`,
      `shop.org /cart* ${b}`,
      `shop.org /old* ${b}`,
      `shop.org /* ${a}`,
    ]);
    assert.equal(envoyComplaint(Object.values(built).flat()), "");
  });

  test("a default backend takes what no rule of any host takes, a wildcard its subdomains", () => {
    const built = snapshot([
      ingress("one", "*.shop.org", [all], { defaultBackend: backend("b") }),
      ingress("two", "", [{ path: "/api", pathType: "Prefix", to: "a" }]),
    ]);
    assert.deepEqual(routesOf(built, "http.80"), [`*.shop.org /* ${a}`, `* /api* ${a}`, `* /* ${b}`]);
  });

  test("a backend that is not there is answered by a cluster that is not there", () => {
    const spec = { rules: [{ host: "x.org", http: { paths: [{ ...all, backend: { resource: {} } }] } }] };
    const lost = snapshot([ingress("one", "shop.org", [], spec)]);
    assert.deepEqual(routesOf(lost, "http.80"), ["x.org /* 65535||backend.invalid"]);
  });

  test("TLS hosts have all paths of their hosts; of two certificates for one the older Ingress's is served", () => {
    const tls = [{ hosts: ["shop.org"], secretName: "certs" }];
    const built = snapshot([
      ingress("new", "shop.org", [{ path: "/new", pathType: "Prefix", to: "a" }], { tls }, "2020"),
      ingress("old", "shop.org", [{ path: "/old", pathType: "Prefix", to: "b" }], { tls }, "2010"),
      ingress("other", "other.org", [all]),
    ]);
    const tables = built.route.map(({ name }) => name);
    assert.deepEqual(tables, [
      "http.80",
      `https.443.https-443-ingress-old-default-0.${nameOf("default", "old")}.~ingress`,
    ]);
    assert.deepEqual(routesOf(built, tables[1]!), [`shop.org /old* ${b}`, `shop.org /new* ${a}`]);
    assert.equal(envoyComplaint(built.listener), "");
  });

  test("Ingresses of other classes are left alone, by class, annotation and mode", () => {
    const classless = ingress("none", "none.org", [all], { ingressClassName: undefined });
    const other = ingress("other", "other.org", [all], { ingressClassName: "nginx" });
    const annotated = {
      ...ingress("old-style", "old.org", [all], { ingressClassName: undefined }),
      metadata: {
        name: "old-style",
        namespace: "default",
        annotations: { "kubernetes.io/ingress.class": "istio" },
      },
    };
    const objects = [classless, other, annotated];
    const hosts = (mesh: MeshConfig): readonly string[] =>
      routesOf(snapshot(objects, mesh), "http.80").map((line) => line.split(" ")[0]!);
    assert.deepEqual(hosts({}), ["old.org"]);
    assert.deepEqual(hosts({ ingressControllerMode: "DEFAULT" }), ["none.org", "old.org"]);
    assert.deepEqual(hosts({ ingressControllerMode: "OFF" }), []);
    assert.deepEqual(hosts({ ingressClass: "mesh" }), []);
  });

  test("the proxies are chosen by MeshConfig's ingressSelector, or else its ingressService", () => {
    const objects = [ingress("one", "shop.org", [all])];
    const served = (mesh: MeshConfig): boolean => snapshot(objects, mesh).listener.length > 0;
    assert.equal(served({}), true);
    assert.equal(served({ ingressSelector: "other" }), false);
    assert.equal(served({ ingressService: "other" }), false);
    assert.equal(served({ ingressService: "other", ingressSelector: "ingressgateway" }), true);
  });

  test("the status tells where the ingress gateway is reached", () => {
    const gateway = {
      ...service("istio-ingressgateway"),
      metadata: { name: "istio-ingressgateway", namespace: "sm-gateways" },
      status: { loadBalancer: { ingress: [{ ip: "192.0.2.1" }] } },
    } as KubeObject;
    const engine = world([gateway, ingress("one", "shop.org", [all])]);
    assert.deepEqual(engine.get(ingressStatusOf, "default/one"), [{ ip: "192.0.2.1" }]);
  });
});

function nameOf(namespace: string, name: string): string {
  return `${namespace}~${name}~istio-autogenerated-k8s-ingress`;
}
