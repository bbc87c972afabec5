import assert from "node:assert/strict";
import { test } from "node:test";
import { RE2JS } from "re2js";
import { anyNameBut } from "./external-auth.ts";

test("every name matches but those that are left out and pseudo headers", () => {
  const words = ["host", "te", "content-type", "content-length", "connection"];
  const pattern = RE2JS.compile(anyNameBut(words));
  const matches = (name: string): boolean => pattern.matcher(name).matches();
  for (const word of [...words, ":status", ":path", ""]) assert.equal(matches(word), false, word);
  const others = words.flatMap((word) => [
    `${word}x`,
    `x${word}`,
    ...[...word]
      .keys()
      .map((length) => word.slice(0, length))
      .filter((part) => part !== ""),
  ]);
  for (const other of [...others, "x-user", "-", "hostess", "content", "content-type-options"])
    assert.equal(matches(other), true, other);
});
