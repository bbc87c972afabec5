import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { deploymentFactsOf, gatewayFeatures, wantedStatusOf, worldChanges } from "#model";
import type { KubeObject } from "#objects";
import { deploymentObjects } from "./gateway-deployment.ts";

const group = "gateway.networking.k8s.io";

const gateway = (parameters?: string): KubeObject => ({
  apiVersion: `${group}/v1`,
  kind: "Gateway",
  metadata: { name: "web", namespace: "edge" },
  spec: {
    gatewayClassName: "big",
    listeners: [{ name: "http", port: 80, protocol: "HTTP" }],
    ...(parameters === undefined
      ? {}
      : { infrastructure: { parametersRef: { group: "", kind: "ConfigMap", name: parameters } } }),
  },
});

const bigClass = (map: string, kind = "ConfigMap"): KubeObject => ({
  apiVersion: `${group}/v1`,
  kind: "GatewayClass",
  metadata: { name: "big" },
  spec: {
    controllerName: "istio.io/gateway-controller",
    parametersRef: { group: "", kind, name: map, namespace: "ops" },
  },
});

function map(name: string, namespace: string, deployment: object, labels = {}): KubeObject {
  const data = { deployment: JSON.stringify(deployment) };
  return { apiVersion: "v1", kind: "ConfigMap", metadata: { name, namespace, labels }, data } as KubeObject;
}

function engineWith(...objects: readonly KubeObject[]): Engine {
  const engine = new Engine();
  engine.apply(worldChanges(objects, { rootNamespace: "istio-d" }));
  return engine;
}

function deploymentSpec(engine: Engine): Readonly<Record<string, unknown>> {
  const facts = engine.get(deploymentFactsOf, "edge/web");
  assert.ok(facts);
  const deployment = deploymentObjects(facts, "default").find(({ kind }) => kind === "Deployment");
  return deployment?.spec as Readonly<Record<string, unknown>>;
}

describe("parameters of Gateways", () => {
  test("the class's lie under the Gateway's own, and a labelled ConfigMap of the mesh under both", () => {
    const labels = { "gateway.istio.io/defaults-for-class": "big" };
    const engine = engineWith(
      bigClass("large"),
      gateway("mine"),
      map("defaults", "istio-d", { spec: { replicas: 2, minReadySeconds: 2, paused: true } }, labels),
      map("large", "ops", { spec: { replicas: 3, minReadySeconds: 3 } }),
      map("mine", "edge", { spec: { replicas: 4 } }),
      map("other", "istio-d", { spec: { replicas: 9 } }),
    );
    const { replicas, minReadySeconds, paused } = deploymentSpec(engine);
    assert.deepEqual(
      { replicas, minReadySeconds, paused },
      { replicas: 4, minReadySeconds: 3, paused: true },
    );
  });

  test("a class whose parameters are not there is not accepted, and one without any tells its features", () => {
    const acceptedOf = (object: KubeObject): string | undefined => {
      const found = engineWith(object, map("large", "ops", {})).get(wantedStatusOf, {
        kind: "GatewayClass",
        key: "big",
      })?.found;
      assert.equal(found?.kind, "class");
      assert.deepEqual(found.features, gatewayFeatures);
      return found.findings["Accepted"]?.reason;
    };
    assert.equal(acceptedOf(bigClass("gone")), "InvalidParameters");
    assert.equal(acceptedOf(bigClass("large", "Secret")), "InvalidParameters");
    assert.equal(acceptedOf(bigClass("large")), "Accepted");
    assert.deepEqual([...gatewayFeatures], gatewayFeatures.toSorted(), "sorted, as Gateway API wants them");
  });
});
