import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { connectionAgeMs, heldMinMs, letGoPauseMs, replicasSettleMs } from "./limits.ts";
import { leavesAtMs, Spreading, type Held } from "./spreading.ts";

const tickMs = 500;

interface Replica {
  readonly spreading: Spreading;
  held: Held[];
}

/** A small generator (mulberry32), so that a failing seed fails again. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** Replicas behind one address: who is let go connects anew to any of them. */
class Replicas {
  readonly all: Replica[];
  nowMs = 0;
  letGo = 0;
  readonly #random: () => number;

  constructor(counts: readonly number[], seed: number) {
    this.#random = seeded(seed);
    this.all = counts.map((count) => ({
      spreading: new Spreading(),
      held: Array.from({ length: count }, () => this.#connection()),
    }));
  }

  #connection(): Held {
    return { connectedAtMs: this.nowMs, leavesAtMs: leavesAtMs(this.nowMs, this.#random()) };
  }

  pass(ms: number): void {
    const proxies = this.all.reduce((sum, { held }) => sum + held.length, 0);
    for (const untilMs = this.nowMs + ms; this.nowMs < untilMs; this.nowMs += tickMs) {
      for (const replica of this.all) {
        const gone = replica.spreading.choose(
          replica.held,
          { replicas: this.all.length, proxies },
          this.nowMs,
        );
        if (gone === undefined) continue;
        this.letGo++;
        replica.held = replica.held.filter((one) => one !== gone);
        this.all[Math.floor(this.#random() * this.all.length)]?.held.push(this.#connection());
      }
    }
  }

  get counts(): number[] {
    return this.all.map(({ held }) => held.length);
  }
}

describe("spreading", () => {
  test("replicas that came back get their share within minutes, whatever the dice", () => {
    for (let seed = 1; seed <= 50; seed++) {
      const replicas = new Replicas([300, 0, 0], seed);
      replicas.pass(5 * 60_000);
      for (const count of replicas.counts) assert.ok(count <= 127, `seed ${seed}: ${replicas.counts.join()}`);
    }
  });

  test("few proxies are spread as well", () => {
    const replicas = new Replicas([9, 0, 0], 1);
    replicas.pass(60_000);
    assert.ok(Math.max(...replicas.counts) <= 5, replicas.counts.join());
  });

  test("at most two go a second, and none while replicas come and go", () => {
    const replicas = new Replicas([300, 0], 1);
    replicas.pass(replicasSettleMs);
    assert.equal(replicas.letGo, 0);
    replicas.pass(10_000);
    assert.ok(replicas.letGo > 10 && replicas.letGo <= 10_000 / letGoPauseMs + 1, String(replicas.letGo));
  });

  test("who has just come is not sent on", () => {
    const spreading = new Spreading();
    const fleet = { replicas: 2, proxies: 20 };
    spreading.choose([], fleet, 0);
    const held = Array.from({ length: 20 }, () => ({
      connectedAtMs: replicasSettleMs,
      leavesAtMs: Infinity,
    }));
    assert.equal(spreading.choose(held, fleet, replicasSettleMs + heldMinMs - 1), undefined);
    assert.notEqual(spreading.choose(held, fleet, replicasSettleMs + heldMinMs), undefined);
  });

  test("replicas with about their share leave everyone alone until connections are old", () => {
    const replicas = new Replicas([110, 95, 95], 1);
    replicas.pass(connectionAgeMs * 0.85);
    assert.equal(replicas.letGo, 0);
    replicas.pass(connectionAgeMs * 0.3);
    assert.ok(replicas.letGo >= 300, String(replicas.letGo));
  });

  test("a single replica keeps all, however old", () => {
    const replicas = new Replicas([50], 1);
    replicas.pass(connectionAgeMs * 2);
    assert.equal(replicas.letGo, 0);
  });
});
