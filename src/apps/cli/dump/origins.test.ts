import assert from "node:assert/strict";
import { test } from "node:test";
import { parse } from "yaml";
import { renderWithOrigins } from "./origins.ts";

test("the YAML of a dump says above each resource what it comes from, and stays the resource", () => {
  const routes = [{ name: "9080", virtual_hosts: [] }, { name: "80" }];
  const origins = {
    route: { "9080": ["EnvoyFilter default/own spec.configPatches[0]"] },
    virtualHost: { "9080/reviews:9080": ["VirtualService default/reviews"] },
    cluster: { "80": ["DestinationRule default/other"] },
  };
  const text = renderWithOrigins({ routes }, origins, true);
  assert.deepEqual(parse(text), routes);
  assert.deepEqual(
    text.split("\n").filter((line) => line.startsWith("#")),
    [
      "# from EnvoyFilter default/own spec.configPatches[0]",
      "# from reviews:9080: VirtualService default/reviews",
    ],
  );
  const all = renderWithOrigins({ clusters: [{ name: "80" }], routes }, origins, false);
  assert.match(all, /clusters:\n *# from DestinationRule default\/other\n *- name: "80"/);
});
