import assert from "node:assert/strict";
import { test } from "node:test";
import { regexFault } from "./regex.ts";

test("a regex that Envoy takes has no fault", () => {
  for (const text of [
    "/api/v[0-9]+/.*",
    "(a+)+$",
    "(?i)bearer .+",
    "[^/]{1000}",
    "(?:\\w+\\.){1,60}\\w+",
    "[a-zA-Z0-9._~!$&'()*+,;=:@%-]{1,255}",
    "\\p{Greek}+",
    "\\Q[\\E",
    "\\\\x{1F600}",
    "\\x{E9}",
    "é|😀",
  ])
    assert.equal(regexFault(text), undefined, text);
});

test("a regex that Envoy refuses has a fault that says why", () => {
  const manyRanges = "[!#%'()+/13579;=?ACEGIKMOQSUWY_acegikmoqsuwy{}|bdf]";
  for (const [text, why] of [
    ["(a)\\1", /no look-around and no back-references/],
    ["^(?!internal)", /no look-around and no back-references/],
    ["(?<=a)b", /no look-around and no back-references/],
    ["a{1001}", /invalid repeat count/],
    ["(a{1000}){1000}", /invalid repeat count/],
    ["[z-a]", /invalid character class range/],
    ["\\x{1F600}", /Envoy matches bytes, and \\x\{1F600\} is none/],
    [`${manyRanges}{1000}`, /may come to \d+ instructions, and Envoy takes 32768/],
    ["a".repeat(1025), /1025 characters: at most 1024/],
  ] as const)
    assert.match(regexFault(text) ?? "no fault", why, text.slice(0, 40));
});
