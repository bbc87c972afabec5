import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import type { KubeObject } from "#objects";
import { authorizationPoliciesOf } from "./authorization-policy.ts";
import type { Labels } from "./selectors.ts";
import { worldChanges } from "./world.ts";

const gateway = { "gateway.networking.k8s.io/gateway-name": "door" };

function policy(name: string, spec: object, namespace = "default"): KubeObject {
  return {
    apiVersion: "security.istio.io/v1",
    kind: "AuthorizationPolicy",
    metadata: { name, namespace },
    spec: { action: "DENY", rules: [{}], ...spec },
  };
}

function policiesOf(labels: Labels, ...objects: readonly KubeObject[]): string[] {
  const engine = new Engine();
  engine.apply(worldChanges(objects));
  return engine
    .get(authorizationPoliciesOf, { namespace: "default", labels })
    .map(({ metadata }) => metadata.name);
}

describe("policies", () => {
  const door = { group: "gateway.networking.k8s.io", kind: "Gateway", name: "door" };
  const policies = [
    policy("all", {}),
    policy("selected", { selector: { matchLabels: { app: "web" } } }),
    policy("one-reference", { targetRef: door }),
    policy("references", { targetRefs: [{ ...door, name: "other" }, door] }),
    policy("other-gateway", { targetRefs: [{ ...door, name: "other" }] }),
    policy("service", { targetRefs: [{ group: "", kind: "Service", name: "door" }] }),
    policy("mesh", {}, "istio-d"),
    policy("mesh-reference", { targetRefs: [door] }, "istio-d"),
  ];

  test("that refer to a Gateway are for its own workload, in their own namespace alone", () => {
    assert.deepEqual(policiesOf(gateway, ...policies), ["mesh", "all", "one-reference", "references"]);
  });

  test("that refer to a Gateway are for no other workload, whatever it is called", () => {
    assert.deepEqual(policiesOf({ app: "web" }, ...policies), ["mesh", "all", "selected"]);
  });
});
