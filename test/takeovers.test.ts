// What somebody in one namespace tries to get hold of another one's calls: whatever they write, calls of a Service reach its
// workloads, by every name and address that it has. Their own calls they may send where they like.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { KubeObject } from "#objects";
import { ExplainedWorld } from "./scenarios/explained.ts";
import type { Scenario, Workload } from "./scenarios/scenario.ts";

const workload = (namespace: string, name: string): Workload => ({
  namespace,
  name,
  service: name,
  version: "v1",
});
const [caller, own, taker] = [
  workload("default", "caller"),
  workload("third", "caller"),
  workload("other", "taker"),
];
const workloads = [caller, own, taker, workload("default", "shop"), workload("default", "cart")];
/** As the explainer's world gives them to the Services in order: cart, caller, shop in `default`. */
const address = "10.96.1.3";
const podAddress = "10.244.1.4";
const names = ["shop.default", "shop.default.svc", "shop.default.svc.cluster.local", "SHOP.Default", address];

function object(kind: string, spec: object, name = "attempt"): KubeObject {
  const metadata = { name, namespace: "other", creationTimestamp: "2000-01-01T00:00:00Z" };
  return { apiVersion: "networking.istio.io/v1", kind, metadata, spec };
}

const http = [
  { route: [{ destination: { host: "taker.other.svc.cluster.local", port: { number: 9080 } } }] },
];

function rule(...hosts: readonly string[]): KubeObject {
  return object("VirtualService", { hosts, http });
}

/** A ServiceEntry that leads to the taker's Pod. */
function entry(spec: object, protocol = "HTTP"): KubeObject {
  return object("ServiceEntry", {
    hosts: ["attempt.example.com"],
    location: "MESH_INTERNAL",
    resolution: "STATIC",
    ports: [{ number: 9080, name: "port", protocol, targetPort: 8080 }],
    workloadSelector: { labels: { app: "taker" } },
    ...spec,
  });
}

const attempts: Readonly<Record<string, readonly KubeObject[]>> = {
  "a rule for the host": [rule("shop.default.svc.cluster.local")],
  "a rule for shorter forms of the host": [
    rule("shop.default", "shop.default.svc", "cart.default.svc.cluster.local"),
  ],
  "a rule for the host in capitals": [rule("Shop.Default", "SHOP.default.svc.cluster.local")],
  "a rule for wildcards": [rule("*", "*.default.svc.cluster.local", "*.default", "*.svc")],
  "a rule for the address": [rule(address, "cart.default.svc.cluster.local")],
  "a rule with an exportTo that names the caller's namespace": [
    object("VirtualService", {
      hosts: ["shop.default.svc.cluster.local", "shop.default"],
      http,
      exportTo: ["default", "third"],
    }),
  ],
  "a destination rule that nobody could speak by": [
    object("DestinationRule", { host: "*", exportTo: ["*"], trafficPolicy: { tls: { mode: "SIMPLE" } } }),
  ],
  "an entry with the host": [entry({ hosts: ["shop.default.svc.cluster.local"] })],
  "an entry with shorter forms of the host": [entry({ hosts: ["shop.default", "shop.default.svc"] })],
  "an entry with wildcards": [
    entry({
      hosts: ["*.default", "*.svc", "*.cluster.local"],
      workloadSelector: undefined,
      resolution: "NONE",
    }),
  ],
  "an entry with the address": [entry({ addresses: [address] })],
  "an entry with the address, for TCP": [entry({ addresses: [address] }, "TCP")],
  "an entry with the address, for TLS": [entry({ addresses: [address] }, "TLS")],
  "an entry with the address beside an innocent one with the same host": [
    entry({ addresses: ["192.0.2.7"] }, "TCP"),
    {
      ...entry({ addresses: [address] }, "TCP"),
      metadata: { name: "second", namespace: "other", creationTimestamp: "2000-01-02T00:00:00Z" },
    },
  ],
  "an entry with a range around the address": [entry({ addresses: ["10.96.0.0/12"] }, "TCP")],
  "an entry with all addresses": [entry({ addresses: ["0.0.0.0/1", "128.0.0.0/1"] }, "TCP")],
  "an entry with the whole port": [entry({}, "TCP")],
  "an entry with the whole port, for a protocol that shares it with nobody": [entry({}, "MONGO")],
  "an entry with the address of a Pod": [entry({ addresses: [podAddress] }, "TCP")],
  "a Sidecar for everything": [object("Sidecar", { egress: [{ hosts: ["other/*"] }] })],
};

function answererOf(world: ExplainedWorld, from: Workload, host: string): string {
  const url = new URL(`http://${host}:9080/`);
  const answer = world.ask({
    from,
    send: { method: "GET", url, headers: {} },
    gets: { kind: "refused" },
    because: "",
  });
  return answer.kind === "answered" ? [...answer.by.keys()].join() : JSON.stringify(answer);
}

function worldWith(objects: readonly KubeObject[]): ExplainedWorld {
  const scenario: Scenario = { name: "takeover", objects, requests: [] };
  return new ExplainedWorld(scenario, workloads);
}

describe("calls of a Service reach its workloads, though another namespace has", () => {
  for (const [attempt, objects] of Object.entries(attempts))
    test(attempt, () => {
      const world = worldWith(objects);
      for (const host of names) {
        assert.equal(answererOf(world, own, host), "default/shop", `${host}, from a third namespace`);
        assert.equal(answererOf(world, caller, host), "default/shop", `${host}, from its own`);
      }
      assert.equal(answererOf(world, caller, "shop"), "default/shop");
    });

  test("a bare name, which means each namespace's own Service", () => {
    const world = worldWith([entry({ hosts: ["caller"] })]);
    assert.equal(answererOf(world, caller, "caller"), "default/caller");
    assert.equal(answererOf(world, own, "caller"), "third/caller");
  });
});

describe("who tries gets it for calls of their own namespace", () => {
  for (const attempt of [
    "a rule for the host",
    "an entry with the host",
    "an entry with the address, for TCP",
  ])
    test(attempt, () => {
      const world = worldWith(attempts[attempt] ?? []);
      assert.equal(answererOf(world, taker, "shop.default.svc.cluster.local"), "other/taker");
    });
});
