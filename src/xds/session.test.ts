import assert from "node:assert/strict";
import { test } from "node:test";
import type { ResourceType } from "#plan";
import { canaryWaitMs, rejectedRetryMs } from "./limits.ts";
import { rowChange, rowRemoval, World, type FakeProxy, type Row } from "./testing.ts";

const row = (type: ResourceType, name: string, text: string, view = "v"): Row => ({ view, type, name, text });
const names = (proxy: FakeProxy, type: ResourceType) => [...(proxy.held.get(type)?.keys() ?? [])].toSorted();

test("a fresh proxy gets clusters, endpoints, listeners and routes, and an answer when there are none", () => {
  const world = new World();
  const empty = world.connect("p0", "empty");
  world.settle();
  assert.deepEqual(
    empty.received.map(({ type, resources }) => [type, resources.length]),
    [
      ["cluster", 0],
      ["listener", 0],
    ],
  );
  world.put(
    row("cluster", "c", "1"),
    row("endpoint", "c", "1"),
    row("listener", "l", "1"),
    row("route", "l", "1"),
  );
  const proxy = world.connect("p1", "v");
  world.settle();
  for (const type of ["cluster", "endpoint", "listener", "route"] as const) {
    assert.equal(names(proxy, type).length, 1, type);
  }
});

test("a reconnecting proxy gets only what differs, removals included", () => {
  const world = new World();
  world.put(row("listener", "l", "1"), row("route", "l", "1"));
  world.put(...["a", "b", "c", "d"].map((name) => row("endpoint", name, "1")));
  world.put(...["a", "b", "c"].map((name) => row("cluster", name, "1")));
  const proxy = world.connect("p", "v");
  world.settle();
  proxy.disconnect();
  proxy.received.length = 0;
  proxy.connect();
  world.settle();
  assert.equal(proxy.received.length, 0, "nothing changed, nothing is sent");
  proxy.disconnect();
  world.put(row("cluster", "a", "2"), row("cluster", "d", "1"));
  world.drop(row("cluster", "b", ""));
  proxy.connect();
  world.settle();
  assert.deepEqual(
    proxy.received.map(({ type, resources, removed }) => [type, resources.map(({ name }) => name), removed]),
    [
      ["cluster", ["a", "d"], ["b"]],
      ["endpoint", ["a"], []],
      ["endpoint", ["d"], []],
    ],
  );
});

test("only sessions that asked for what changed are woken", () => {
  const world = new World();
  world.put(row("cluster", "a", "1"), row("cluster", "b", "1", "w"));
  const proxies = [
    ...Array.from({ length: 20 }, (_, at) => world.connect(`p${at}`, "v")),
    world.connect("q", "w"),
  ];
  world.settle();
  for (const proxy of proxies) proxy.received.length = 0;
  const before = world.engine.computedTotal;
  const { woken, changed } = world.put(row("cluster", "b", "2", "w"));
  assert.equal(woken, 1);
  assert.equal(changed.cluster, 1);
  assert.equal(world.engine.computedTotal - before, 1, "one resource is built, no plan");
  world.settle();
  assert.deepEqual(
    proxies.filter(({ received }) => received.length > 0).map(({ id }) => id),
    ["q"],
  );
  assert.equal(world.put(row("endpoint", "a", "1")).woken, 20);
});

test("a bad resource reaches one proxy; the others and newcomers keep the last good one", () => {
  for (const namesCulprits of [true, false]) {
    const world = new World();
    world.put(...["a", "b", "c", "d"].map((name) => row("listener", name, "1")));
    const proxies = Array.from({ length: 20 }, (_, at) => world.connect(`p${at}`, "v"));
    for (const proxy of proxies) proxy.namesCulprits = namesCulprits;
    world.settle();
    const good = proxies[0]!.held.get("listener")!.get("b")!;
    world.put(
      row("listener", "a", "2"),
      row("listener", "b", "bad"),
      row("listener", "c", "2"),
      row("listener", "d", "2"),
    );
    world.settle();
    proxies.push(world.connect("newcomer", "v"));
    world.settle();
    assert.equal(proxies.filter(({ badSeen }) => badSeen.size > 0).length, 1);
    for (const proxy of proxies) assert.equal(proxy.held.get("listener")!.get("b"), good);
    const taken = proxies.map(({ held }) => held.get("listener")!.get("c"));
    assert.equal(new Set(taken).size, 1, "the good ones of the batch reach everyone");
    assert.deepEqual(
      world.rejections.map(({ name, proxy }) => [name, proxy]),
      [["b", "p0"]],
    );
    world.put(row("listener", "b", "3"));
    world.settle();
    const versions = new Set(proxies.map(({ held }) => held.get("listener")!.get("b")));
    assert.equal(versions.size, 1);
    assert.ok(!versions.has(good), "a corrected one flows at once");
    world.mesh.tick();
    assert.deepEqual(world.mesh.rejections(), []);
  }
});

