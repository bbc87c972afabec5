import assert from "node:assert/strict";
import { test } from "node:test";
import type { Clock } from "#base";
import { RateLimitedWriter } from "./writer.ts";

/** A clock whose timers are run by hand, in order. */
function handClock() {
  const timers: (() => void)[] = [];
  const clock = {
    monotonicMs: () => 0,
    nowMs: () => 0,
    after: (_delayMs: number, callback: () => void) => {
      timers.push(callback);
      return () => {};
    },
  } as unknown as Clock;
  const run = async (): Promise<void> => {
    for (let turn = 0; turn < 20; turn++) {
      timers.shift()?.();
      await Promise.resolve();
    }
  };
  return { clock, run };
}

test("a write waits for the one to the same target that is under way, and others do not", async () => {
  const { clock, run } = handClock();
  const writer = new RateLimitedWriter({ clock, log: { warn: () => {} } as never });
  const seen: string[] = [];
  const first = Promise.withResolvers<void>();
  writer.submit("a", async () => {
    seen.push("first begins");
    await first.promise;
    seen.push("first ends");
  });
  await run();
  writer.submit("a", () => Promise.resolve(seen.push("replaced")));
  writer.submit("a", () => Promise.resolve(seen.push("second")));
  writer.submit("b", () => Promise.resolve(seen.push("other")));
  await run();
  assert.deepEqual(seen, ["first begins", "other"]);
  first.resolve();
  await run();
  assert.deepEqual(seen, ["first begins", "other", "first ends", "second"]);
  assert.equal(writer.waiting, 0);
});
