import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine, type Read } from "#engine";
import { worldChanges } from "#model";
import type { KubeObject } from "#objects";
import { bootstrapOverlay } from "./bootstrap-patch.ts";

const sidecar = { isGateway: false, facts: { MESH_ID: "mine" } };
const workload = { namespace: "default", labels: { app: "sleep" } };

function filter(name: string, configPatches: readonly object[], more: object = {}): KubeObject {
  return {
    apiVersion: "networking.istio.io/v1alpha3",
    kind: "EnvoyFilter",
    metadata: { name, namespace: "default" },
    spec: { ...more, configPatches },
  };
}

function merge(value: object, match?: object): object {
  return { applyTo: "BOOTSTRAP", ...(match && { match }), patch: { operation: "MERGE", value } };
}

function overlay(objects: readonly KubeObject[], proxy = sidecar): unknown {
  const engine = new Engine();
  engine.apply(worldChanges(objects));
  return bootstrapOverlay(engine.get.bind(engine) as Read, workload, proxy);
}

describe("BOOTSTRAP patches", () => {
  test("are merged in order: fields in either spelling, lists one after the other, the newer of alternatives", () => {
    const first = filter("a", [
      merge({
        stats_flush_interval: "5s",
        stats_config: { stats_tags: [{ tag_name: "one", regex: "a" }], stats_matcher: { reject_all: true } },
      }),
    ]);
    const second = filter(
      "b",
      [
        merge({
          statsFlushInterval: "10s",
          statsConfig: {
            statsTags: [{ tagName: "two", fixedValue: "b" }],
            statsMatcher: { exclusionList: { patterns: [{ prefix: "x_" }] } },
          },
        }),
      ],
      { priority: 1 },
    );
    assert.deepEqual(overlay([second, first]), {
      statsFlushInterval: "10s",
      statsConfig: {
        statsTags: [
          { tagName: "one", regex: "a" },
          { tagName: "two", fixedValue: "b" },
        ],
        statsMatcher: { exclusionList: { patterns: [{ prefix: "x_" }] } },
      },
    });
  });

  test("keep what stands under names of extensions and in structs as it is", () => {
    const value = {
      layered_runtime: { layers: [{ name: "mine", static_layer: { a_b: { c_d: 1 } } }] },
      bootstrap_extensions: [
        {
          name: "own",
          typed_config: { "@type": "type.googleapis.com/unknown.Type", some_field: 1 },
        },
      ],
    };
    assert.deepEqual(overlay([filter("a", [merge(value)])]), {
      layeredRuntime: { layers: [{ name: "mine", staticLayer: { a_b: { c_d: 1 } } }] },
      bootstrapExtensions: [
        { name: "own", typedConfig: { "@type": "type.googleapis.com/unknown.Type", some_field: 1 } },
      ],
    });
  });

  test("are for the proxies that are selected and matched, and leave out what does not fit", () => {
    const flush = { stats_flush_interval: "5s" };
    const cases: readonly [string, KubeObject, boolean][] = [
      [
        "another workload",
        filter("a", [merge(flush)], { workloadSelector: { labels: { app: "x" } } }),
        false,
      ],
      ["a gateway", filter("a", [merge(flush, { context: "GATEWAY" })]), false],
      ["a sidecar", filter("a", [merge(flush, { context: "SIDECAR_OUTBOUND" })]), true],
      ["another version", filter("a", [merge(flush, { proxy: { proxyVersion: "^1\\.2\\." } })]), false],
      ["a fact", filter("a", [merge(flush, { proxy: { metadata: { MESH_ID: "mine" } } })]), true],
      ["another fact", filter("a", [merge(flush, { proxy: { metadata: { MESH_ID: "other" } } })]), false],
      ["no field of Envoy's", filter("a", [merge({ no_such_field: 1 })]), false],
    ];
    for (const [what, object, applies] of cases)
      assert.deepEqual(overlay([object]), applies ? { statsFlushInterval: "5s" } : undefined, what);
  });
});
