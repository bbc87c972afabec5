// Writes to the API at a bounded rate: of several writes to one target only the last goes out, and a failed one is
// tried again later. So a storm of changes costs the API server no more than a trickle. Two writes to one target are never under way at
// once: the later one would read what the earlier one has not changed yet, and find that nothing is to be written.

import type { Clock, Logger } from "#base";
import { KubeError } from "./kube-error.ts";
import { kubeLimits, type ReachKubeLimit } from "./limits.ts";

export interface WriterOptions {
  readonly clock: Clock;
  readonly log: Logger;
  readonly reached?: ReachKubeLimit;
}

interface Write {
  readonly run: () => Promise<unknown>;
  readonly attempt: number;
}

const concurrentWritesMax = kubeLimits.concurrentWrites.value;
const waitingWritesMax = kubeLimits.waitingWrites.value;
const attemptsMax = kubeLimits.writeAttempts.value;
/** The pause between two writes: 20 a second at most. */
const writePauseMs = 50;

export class RateLimitedWriter {
  readonly #options: WriterOptions;
  readonly #waiting = new Map<string, Write>();
  readonly #underWay = new Set<string>();
  #nextAtMs = 0;
  #cancel: (() => void) | undefined;

  constructor(options: WriterOptions) {
    this.#options = options;
  }

  /** Targets waiting. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Writes soon. A write to the same target that still waits is replaced. */
  submit(target: string, run: () => Promise<unknown>): void {
    this.#waiting.delete(target);
    this.#waiting.set(target, { run, attempt: 0 });
    if (this.#waiting.size > waitingWritesMax) {
      const oldest = this.#waiting.keys().next();
      if (oldest.done !== true) this.#waiting.delete(oldest.value);
      this.#options.reached?.("waitingWrites");
      this.#options.log.warn({ waiting: this.#waiting.size }, "too many writes wait; the oldest is dropped");
    }
    this.#schedule();
  }

  stop(): void {
    this.#waiting.clear();
    this.#cancel?.();
  }

  #schedule(): void {
    if (this.#cancel !== undefined || this.#waiting.size === 0) return;
    const { clock } = this.#options;
    this.#cancel = clock.after(Math.max(0, this.#nextAtMs - clock.monotonicMs()), () => {
      this.#cancel = undefined;
      this.#next();
    });
  }

  #next(): void {
    if (this.#underWay.size >= concurrentWritesMax) return;
    const target = this.#waiting.keys().find((one) => !this.#underWay.has(one));
    const write = target === undefined ? undefined : this.#waiting.get(target);
    // Whatever is under way goes on with what waits when it ends.
    if (target === undefined || write === undefined) return;
    this.#waiting.delete(target);
    this.#nextAtMs = this.#options.clock.monotonicMs() + writePauseMs;
    this.#underWay.add(target);
    void write
      .run()
      .catch((error: unknown) => this.#failed(target, write, error))
      .finally(() => {
        this.#underWay.delete(target);
        this.#schedule();
      });
    this.#schedule();
  }

  #failed(target: string, { run, attempt }: Write, error: unknown): void {
    // 409: somebody was faster, time and again; 429: it was too much at once.
    const isFinal =
      error instanceof KubeError &&
      error.status >= 400 &&
      error.status < 500 &&
      error.status !== 409 &&
      error.status !== 429;
    if (isFinal || attempt + 1 >= attemptsMax) {
      if (!isFinal) this.#options.reached?.("writeAttempts");
      // The object is gone, or we may not write it: the next change brings a new write.
      if (!(error instanceof KubeError && error.status === 404))
        this.#options.log.warn({ target, error: String(error) }, "not written");
      return;
    }
    this.#options.clock.after(1_000 * 2 ** attempt, () => {
      if (!this.#waiting.has(target)) this.#waiting.set(target, { run, attempt: attempt + 1 });
      this.#schedule();
    });
  }
}
