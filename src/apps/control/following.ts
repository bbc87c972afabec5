// Things elsewhere that are asked for again and again, while anybody wants them: by name, each at its own pace, and ever less often
// while there is no answer.

import type { Clock } from "#base";

export interface Attempt {
  /** How many in a row had no answer before. */
  readonly failures: number;
  /** Whether nobody wants it any more: what comes now is to be dropped. */
  readonly isGone: () => boolean;
}

export interface FollowingOptions {
  readonly clock: Clock;
  /** More are left alone. */
  readonly max: number;
  /** Asks once. Resolves to the pause before the next time, in ms; undefined where there was no answer. Never rejects. */
  readonly ask: (name: string, attempt: Attempt) => Promise<number | undefined>;
  /** Nobody wants it any more. */
  readonly forget: (name: string) => void;
  readonly tooMany: (count: number) => void;
}

const retryMinMs = 1_000;
const retryMaxMs = 60_000;

interface Followed {
  failures: number;
  cancel: () => void;
  gone: boolean;
}

export class Following {
  readonly #options: FollowingOptions;
  readonly #followed = new Map<string, Followed>();

  constructor(options: FollowingOptions) {
    this.#options = options;
  }

  /** @param names all that are wanted from now on */
  follow(names: readonly string[]): void {
    const { max, forget, tooMany } = this.#options;
    const wanted = new Set(names.slice(0, max));
    if (names.length > max) tooMany(names.length);
    for (const [name, followed] of this.#followed) {
      if (wanted.has(name)) continue;
      followed.gone = true;
      followed.cancel();
      this.#followed.delete(name);
      forget(name);
    }
    for (const name of wanted) {
      if (this.#followed.has(name)) continue;
      const followed: Followed = { failures: 0, cancel: () => {}, gone: false };
      this.#followed.set(name, followed);
      void this.#round(name, followed);
    }
  }

  async #round(name: string, followed: Followed): Promise<void> {
    const { clock, ask } = this.#options;
    const { failures } = followed;
    const pauseMs = await ask(name, { failures, isGone: () => followed.gone });
    if (followed.gone) return;
    followed.failures = pauseMs === undefined ? failures + 1 : 0;
    const waitMs = pauseMs ?? Math.min(retryMaxMs, retryMinMs * 2 ** failures);
    followed.cancel = clock.after(waitMs, () => void this.#round(name, followed));
  }
}
