import assert from "node:assert/strict";
import { test } from "node:test";
import { defineKeyedQuery, defineQuery, defineTable, Engine, sameData, type Read } from "./index.ts";

interface Row {
  readonly owner: string;
  readonly size: number;
}

function world() {
  const rows = defineTable<Row, "owner">("rows", { owner: (row: Row) => [row.owner] });
  const total = defineQuery<number>("total", (read, owner) =>
    read(rows.by.owner, owner).reduce((sum, row) => sum + row.size, 0),
  );
  const isLarge = defineQuery<boolean>("isLarge", (read, owner) => read(total, owner) > 10);
  const label = defineKeyedQuery<{ owner: string; prefix: string }, string>(
    "label",
    (key) => `${key.prefix}/${key.owner}`,
    (read, key) => `${key.prefix}:${read(isLarge, key.owner) ? "large" : "small"}`,
  );
  return { rows, total, isLarge, label, engine: new Engine() };
}

test("a change reaches every query behind it and nothing else", () => {
  const { rows, label, engine } = world();
  for (let i = 0; i < 100; i++) engine.set(rows, `r${i}`, { owner: `o${i}`, size: 1 });
  for (let i = 0; i < 100; i++) engine.watch(label, { owner: `o${i}`, prefix: "p" });
  engine.settle();
  const before = engine.computedTotal;
  engine.set(rows, "r7", { owner: "o7", size: 50 });
  const settled = engine.settle();
  assert.deepEqual(
    settled.changed.map((changed) => [changed.keyText, changed.value]),
    [["p/o7", "p:large"]],
  );
  assert.equal(engine.computedTotal - before, 3);
});

test("where a value comes out the same, nothing behind it runs", () => {
  const { rows, label, engine } = world();
  engine.set(rows, "r", { owner: "o", size: 1 });
  engine.watch(label, { owner: "o", prefix: "p" });
  const before = engine.computedTotal;
  engine.set(rows, "r", { owner: "o", size: 2 });
  assert.deepEqual(engine.settle().changed, []);
  assert.equal(engine.computedTotal - before, 2, "total and isLarge run, label does not");
});

test("a row that moves between groups changes both, and the members of both", () => {
  const { rows, total, engine } = world();
  engine.set(rows, "r", { owner: "a", size: 3 });
  engine.watch(total, "a");
  engine.watch(total, "b");
  assert.deepEqual(engine.get(rows.by.owner.members, "a"), ["r"]);
  engine.set(rows, "r", { owner: "b", size: 3 });
  engine.settle();
  assert.equal(engine.get(total, "a"), 0);
  assert.equal(engine.get(total, "b"), 3);
  assert.deepEqual(engine.get(rows.by.owner.members, "a"), []);
});

test("a query that throws keeps its last good value and is reported", () => {
  const rows = defineTable<number>("numbers");
  const half = defineQuery<number>("half", (read, key) => {
    const value = read(rows, key) ?? 0;
    if (value % 2 === 1) throw new Error("odd");
    return value / 2;
  });
  const engine = new Engine();
  engine.set(rows, "n", 4);
  assert.equal(engine.watch(half, "n"), 2);
  engine.set(rows, "n", 5);
  const settled = engine.settle();
  assert.deepEqual(settled.changed, []);
  assert.equal(settled.failures[0]?.query, "half");
  assert.equal(engine.get(half, "n"), 2);
  engine.set(rows, "n", 6);
  assert.equal(engine.settle().changed[0]?.value, 3);
});

test("what nobody watches or reads any longer is dropped", () => {
  const { rows, label, engine } = world();
  engine.set(rows, "r", { owner: "o", size: 1 });
  const key = { owner: "o", prefix: "p" };
  engine.watch(label, key);
  engine.settle();
  assert.ok(engine.nodesHeld >= 4);
  engine.unwatch(label, key);
  engine.settle();
  assert.equal(engine.nodesHeld, 0);
});

test("a query that reads itself is an error, not a hang", () => {
  const loop = defineQuery<number>("loop", (read: Read, key): number => read(loop, key) + 1);
  const engine = new Engine();
  assert.throws(
    () => engine.get(loop, "x"),
    (error: Error) => /has no value/.test(error.message),
  );
});

test("equality by content tells plain data apart", () => {
  assert.ok(sameData({ a: [1, { b: "c" }] }, { a: [1, { b: "c" }] }));
  assert.ok(!sameData({ a: [1] }, { a: { 0: 1 } }));
  assert.ok(!sameData({ a: undefined }, { b: undefined }));
});

test("20,000 random changes: incremental values equal those of a new engine", () => {
  const { rows, total, isLarge, label, engine } = world();
  const random = seeded(42);
  const owners = Array.from({ length: 12 }, (_, i) => `o${i}`);
  const state = new Map<string, Row>();
  for (const owner of owners) engine.watch(label, { owner, prefix: "p" });
  for (let step = 0; step < 20_000; step++) {
    const key = `r${Math.floor(random() * 40)}`;
    const row =
      random() < 0.3
        ? undefined
        : { owner: owners[Math.floor(random() * 12)] as string, size: Math.floor(random() * 8) };
    if (row === undefined) state.delete(key);
    else state.set(key, row);
    engine.set(rows, key, row);
    if (random() < 0.5) engine.settle();
    if (step % 500 !== 0) continue;
    engine.settle();
    const fresh = new Engine();
    fresh.apply([...state].map(([rowKey, value]) => ({ table: rows, key: rowKey, value }) as never));
    for (const owner of owners) {
      assert.equal(engine.get(total, owner), fresh.get(total, owner));
      assert.equal(engine.get(isLarge, owner), fresh.get(isLarge, owner));
      assert.equal(engine.get(label, { owner, prefix: "p" }), fresh.get(label, { owner, prefix: "p" }));
    }
  }
});

test("keys of equal answer share a run, and part when what made them equal changes", () => {
  const { rows, total, engine } = world();
  const sizeFor = defineKeyedQuery<{ owner: string; asker: string }, string>(
    "sizeFor",
    (key) => `${key.owner} ${key.asker}`,
    (read, key) => `${key.asker === key.owner ? "own " : ""}${read(total, key.owner)}`,
    Object.is,
    (read, key) => (read(total, key.owner) > 10 ? key : { ...key, asker: "" }),
  );
  const asked = defineQuery<string>("asked", (read, asker) => read(sizeFor, { owner: "o", asker }));
  engine.set(rows, "a", { owner: "o", size: 1 });
  const askers = ["o", "p", "q"];
  for (const asker of askers) engine.watch(asked, asker);
  engine.settle();
  // Three that ask, the total, and one answer for all.
  assert.equal(engine.computedTotal, 5);
  engine.set(rows, "a", { owner: "o", size: 20 });
  assert.deepEqual(
    engine.settle().changed.map(({ keyText, value }) => [keyText, value]),
    [
      ["o", "own 20"],
      ["p", "20"],
      ["q", "20"],
    ],
  );
  engine.set(rows, "a", { owner: "o", size: 2 });
  engine.settle();
  assert.deepEqual(
    askers.map((asker) => engine.get(asked, asker)),
    ["2", "2", "2"],
  );
});

/** mulberry32: a small seeded generator, so that a failure can be run again. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
