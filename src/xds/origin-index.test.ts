import assert from "node:assert/strict";
import { test } from "node:test";
import type { ObjectRef } from "#base";
import type { EnvoyResource } from "#envoy";
import { OriginIndex } from "./origin-index.ts";

const ref = (name: string): ObjectRef => ({ kind: "VirtualService", namespace: "default", name });

function madeFrom(...names: readonly string[]): EnvoyResource {
  return { origins: names.map((name) => ({ at: "", object: ref(name) })) } as unknown as EnvoyResource;
}

test("an object has the resources that are made from it now, and none when they are gone", () => {
  const index = new OriginIndex<string>();
  const of = (name: string): readonly string[] => [...index.of(ref(name))];
  index.changed("one", undefined, madeFrom("a", "b", "a"));
  index.changed("two", undefined, madeFrom("b"));
  assert.deepEqual([of("a"), of("b"), of("c")], [["one"], ["one", "two"], []]);
  index.changed("one", madeFrom("a", "b", "a"), madeFrom("b", "c"));
  assert.deepEqual([of("a"), of("b"), of("c")], [[], ["one", "two"], ["one"]]);
  index.changed("one", madeFrom("b", "c"), undefined);
  index.changed("two", madeFrom("b"), madeFrom("b"));
  assert.deepEqual([of("a"), of("b"), of("c")], [[], ["two"], []]);
});
