// How many proxies hold an object as it is now: counted when the object has changed, a moment later and then ever more seldom,
// until all have it. A proxy that comes or goes counts nothing anew: a number in a status that followed them would be written for
// every object with every proxy.

import type { Clock, ObjectRef } from "#base";
import type { Distribution } from "./distribution.ts";

export interface CounterOptions {
  readonly clock: Clock;
  readonly distributionOf: (object: ObjectRef) => Distribution;
  /** Control planes that serve proxies, this one among them: each knows its own proxies alone. */
  readonly replicas: () => number;
  /** Told that the words about an object are others. */
  readonly counted: (object: ObjectRef) => void;
}

interface Due {
  readonly object: ObjectRef;
  readonly generation: number;
  attempt: number;
  atMs: number;
}

interface Count {
  readonly generation: number;
  readonly text: string;
}

/** When an object is looked at after its change, and after each look that found proxies without it: the last one again and again. */
const pausesMs = [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000] as const;
/** From this look on it is told who is behind: before, most are only on their way. */
const toldFromAttempt = 3;
/** Looks at an object that some proxy does not take: about a quarter of an hour. Beyond, what was told last stands. */
const attemptsMax = 20;
/** Looks a tick (half a second): what is more waits its turn. */
const looksPerTickMax = 50;
/** Objects that are waited for; beyond it the oldest ones' count stays as it was told. */
const dueMax = 20_000;

export class DistributionCounter {
  readonly #options: CounterOptions;
  readonly #due = new Map<string, Due>();
  readonly #counts = new Map<string, Count>();

  constructor(options: CounterOptions) {
    this.#options = options;
  }

  /** To be told of an object that has come or changed; one whose generation is known is left alone. */
  changed(key: string, object: ObjectRef, generation: number): void {
    if ((this.#due.get(key)?.generation ?? this.#counts.get(key)?.generation) === generation) return;
    const atMs = this.#options.clock.monotonicMs() + pausesMs[0];
    this.#due.delete(key);
    this.#due.set(key, { object, generation, attempt: 0, atMs });
    if (this.#due.size <= dueMax) return;
    const [oldest] = this.#due.keys();
    if (oldest !== undefined) this.#due.delete(oldest);
  }

  /** What was told of a generation already, by another process perhaps: where all had it, it need not be counted again. */
  known(key: string, generation: number, text: string): void {
    if (/^(\d+) of \1 /.test(text) && !this.#counts.has(key)) this.#counts.set(key, { generation, text });
  }

  forget(key: string): void {
    this.#due.delete(key);
    this.#counts.delete(key);
  }

  clear(): void {
    this.#due.clear();
    this.#counts.clear();
  }

  /** What is to be said of a generation; undefined while nothing is. */
  textOf(key: string, generation: number): string | undefined {
    const count = this.#counts.get(key);
    return count?.generation === generation ? count.text : undefined;
  }

  /** To be called every half second or so. */
  tick(): void {
    const nowMs = this.#options.clock.monotonicMs();
    let looks = 0;
    for (const [key, due] of this.#due) {
      if (due.atMs > nowMs) continue;
      this.#look(key, due, nowMs);
      looks++;
      if (looks >= looksPerTickMax) return;
    }
  }

  #look(key: string, due: Due, nowMs: number): void {
    const { object, generation } = due;
    const { proxies, holding } = this.#options.distributionOf(object);
    const complete = proxies > 0 && holding === proxies;
    due.attempt++;
    if (complete || due.attempt >= toldFromAttempt)
      this.#tell(key, object, { generation, text: this.#textFor(proxies, holding) });
    // Nobody is concerned yet: proxies may come, and until then a look costs next to nothing.
    const over = complete || (proxies > 0 && due.attempt >= attemptsMax);
    // Behind all others, so that everybody's turn comes.
    this.#due.delete(key);
    if (over) return;
    due.atMs = nowMs + pausesMs[Math.min(due.attempt, pausesMs.length - 1)]!;
    this.#due.set(key, due);
  }

  #tell(key: string, object: ObjectRef, count: Count): void {
    const before = this.#counts.get(key);
    if (before?.generation === count.generation && before.text === count.text) return;
    this.#counts.set(key, count);
    this.#options.counted(object);
  }

  #textFor(proxies: number, holding: number): string {
    if (proxies === 0) return "no connected proxy is concerned";
    const replicas = this.#options.replicas();
    const whose = replicas < 2 ? "" : ` of the leading control plane (of ${replicas})`;
    return `${holding} of ${proxies} proxies${whose} hold it`;
  }
}
