// Canary first, with twenty proxies of one view: how far a bad resource gets, and what everyone else is served.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { ResourceType } from "#plan";
import { newcomerWaitMs } from "./limits.ts";
import { rowChange, rowRemoval, World, type FakeProxy, type Row } from "./testing.ts";

const proxiesTotal = 20;
const batchSize = 10;

const row = (type: ResourceType, name: string, text: string): Row => ({ view: "v", type, name, text });

function connectAll(world: World, namesCulprits: boolean): FakeProxy[] {
  const proxies = Array.from({ length: proxiesTotal }, (_, at) => world.connect(`p${at}`, "v"));
  for (const proxy of proxies) proxy.namesCulprits = namesCulprits;
  return proxies;
}

for (const type of ["cluster", "virtualHost"] as const) {
  for (const namesCulprits of [true, false]) {
    const message = namesCulprits ? "that names it" : "that names nothing";
    test(`one bad ${type} among ${batchSize} good ones, with a message ${message}, reaches one of ${proxiesTotal} proxies, and the good ones reach all`, () => {
      const world = new World();
      const names = Array.from({ length: batchSize + 1 }, (_, at) => `n${at}`);
      world.put(...names.map((name) => row(type, name, "1")));
      const proxies = connectAll(world, namesCulprits);
      for (const proxy of proxies) for (const name of names) if (type === "virtualHost") proxy.ask(name);
      world.settle();
      const good = proxies[0]!.held.get(type)!.get("n5");
      world.put(...names.map((name) => row(type, name, name === "n5" ? "bad" : "2")));
      world.settle();
      assert.equal(proxies.filter(({ badSeen }) => badSeen.size > 0).length, 1);
      assert.ok(proxies.every(({ held }) => held.get(type)!.get("n5") === good));
      for (const name of names.filter((one) => one !== "n5")) {
        const versions = new Set(proxies.map(({ held }) => held.get(type)!.get(name)));
        assert.equal(versions.size, 1);
        assert.notEqual([...versions][0], undefined);
      }
      assert.deepEqual(
        world.rejections.map(({ name }) => name),
        ["n5"],
      );
      world.put(row(type, "n5", "3"));
      world.settle();
      const corrected = new Set(proxies.map(({ held }) => held.get(type)!.get("n5")));
      assert.equal(corrected.size, 1, "a corrected one flows without a tick");
      assert.ok(!corrected.has(good));
    });
  }
}

test("a replica that starts anew while a resource is bad takes from nobody the last good one that it never saw", () => {
  for (const type of ["cluster", "listener", "virtualHost"] as const) {
    const before = new World();
    before.put(row(type, "a", "1"), row(type, "b", "1"));
    const proxies = connectAll(before, true);
    for (const proxy of proxies) for (const name of ["a", "b"]) if (type === "virtualHost") proxy.ask(name);
    before.settle();
    const good = proxies[0]!.held.get(type)!.get("b");
    before.put(row(type, "b", "bad"));
    before.settle();
    const after = new World();
    after.put(row(type, "a", "1"), row(type, "b", "bad"));
    for (const proxy of proxies) {
      proxy.badSeen.clear();
      proxy.moveTo(after);
      after.settle();
    }
    after.pass(newcomerWaitMs);
    after.settle();
    assert.ok(
      proxies.every(({ held }) => held.get(type)!.get("b") === good),
      type,
    );
    assert.equal(proxies.filter(({ badSeen }) => badSeen.size > 0).length, 1, type);
  }
});

test("a newcomer to a view whose only version of a resource is bad gets all the rest at once", () => {
  const world = new World();
  world.put(row("cluster", "a", "1"), row("cluster", "b", "bad"));
  world.connect("first", "v");
  world.settle();
  const newcomer = world.connect("newcomer", "v");
  world.settle();
  assert.deepEqual([...newcomer.held.get("cluster")!.keys()], ["a"]);
  assert.equal(newcomer.badSeen.size, 0);
});

test("a proxy that comes to another replica keeps the cluster that its old route names until it has the new route", () => {
  const before = new World();
  before.put(row("cluster", "old", "1"), row("listener", "l", "1"), row("route", "l", "to old"));
  const proxy = before.connect("p0", "v");
  before.settle();
  const after = new World();
  after.put(row("cluster", "new", "1"), row("listener", "l", "1"), row("route", "l", "to old"));
  const canary = after.connect("canary", "v");
  after.settle();
  after.put(row("route", "l", "to new"));
  proxy.moveTo(after);
  const route = proxy.held.get("route")!.get("l");
  proxy.answerAll();
  assert.equal(proxy.held.get("route")!.get("l"), route, "the canary has not said anything yet");
  assert.ok(proxy.held.get("cluster")!.has("old"));
  canary.answerAll();
  after.settle();
  assert.notEqual(proxy.held.get("route")!.get("l"), route);
  assert.deepEqual([...proxy.held.get("cluster")!.keys()], ["new"]);
});

test("a cluster that goes with the route away from it keeps its endpoints until the route has moved", () => {
  const world = new World();
  const common = [row("cluster", "new", "1"), row("endpoint", "new", "1"), row("listener", "l", "1")];
  world.put(...common, row("cluster", "old", "1"), row("endpoint", "old", "1"), row("route", "l", "to old"));
  const proxies = [world.connect("p0", "v"), world.connect("p1", "v")];
  world.settle();
  for (const proxy of proxies) proxy.received.length = 0;
  world.mesh.publish([
    rowChange(row("route", "l", "to new")),
    rowRemoval(row("cluster", "old", "")),
    rowRemoval(row("endpoint", "old", "")),
  ]);
  world.settle();
  for (const { received, held } of proxies) {
    const said = received.map(({ type, resources, removed }) => [
      type,
      resources.map(({ name }) => name),
      removed,
    ]);
    assert.deepEqual(said[0], ["route", ["l"], []]);
    assert.deepEqual(said[1], ["cluster", [], ["old"]]);
    assert.deepEqual([...held.get("cluster")!.keys()], ["new"]);
  }
});
