import assert from "node:assert/strict";
import { test } from "node:test";
import { planRollout, resolveLimits, type SetSize } from "./rollout.ts";

const size = (name: string, replicas: number, available = replicas): SetSize => ({
  name,
  replicas,
  current: replicas,
  available,
});

test("a quarter of one Pod: one more may exist, none may be missing", () => {
  assert.deepEqual(resolveLimits(1, undefined), { maxSurge: 1, maxUnavailable: 0 });
});

test("two zeros would never move, so one may be missing", () => {
  assert.deepEqual(resolveLimits(4, { maxSurge: 0, maxUnavailable: "10%" }), {
    maxSurge: 0,
    maxUnavailable: 1,
  });
});

test("a rollout never has fewer available than allowed nor more Pods than allowed, and it ends", () => {
  for (const [maxSurge, maxUnavailable] of [
    [1, 0],
    [0, 1],
    [2, 1],
    [3, 3],
  ] as const) {
    let old = size("old", 5);
    let next = size("new", 0);
    for (let turn = 0; turn < 40 && next.available < 5; turn++) {
      const plan = planRollout({
        replicas: 5,
        strategy: "RollingUpdate",
        maxSurge,
        maxUnavailable,
        next,
        old: [old],
      });
      old = size("old", plan.get("old") ?? 0);
      next = { ...size("new", plan.get("new") ?? 0), available: next.available };
      assert.ok(old.replicas + next.replicas <= 5 + maxSurge, "too many");
      assert.ok(old.available + next.available >= 5 - maxUnavailable, "too few");
      if (next.available < next.replicas) next = { ...next, available: next.available + 1 };
    }
    const last = planRollout({
      replicas: 5,
      strategy: "RollingUpdate",
      maxSurge,
      maxUnavailable,
      next,
      old: [old],
    });
    assert.deepEqual(
      [...last],
      [
        ["old", 0],
        ["new", 5],
      ],
    );
  }
});

test("old Pods that never became available are replaced although nothing may be missing", () => {
  const plan = planRollout({
    replicas: 1,
    strategy: "RollingUpdate",
    maxSurge: 1,
    maxUnavailable: 0,
    next: size("new", 1),
    old: [size("broken", 1, 0)],
  });
  assert.equal(plan.get("broken"), 0);
});

test("recreate waits until the last old Pod is gone", () => {
  const input = {
    replicas: 2,
    strategy: "Recreate",
    maxSurge: 0,
    maxUnavailable: 0,
    next: size("new", 0),
  } as const;
  assert.equal(planRollout({ ...input, old: [{ ...size("old", 0), current: 1 }] }).get("new"), 0);
  assert.equal(planRollout({ ...input, old: [size("old", 0)] }).get("new"), 2);
});

test("scaling down a finished rollout shrinks the new set alone", () => {
  const plan = planRollout({
    replicas: 1,
    strategy: "RollingUpdate",
    maxSurge: 1,
    maxUnavailable: 0,
    next: size("new", 3),
    old: [],
  });
  assert.equal(plan.get("new"), 1);
});
