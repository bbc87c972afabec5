import assert from "node:assert/strict";
import { test } from "node:test";
import type { Clock } from "#base";
import { defineTable, type Change } from "#engine";
import { Batcher } from "./batcher.ts";
import { batchPauseMinMs, pendingChangesMax } from "./limits.ts";

const table = defineTable<number>("Number");
const change = (key: string, value: number): Change => ({ table: table as never, key, value });

/** A clock that only moves when it is told to. */
function manualClock() {
  let nowMs = 0;
  let timers: { atMs: number; callback: () => void }[] = [];
  const clock: Clock = {
    nowMs: () => nowMs,
    monotonicMs: () => nowMs,
    after(delayMs, callback) {
      const timer = { atMs: nowMs + delayMs, callback };
      timers.push(timer);
      return () => {
        timers = timers.filter((one) => one !== timer);
      };
    },
  };
  const pass = (ms: number): void => {
    nowMs += ms;
    const due = timers.filter(({ atMs }) => atMs <= nowMs);
    timers = timers.filter(({ atMs }) => atMs > nowMs);
    for (const { callback } of due) callback();
  };
  return { clock, pass };
}

test("the first change after quiet goes out at once; under a storm batches wait as long as they take", () => {
  const { clock, pass } = manualClock();
  const batches: number[] = [];
  const batcher = new Batcher({
    clock,
    publish: (changes) => {
      batches.push(changes.length);
      pass(100);
    },
  });
  batcher.add([change("a", 1)]);
  pass(0);
  assert.deepEqual(batches, [1]);
  for (let at = 0; at < 50; at++) batcher.add([change("a", at), change(`b${at % 5}`, at)]);
  pass(99);
  assert.deepEqual(batches, [1], "100 ms of work are followed by 100 ms of pause");
  pass(1);
  assert.deepEqual(batches, [1, 6], "of several changes to an object the last one goes");
  pass(1_000);
  batcher.add([change("a", 1)]);
  pass(0);
  assert.deepEqual(batches, [1, 6, 1]);
});

test("changes that keep coming share batches, and after quiet one goes out at once again", () => {
  const { clock, pass } = manualClock();
  const batches: number[] = [];
  const batcher = new Batcher({ clock, publish: (changes) => batches.push(changes.length) });
  for (let at = 0; at < 50; at++) {
    batcher.add([change(`k${at}`, at)]);
    for (let ms = 0; ms < 20; ms++) pass(1);
  }
  assert.ok(batches.length < 25, `${batches.length} batches of 50 changes in a second`);
  assert.deepEqual(batches.slice(0, 3), [1, 1, 1], "the first ones do not wait");
  for (let ms = 0; ms < 500; ms++) pass(1);
  const before = batches.length;
  batcher.add([change("late", 1)]);
  pass(0);
  assert.equal(batches.length, before + 1);
});

test("nothing goes out while held back, and a full queue does not wait", () => {
  const { clock, pass } = manualClock();
  const batches: number[] = [];
  const batcher = new Batcher({ clock, publish: (changes) => batches.push(changes.length) });
  batcher.hold();
  batcher.add([change("a", 1), change("b", 1)]);
  pass(batchPauseMinMs);
  assert.deepEqual(batches, []);
  batcher.release();
  assert.deepEqual(batches, [2]);
  batcher.add(Array.from({ length: pendingChangesMax }, (_, at) => change(`k${at}`, at)));
  assert.deepEqual(batches, [2, pendingChangesMax]);
});
