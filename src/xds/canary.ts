// Which proxy of a view tries what changed, and how patient the view is with it.

import { canaryTriesMax, canaryWaitMs } from "./limits.ts";

/** @typeParam S a proxy of the view */
export class Canary<S> {
  readonly #subscribers: ReadonlySet<S>;
  #current: S | undefined;
  /** Since the last verdict. */
  readonly #asked = new Set<S>();
  /** Those who were waited for in vain: asked again only when there is nobody else. */
  readonly #silent = new Set<S>();
  #sinceMs = 0;

  /** @param subscribers the view's, whoever they are at the time */
  constructor(subscribers: ReadonlySet<S>) {
    this.#subscribers = subscribers;
  }

  get current(): S | undefined {
    return this.#current;
  }

  /** A trial begins: patience is counted from now. */
  begin(nowMs: number): void {
    this.#sinceMs = nowMs;
  }

  /** A verdict came: the canary is awake. */
  spoke(nowMs: number): void {
    this.#sinceMs = nowMs;
    this.#asked.clear();
    if (this.#current !== undefined) this.#asked.add(this.#current);
  }

  appoint(subscriber: S | undefined, nowMs: number): void {
    this.#current = subscriber ?? this.#subscribers.values().next().value;
    this.#sinceMs = nowMs;
    if (this.#current === undefined) this.#asked.clear();
    else this.#asked.add(this.#current);
  }

  /** A proxy is gone. Returns whether another has taken its place. */
  left(subscriber: S, nowMs: number): boolean {
    this.#asked.delete(subscriber);
    this.#silent.delete(subscriber);
    if (this.#current !== subscriber) return false;
    this.appoint(this.#next(), nowMs);
    return this.#current !== undefined;
  }

  /** What becomes of a trial now: it goes on, another proxy is asked, or nobody answers and the view has to let go. */
  check(nowMs: number): "goes on" | "another" | "nobody" {
    if (nowMs - this.#sinceMs < canaryWaitMs) return "goes on";
    if (this.#current !== undefined) this.#silent.add(this.#current);
    const next = this.#next();
    if (next !== undefined && this.#asked.size < canaryTriesMax) {
      this.appoint(next, nowMs);
      return "another";
    }
    this.#current = next ?? this.#current;
    return "nobody";
  }

  #next(): S | undefined {
    let last: S | undefined;
    for (const subscriber of this.#subscribers) {
      if (this.#asked.has(subscriber)) continue;
      if (!this.#silent.has(subscriber)) return subscriber;
      last ??= subscriber;
    }
    return last;
  }
}
