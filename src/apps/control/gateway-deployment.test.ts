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

function acceptedOf(engine: Engine, kind: "GatewayClass" | "KubeGateway", key: string) {
  const found = engine.get(wantedStatusOf, { kind, key })?.found;
  if (found?.kind === "class") return found.findings["Accepted"];
  return found?.kind === "gateway" ? found.status.conditions["Accepted"] : undefined;
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

  test("a parameter that is no YAML, or sets what it may not, is told in the status, and nothing is deployed with it", () => {
    const wrong: Readonly<Record<string, RegExp>> = {
      "spec: [": /^ConfigMap edge\/mine: parameter deployment is no YAML: /,
      "- a": /is no object/,
      "metadata: { name: mine }": /may not set metadata\.name/,
      "status: {}": /may not set status/,
      "spec: 3": /spec of deployment is no object/,
    };
    for (const [deployment, message] of Object.entries(wrong)) {
      const mine = { ...map("mine", "edge", {}), data: { deployment } } as KubeObject;
      const engine = engineWith(bigClass("large"), map("large", "ops", {}), gateway("mine"), mine);
      const found = acceptedOf(engine, "KubeGateway", "edge/web");
      assert.equal(found?.reason, "InvalidParameters", deployment);
      assert.match(found.message, message);
      assert.throws(() => deploymentSpec(engine), /parameter/);
    }
  });

  test("a class's unfit parameter is told in its status, and in that of each of its Gateways", () => {
    const large = { ...map("large", "ops", {}), data: { service: "spec: [" } } as KubeObject;
    const engine = engineWith(bigClass("large"), gateway(), large);
    assert.equal(acceptedOf(engine, "GatewayClass", "big")?.reason, "InvalidParameters");
    const found = acceptedOf(engine, "KubeGateway", "edge/web");
    assert.match(found?.message ?? "", /^of class big: ConfigMap ops\/large: parameter service is no YAML/);
  });

  test("annotations choose names, the account and the Service's type, and one that there is not is told", () => {
    const annotated = (annotations: Readonly<Record<string, string>>): Engine =>
      engineWith(bigClass("large"), map("large", "ops", {}), {
        ...gateway(),
        metadata: { name: "web", namespace: "edge", annotations },
      });
    const factsOf = (engine: Engine) => engine.get(deploymentFactsOf, "edge/web");
    const chosen = annotated({
      "gateway.istio.io/name-override": "front",
      "gateway.istio.io/service-account": "doorman",
      "networking.istio.io/service-type": "NodePort",
    });
    const objects = deploymentObjects(factsOf(chosen)!, "default").slice(1);
    assert.deepEqual(
      objects.map(({ kind, metadata }) => `${kind} ${metadata.name}`),
      ["ServiceAccount doorman", "Deployment front", "Service front"],
    );
    assert.equal((objects[2]!.spec as { readonly type: string }).type, "NodePort");
    assert.equal(acceptedOf(chosen, "KubeGateway", "edge/web")?.reason, "Accepted");
    const wrong = annotated({ "networking.istio.io/service-type": "Loadbalancer" });
    assert.equal(acceptedOf(wrong, "KubeGateway", "edge/web")?.reason, "InvalidParameters");
    assert.equal(factsOf(wrong)?.serviceType, "LoadBalancer");
  });

  test("a Gateway that a newer control plane has is left to it", () => {
    const factsWith = (version: string) =>
      engineWith(bigClass("large"), {
        ...gateway(),
        metadata: {
          name: "web",
          namespace: "edge",
          annotations: { "gateway.istio.io/controller-version": version },
        },
      }).get(deploymentFactsOf, "edge/web");
    for (const version of ["6", "new"]) assert.equal(factsWith(version), undefined);
    for (const version of ["0", "5"]) assert.ok(factsWith(version));
  });

  test("a Gateway of another revision gets neither proxies nor a status from this control plane", () => {
    const namespace: KubeObject = {
      apiVersion: "v1",
      kind: "Namespace",
      metadata: { name: "edge", labels: { "istio.io/rev": "canary" } },
    };
    const labelled = (revision: string): KubeObject => ({
      ...gateway(),
      metadata: { name: "web", namespace: "edge", labels: { "istio.io/rev": revision } },
    });
    const isOurs = (...objects: readonly KubeObject[]): boolean => {
      const engine = engineWith(bigClass("large"), ...objects);
      const facts = engine.get(deploymentFactsOf, "edge/web");
      const status = engine.get(wantedStatusOf, { kind: "KubeGateway", key: "edge/web" });
      assert.equal(facts === undefined, status === undefined);
      return facts !== undefined;
    };
    assert.equal(isOurs(gateway()), true);
    assert.equal(isOurs(labelled("default")), true);
    assert.equal(isOurs(labelled("canary")), false);
    assert.equal(isOurs(namespace, gateway()), false, "its namespace's revision holds");
    assert.equal(isOurs(namespace, labelled("default")), true, "its own goes before");
  });

  test("a class whose parameters are not there is not accepted, and one without any tells its features", () => {
    const reasonOf = (object: KubeObject): string | undefined => {
      const found = engineWith(object, map("large", "ops", {})).get(wantedStatusOf, {
        kind: "GatewayClass",
        key: "big",
      })?.found;
      assert.equal(found?.kind, "class");
      assert.deepEqual(found.features, gatewayFeatures);
      return found.findings["Accepted"]?.reason;
    };
    assert.equal(reasonOf(bigClass("gone")), "InvalidParameters");
    assert.equal(reasonOf(bigClass("large", "Secret")), "InvalidParameters");
    assert.equal(reasonOf(bigClass("large")), "Accepted");
    assert.deepEqual([...gatewayFeatures], gatewayFeatures.toSorted(), "sorted, as Gateway API wants them");
  });
});
