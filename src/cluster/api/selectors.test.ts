import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ApiError } from "./errors.ts";
import { columnsOf, durationText } from "./kinds/columns.ts";
import { compareVersions } from "./kinds/crd.ts";
import { jsonPath } from "./kinds/jsonpath.ts";
import { evaluate, toCel, validateRules } from "./schema/cel.ts";
import { applyDefaults, prune } from "./schema/prune.ts";
import { validateSchema } from "./schema/validate.ts";
import { matchesFields, matchesLabels, parseFieldSelector, parseLabelSelector } from "./selectors.ts";
import type { ApiObject } from "./store.ts";

describe("selectors", () => {
  const labels = { app: "web", tier: "front", n: "5" };
  const cases: ReadonlyArray<readonly [string, boolean]> = [
    ["", true],
    ["app=web", true],
    ["app==web,tier!=back", true],
    ["app in (web, api),!gone", true],
    ["app notin (web)", false],
    ["gone notin (x)", true],
    ["gone!=x", true],
    ["tier", true],
    ["gone", false],
    ["n>4,n<6", true],
    ["app=", false],
  ];
  for (const [text, expected] of cases) {
    it(`labels ${JSON.stringify(text)} ${expected ? "match" : "do not match"}`, () => {
      assert.equal(matchesLabels(parseLabelSelector(text), labels), expected);
    });
  }

  it("a selector that cannot be read, or a field that cannot be selected by, is a bad request", () => {
    assert.throws(() => parseLabelSelector("a in b"), ApiError);
    assert.throws(
      () => parseFieldSelector("spec.secret=1", ["metadata.name"]),
      /field label not supported: spec.secret/,
    );
  });

  it("fields are compared as text, absent ones as empty", () => {
    const pod: ApiObject = {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: "a" },
      spec: {},
      status: { phase: "Running" },
    };
    const matches = (text: string): boolean =>
      matchesFields(parseFieldSelector(text, ["spec.nodeName", "status.phase"]), pod);
    assert.equal(matches("spec.nodeName=,status.phase!=Failed"), true);
    assert.equal(matches("status.phase=Pending"), false);
  });
});

describe("tables", () => {
  const cells = (object: ApiObject): unknown[] =>
    columnsOf("", "Pod")
      .slice(0, 4)
      .map((column) => column.cell(object, 60_000));
  const pod = (spec: unknown, status: unknown, metadata = {}): ApiObject => ({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: "p", ...metadata },
    spec,
    status,
  });
  const running = { name: "c", ready: true, restartCount: 0, state: { running: {} } };

  it("a Pod's status says what its containers wait for", () => {
    const spec = { containers: [{ name: "c" }] };
    const waiting = {
      name: "c",
      ready: false,
      restartCount: 3,
      state: { waiting: { reason: "CrashLoopBackOff" } },
      lastState: { terminated: { finishedAt: "1970-01-01T00:00:30Z" } },
    };
    assert.deepEqual(cells(pod(spec, { phase: "Running", containerStatuses: [running] })), [
      "p",
      "1/1",
      "Running",
      "0",
    ]);
    assert.deepEqual(cells(pod(spec, { phase: "Running", containerStatuses: [waiting] })), [
      "p",
      "0/1",
      "CrashLoopBackOff",
      "3 (30s ago)",
    ]);
    assert.equal(
      cells(pod(spec, { phase: "Running" }, { deletionTimestamp: "1970-01-01T00:00:00Z" }))[2],
      "Terminating",
    );
  });

  it("init containers count up, sidecars count among the containers", () => {
    const spec = {
      initContainers: [{ name: "i" }, { name: "s", restartPolicy: "Always" }],
      containers: [{ name: "c" }],
    };
    const initDone = { name: "i", state: { terminated: { exitCode: 0 } } };
    const initRunning = { name: "i", state: { running: {} } };
    const sidecar = { name: "s", ready: true, started: true, restartCount: 0, state: { running: {} } };
    assert.equal(cells(pod(spec, { phase: "Pending", initContainerStatuses: [initRunning] }))[2], "Init:0/2");
    assert.deepEqual(
      cells(
        pod(spec, {
          phase: "Running",
          initContainerStatuses: [initDone, sidecar],
          containerStatuses: [running],
        }),
      ).slice(1, 3),
      ["2/2", "Running"],
    );
  });

  it("durations shorten as kubectl's", () => {
    const texts = [5, 119, 120, 200, 600, 10_800, 30_000, 172_800, 10 * 86_400, 800 * 86_400].map((s) =>
      durationText(s * 1000),
    );
    assert.deepEqual(texts, ["5s", "119s", "2m", "3m20s", "10m", "3h", "8h", "2d", "10d", "2y"]);
  });

  it("printer columns find their values", () => {
    const object = {
      status: {
        conditions: [
          { type: "Ready", status: "True" },
          { type: "Other", status: "False" },
        ],
      },
      spec: { a: [{ b: 1 }, { b: 2 }], "x.y/z": 3 },
    };
    assert.deepEqual(jsonPath(object, '.status.conditions[?(@.type=="Ready")].status'), ["True"]);
    assert.deepEqual(jsonPath(object, ".spec.a[*].b"), [1, 2]);
    assert.deepEqual(jsonPath(object, ".spec.a[1].b"), [2]);
    assert.deepEqual(jsonPath(object, String.raw`.spec.x\.y/z`), [3]);
    assert.deepEqual(jsonPath(object, ".spec.nothing.here"), []);
  });

  it("versions are ordered as Kubernetes prefers them", () => {
    assert.deepEqual(["v1alpha1", "v1", "foo", "v2beta1", "v10", "v2"].sort(compareVersions), [
      "v10",
      "v2",
      "v1",
      "v2beta1",
      "v1alpha1",
      "foo",
    ]);
  });
});

