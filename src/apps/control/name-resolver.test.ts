import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { silentLog, type Clock } from "#base";
import { Engine } from "#engine";
import { gatewaysOfNetwork, meshNetworksChange, objectChange } from "#model";
import { NameResolver, type Answer } from "./name-resolver.ts";

const name = "lb.example.com";

/** A control plane's engine, DNS and clock as the test says. */
function world() {
  const engine = new Engine();
  const waits: { readonly delayMs: number; readonly callback: () => void }[] = [];
  const clock: Clock = {
    nowMs: () => 0,
    monotonicMs: () => 0,
    after(delayMs, callback) {
      const wait = { delayMs, callback };
      waits.push(wait);
      return () => void waits.splice(waits.indexOf(wait), 1);
    },
  };
  let answer: readonly Answer[] | Error = [];
  const asked: string[] = [];
  const resolver = new NameResolver({
    engine,
    clock,
    log: silentLog,
    publish: (changes) => {
      engine.apply(changes);
      resolver.settled(engine.settle().changed);
    },
    resolve: (one) => {
      asked.push(one);
      return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
    },
  });
  return {
    engine,
    asked,
    delays: () => waits.map(({ delayMs }) => delayMs),
    answers: (next: readonly Answer[] | Error) => (answer = next),
    async start() {
      resolver.start();
      await turn();
    },
    async settle() {
      resolver.settled(engine.settle().changed);
      await turn();
    },
    async later() {
      waits.shift()?.callback();
      await turn();
    },
    gateways: () => engine.get(gatewaysOfNetwork, "far").map(({ address, port }) => `${address}:${port}`),
  };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function networks(address: string) {
  const far = { endpoints: [{ fromRegistry: "other" }], gateways: [{ address, port: 443 }] };
  return [meshNetworksChange({ networks: { far } })];
}

describe("names of gateways of other networks", () => {
  test("are resolved to the addresses that endpoints give way to, and again when the answer has grown old", async () => {
    const mesh = world();
    mesh.engine.apply(networks(name));
    mesh.answers([
      { address: "192.0.2.2", ttl: 30 },
      { address: "192.0.2.1", ttl: 20 },
    ]);
    await mesh.start();
    assert.deepEqual(mesh.gateways(), ["192.0.2.1:443", "192.0.2.2:443"]);
    assert.deepEqual(mesh.delays(), [20_000]);
    mesh.answers([{ address: "192.0.2.3", ttl: 1 }]);
    await mesh.later();
    assert.deepEqual(mesh.gateways(), ["192.0.2.3:443"]);
    assert.deepEqual(mesh.delays(), [5_000]);
  });

  test("keep their addresses while DNS fails, and are asked for less and less often", async () => {
    const mesh = world();
    mesh.engine.apply(networks(name));
    mesh.answers([{ address: "192.0.2.1", ttl: 60 }]);
    await mesh.start();
    mesh.answers(new Error("SERVFAIL"));
    await mesh.later();
    await mesh.later();
    assert.deepEqual(mesh.gateways(), ["192.0.2.1:443"]);
    assert.deepEqual(mesh.delays(), [2_000]);
  });

  test("are those of load balancers of labelled Services, too; an address is nobody's question", async () => {
    const mesh = world();
    mesh.engine.apply(networks("192.0.2.9"));
    mesh.engine.apply(
      objectChange({
        apiVersion: "v1",
        kind: "Service",
        metadata: { name: "door", namespace: "istio-d", labels: { "topology.istio.io/network": "far" } },
        status: { loadBalancer: { ingress: [{ hostname: name }] } },
      }),
    );
    mesh.answers([{ address: "192.0.2.1", ttl: 60 }]);
    await mesh.start();
    assert.deepEqual(mesh.asked, [name]);
    assert.deepEqual(mesh.gateways(), ["192.0.2.1:15443", "192.0.2.9:443"]);
  });

  test("that nobody names any more are forgotten", async () => {
    const mesh = world();
    mesh.engine.apply(networks(name));
    mesh.answers([{ address: "192.0.2.1", ttl: 60 }]);
    await mesh.start();
    mesh.engine.apply(networks("192.0.2.9"));
    await mesh.settle();
    assert.deepEqual(mesh.delays(), []);
    mesh.engine.apply(networks(name));
    assert.deepEqual(mesh.gateways(), []);
  });
});
