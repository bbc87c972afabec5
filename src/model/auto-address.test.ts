import assert from "node:assert/strict";
import { test } from "node:test";
import { autoAddressesMax, chooseAddress, pairOf } from "./auto-address.ts";

test("a host gets the same address whenever it is free, and the next free one otherwise", () => {
  const first = chooseAddress("default/entry/one.example.com", () => true);
  assert.deepEqual(
    chooseAddress("default/entry/one.example.com", () => true),
    first,
  );
  const second = chooseAddress("default/entry/one.example.com", (address) => address !== first?.ipv4);
  assert.notEqual(second?.ipv4, first?.ipv4);
  assert.deepEqual(pairOf(second?.ipv4 ?? ""), second);
});

test("every address of the range is used before there are none left", () => {
  const taken = new Set<string>();
  for (let at = 0; at < 300; at++) {
    const pair = chooseAddress("same", (address) => !taken.has(address));
    assert.ok(pair !== undefined && !taken.has(pair.ipv4));
    assert.match(pair.ipv4, /^240\.240\.(\d+)\.(\d+)$/);
    taken.add(pair.ipv4);
  }
  let asked = 0;
  assert.equal(
    chooseAddress("same", () => (asked++, false)),
    undefined,
  );
  assert.equal(asked, autoAddressesMax);
});

test("an address outside of the range belongs to no pair", () => {
  for (const address of ["10.0.0.1", "240.240.256.1", "240.240.01.1", "240.241.0.1", ""])
    assert.equal(pairOf(address), undefined);
});
