import assert from "node:assert/strict";
import { test } from "node:test";
import { LayeredMap, LayeredNames } from "./layered-map.ts";

test("layered maps and names behave as plain ones, on whatever base they stand", () => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = seeded(seed);
    const pick = (): string => `n${Math.floor(random() * 12)}`;
    const map = new LayeredMap<string>();
    const names = new LayeredNames();
    const plainMap = new Map<string, string>();
    const plainNames = new Set<string>();
    for (let step = 0; step < 1_000; step++) {
      const name = pick();
      const version = `v${Math.floor(random() * 3)}`;
      const what = random();
      if (what < 0.4) {
        map.set(name, version);
        plainMap.set(name, version);
        names.add(name);
        plainNames.add(name);
      } else if (what < 0.7) {
        assert.equal(map.delete(name), plainMap.delete(name));
        names.delete(name);
        plainNames.delete(name);
      } else if (what < 0.8) {
        const base = new Map(Array.from({ length: 6 }, () => [pick(), version] as const));
        if (random() < 0.5) map.rebase(base);
        else {
          const differs = new Set(map.moveTo(base));
          for (const one of new Set([...base.keys(), ...plainMap.keys()]))
            assert.equal(differs.has(one), base.get(one) !== plainMap.get(one));
        }
        names.rebase(base);
      }
      assert.equal(map.get(name), plainMap.get(name));
      assert.equal(map.has(name), plainMap.has(name));
      assert.equal(names.has(name), plainNames.has(name));
      assert.equal(map.size, plainMap.size);
      assert.equal(names.size, plainNames.size);
    }
    assert.deepEqual([...map].toSorted(), [...plainMap].toSorted());
    assert.deepEqual([...names].toSorted(), [...plainNames].toSorted());
  }
});

test("what equals the base costs nothing", () => {
  const base = new Map([
    ["a", "1"],
    ["b", "2"],
  ]);
  const map = new LayeredMap<string>();
  map.set("a", "1").set("b", "3");
  map.rebase(base);
  assert.equal(map.ownSize, 1);
  map.set("b", "2");
  assert.equal(map.ownSize, 0);
});

function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_103_515_245 + 12_345) & 0x7fffffff;
    return state / 0x80000000;
  };
}
