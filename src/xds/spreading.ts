// Spreads proxies over the replicas of the control plane. A proxy stays where it once connected: after replicas have
// died or were added, some hold many and others none. Who holds much more than its share lets some go, a few each
// second, and their next connection goes where the Service's address leads it, to any replica. Each connection also
// ends after half an hour or so, as Istio's do.

import {
  connectionAgeMs,
  heldMinMs,
  letGoPauseMs,
  replicasSettleMs,
  shareFactorMax,
  shareSlack,
} from "./limits.ts";

/** What is known of all replicas together. */
export interface Fleet {
  /** Ready replicas, this one included. */
  readonly replicas: number;
  /** Proxies of the mesh, connected or not. */
  readonly proxies: number;
}

/** A connection of a proxy. */
export interface Held {
  readonly connectedAtMs: number;
  /** When it is to end anyhow. */
  readonly leavesAtMs: number;
}

/** @param random 0 to 1: connections that began together do not end together */
export function leavesAtMs(connectedAtMs: number, random: number): number {
  return connectedAtMs + connectionAgeMs * (0.9 + 0.2 * random);
}

export class Spreading {
  #replicas = 0;
  #replicasSinceMs = 0;
  #letGoAtMs = -Infinity;
  /** Whether this replica held too many and is on its way down to its share. */
  #isAbove = false;

  /** The connection to let go now, if any. To be asked every second or so; it answers at most twice a second. */
  choose<H extends Held>(held: readonly H[], fleet: Fleet, nowMs: number): H | undefined {
    if (fleet.replicas !== this.#replicas) {
      this.#replicas = fleet.replicas;
      this.#replicasSinceMs = nowMs;
    }
    // Nobody else is there to go to, or who comes and goes is not clear yet.
    if (fleet.replicas < 2 || nowMs - this.#replicasSinceMs < replicasSettleMs) {
      this.#isAbove = false;
      return undefined;
    }
    if (nowMs - this.#letGoAtMs < letGoPauseMs) return undefined;
    const chosen = held.find((one) => nowMs >= one.leavesAtMs) ?? this.#chooseAbove(held, fleet, nowMs);
    if (chosen !== undefined) this.#letGoAtMs = nowMs;
    return chosen;
  }

  #chooseAbove<H extends Held>(held: readonly H[], fleet: Fleet, nowMs: number): H | undefined {
    const share = Math.max(fleet.proxies, held.length) / fleet.replicas;
    // Between the two bounds nothing begins, but what has begun goes on.
    if (held.length > share * shareFactorMax + shareSlack) this.#isAbove = true;
    if (held.length <= Math.ceil(share)) this.#isAbove = false;
    if (!this.#isAbove) return undefined;
    let oldest: H | undefined;
    for (const one of held) {
      if (oldest === undefined || one.connectedAtMs < oldest.connectedAtMs) oldest = one;
    }
    return oldest === undefined || nowMs - oldest.connectedAtMs < heldMinMs ? undefined : oldest;
  }
}
