// What one proxy has asked for of one type, what it holds, and what it has not yet answered for.

import type { EnvoyResource } from "#envoy";
import { LayeredMap, LayeredNames } from "./layered-map.ts";
import type { LiveView } from "./view.ts";

/** One resource of an unacknowledged response. */
export interface SentResource {
  readonly resource: EnvoyResource;
  /** The view's revision if the proxy tries it for the others. */
  readonly trial: number | undefined;
  /** What the proxy held before: what it still holds if it rejects. */
  readonly versionBefore: string | undefined;
}

export interface InFlight {
  readonly nonce: string;
  readonly sentAtMs: number;
  readonly resources: ReadonlyMap<string, SentResource>;
  /** Removed names with the version held before. */
  readonly removed: ReadonlyMap<string, string | undefined>;
}

/** A name that the proxy was told does not exist. */
export const toldAbsent = "";

/** A name of which the proxy may hold either of two versions. */
export const uncertain = "?";

/** A virtual host that the proxy lists and does not hold, since its table left and came again. */
export const stale = "~";

/** Names and versions of its own that a subscription may have before it looks what it can share. */
const looseMin = 16;

export class Subscription {
  wildcard = false;
  readonly names = new LayeredNames();
  /** Name to version, as the proxy will hold it once it has acknowledged what is in flight. */
  readonly held = new LayeredMap<string>();
  /** Name to the version that this proxy rejected: not offered to it again. */
  readonly refused = new Map<string, string>();
  /** Names to look at besides those in the views' logs. */
  readonly recheck = new Set<string>();
  /** Everything is to be looked at: the views are new or the log was cut. */
  recheckAll = false;
  /** A fresh proxy waits for an answer even if it is empty. */
  mustAnswerSinceMs: number | undefined;
  /** Under a bisection after a rejection: the groups of names that go in responses of their own, in order. */
  trialGroups: string[][] = [];
  readonly cursors = new Map<LiveView, number>();
  /** How many changes of all types the views had had when the cursors were last found at the logs' heads. */
  caughtUpAt = -1;
  inFlight: InFlight | undefined;
  /** For `syncz`. */
  sentNonce = "";
  ackedNonce = "";
  lastSentMs = 0;
  lastAckedMs = 0;
  lastRejection: string | undefined;

  #looseMax = looseMin;

  /** Lets go of what its proxy has in common with all others of the view; content stays. */
  share(served: () => ReadonlyMap<string, string>): void {
    const loose = this.held.ownSize + this.names.ownSize;
    // Looking costs as much as the map is long: it pays after as many changes as are a good part of it.
    if (loose < this.#looseMax || loose < this.held.size / 4) return;
    const base = served();
    this.held.rebase(base);
    if (!this.wildcard) this.names.rebase(base);
    // A proxy of which little is shared is not looked at again and again.
    this.#looseMax = looseMin + 2 * (this.held.ownSize + this.names.ownSize);
  }

  wants(name: string): boolean {
    return this.wildcard || this.names.has(name);
  }
}
