// Every operation of an EnvoyFilter on every list that it may be applied to: what stands beside, before or after what.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { worldChanges } from "#model";
import type { KubeObject } from "#objects";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage, type Message } from "./proto/api.ts";
import { snapshotOf } from "./snapshot.ts";

const proxy = proxyOf({ labels: { app: "reviews" } });
const service: KubeObject = {
  apiVersion: "v1",
  kind: "Service",
  metadata: { name: "reviews", namespace: "default" },
  spec: { clusterIP: "10.0.0.1", selector: { app: "reviews" }, ports: [{ name: "http", port: 9080 }] },
};
const manager = "envoy.filters.network.http_connection_manager";

/** An outbound listener under a patch; undefined where it is gone. */
function listenerUnder(patch?: object): Message | undefined {
  const filter: KubeObject = {
    apiVersion: "networking.istio.io/v1alpha3",
    kind: "EnvoyFilter",
    metadata: { name: "own", namespace: "default" },
    spec: { configPatches: patch === undefined ? [] : [patch] },
  };
  const engine = new Engine();
  engine.apply(worldChanges([service, filter]));
  const found = Object.values(snapshotOf(engine, proxy))
    .flat()
    .find(({ type, name }) => type === "listener" && name === "0.0.0.0_9080");
  return found === undefined ? undefined : decodeMessage("envoy.config.listener.v3.Listener", found.bytes);
}

interface Named {
  readonly name: string;
  readonly typedConfig?: { readonly httpFilters?: readonly Named[] };
}

type Chain = Named & { readonly filters?: readonly Named[] };

const chainsOf = (listener: Message | undefined): readonly Chain[] =>
  (listener?.["filterChains"] ?? []) as readonly Chain[];
/** The chain that ends in the connection manager. */
const httpChain = (listener: Message | undefined): Chain | undefined =>
  chainsOf(listener).find(({ filters = [] }) => filters.some(({ name }) => name === manager));

/** The lists that patches change, each with a name that is in it and how it is matched. */
const lists = {
  HTTP_FILTER: {
    anchor: "envoy.filters.http.cors",
    match: (name: string) => ({ filterChain: { filter: { name: manager, subFilter: { name } } } }),
    names: (listener: Message | undefined) =>
      httpChain(listener)
        ?.filters?.flatMap(({ typedConfig }) => typedConfig?.httpFilters ?? [])
        .map(({ name }) => name) ?? [],
  },
  NETWORK_FILTER: {
    anchor: manager,
    match: (name: string) => ({ filterChain: { filter: { name } } }),
    names: (listener: Message | undefined) => httpChain(listener)?.filters?.map(({ name }) => name) ?? [],
  },
  LISTENER_FILTER: {
    anchor: "envoy.filters.listener.http_inspector",
    match: (name: string) => ({ listenerFilter: name }),
    names: (listener: Message | undefined) =>
      ((listener?.["listenerFilters"] ?? []) as readonly Named[]).map(({ name }) => name),
  },
};

describe("operations of EnvoyFilters", () => {
  for (const [applyTo, { anchor, match, names }] of Object.entries(lists)) {
    test(`on ${applyTo}`, (context) => {
      const before = names(listenerUnder());
      if (!before.includes(anchor)) {
        context.diagnostic(before.join());
        assert.fail(`${anchor} is not there`);
      }
      const at = before.indexOf(anchor);
      const under = (operation: string, name: string): readonly string[] =>
        names(
          listenerUnder({
            applyTo,
            match: { context: "SIDECAR_OUTBOUND", listener: { portNumber: 9080, ...match(anchor) } },
            patch: { operation, ...(name === "" ? {} : { value: { name } }) },
          }),
        );
      assert.deepEqual(under("INSERT_FIRST", "own"), ["own", ...before]);
      assert.deepEqual(under("INSERT_BEFORE", "own"), before.toSpliced(at, 0, "own"));
      assert.deepEqual(under("INSERT_AFTER", "own"), before.toSpliced(at + 1, 0, "own"));
      if (applyTo !== "NETWORK_FILTER")
        for (const operation of ["REPLACE", "MERGE", "MERGE_AND_REPLACE_LIST"])
          assert.deepEqual(under(operation, "own"), before.toSpliced(at, 1, "own"), operation);
      if (applyTo !== "NETWORK_FILTER") assert.deepEqual(under("REMOVE", ""), before.toSpliced(at, 1));
      assert.ok(under("ADD", "own").includes("own"));
    });
  }

  test("on NETWORK_FILTER that takes the last one away or another in its place", () => {
    const under = (patch: object): readonly (readonly string[])[] =>
      chainsOf(
        listenerUnder({
          applyTo: "NETWORK_FILTER",
          match: { listener: { portNumber: 9080, filterChain: { filter: { name: manager } } } },
          patch,
        }),
      ).map(({ filters = [] }) => filters.map(({ name }) => name));
    assert.ok(!under({ operation: "REMOVE" }).flat().includes(manager));
    const replaced = under({ operation: "REPLACE", value: { name: "own" } }).flat();
    assert.ok(replaced.includes("own") && !replaced.includes(manager));
  });

  test("on LISTENER and FILTER_CHAIN", () => {
    const match = { context: "SIDECAR_OUTBOUND", listener: { portNumber: 9080 } };
    const under = (applyTo: string, patch: object): Message | undefined =>
      listenerUnder({ applyTo, match, patch });
    for (const operation of ["MERGE", "MERGE_AND_REPLACE_LIST"]) {
      const merged = under("LISTENER", { operation, value: { stat_prefix: "own" } });
      assert.equal(merged?.["statPrefix"], "own", operation);
      const chains = chainsOf(under("FILTER_CHAIN", { operation, value: { name: "own" } }));
      assert.ok(chains.length > 0 && chains.every(({ name }) => name === "own"), operation);
    }
    assert.equal(under("LISTENER", { operation: "REMOVE" }), undefined);
    const count = chainsOf(listenerUnder()).length;
    const added = chainsOf(under("FILTER_CHAIN", { operation: "ADD", value: { name: "own" } }));
    assert.deepEqual([added.length, added.at(-1)?.name], [count + 1, "own"]);
    assert.equal(chainsOf(under("FILTER_CHAIN", { operation: "REMOVE" })).length, 0);
  });
});
