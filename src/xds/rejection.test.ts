import assert from "node:assert/strict";
import { test } from "node:test";
import { resource } from "#envoy";
import { culpritsOf, halves, reasonFor } from "./rejection.ts";
import type { SentResource } from "./subscription.ts";

function sent(...entries: readonly (readonly [string, boolean])[]): Map<string, SentResource> {
  return new Map(
    entries.map(([name, onTrial]) => [
      name,
      {
        resource: resource("cluster", name, { name }),
        trial: onTrial ? 1 : undefined,
        versionBefore: undefined,
      },
    ]),
  );
}

test("the message's words name the culprit, and no name that is a part of another", () => {
  const names = sent(["outbound|80||a.b", true], ["outbound|80||x.a.b", true], ["a.b", true]);
  const reason = "Error adding/updating cluster(s) outbound|80||x.a.b: no such thing";
  assert.deepEqual(culpritsOf(names, reason), ["outbound|80||x.a.b"]);
  assert.deepEqual(culpritsOf(names, "something is wrong"), []);
  assert.deepEqual(culpritsOf(sent(["a", false]), "something is wrong"), ["a"]);
});

test("of a message about several resources each gets its own line", () => {
  const reason = "Error adding/updating listener(s) a: no Lua\nb: no regex\n";
  assert.equal(reasonFor("a", reason), "no Lua");
  assert.equal(reasonFor("b", reason), "no regex");
  assert.equal(reasonFor("c", "all is wrong"), "all is wrong");
});

test("what others have taken is innocent as long as something else can be at fault", () => {
  assert.deepEqual(culpritsOf(sent(["a", true], ["b", false]), "a and b"), ["a"]);
  assert.deepEqual(halves(sent(["a", true], ["b", false], ["c", true], ["d", true])), [
    ["b"],
    ["a", "c"],
    ["d"],
  ]);
  assert.deepEqual(halves(sent(["a", false], ["b", false])), [["a"], ["b"]]);
});
