import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { controlPlaneLimits, limitsMetric, renderLimits } from "./limits.ts";
import { createMetrics } from "./metrics.ts";

test("the page of limits is current", () => {
  const page = readFileSync(join(import.meta.dirname, "../../../docs/reference/limits.md"), "utf8");
  assert.equal(
    page,
    renderLimits(),
    "docs/reference/limits.md is out of date: run `npm run generate -- limits`",
  );
});

test("each limit has a metric from the start: a counter of its own at 0, or the one that it names", async () => {
  const { registry } = createMetrics("test");
  const text = await registry.metrics();
  for (const [name, limit] of Object.entries(controlPlaneLimits)) {
    if ("metric" in limit) assert.match(text, new RegExp(`^# TYPE ${limit.metric} `, "m"));
    else assert.ok(text.includes(`\n${limitsMetric}{limit="${name}"} 0\n`), name);
  }
});
