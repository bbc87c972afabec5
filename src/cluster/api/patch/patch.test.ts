import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ApiError } from "../errors.ts";
import { builtinKinds } from "../kinds/builtin.ts";
import type { ApiObject } from "../store.ts";
import { serverSideApply, trackUpdate } from "./apply.ts";
import type { Manager } from "./apply.ts";
import { fieldsOf, intersect, leafPaths, subtract, union } from "./fields.ts";
import { listRulesOf } from "./lists.ts";
import { applyJsonPatch, applyMergePatch, applyStrategicPatch } from "./merge.ts";

const deployments = builtinKinds.find((kind) => kind.plural === "deployments")!;
const rules = listRulesOf(deployments);
const shape = { schema: deployments.versions[0]!.schema, rules };

describe("patches", () => {
  it("a merge patch removes by null and replaces lists", () => {
    const patched = applyMergePatch({ a: 1, b: { c: 2, d: 3 }, e: [1, 2] }, { a: null, b: { c: 4 }, e: [3] });
    assert.deepEqual(patched, { b: { c: 4, d: 3 }, e: [3] });
  });

  it("a strategic patch merges containers, env and ports by their keys", () => {
    const containers = [
      {
        name: "a",
        image: "1",
        env: [
          { name: "X", value: "1" },
          { name: "Y", value: "2" },
        ],
      },
      { name: "b", image: "1", ports: [{ containerPort: 80, name: "http" }] },
    ];
    const patch = {
      spec: {
        containers: [
          {
            name: "a",
            env: [
              { name: "Y", $patch: "delete" },
              { name: "Z", value: "3" },
            ],
          },
          { name: "b", ports: [{ containerPort: 80, name: "web" }, { containerPort: 81 }] },
          { name: "c", image: "2" },
        ],
      },
    };
    assert.deepEqual(applyStrategicPatch({ spec: { containers } }, patch, rules), {
      spec: {
        containers: [
          {
            name: "a",
            image: "1",
            env: [
              { name: "X", value: "1" },
              { name: "Z", value: "3" },
            ],
          },
          { name: "b", image: "1", ports: [{ containerPort: 80, name: "web" }, { containerPort: 81 }] },
          { name: "c", image: "2" },
        ],
      },
    });
  });

  it("a strategic patch orders, deletes from plain lists, replaces and keeps keys as directed", () => {
    const before = {
      spec: {
        containers: [{ name: "a" }, { name: "b" }],
        strategy: { type: "RollingUpdate", rollingUpdate: {} },
      },
      metadata: { finalizers: ["x", "y"] },
    };
    const patch = {
      spec: {
        "$setElementOrder/containers": [{ name: "c" }, { name: "a" }],
        containers: [{ name: "c" }, { name: "b", $patch: "delete" }],
        strategy: { $retainKeys: ["type"], type: "Recreate" },
      },
      metadata: { "$deleteFromPrimitiveList/finalizers": ["x"] },
    };
    assert.deepEqual(applyStrategicPatch(before, patch, rules), {
      spec: { containers: [{ name: "c" }, { name: "a" }], strategy: { type: "Recreate" } },
      metadata: { finalizers: ["y"] },
    });
  });

  it("a JSON patch whose test fails changes nothing and is refused", () => {
    const before = { a: 1 };
    const patch = [
      { op: "replace", path: "/a", value: 2 },
      { op: "test", path: "/a", value: 3 },
    ];
    assert.throws(
      () => applyJsonPatch(before, patch),
      (error) => error instanceof ApiError && error.status.code === 422,
    );
    assert.deepEqual(before, { a: 1 });
    assert.throws(
      () => applyJsonPatch({}, { op: "add" }),
      (error) => error instanceof ApiError && error.status.code === 400,
    );
  });
});

describe("field ownership", () => {
  const manager = (name: string, operation: Manager["operation"] = "Apply"): Manager => ({
    name,
    operation,
    apiVersion: "apps/v1",
    time: "2026-01-01T00:00:00Z",
  });
  const deployment = (spec: Record<string, unknown>): ApiObject => ({
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: { name: "d" },
    spec,
  });
  const template = (containers: unknown): Record<string, unknown> => ({ template: { spec: { containers } } });

  it("sets are taken together, apart, and in common", () => {
    const a = { "f:x": { "f:y": {}, "f:z": {} } };
    const b = { "f:x": { "f:y": {} }, "f:w": {} };
    assert.deepEqual(union(a, b), { "f:x": { "f:y": {}, "f:z": {} }, "f:w": {} });
    assert.deepEqual(subtract(a, b), { "f:x": { "f:z": {} } });
    assert.deepEqual(intersect(a, b), { "f:x": { "f:y": {} } });
    assert.deepEqual(leafPaths(a), [".x.y", ".x.z"]);
  });

  it("items of keyed lists are owned one by one", () => {
    const fields = fieldsOf(deployment(template([{ name: "a", image: "1" }])), shape.schema, rules);
    assert.deepEqual(leafPaths(fields), [
      '.spec.template.spec.containers[name="a"].name',
      '.spec.template.spec.containers[name="a"].image',
    ]);
  });

  it("two appliers share an object as long as they do not set the same field differently", () => {
    const one = serverSideApply(undefined, deployment({ replicas: 1 }), manager("one"), false, shape);
    const both = serverSideApply(
      one,
      deployment(template([{ name: "a", image: "1" }])),
      manager("two"),
      false,
      shape,
    );
    assert.equal((both["spec"] as { replicas: number }).replicas, 1);
    assert.throws(
      () => serverSideApply(both, deployment({ replicas: 2 }), manager("two"), false, shape),
      (error) =>
        error instanceof ApiError && /conflict with "one": \.spec\.replicas/.test(error.status.message),
    );
    const forced = serverSideApply(both, deployment({ replicas: 2 }), manager("two"), true, shape);
    assert.deepEqual(
      forced["spec"],
      { replicas: 2, template: { spec: { containers: [] } } },
      "what its applier no longer names is gone",
    );
    assert.deepEqual(
      forced.metadata.managedFields?.map((entry) => entry.manager),
      ["two"],
    );
  });

  it("the same value is owned by both, and stays until the last one lets go", () => {
    const one = serverSideApply(undefined, deployment({ replicas: 3 }), manager("one"), false, shape);
    const both = serverSideApply(one, deployment({ replicas: 3 }), manager("two"), false, shape);
    assert.equal(both.metadata.managedFields?.length, 2);
    const left = serverSideApply(both, deployment({ paused: true }), manager("one"), false, shape);
    assert.deepEqual(left["spec"], { replicas: 3, paused: true });
    const gone = serverSideApply(left, deployment({ paused: true }), manager("two"), false, shape);
    assert.deepEqual(gone["spec"], { paused: true });
  });

  it("an ordinary update takes what it changes", () => {
    const one = serverSideApply(
      undefined,
      deployment({ replicas: 3, paused: true }),
      manager("one"),
      false,
      shape,
    );
    const entries = trackUpdate(
      one,
      deployment({ replicas: 4, paused: true }),
      manager("editor", "Update"),
      shape,
    );
    assert.deepEqual(
      entries.map((entry) => [entry.manager, leafPaths(entry.fieldsV1)]),
      [
        ["one", [".spec.paused"]],
        ["editor", [".spec.replicas"]],
      ],
    );
  });
});
