import assert from "node:assert/strict";
import { test } from "node:test";
import type { KubeObject } from "#objects";
import { DiscoveredNamespaces, type Discovered } from "./discovered-namespaces.ts";

function namespace(name: string, labels: Readonly<Record<string, string>> = {}): KubeObject {
  return { apiVersion: "v1", kind: "Namespace", metadata: { name, labels } };
}

function service(of: string, name = "web"): KubeObject {
  return { apiVersion: "v1", kind: "Service", metadata: { name, namespace: of } };
}

/** A mesh that holds what it is told. */
function mesh() {
  const held = new Set<KubeObject>();
  const discovered = new DiscoveredNamespaces({
    own: "istio-d",
    objectsIn: (name) => [...held].filter(({ metadata }) => metadata.namespace === name),
  });
  const apply = ({ set, removed }: Discovered): string => {
    for (const object of set) held.add(object);
    for (const object of removed) held.delete(object);
    const places = [...held].flatMap(({ metadata }) =>
      metadata.namespace === undefined ? [] : [`${metadata.namespace}/${metadata.name}`],
    );
    return places.toSorted().join(" ");
  };
  return {
    take: (set: readonly KubeObject[], removed: readonly KubeObject[] = []) =>
      apply(discovered.take(set, removed)),
    select: (...matchLabels: readonly Readonly<Record<string, string>>[]) =>
      apply(discovered.select(matchLabels.map((labels) => ({ matchLabels: labels })))),
  };
}

test("without selectors everything is seen, with them the namespaces that one selects and the own", () => {
  const { take, select } = mesh();
  const objects = [
    namespace("a", { in: "yes" }),
    namespace("b"),
    service("a"),
    service("b"),
    service("istio-d"),
  ];
  assert.equal(take(objects), "a/web b/web istio-d/web");
  assert.equal(select({ in: "yes" }), "a/web istio-d/web");
  assert.equal(select({ in: "yes" }, { "kubernetes.io/metadata.name": "b" }), "a/web b/web istio-d/web");
  assert.equal(select(), "a/web b/web istio-d/web");
});

test("objects join and leave with their namespace's labels, whatever came meanwhile", () => {
  const { take, select } = mesh();
  select({ in: "yes" });
  assert.equal(take([service("a")]), "", "the namespace is not known yet");
  assert.equal(take([namespace("a")]), "");
  const late = service("a", "late");
  const gone = service("a", "gone");
  assert.equal(take([late, gone]), "");
  assert.equal(take([], [gone]), "");
  assert.equal(take([namespace("a", { in: "yes" })]), "a/late a/web");
  assert.equal(take([namespace("a")]), "");
  assert.equal(take([namespace("a", { in: "yes" })], [late]), "a/web");
});
