import assert from "node:assert/strict";
import { test } from "node:test";
import { silentLog } from "#base";
import { encodeMessage, typeUrlOf } from "#envoy";
import { AdsServer } from "./ads-server.ts";
import { rowChange, World } from "./testing.ts";

test("keys go to proxies that have proven who they are, and to no others", async () => {
  const resourcesGot = async (withholdsSecrets: boolean): Promise<readonly string[]> => {
    const world = new World();
    world.mesh.publish([
      rowChange({ view: "a", type: "secret", name: "kubernetes://key", text: "k" }),
      rowChange({ view: "a", type: "cluster", name: "one", text: "t" }),
    ]);
    const sent: string[] = [];
    const server = new AdsServer<string, string>({
      mesh: world.mesh,
      admit: () => Promise.resolve({ id: "sidecar~1~p.n~d", proxyClass: "a" }),
      withholdsSecrets,
      nowMs: () => world.nowMs,
      log: silentLog,
      reports: {
        connected: () => {},
        disconnected: () => {},
        refused: () => {},
        sent: (type) => sent.push(type),
        acknowledged: () => {},
        rejected: () => {},
        reached: () => {},
      },
    });
    const peer = { address: "p", authorization: undefined, certificate: undefined };
    const call = server.method({ peer, send: () => {}, end: () => {}, leave: () => {}, unsentBytes: 0 });
    const ask = (type: "secret" | "cluster", names: readonly string[]): void =>
      call.message(
        encodeMessage("envoy.service.discovery.v3.DeltaDiscoveryRequest", {
          node: { id: "sidecar~1~p.n~d" },
          typeUrl: typeUrlOf(type),
          resourceNamesSubscribe: names,
        }),
      );
    ask("secret", ["kubernetes://key"]);
    ask("cluster", ["*"]);
    await new Promise((resolve) => setImmediate(resolve));
    return sent.toSorted();
  };
  assert.deepEqual(await resourcesGot(false), ["cluster", "secret"]);
  assert.deepEqual(await resourcesGot(true), ["cluster"]);
});
