import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { wantedStatusOf, worldChanges } from "#model";
import type { KubeObject } from "#objects";
import { envoyComplaint, withoutEnvoy } from "../../test/support/envoy.ts";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage } from "./proto/api.ts";
import { snapshotOf } from "./snapshot.ts";

const sidecar = proxyOf({});

type Spec = Readonly<Record<string, unknown>>;

function service(name: string): KubeObject {
  const spec = { clusterIP: `10.0.0.${name.length}`, ports: [{ name: "http", port: 80 }] } as object;
  return { apiVersion: "v1", kind: "Service", metadata: { name, namespace: "default" }, spec };
}

function route(rule: Spec, kind = "HTTPRoute"): KubeObject {
  return {
    apiVersion: "gateway.networking.k8s.io/v1",
    kind,
    metadata: { name: "r", namespace: "default" },
    spec: { parentRefs: [{ group: "", kind: "Service", name: "front" }], rules: [rule] },
  };
}

function backend(name: string, weight: number, ...filters: readonly Spec[]): Spec {
  return { name, port: 80, weight, filters };
}

function engineOf(rule: Spec, kind?: string): Engine {
  const engine = new Engine();
  engine.apply(worldChanges([...["front", "aa", "bbb", "c"].map(service), route(rule, kind)]));
  return engine;
}

interface BuiltRoute {
  readonly match: { readonly runtimeFraction?: { readonly defaultValue: { readonly numerator?: number } } };
  readonly route?: Spec;
  readonly redirect?: Spec;
  readonly directResponse?: Spec;
  readonly typedPerFilterConfig?: Spec;
}

function routesOf(engine: Engine): readonly BuiltRoute[] {
  const { virtualHost } = snapshotOf(engine, sidecar);
  const found = virtualHost.find(({ name }) => name.endsWith("front.default.svc.cluster.local:80"));
  assert.ok(found, "there is a virtual host");
  const built = decodeMessage("envoy.config.route.v3.VirtualHost", found.bytes);
  return built["routes"] as readonly BuiltRoute[];
}

const rewrite = { type: "URLRewrite", urlRewrite: { hostname: "elsewhere" } };
const cors = { type: "CORS", cors: { allowOrigins: ["https://a.example.com"] } };
const mirror = { type: "RequestMirror", requestMirror: { backendRef: { name: "c", port: 80 } } };
const header = { type: "RequestHeaderModifier", requestHeaderModifier: { set: [{ name: "x", value: "1" }] } };
const away = { type: "RequestRedirect", requestRedirect: { hostname: "away.example.com" } };
const unknown = { type: "ExtensionRef", extensionRef: { group: "example.com", kind: "Thing", name: "t" } };

describe("filters of single backends", () => {
  test("each backend has a route with its filters, and the routes take the shares of the weights", () => {
    const rule = {
      backendRefs: [backend("aa", 20, rewrite, header), backend("bbb", 30, mirror), backend("c", 50, away)],
    };
    const routes = routesOf(engineOf(rule));
    assert.deepEqual(
      routes.map(({ match }) => match.runtimeFraction?.defaultValue.numerator),
      [200_000, 500_000, undefined],
    );
    const [first, second, third] = routes;
    assert.equal(first?.route?.["cluster"], "outbound|80||aa.default.svc.cluster.local");
    assert.equal(first.route["hostRewriteLiteral"], "elsewhere");
    assert.match(JSON.stringify(first), /requestHeadersToAdd/);
    assert.equal(second?.route?.["hostRewriteLiteral"], undefined);
    assert.match(JSON.stringify(second?.route?.["requestMirrorPolicies"]), /outbound\|80\|\|c\./);
    assert.equal(third?.redirect?.["hostRedirect"], "away.example.com");
  });

  test("a backend's own filter goes before the rule's, and what it says nothing of stays", () => {
    const own = { type: "URLRewrite", urlRewrite: { hostname: "own" } };
    const rule = {
      filters: [rewrite, cors, mirror],
      backendRefs: [backend("aa", 1, own), backend("bbb", 1, mirror)],
    };
    const routes = routesOf(engineOf(rule));
    assert.deepEqual(
      routes.map((one) => [
        one.route?.["hostRewriteLiteral"],
        (one.route?.["requestMirrorPolicies"] as readonly unknown[] | undefined)?.length,
        Object.keys(one.typedPerFilterConfig ?? {}),
      ]),
      [
        ["own", 1, ["envoy.filters.http.cors"]],
        ["elsewhere", 2, ["envoy.filters.http.cors"]],
      ],
    );
  });

  test("where one backend's filter cannot be applied its share alone answers 500, and the status says why", () => {
    const engine = engineOf({ backendRefs: [backend("aa", 1, unknown), backend("bbb", 3)] });
    const [closed, open] = routesOf(engine);
    assert.deepEqual(closed?.directResponse, { status: 500 });
    assert.equal(closed.match.runtimeFraction?.defaultValue.numerator, 250_000);
    assert.equal(open?.route?.["cluster"], "outbound|80||bbb.default.svc.cluster.local");
    const status = engine.get(wantedStatusOf, { kind: "HTTPRoute", key: "default/r" });
    assert.match(JSON.stringify(status), /"InvalidFilter"/);
  });

  test("filters that change headers alone leave one route with weighted clusters", () => {
    const routes = routesOf(engineOf({ backendRefs: [backend("aa", 1, header), backend("bbb", 1)] }));
    assert.equal(routes.length, 1);
    assert.ok(routes[0]?.route?.["weightedClusters"]);
  });

  test("a header that no request may carry refuses the route, and Envoy never sees it", () => {
    const wrong = {
      type: "RequestHeaderModifier",
      requestHeaderModifier: { set: [{ name: "x", value: "a\u0000" }] },
    };
    const engine = engineOf({ backendRefs: [backend("aa", 1, wrong)] });
    const status = engine.get(wantedStatusOf, { kind: "HTTPRoute", key: "default/r" });
    assert.match(JSON.stringify(status), /"InvalidFilter"/);
    assert.doesNotMatch(JSON.stringify(routesOf(engine)), /requestHeadersToAdd/);
  });

  test("a GRPCRoute's backend may mirror", () => {
    const routes = routesOf(engineOf({ backendRefs: [backend("aa", 1, mirror)] }, "GRPCRoute"));
    assert.equal(routes.length, 1);
    assert.match(JSON.stringify(routes[0]?.route?.["requestMirrorPolicies"]), /outbound\|80\|\|c\./);
  });

  test("Envoy takes them", { skip: withoutEnvoy }, () => {
    const backendRefs = [
      backend("aa", 3, rewrite, header, cors),
      backend("bbb", 3, mirror),
      backend("c", 3, away),
      backend("c", 1, unknown),
    ];
    const built = snapshotOf(engineOf({ filters: [cors], backendRefs }), sidecar);
    assert.equal(envoyComplaint(Object.values(built).flat()), "");
  });
});
