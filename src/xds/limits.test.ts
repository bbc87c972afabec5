import assert from "node:assert/strict";
import { test } from "node:test";
import type { ResourceType } from "#plan";
import {
  canaryTriesMax,
  canaryWaitMs,
  logLengthMax,
  newcomerWaitMs,
  orderWaitMs,
  rejectionsKeptMax,
  responseBytesMax,
  stuckAfterMs,
  subscribedNamesMax,
} from "./limits.ts";
import { translation, World, type Row } from "./testing.ts";

const row = (type: ResourceType, name: string, text: string): Row => ({ view: "v", type, name, text });

test("a proxy that never answers is let go, and comes again", () => {
  const world = new World();
  world.put(row("cluster", "c", "1"));
  const proxy = world.connect("p", "v");
  world.pass(stuckAfterMs);
  assert.equal(proxy.session, undefined, "its stream has ended");
  assert.ok(world.reached.includes("stuck"));
  proxy.connect();
  world.settle();
  assert.ok(proxy.held.get("cluster")?.has("c"));
});

test("a proxy that asks for too many names is let go", () => {
  const world = new World();
  const proxy = world.connect("p", "v");
  for (let at = 0; at <= subscribedNamesMax && proxy.session !== undefined; at++) proxy.ask(`n${at}`);
  assert.equal(proxy.session, undefined);
  assert.deepEqual(world.reached, ["subscribedNames"]);
});

test("silence holds a change up for as long as it takes to ask a few, and each is counted", () => {
  const world = new World();
  world.put(row("cluster", "c", "1"));
  const proxies = [0, 1, 2, 3, 4].map((at) => world.connect(`p${at}`, "v"));
  world.settle();
  world.put(row("cluster", "c", "2"));
  for (let at = 0; at < canaryTriesMax; at++) world.pass(canaryWaitMs);
  assert.deepEqual(world.reached, ["canaryWait", "canaryWait", "canaryTries"]);
  for (const proxy of proxies) proxy.answerAll();
  assert.equal(new Set(proxies.map(({ held }) => held.get("cluster")?.get("c"))).size, 1);
});

test("a newcomer waits for what others try, but not for ever", () => {
  const world = new World();
  world.connect("silent", "v");
  world.put(row("cluster", "c", "1"));
  const newcomer = world.connect("newcomer", "v");
  assert.equal(newcomer.received.filter(({ type }) => type === "cluster").length, 0);
  // The mesh itself is not told: its patience with the canary would end as soon.
  world.nowMs += newcomerWaitMs;
  newcomer.session?.tick();
  assert.equal(newcomer.received.filter(({ type }) => type === "cluster").length, 1);
  assert.deepEqual([...new Set(world.reached)], ["newcomerWait"]);
});

test("routes wait for clusters to be taken, but not for ever", () => {
  const world = new World();
  world.put(row("cluster", "c", "1"), row("listener", "l", "1"));
  const proxy = world.connect("p", "v");
  world.settle();
  world.put(row("cluster", "c", "2"), row("listener", "l", "2"));
  assert.equal(proxy.inbox.filter(({ type }) => type === "listener").length, 0);
  world.nowMs += orderWaitMs;
  proxy.session?.tick();
  assert.equal(proxy.inbox.filter(({ type }) => type === "listener").length, 1);
  assert.deepEqual(world.reached, ["orderWait"]);
});

test("a proxy that fell behind by more than the log keeps gets the last of everything", () => {
  const world = new World();
  const names = Array.from({ length: 100 }, (_, at) => `n${at}`);
  const all = (type: ResourceType, text: string) => names.map((name) => row(type, name, text));
  world.put(...all("endpoint", "0"), ...all("cluster", "1"));
  const [slow, quick] = [world.connect("slow", "v"), world.connect("quick", "v")];
  world.settle();
  const rounds = Math.ceil((logLengthMax * 2) / names.length) + 1;
  for (let round = 1; round <= rounds; round++) {
    world.put(...all("endpoint", String(round)));
    quick.answerAll();
  }
  slow.answerAll();
  assert.deepEqual(world.reached, ["changeLog"]);
  assert.deepEqual(slow.held.get("endpoint"), quick.held.get("endpoint"));
});

test("what is more than a response holds follows in another", () => {
  const world = new World();
  const large = "x".repeat(responseBytesMax / 2 - 100);
  world.put(...["a", "b", "c"].map((name) => row("cluster", name, large)));
  const proxy = world.connect("p", "v");
  world.settle();
  assert.equal(proxy.held.get("cluster")?.size, 3);
  assert.equal(proxy.received.filter(({ type }) => type === "cluster").length, 2);
  assert.deepEqual(world.reached, ["responseBytes"]);
});

test("rejections are kept for people up to a number", () => {
  const world = new World();
  const total = rejectionsKeptMax + 10;
  world.connect("p", "v");
  world.settle();
  world.put(...Array.from({ length: total }, (_, at) => row("cluster", `n${at}.`, `bad${at}`)));
  world.settle();
  assert.equal(world.mesh.rejections().length, rejectionsKeptMax);
  assert.equal(world.reached.filter((limit) => limit === "rejections").length, 10);
});

test("a proxy that kept silent once is not asked first again: each holds up one change at most", () => {
  const world = new World();
  world.put(row("cluster", "c", "0"));
  const silent = [0, 1, 2, 3, 4].map((at) => world.connect(`silent${at}`, "v"));
  const good = world.connect("good", "v");
  world.settle();
  for (let change = 1; change <= 10; change++) {
    world.put(row("cluster", "c", String(change)));
    good.answerAll();
    const wanted = world.engine.get(translation.resourceOf.cluster, "v/cluster/c" as never)?.version;
    for (let waits = 0; good.held.get("cluster")?.get("c") !== wanted; waits++) {
      assert.ok(waits <= canaryTriesMax, "it arrives");
      world.pass(canaryWaitMs);
      good.answerAll();
    }
  }
  assert.ok(world.reached.length <= silent.length, world.reached.join(" "));
  assert.ok(world.reached.length > 0);
});
