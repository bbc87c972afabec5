// When changes are published. The first change after quiet goes out at once. Under a storm, changes gather while a
// batch is being worked off and for as long again, so that publishing takes at most its share of the time; what gathers
// is one value for each object, so the queue is bounded by the objects there are, and by a limit below that. What a batch
// costs does not end with publishing: every proxy gets a response and acknowledges it. So once changes keep coming,
// pauses are longer, and several changes share a response.

import type { Clock } from "#base";
import type { Change } from "#engine";
import {
  batchPauseFactor,
  batchPauseMaxMs,
  batchPauseMinMs,
  batchPauseStormMs,
  pendingChangesMax,
  stormBatches,
  stormGapMs,
  type ReachXdsLimit,
} from "./limits.ts";

export interface BatcherOptions {
  readonly clock: Clock;
  /** @param sinceMs when the oldest change of the batch came (monotonic) */
  readonly publish: (changes: readonly Change[], sinceMs: number) => void;
  readonly reached?: ReachXdsLimit;
}

export class Batcher {
  readonly #options: BatcherOptions;
  readonly #pending = new Map<string, Change>();
  #oldestMs: number | undefined;
  #quietUntilMs = 0;
  #lastBatchMs = -Infinity;
  /** How many batches in a row came soon after the one before. */
  #batchesInRow = 0;
  #cancel: (() => void) | undefined;
  #held = false;

  constructor(options: BatcherOptions) {
    this.#options = options;
  }

  get pendingCount(): number {
    return this.#pending.size;
  }

  /** Holds everything back, as while the watch caches fill: proxies get the whole picture or none. */
  hold(): void {
    this.#held = true;
  }

  release(): void {
    this.#held = false;
    this.flush();
  }

  add(changes: Iterable<Change>): void {
    for (const change of changes) this.#pending.set(`${change.table.id} ${change.key}`, change);
    if (this.#pending.size === 0) return;
    const nowMs = this.#options.clock.monotonicMs();
    this.#oldestMs ??= nowMs;
    if (this.#held) return;
    if (this.#pending.size >= pendingChangesMax) {
      this.#options.reached?.("pendingChanges");
      this.flush();
    } else if (this.#cancel === undefined) {
      // Even the first change waits for the end of the current turn: what one event brings goes out together.
      const waitMs = Math.max(0, this.#quietUntilMs - nowMs);
      this.#cancel = this.#options.clock.after(waitMs, () => this.flush());
    }
  }

  /** Publishes what is pending now. */
  flush(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    if (this.#pending.size === 0 || this.#held) return;
    const changes = [...this.#pending.values()];
    this.#pending.clear();
    const { clock, publish } = this.#options;
    const startedMs = clock.monotonicMs();
    const sinceMs = this.#oldestMs ?? startedMs;
    this.#oldestMs = undefined;
    this.#batchesInRow = startedMs - this.#lastBatchMs < stormGapMs ? this.#batchesInRow + 1 : 0;
    this.#lastBatchMs = startedMs;
    publish(changes, sinceMs);
    const endedMs = clock.monotonicMs();
    const tookMs = endedMs - startedMs;
    if (tookMs * batchPauseFactor > batchPauseMaxMs) this.#options.reached?.("batchPause");
    const pauseMinMs = this.#batchesInRow >= stormBatches ? batchPauseStormMs : batchPauseMinMs;
    const pauseMs = Math.min(batchPauseMaxMs, Math.max(pauseMinMs, tookMs * batchPauseFactor));
    this.#quietUntilMs = endedMs + pauseMs;
  }
}