describe("schemas", () => {
  const schema = {
    type: "object",
    properties: {
      name: { type: "string", pattern: "^[a-z]+$", default: "x" },
      port: { "x-kubernetes-int-or-string": true },
      one: {
        type: "object",
        oneOf: [{ required: ["a"] }, { required: ["b"] }],
        properties: { a: { type: "string" }, b: { type: "string" } },
      },
      list: { type: "array", items: { type: "object", properties: { k: { type: "integer", default: 1 } } } },
    },
  };

  it("unknown fields are taken out and named, known ones defaulted", () => {
    const { value, unknown } = prune({ name: "a", other: 1, list: [{ k: 2, z: 3 }, {}] }, schema);
    assert.deepEqual(value, { name: "a", list: [{ k: 2 }, {}] });
    assert.deepEqual(unknown, ["other", "list[0].z"]);
    assert.deepEqual(applyDefaults({ list: [{}] }, schema), { name: "x", list: [{ k: 1 }] });
  });

  it("what is wrong is told with its path", () => {
    const told = validateSchema({ name: "A", port: true, one: {}, list: [{ k: 1.5 }] }, schema, "spec").map(
      (error) => error.field,
    );
    assert.deepEqual(told, ["spec.name", "spec.port", "spec.one", "spec.list[0].k"]);
    assert.deepEqual(validateSchema({ port: 80, one: { a: "x" } }, schema), []);
  });

  it("rules see self and oldSelf, at any depth", () => {
    const ruled = {
      type: "object",
      properties: {
        size: {
          type: "integer",
          "x-kubernetes-validations": [{ rule: "self >= oldSelf", message: "may not shrink" }],
        },
        items: {
          type: "array",
          items: {
            type: "object",
            properties: { namespace: { type: "string" } },
            "x-kubernetes-validations": [{ rule: "has(self.__namespace__)" }],
          },
        },
      },
    };
    assert.deepEqual(validateRules({ size: 1 }, undefined, ruled), []);
    assert.match(validateRules({ size: 1 }, { size: 2 }, ruled)[0]?.message ?? "", /may not shrink/);
    assert.equal(validateRules({ items: [{ namespace: "a" }, {}] }, undefined, ruled)[0]?.field, "items[1]");
  });

  it("has() takes an index on its way", () => {
    const self = toCel({ a: [{ b: 1 }, {}] }, {});
    assert.equal(evaluate("has(self.a[0].b) && !has(self.a[1].b)", { self }), true);
  });
});
