import assert from "node:assert/strict";
import { test } from "node:test";
import { Batcher } from "./batcher.ts";
import { batchPauseMaxMs } from "./limits.ts";
import { rowChange, World } from "./testing.ts";

const changesTotal = 10_000;
const objectsTotal = 500;
const proxiesTotal = 20;

test(`${changesTotal} changes in a second go out in few batches, one waits for each object at most, and the last of each arrives`, () => {
  const world = new World();
  const proxies = Array.from({ length: proxiesTotal }, (_, at) => world.connect(`p${at}`, "v"));
  world.settle();
  // Time stands still but for what the test lets pass; each batch is said to take a tenth of a second.
  const batchMs = 100;
  let nowMs = 0;
  let timer: { atMs: number; callback: () => void } | undefined;
  let batches = 0;
  const batcher = new Batcher({
    clock: {
      nowMs: () => nowMs,
      monotonicMs: () => nowMs,
      after: (delayMs, callback) => {
        timer = { atMs: nowMs + delayMs, callback };
        return () => (timer = undefined);
      },
    },
    publish: (changes) => {
      batches++;
      world.mesh.publish(changes);
      nowMs += batchMs;
    },
  });
  const fire = (): void => {
    const due = timer;
    if (due === undefined || due.atMs > nowMs) return;
    timer = undefined;
    due.callback();
  };
  let pendingMost = 0;
  for (let at = 0; at < changesTotal; at++) {
    const name = `n${at % objectsTotal}`;
    batcher.add([rowChange({ view: "v", type: "cluster", name, text: String(at) })]);
    pendingMost = Math.max(pendingMost, batcher.pendingCount);
    if (at % 10 === 9) nowMs += 1;
    fire();
  }
  nowMs += batchPauseMaxMs;
  fire();
  world.settle();
  assert.ok(pendingMost <= objectsTotal, `${pendingMost} wait`);
  assert.ok(batches <= 20, `${batches} batches`);
  for (const { held, received } of proxies) {
    assert.equal(held.get("cluster")?.size, objectsTotal);
    assert.ok(received.length <= batches + 2, `${received.length} responses`);
  }
  const versions = new Set(proxies.map(({ held }) => JSON.stringify([...held.get("cluster")!].toSorted())));
  assert.equal(versions.size, 1);
});
