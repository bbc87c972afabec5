import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Endpoint } from "#model";
import { localityGroups, type Nearness } from "./locality.ts";

function endpoint(
  address: string,
  locality: string,
  labels: Readonly<Record<string, string>> = {},
): Endpoint {
  return {
    address,
    servicePort: 80,
    port: 8080,
    labels,
    namespace: "default",
    serviceAccount: "",
    mesh: true,
    locality,
    node: "",
    network: "",
    weight: 1,
    healthy: true,
    facts: "",
  };
}

const places = [
  endpoint("1", "r1/z1/s1"),
  endpoint("2", "r1/z2/s1"),
  endpoint("3", "r2/z1/s1"),
  endpoint("4", "r3/z1/s1"),
];

function near(setting: Nearness["setting"], more: Partial<Nearness> = {}): Nearness {
  return { client: "r1/z1/s1", labels: {}, setting, failover: true, ...more };
}

function shown(endpoints: readonly Endpoint[], nearness?: Nearness): string[] {
  return localityGroups(endpoints, nearness).map(
    ({ locality, weight, priority, members }) =>
      `${locality} ${members.map(({ address }) => address).join("+")} weight ${weight} priority ${priority}`,
  );
}

describe("locality", () => {
  test("without a rule or a known place all are as near", () => {
    assert.deepEqual(
      localityGroups(places, undefined).map(({ priority }) => priority),
      [0, 0, 0, 0],
    );
  });

  test("fails over to the zone, the region, the region that a rule names, and the rest", () => {
    assert.deepEqual(shown(places, near({ failover: [{ from: "r1", to: "r3" }] })), [
      "r1/z1/s1 1 weight 1 priority 0",
      "r1/z2/s1 2 weight 1 priority 1",
      "r2/z1/s1 3 weight 1 priority 3",
      "r3/z1/s1 4 weight 1 priority 2",
    ]);
  });

  test("does not fail over without outlier detection, since nothing would be taken for broken", () => {
    assert.ok(localityGroups(places, near({}, { failover: false })).every(({ priority }) => priority === 0));
  });

  test("failoverPriority goes by labels in order, and splits a locality whose endpoints differ in them", () => {
    const endpoints = [
      endpoint("1", "r1/z1", { version: "v1", tier: "a" }),
      endpoint("2", "r1/z1", { version: "v2", tier: "a" }),
      endpoint("3", "r2/z1", { version: "v1", tier: "b" }),
    ];
    const nearness = near(
      { failoverPriority: ["version", "topology.kubernetes.io/region"] },
      { client: "r1/z1", labels: { version: "v1" } },
    );
    assert.deepEqual(shown(endpoints, nearness), [
      "r1/z1 1 weight 1 priority 0",
      "r1/z1 2 weight 1 priority 2",
      "r2/z1 3 weight 1 priority 1",
    ]);
    assert.deepEqual(shown(endpoints, near({ failoverPriority: ["version=v2"] }, { client: "r1/z1" })), [
      "r1/z1 2 weight 1 priority 0",
      "r1/z1 1 weight 1 priority 1",
      "r2/z1 3 weight 1 priority 1",
    ]);
  });

  test("distribute gives shares; localities under one wildcard divide theirs, and what is not named gets nothing", () => {
    const setting = { distribute: [{ from: "r1/*", to: { "r1/*": 80, "r2/z1/s1": 20 } }] };
    assert.deepEqual(shown(places, near(setting)), [
      "r1/z1/s1 1 weight 40 priority 0",
      "r1/z2/s1 2 weight 40 priority 0",
      "r2/z1/s1 3 weight 20 priority 0",
    ]);
  });
});
