// When the API server is away, every watch of every kind notices. This says it once for all of them, and once that it is
// over; a failure that concerns one kind alone (it may not be read, say) is said for that kind.

import type { Logger } from "#base";
import { KubeError } from "./kube-error.ts";

export class Outage {
  /** Who fails at present: whatever tells one follower from another. */
  readonly #failing = new Set<object>();
  #failures = 0;

  /** Counts failures since the start. */
  get failures(): number {
    return this.#failures;
  }

  /** How many followers fail at present. */
  get failing(): number {
    return this.#failing.size;
  }

  failed(who: object, kind: string, error: unknown, log: Logger): void {
    this.#failures++;
    if (this.#failing.has(who)) return;
    if (!isOfServer(error))
      log.warn({ kind, error: String(error) }, "watch failed; trying again, what is known stays");
    else if (this.#failing.size === 0)
      log.warn(
        { error: String(error) },
        "the API server fails; trying again, what is known stays and is served",
      );
    this.#failing.add(who);
  }

  /** The last one to succeed again ends it. */
  succeeded(who: object, log: Logger): void {
    if (this.#failing.delete(who) && this.#failing.size === 0) log.info({}, "the API server answers again");
  }

  /** It follows no longer, so it is no sign of anything. */
  forget(who: object): void {
    this.#failing.delete(who);
  }
}

/** Whether the server as a whole is in trouble: it gives no answer, is overloaded or fails. */
function isOfServer(error: unknown): boolean {
  return !(error instanceof KubeError) || error.status === 0 || error.status === 429 || error.status >= 500;
}