test("a rejected resource is tried again later, by one proxy, and flows once it is taken", () => {
  const world = new World();
  world.put(row("listener", "l", "1"));
  const proxies = Array.from({ length: 5 }, (_, at) => world.connect(`p${at}`, "v"));
  world.settle();
  const good = proxies[0]!.held.get("listener")!.get("l");
  world.put(row("listener", "l", "bad"));
  world.settle();
  world.pass(rejectedRetryMs);
  world.settle();
  assert.equal(world.rejections.length, 2, "tried again, in vain");
  assert.equal(world.mesh.rejections().length, 1);
  assert.equal(proxies.filter(({ badSeen }) => badSeen.size > 0).length, 1);
  assert.ok(proxies.every(({ held }) => held.get("listener")!.get("l") === good));
  for (const proxy of proxies) proxy.lenient = true;
  world.pass(rejectedRetryMs);
  world.settle();
  assert.ok(proxies.every(({ held }) => held.get("listener")!.get("l") !== good));
  world.pass(1);
  assert.deepEqual(world.mesh.rejections(), []);
});

test("rejected endpoints are withdrawn from those that follow", () => {
  const world = new World();
  world.put(row("cluster", "c", "1"), row("endpoint", "c", "1"));
  const proxies = Array.from({ length: 3 }, (_, at) => world.connect(`p${at}`, "v"));
  world.settle();
  const good = proxies[0]!.held.get("endpoint")!.get("c");
  world.put(row("endpoint", "c", "bad"));
  proxies[0]!.answerAll();
  const newcomer = world.connect("newcomer", "v");
  world.settle();
  assert.equal(newcomer.badSeen.size, 0);
  for (const proxy of [...proxies, newcomer]) assert.equal(proxy.held.get("endpoint")!.get("c"), good);
});

test("a silent canary is replaced, and its late verdict still counts", () => {
  const world = new World();
  world.put(row("listener", "l", "1"));
  const [first, ...rest] = Array.from({ length: 5 }, (_, at) => world.connect(`p${at}`, "v"));
  world.settle();
  world.put(row("listener", "l", "2"));
  assert.equal(rest.filter(({ inbox }) => inbox.length > 0).length, 0);
  world.pass(canaryWaitMs);
  assert.equal(rest.filter(({ inbox }) => inbox.length > 0).length, 1, "another one is asked");
  for (const proxy of rest) proxy.answerAll();
  for (const proxy of rest) proxy.answerAll();
  const version = rest[0]!.held.get("listener")!.get("l");
  assert.ok(rest.every(({ held }) => held.get("listener")!.get("l") === version));
  world.settle();
  assert.equal(first!.held.get("listener")!.get("l"), version);
});

test("clusters come before the routes that need them and go after them", () => {
  const world = new World();
  world.put(row("listener", "l", "1"), row("route", "l", "to old"), row("cluster", "old", "1"));
  const proxies = [world.connect("p", "v"), world.connect("q", "v")];
  world.settle();
  for (const proxy of proxies) proxy.received.length = 0;
  // All in one batch, as when changes come fast.
  world.mesh.publish([
    rowRemoval(row("cluster", "old", "")),
    rowChange(row("cluster", "new", "1")),
    rowChange(row("route", "l", "to new")),
  ]);
  world.settle();
  world.pass(10);
  world.settle();
  for (const proxy of proxies) {
    const order = proxy.received.flatMap(({ type, resources, removed }) => [
      ...resources.map(({ name }) => `${type} ${name}`),
      ...removed.map((name) => `no ${type} ${name}`),
    ]);
    const at = (what: string) => order.indexOf(what);
    assert.ok(at("cluster new") >= 0 && at("cluster new") < at("route l"), order.join());
    assert.ok(at("route l") < at("no cluster old"), order.join());
  }
});

test("while a rejected route stands in for a new one, the cluster that it names stays", () => {
  const world = new World();
  world.put(row("listener", "l", "1"), row("route", "l", "to old"), row("cluster", "old", "1"));
  const proxy = world.connect("p", "v");
  world.settle();
  world.put(row("route", "l", "bad"));
  world.drop(row("cluster", "old", ""));
  world.settle();
  assert.deepEqual(names(proxy, "cluster"), ["old"]);
  world.put(row("route", "l", "to nothing"));
  world.settle();
  world.pass(10);
  world.settle();
  assert.deepEqual(names(proxy, "cluster"), []);
});

test("a changed cluster is followed by its endpoints, unasked", () => {
  const world = new World();
  world.put(row("cluster", "c", "1"), row("endpoint", "c", "1"));
  const proxy = world.connect("p", "v");
  world.settle();
  proxy.received.length = 0;
  world.put(row("cluster", "c", "2"));
  assert.deepEqual(
    proxy.received.map(({ type }) => type),
    ["cluster", "endpoint"],
  );
});

test("one response of a type is in flight, and what changes meanwhile comes as one", () => {
  const world = new World();
  world.put(row("cluster", "c", "0"));
  const proxy = world.connect("p", "v");
  world.settle();
  proxy.received.length = 0;
  for (let text = 1; text <= 50; text++)
    world.put(row("cluster", "c", String(text)), row("cluster", `n${text}`, "1"));
  const responses = () => proxy.received.filter(({ type }) => type === "cluster").length;
  assert.equal(responses(), 1);
  world.settle();
  assert.equal(responses(), 2);
  assert.equal(names(proxy, "cluster").length, 51);
});

test("a name outside of the proxy's plan does not exist for it, until it does", () => {
  const world = new World();
  world.put(row("endpoint", "c", "1", "foreign"), row("cluster", "c", "1"));
  const proxy = world.connect("p", "v");
  world.settle();
  assert.deepEqual(proxy.received.at(-1)?.removed, ["c"]);
  world.put(row("endpoint", "c", "2"));
  world.settle();
  assert.equal(names(proxy, "endpoint").length, 1);
});
