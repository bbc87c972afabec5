import assert from "node:assert/strict";
import { test } from "node:test";
import type { Clock } from "#base";
import { ModuleStore } from "./module-store.ts";

/** What is due later happens when the test says so. */
function slowClock(): { clock: Clock; pass: () => void } {
  let due: (() => void)[] = [];
  const after = (_delayMs: number, callback: () => void): (() => void) => {
    due.push(callback);
    return () => {};
  };
  const pass = (): void => {
    const now = due;
    due = [];
    for (const callback of now) callback();
  };
  return { clock: { nowMs: () => 0, monotonicMs: () => 0, after }, pass };
}

test("a module that its object no longer has stays for those who are about to fetch it, and then goes", () => {
  const { clock, pass } = slowClock();
  const store = new ModuleStore(clock);
  const [first, second] = [Buffer.from("first"), Buffer.from("second")];
  const sum = store.keep(first, ["WasmPlugin/a/p"]);
  const isOwn = (holder: string): boolean => holder === "WasmPlugin/a/p";
  store.keep(second, ["WasmPlugin/a/p"]);
  assert.equal(store.find(sum, isOwn), first);
  assert.equal(
    store.find(sum, () => false),
    undefined,
  );
  pass();
  assert.equal(store.find(sum, isOwn), undefined);
});

test("a module stays as long as one object has it, and as one comes back to it", () => {
  const { clock, pass } = slowClock();
  const store = new ModuleStore(clock);
  const bytes = Buffer.from("module");
  const sum = store.keep(bytes, ["p", "q"]);
  const found = (): Buffer | undefined => store.find(sum, () => true);
  store.release("p");
  pass();
  assert.equal(found(), bytes);
  store.release("q");
  store.share(sum, "q");
  pass();
  assert.equal(found(), bytes);
  store.release("q");
  pass();
  assert.equal(found(), undefined);
});
