import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Clock, ObjectRef } from "#base";
import { DistributionCounter } from "./distribution-counter.ts";

const object: ObjectRef = { kind: "VirtualService", namespace: "default", name: "a" };

function setUp(replicas = 1) {
  let nowMs = 0;
  const told: string[] = [];
  const state = { proxies: 3, holding: 1, looks: 0 };
  const counter = new DistributionCounter({
    clock: { monotonicMs: () => nowMs } as Clock,
    distributionOf: () => {
      state.looks++;
      return { ...state, waiting: [] };
    },
    replicas: () => replicas,
    counted: () => told.push(counter.textOf("a", 1) ?? counter.textOf("a", 2) ?? ""),
  });
  const pass = (seconds: number): void => {
    for (let at = 0; at < seconds * 2; at++) {
      nowMs += 500;
      counter.tick();
    }
  };
  return { counter, state, told, pass };
}

describe("the count of proxies that hold an object", () => {
  test("is told once all have it, and is not looked at again", () => {
    const { counter, state, told, pass } = setUp();
    counter.changed("a", object, 1);
    pass(1);
    assert.deepEqual(told, [], "they are on their way");
    state.holding = 3;
    pass(600);
    assert.deepEqual(told, ["3 of 3 proxies hold it"]);
    const { looks } = state;
    assert.ok(looks <= 3, `${looks} looks`);
    counter.changed("a", object, 1);
    pass(600);
    assert.equal(state.looks, looks, "a write of its status is no change of the object");
  });

  test("tells who is behind, and is asked ever more seldom until nobody is", () => {
    const { counter, state, told, pass } = setUp();
    counter.changed("a", object, 1);
    pass(120);
    assert.deepEqual(told, ["1 of 3 proxies hold it"]);
    assert.ok(state.looks < 12, `${state.looks} looks`);
    state.holding = 3;
    pass(60);
    assert.deepEqual(told, ["1 of 3 proxies hold it", "3 of 3 proxies hold it"]);
  });

  test("of a newer generation is counted anew, and of a known one not at all", () => {
    const { counter, state, told, pass } = setUp();
    counter.known("a", 1, "5 of 5 proxies hold it");
    counter.changed("a", object, 1);
    pass(60);
    assert.equal(state.looks, 0);
    assert.equal(counter.textOf("a", 1), "5 of 5 proxies hold it");
    state.holding = 3;
    counter.changed("a", object, 2);
    pass(60);
    assert.deepEqual(told, ["3 of 3 proxies hold it"]);
    assert.equal(counter.textOf("a", 1), undefined);
  });

  test("waits for proxies that are not there yet, and says whose proxies they are", () => {
    const { counter, state, told, pass } = setUp(2);
    Object.assign(state, { proxies: 0, holding: 0 });
    counter.changed("a", object, 1);
    pass(3_600);
    Object.assign(state, { proxies: 2, holding: 2 });
    pass(60);
    assert.deepEqual(told, [
      "no connected proxy is concerned",
      "2 of 2 proxies of the leading control plane (of 2) hold it",
    ]);
    counter.forget("a");
    assert.equal(counter.textOf("a", 1), undefined);
  });
});
