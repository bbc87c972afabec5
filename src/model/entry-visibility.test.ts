import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import type { KubeObject, ServiceEntryVisibility } from "#objects";
import { entryServices } from "./services.ts";
import { worldChanges } from "./world.ts";

function namespace(name: string, labels: Readonly<Record<string, string>>): KubeObject {
  return { apiVersion: "v1", kind: "Namespace", metadata: { name, labels } };
}

function entry(of: string, exportTo?: readonly string[]): KubeObject {
  const spec = { hosts: [`${of}.example.com`], resolution: "DNS", ports: [], exportTo };
  return {
    apiVersion: "networking.istio.io/v1",
    kind: "ServiceEntry",
    metadata: { name: "entry", namespace: of },
    spec,
  };
}

function exportOf(engine: Engine, of: string): readonly string[] {
  return engine.get(entryServices, `${of}/entry`).flatMap(({ exportTo }) => exportTo);
}

function engineWith(serviceEntryVisibility: ServiceEntryVisibility, exportTo?: readonly string[]): Engine {
  const engine = new Engine();
  const objects = [namespace("red", { team: "red" }), namespace("blue", { team: "blue" })];
  const entries = ["red", "blue", "grey"].map((of) => entry(of, exportTo));
  engine.apply(worldChanges([...objects, ...entries], { mesh: { serviceEntryVisibility } }));
  return engine;
}

function exported(visibility: ServiceEntryVisibility, exportTo?: readonly string[]): readonly string[] {
  const engine = engineWith(visibility, exportTo);
  return ["red", "blue", "grey"].map((of) => exportOf(engine, of).join());
}

const policies: ServiceEntryVisibility["policies"] = [
  { visibility: "NONE", matchingRules: [{ namespaceSelector: { matchLabels: { team: "red" } } }] },
  {
    visibility: "PUBLIC",
    matchingRules: [
      { namespaceSelector: { matchExpressions: [{ key: "team", operator: "In", values: ["blue"] }] } },
    ],
  },
];

describe("serviceEntryVisibility", () => {
  test("hides, keeps to the namespace, or leaves alone, by the first policy that matches", () => {
    const setting = { applyToSidecars: true, defaultVisibility: "NAMESPACE", policies } as const;
    assert.deepEqual(exported(setting), ["~", "*", "grey"]);
  });

  test("narrows what an entry exports itself to, and never widens it", () => {
    const setting = { applyToSidecars: true, defaultVisibility: "NAMESPACE" } as const;
    assert.deepEqual(exported(setting, ["blue"]), ["~", "blue", "~"]);
    assert.deepEqual(exported(setting, ["."]), ["red", "blue", "grey"]);
    assert.deepEqual(exported(setting, ["~"]), ["~", "~", "~"]);
    assert.deepEqual(exported({ ...setting, defaultVisibility: "PUBLIC" }, ["blue"]), [
      "blue",
      "blue",
      "blue",
    ]);
  });

  test("holds for sidecars where it says so alone", () => {
    assert.deepEqual(exported({ defaultVisibility: "NONE", policies }), ["*", "*", "*"]);
  });

  test("takes a rule without a selector to match nothing, and a policy without rules to match all", () => {
    const of = (matchingRules: NonNullable<ServiceEntryVisibility["policies"]>[number]["matchingRules"]) =>
      exported({ applyToSidecars: true, policies: [{ visibility: "NONE", matchingRules }] });
    assert.deepEqual(of([{}]), ["*", "*", "*"]);
    assert.deepEqual(of([]), ["~", "~", "~"]);
  });

  test("follows the labels of the namespace", () => {
    const serviceEntryVisibility = { applyToSidecars: true, policies };
    const engine = engineWith(serviceEntryVisibility);
    assert.deepEqual(exportOf(engine, "grey"), ["*"]);
    const mesh = { serviceEntryVisibility };
    engine.apply(worldChanges([namespace("grey", { team: "red" })], { mesh }));
    assert.deepEqual(exportOf(engine, "grey"), ["~"]);
  });
});
