import assert from "node:assert/strict";
import { test } from "node:test";
import { layered } from "./layers.ts";

test("an override goes over an overlay whichever way their fields are written", () => {
  const under = JSON.stringify({ statsFlushInterval: "5s", statsConfig: { statsTags: [{ tagName: "a" }] } });
  const over = "stats_flush_interval: 10s\nstats_config: {stats_tags: [{tag_name: b}]}\n";
  assert.deepEqual(JSON.parse(layered(under, over)), {
    statsFlushInterval: "10s",
    statsConfig: { statsTags: [{ tagName: "a" }, { tagName: "b" }] },
  });
});
