import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { envoyPath, withoutEnvoy } from "../../../test/support/envoy.ts";
import { renderBootstrap } from "./bootstrap.ts";
import { parseConfig } from "./config.ts";

function bootstrapOf(annotations: Readonly<Record<string, string>>): Record<string, unknown> {
  const named = Object.entries(annotations).map(([name, value]) => [`sidecar.istio.io/${name}`, value]);
  return renderBootstrap(
    parseConfig({
      env: { POD_NAME: "a", POD_NAMESPACE: "default", INSTANCE_IP: "10.0.0.1" },
      args: ["sidecar"],
      labels: {},
      annotations: Object.fromEntries(named) as Record<string, string>,
      envoyPath,
    }),
  ) as Record<string, unknown>;
}

/** Envoy's complaint about a bootstrap; "" when it takes it. */
function complaint(bootstrap: object): string {
  const folder = mkdtempSync(join(tmpdir(), "envoy-bootstrap-"));
  try {
    const file = join(folder, "bootstrap.json");
    writeFileSync(file, JSON.stringify(bootstrap));
    const words = [
      "--mode",
      "validate",
      "-c",
      file,
      "-l",
      "error",
      "--service-node",
      "a",
      "--service-cluster",
      "a",
    ];
    const { status, stderr } = spawnSync(envoyPath, words, { encoding: "utf8", timeout: 30_000 });
    return status === 0 ? "" : stderr;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

describe("the bootstrap", () => {
  test("has the intervals of its Pod's annotations, the eviction a multiple of the flush", () => {
    const { stats_flush_interval: flush, stats_eviction_interval: eviction } = bootstrapOf({});
    assert.deepEqual([flush, eviction], ["10s", "1800s"]);
    const own = bootstrapOf({ statsFlushInterval: "7s", statsEvictionInterval: "1m30s" });
    assert.deepEqual([own["stats_flush_interval"], own["stats_eviction_interval"]], ["7s", "91s"]);
    const wrong = bootstrapOf({ statsFlushInterval: "often", statsEvictionInterval: "1ms" });
    assert.deepEqual([wrong["stats_flush_interval"], wrong["stats_eviction_interval"]], ["10s", "1800s"]);
  });

  test(
    "has the histogram buckets of its Pod's annotation, and the real Envoy takes them",
    { skip: withoutEnvoy },
    () => {
      const statsHistogramBuckets = JSON.stringify({
        istio_request_duration: [10, 1, 5, 5],
        wrong: ["x"],
        empty: [],
      });
      const bootstrap = bootstrapOf({ statsHistogramBuckets, statsFlushInterval: "7s" });
      const { histogram_bucket_settings: settings } = bootstrap["stats_config"] as Record<string, unknown>;
      assert.deepEqual(settings, [{ match: { prefix: "istio_request_duration" }, buckets: [1, 5, 10] }]);
      assert.equal(complaint(bootstrap), "");
      assert.ok(!("histogram_bucket_settings" in (bootstrapOf({})["stats_config"] as object)));
      assert.ok(
        !(
          "histogram_bucket_settings" in
          (bootstrapOf({ statsHistogramBuckets: "[" })["stats_config"] as object)
        ),
      );
    },
  );
});
