import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";

import { fieldMarks } from "./field-marks.ts";
import {
  fieldStatus,
  fieldTable,
  renderFieldTable,
  unsupportedFieldWarnings,
  unsupportedMeshFields,
} from "./fields.ts";
import { defaultMeshConfig } from "./mesh-config.ts";
import type { KubeObject } from "./object.ts";

const virtualService = (http: object) => ({
  apiVersion: "networking.istio.io/v1",
  kind: "VirtualService",
  metadata: { name: "reviews", namespace: "default" },
  spec: { hosts: ["reviews"], http: [http] },
});

describe("field table", () => {
  test("the committed page of supported fields is current", () => {
    const page = readFileSync(join(import.meta.dirname, "../../docs/reference/supported-fields.md"), "utf8");
    assert.equal(
      page,
      renderFieldTable(),
      "docs/reference/supported-fields.md is out of date: run `npm run generate -- fields`",
    );
  });

  test("every mark names a path that exists", () => {
    const known = new Set(fieldTable().map(({ kind, path }) => `${kind} ${path}`));
    const marked = fieldMarks.split("\n").filter((line) => line !== "" && !line.includes("{@"));
    const containers = (name: string) =>
      [...known].some((row) => row.startsWith(`${name}.`) || row.startsWith(`${name}[`));
    const lost = marked
      .map((line) => line.split(" ").slice(0, 2).join(" "))
      .filter((name) => !known.has(name) && !containers(name));
    assert.deepEqual(lost, []);
  });

  test("the longest mark decides, and a path without one warns", () => {
    assert.equal(fieldStatus("VirtualService", "spec.http[].route[].weight"), "works");
    assert.equal(fieldStatus("VirtualService", "spec.http[].fault.abort.http2Error"), "refused");
    assert.equal(fieldStatus("Telemetry", "spec.metrics[].reportingInterval"), "warns");
  });

  test("an object of working fields has no warning", () => {
    assert.deepEqual(
      unsupportedFieldWarnings(
        virtualService({ route: [{ destination: { host: "reviews" }, weight: 100 }] }),
      ),
      [],
    );
  });

  test("a field without effect is named by its exact path, once", () => {
    const object = {
      apiVersion: "networking.istio.io/v1alpha3",
      kind: "EnvoyFilter",
      metadata: { name: "f", namespace: "default" },
      spec: { configPatches: [{ applyTo: "CLUSTER", match: { waypoint: { portNumber: 80 } } }] },
    };
    const found = unsupportedFieldWarnings(object).map(({ at, severity }) => [at.path, severity]);
    assert.deepEqual(found, [["spec.configPatches[0].match.waypoint", "warning"]]);
  });

  test("a refused field is an error", () => {
    const object = virtualService({ fault: { abort: { http2Error: "REFUSED" } }, route: [] });
    assert.deepEqual(
      unsupportedFieldWarnings(object).map(({ code, severity }) => [code, severity]),
      [["MZ0302", "error"]],
    );
  });

  test("a field of the Gateway API without effect is named, and one with effect is not", () => {
    const route = (rule: object): KubeObject => ({
      apiVersion: "gateway.networking.k8s.io/v1",
      kind: "HTTPRoute",
      metadata: { name: "r", namespace: "default" },
      spec: { parentRefs: [{ name: "g" }], hostnames: ["a.org"], rules: [rule] },
    });
    assert.deepEqual(
      unsupportedFieldWarnings(route({ timeouts: { request: "1s" }, retry: { attempts: 2 } })),
      [],
    );
    assert.deepEqual(
      unsupportedFieldWarnings(
        route({ filters: [{ type: "ExtensionRef", extensionRef: { group: "", kind: "K", name: "n" } }] }),
      ).map(({ code, at }) => [code, at.path]),
      [["MZ0301", "spec.rules[0].filters[0].extensionRef"]],
    );
  });

  test("of a MeshConfig only what differs from the defaults is named", () => {
    assert.deepEqual(unsupportedMeshFields(defaultMeshConfig, defaultMeshConfig), []);
    const changed = { ...defaultMeshConfig, trustDomain: "td", hboneIdleTimeout: "9s" };
    assert.deepEqual(
      unsupportedMeshFields(changed, defaultMeshConfig).map(({ at }) => at.path),
      ["hboneIdleTimeout"],
    );
  });
});
