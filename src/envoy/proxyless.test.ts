import assert from "node:assert/strict";
import { test } from "node:test";
import { Engine } from "#engine";
import { worldChanges } from "#model";
import type { KubeObject } from "#objects";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage, type Message } from "./proto/api.ts";
import { snapshotOf } from "./snapshot.ts";

const listener = "reviews.default.svc.cluster.local:9080";
const cluster = "outbound|9080||reviews.default.svc.cluster.local";

const client = proxyOf({
  kind: "grpc",
  labels: { app: "client" },
  serviceAccount: "client",
  interception: "NONE",
  envoyVersion: "",
  targets: [listener, cluster],
});

function object(kind: string, name: string, spec: object): KubeObject {
  const apiVersion = kind === "Service" ? "v1" : "networking.istio.io/v1";
  return { apiVersion, kind, metadata: { name, namespace: "default" }, spec };
}

const reviews = object("Service", "reviews", {
  clusterIP: "10.0.0.1",
  ports: [{ name: "grpc", port: 9080 }],
});

function built(...objects: readonly KubeObject[]): { cluster: Message; route: Message } {
  const engine = new Engine();
  engine.apply(worldChanges([reviews, ...objects]));
  const snapshot = snapshotOf(engine, client);
  return {
    cluster: decodeMessage("envoy.config.cluster.v3.Cluster", snapshot.cluster[0]!.bytes),
    route: decodeMessage("envoy.config.route.v3.RouteConfiguration", snapshot.route[0]!.bytes),
  };
}

function routesOf(http: readonly object[]): Message[] {
  const { route } = built(object("VirtualService", "reviews", { hosts: ["reviews"], http }));
  return (route["virtualHosts"] as Message[])[0]!["routes"] as Message[];
}

const toReviews = [{ destination: { host: "reviews" } }];

test("only what a client names is planned for it", () => {
  const engine = new Engine();
  engine.apply(
    worldChanges([reviews, object("Service", "other", { ports: [{ name: "grpc", port: 9080 }] })]),
  );
  const snapshot = snapshotOf(engine, client);
  assert.deepEqual(
    snapshot.listener.map(({ name }) => name),
    [listener],
  );
  assert.deepEqual(
    snapshot.cluster.map(({ name }) => name),
    [cluster],
  );
  assert.deepEqual(
    snapshot.endpoint.map(({ name }) => name),
    [cluster],
  );
  assert.deepEqual(
    snapshot.route.map(({ name }) => name),
    [cluster],
  );
});

test("mutual TLS is offered where a DestinationRule asks for it, with the keys of the client's own provider", () => {
  assert.equal(built().cluster["transportSocket"], undefined);
  const rule = object("DestinationRule", "reviews", {
    host: "reviews",
    trafficPolicy: {
      tls: { mode: "ISTIO_MUTUAL", subjectAltNames: ["spiffe://cluster.local/ns/default/sa/reviews"] },
    },
  });
  const socket = built(rule).cluster["transportSocket"] as Message;
  assert.equal(socket["name"], "envoy.transport_sockets.tls");
  const context = (socket["typedConfig"] as Message)["commonTlsContext"] as Message;
  assert.deepEqual(context["tlsCertificateProviderInstance"], {
    instanceName: "default",
    certificateName: "default",
  });
  const validation = (context["combinedValidationContext"] as Message)["defaultValidationContext"] as Message;
  assert.deepEqual(validation["caCertificateProviderInstance"], {
    instanceName: "default",
    certificateName: "ROOTCA",
  });
  assert.deepEqual(validation["matchSubjectAltNames"], [
    { exact: "spiffe://cluster.local/ns/default/sa/reviews" },
  ]);
});

test("a route that gRPC would read wrongly is left out, and what it cannot do fails with a status", () => {
  const byQuery = { match: [{ queryParams: { a: { exact: "b" } } }], route: toReviews };
  const forbidden = { match: [{ uri: { prefix: "/secret." } }], directResponse: { status: 403 } };
  const routes = routesOf([byQuery, forbidden, { route: toReviews }]);
  assert.deepEqual(
    routes.map(({ match, route }) => [(match as Message)["prefix"], (route as Message)["cluster"]]),
    [
      ["/secret.", "BlackHoleCluster"],
      ["/", cluster],
    ],
  );
});

test("a route's time-out is where gRPC reads it", () => {
  const [route] = routesOf([{ timeout: "2s", route: toReviews }]);
  const action = route?.["route"] as Message;
  assert.deepEqual(action["maxStreamDuration"], { maxStreamDuration: { seconds: 2 } });
});

test("shares of a rule's backends, each with filters, are drawn by gRPC one after the other", () => {
  const mirror = { type: "RequestMirror", requestMirror: { backendRef: { name: "reviews", port: 9080 } } };
  const backendRefs = [20, 40, 40].map((weight) => ({
    name: "reviews",
    port: 9080,
    weight,
    filters: [mirror],
  }));
  const { route } = built({
    apiVersion: "gateway.networking.k8s.io/v1",
    kind: "GRPCRoute",
    metadata: { name: "r", namespace: "default" },
    spec: { parentRefs: [{ group: "", kind: "Service", name: "reviews" }], rules: [{ backendRefs }] },
  });
  const routes = (route["virtualHosts"] as Message[])[0]!["routes"] as {
    readonly match: { readonly runtimeFraction?: { readonly defaultValue: { readonly numerator: number } } };
  }[];
  assert.deepEqual(
    routes.map(({ match }) => match.runtimeFraction?.defaultValue.numerator),
    [200_000, 500_000, undefined],
  );
});
