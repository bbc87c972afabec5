import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { worldChanges } from "#model";
import type { KubeObject } from "#objects";
import { envoyComplaint, withoutEnvoy } from "../../test/support/envoy.ts";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage } from "./proto/api.ts";
import { snapshotOf, type Snapshot } from "./snapshot.ts";

type Spec = Readonly<Record<string, unknown>>;

const sidecar = proxyOf({ labels: { app: "client" } });
const stranger = proxyOf({ namespace: "other", dnsDomain: "other.svc.cluster.local" });

function service(name: string, port: number, at: number): KubeObject {
  const spec = { clusterIP: `10.0.0.${at}`, ports: [{ name: "http", port }] } as object;
  return { apiVersion: "v1", kind: "Service", metadata: { name, namespace: "default" }, spec };
}

const services = [service("front", 80, 1), service("beside", 80, 2), service("apart", 81, 3)];

function route(rule: Spec, namespace = "default"): KubeObject {
  const parentRefs = [{ group: "", kind: "Service", name: "front", namespace: "default" }];
  return {
    apiVersion: "gateway.networking.k8s.io/v1",
    kind: "HTTPRoute",
    metadata: { name: "r", namespace },
    spec: {
      parentRefs,
      rules: [{ backendRefs: [{ name: "front", namespace: "default", port: 80 }], ...rule }],
    },
  };
}

const session = { sessionPersistence: { sessionName: "seat" } };
const asking = {
  filters: [
    {
      type: "ExternalAuth",
      externalAuth: { protocol: "HTTP", backendRef: { name: "beside", port: 80 }, http: { path: "/check" } },
    },
  ],
};

function snapshot(objects: readonly KubeObject[], proxy = sidecar): Snapshot {
  const engine = new Engine();
  engine.apply(worldChanges([...services, ...objects]));
  return snapshotOf(engine, proxy);
}

/** Names of the listeners whose bytes are others than without the objects. */
function changed(objects: readonly KubeObject[], proxy = sidecar): readonly string[] {
  const before = new Map(snapshot([], proxy).listener.map(({ name, version }) => [name, version]));
  return snapshot(objects, proxy)
    .listener.filter(({ name, version }) => before.get(name) !== version)
    .map(({ name }) => name);
}

function listenerText({ listener }: Snapshot, wanted: string): string {
  const found = listener.find(({ name }) => name === wanted);
  assert.ok(found);
  return JSON.stringify(decodeMessage("envoy.config.listener.v3.Listener", found.bytes));
}

describe("filters of routes between services", () => {
  test("a route without sessions and questions changes no listener", () => {
    assert.deepEqual(changed([route({})]), []);
  });

  test("a session puts its filter into the one listener of the service's port", () => {
    assert.deepEqual(changed([route(session)]), ["0.0.0.0_80"]);
    assert.match(listenerText(snapshot([route(session)]), "0.0.0.0_80"), /stateful_session/);
  });

  test("a question does so too, and the route names the service that is asked", () => {
    const built = snapshot([route(asking)]);
    assert.deepEqual(changed([route(asking)]), ["0.0.0.0_80"]);
    assert.match(listenerText(built, "0.0.0.0_80"), /gateway-api\.external-auth/);
    const host = built.virtualHost.find(({ name }) => name.endsWith("front.default.svc.cluster.local:80"));
    assert.ok(host);
    const text = JSON.stringify(decodeMessage("envoy.config.route.v3.VirtualHost", host.bytes));
    assert.match(text, /"cluster":"outbound\|80\|\|beside\.default/);
  });

  test("a route of another namespace, which is for its own callers, changes theirs alone", () => {
    assert.deepEqual(changed([route(session, "other")]), []);
    assert.deepEqual(changed([route(session, "other")], stranger), ["0.0.0.0_80"]);
  });

  test("with clusters on demand the service that is asked is there without being asked for", () => {
    const proxy = proxyOf({ labels: { app: "client" }, clusterDiscovery: "on-demand" });
    const names = (objects: readonly KubeObject[]): readonly string[] =>
      snapshot(objects, proxy).cluster.map(({ name }) => name);
    assert.ok(names([route(asking)]).includes("outbound|80||beside.default.svc.cluster.local"));
  });

  test("a gRPC client without a proxy, which can ask nobody, is let nowhere", () => {
    const target = "front.default.svc.cluster.local:80";
    const built = snapshot([route(asking)], proxyOf({ kind: "grpc", envoyVersion: "", targets: [target] }));
    const text = JSON.stringify(
      built.route.map(({ bytes }) => decodeMessage("envoy.config.route.v3.RouteConfiguration", bytes)),
    );
    assert.match(text, /"httpStatus":403/);
    assert.doesNotMatch(text, /"cluster":"outbound/);
  });

  test("Envoy takes them", { skip: withoutEnvoy }, () => {
    const built = snapshot([route({ ...session, ...asking })]);
    assert.equal(envoyComplaint(Object.values(built).flat()), "");
  });
});
