import assert from "node:assert/strict";
import { test } from "node:test";
import type { KubeObject } from "#objects";
import { slim } from "./slim.ts";

const object = (kind: string, rest: object): KubeObject => ({
  apiVersion: "v1",
  kind,
  metadata: { name: "a", namespace: "b" },
  ...rest,
});

test("what nobody reads is dropped: managed fields, kubectl's copy, environments, other secrets", () => {
  const annotations = { "kubectl.kubernetes.io/last-applied-configuration": "{}", mine: "1" };
  const metadata = { name: "a", namespace: "b", managedFields: [{}], annotations };
  assert.deepEqual(slim(object("Service", { metadata, spec: { x: 1 } })), {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: "a", namespace: "b", annotations: { mine: "1" } },
    spec: { x: 1 },
  });
  const container = { name: "app", env: [{ name: "A", value: "1" }], ports: [{ containerPort: 80 }] };
  const pod = slim(
    object("Pod", { spec: { containers: [container], volumes: [] }, status: { podIP: "10.0.0.1" } }),
  );
  assert.deepEqual(pod?.spec, { containers: [{ name: "app", ports: [{ containerPort: 80 }] }] });
  assert.deepEqual(pod?.status, { podIP: "10.0.0.1" });
  assert.equal(slim(object("Secret", { type: "Opaque", data: { password: "x" } })), undefined);
  assert.notEqual(slim(object("Secret", { type: "Opaque", data: { cert: "x", key: "y" } })), undefined);
});
