import assert from "node:assert/strict";
import { test } from "node:test";
import { Engine } from "#engine";
import { outboundScopeOf, worldChanges, type ProxyClass, type WorldOptions } from "#model";
import type { KubeObject } from "#objects";
import { virtualHostPartsOf } from "./virtual-hosts.ts";

const namespaces = ["a", "b", "c"];

function service(namespace: string, name: string): KubeObject {
  const spec = { clusterIP: "", selector: { app: name }, ports: [{ name: "http", port: 80 }] };
  return { apiVersion: "v1", kind: "Service", metadata: { name, namespace }, spec } as KubeObject;
}

/** A host that no Service has, as an application of namespace `c` writes it. */
function entry(host: string): KubeObject {
  const spec = {
    hosts: [host],
    ports: [{ number: 80, name: "http", protocol: "HTTP" }],
    resolution: "DNS",
    location: "MESH_EXTERNAL",
  };
  const metadata = { name: "entry", namespace: "c" };
  return { apiVersion: "networking.istio.io/v1", kind: "ServiceEntry", metadata, spec } as KubeObject;
}

function proxy(namespace: string): ProxyClass {
  return {
    kind: "sidecar",
    namespace,
    labels: {},
    serviceAccount: "default",
    network: "",
    locality: "",
    clusterId: "Kubernetes",
    dnsDomain: `${namespace}.svc.cluster.local`,
    interception: "REDIRECT",
    envoyVersion: "1.40.0",
    metadata: {},
  };
}

function engineOf(objects: readonly KubeObject[], options: WorldOptions = {}): Engine {
  const engine = new Engine();
  engine.apply(worldChanges(objects, options));
  return engine;
}

const services = namespaces.flatMap((namespace) => [service(namespace, "one"), service(namespace, "two")]);

function parts(engine: Engine, namespace: string) {
  const outlet = { scope: engine.get(outboundScopeOf, proxy(namespace)), port: 0 };
  const key = { kind: "outbound", outlet, port: 80, host: "", unknownTo: "PassthroughCluster" } as const;
  return engine.get(virtualHostPartsOf, key);
}

/** Domain to the host of the virtual host that has it; no domain may have two. */
function ownersOf(engine: Engine, namespace: string): Map<string, string> {
  const owners = new Map<string, string>();
  for (const { domains, host } of parts(engine, namespace).flat()) {
    for (const domain of domains) {
      assert.ok(!owners.has(domain), `${domain} stands in two virtual hosts for clients in ${namespace}`);
      owners.set(domain, host);
    }
  }
  return owners;
}

test("clients share the parts of a table that are the same for them, and have short names of their own namespace", () => {
  const engine = engineOf(services);
  const [ofA, ofB] = [parts(engine, "a"), parts(engine, "b")];
  assert.equal(ofA.length, 3);
  assert.notEqual(ofA[0], ofB[0], "namespace a is special for its own clients");
  assert.notEqual(ofA[1], ofB[1], "as b is for its own");
  assert.equal(ofA[2], ofB[2], "c is the same for both");
  assert.equal(ownersOf(engine, "a").get("one"), "one.a.svc.cluster.local");
  assert.equal(ownersOf(engine, "b").get("one"), "one.b.svc.cluster.local");
});

test("a new service changes one part for the clients of other namespaces", () => {
  const engine = engineOf(services);
  const before = parts(engine, "a");
  engine.apply(worldChanges([service("c", "three")]));
  const after = parts(engine, "a");
  assert.deepEqual(
    after.map((part, at) => part === before[at]),
    [true, true, false],
  );
  assert.equal(ownersOf(engine, "a").get("three.c"), "three.c.svc.cluster.local");
});

/** Whom a name means to clients of a namespace: the entry, or a service. */
const meant: Readonly<Record<string, (client: string) => string>> = {
  "one.a": (client) => (client === "c" ? "one.a" : "one.a.svc.cluster.local"),
  one: (client) => (client === "c" ? "one" : `one.${client}.svc.cluster.local`),
  "two.b.svc": (client) => (client === "c" ? "two.b.svc" : "two.b.svc.cluster.local"),
  "one.a.svc.cluster.local": () => "one.a.svc.cluster.local",
};

for (const [host, meaning] of Object.entries(meant)) {
  test(`an entry called '${host}' takes the name in its own namespace alone, and no domain stands twice`, () => {
    const engine = engineOf([...services, entry(host)]);
    for (const namespace of namespaces) {
      const owners = ownersOf(engine, namespace);
      assert.equal(owners.get(host), meaning(namespace), `for clients of ${namespace}`);
      for (const at of namespaces) assert.ok(owners.has(`one.${at}.svc.cluster.local`));
    }
  });

  test(`an entry called '${host}' goes before shorter forms of others for everybody where the mesh allows that`, () => {
    const engine = engineOf([...services, entry(host)], { foreignRoutes: "all-clients" });
    for (const namespace of namespaces) {
      const owners = ownersOf(engine, namespace);
      for (const at of namespaces) assert.ok(owners.has(`one.${at}.svc.cluster.local`));
      assert.equal(owners.get(host), host);
    }
  });
}
