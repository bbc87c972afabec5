import assert from "node:assert/strict";
import { test } from "node:test";
import type { EndpointSlice, Service } from "../types.ts";
import { emptyRules, renderRuleChange, renderServiceRules } from "./service-rules.ts";

function service(name: string, clusterIP: string): Service {
  const metadata = { name, namespace: "default" };
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata,
    spec: { clusterIP, ports: [{ name: "http", port: 80 }] },
  };
}

function slice(name: string, addresses: readonly string[], ready = true): EndpointSlice {
  return {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: { name, namespace: "default", labels: { "kubernetes.io/service-name": name } },
    addressType: "IPv4",
    ports: [{ name: "http", port: 8080, protocol: "TCP" }],
    endpoints: addresses.map((address) => ({
      addresses: [address],
      conditions: { ready, serving: true, terminating: !ready },
    })),
  };
}

test("each of three endpoints gets the same share", () => {
  const rules = renderServiceRules(
    [service("a", "10.96.0.5")],
    [slice("a", ["10.244.0.4", "10.244.0.3", "10.244.0.2"])],
    "10.244.0.1",
  );
  const [chain = []] = rules.chains.values();
  assert.deepEqual(
    chain.map((rule) => /probability ([0-9.]+)/.exec(rule)?.[1]),
    ["0.3333333333", "0.5000000000", undefined],
  );
});

test("a headless Service and one without endpoints get no rule", () => {
  const rules = renderServiceRules([service("a", "None"), service("b", "10.96.0.6")], [], "10.244.0.1");
  assert.equal(rules.dispatch.size, 0);
});

test("endpoints that end still serve while nobody else does", () => {
  const rules = renderServiceRules(
    [service("a", "10.96.0.5")],
    [slice("a", ["10.244.0.2"], false)],
    "10.244.0.1",
  );
  assert.equal(rules.dispatch.size, 1);
});

test("a change of one Service names only that Service's chain, and no change renders nothing", () => {
  const services = [service("a", "10.96.0.5"), service("b", "10.96.0.6")];
  const before = renderServiceRules(
    services,
    [slice("a", ["10.244.0.2"]), slice("b", ["10.244.0.3"])],
    "10.244.0.1",
  );
  const after = renderServiceRules(
    services,
    [slice("a", ["10.244.0.2"]), slice("b", ["10.244.0.3", "10.244.0.4"])],
    "10.244.0.1",
  );
  const text = renderRuleChange(before, after);
  assert.equal(text.match(/^:/gm)?.length, 1);
  assert.ok(!text.includes("10.244.0.2"));
  assert.equal(renderRuleChange(after, after), "");
});

test("a removed Service's chain goes after the rule that leads to it", () => {
  const before = renderServiceRules([service("a", "10.96.0.5")], [slice("a", ["10.244.0.2"])], "10.244.0.1");
  const text = renderRuleChange(before, emptyRules);
  assert.ok(text.indexOf("-D MZ-SERVICES") < text.indexOf("-X MZ-SVC"));
});
