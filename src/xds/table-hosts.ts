// Virtual hosts that are resources of their own, as Envoy 1.40 really takes them; `docs/decisions` has the study.
//
// One subscription, without names, is for the virtual hosts of all tables of the stream; Envoy drops those of a table
// that it does not hold, and yet lists them as held after a reconnect. A table that it has just got makes no request
// for its virtual hosts: its listener waits for the first of them, or for word that there are none, which is the
// removal of any name of that table. So a table is *due* from the moment the proxy asks for it: once the proxy has
// taken the table itself, all its virtual hosts follow in one response, whatever the proxy was said to hold.

import { discoversHosts, partsOfDiscovered } from "#plan";
import type { Subscription } from "./subscription.ts";
import { toldAbsent, uncertain } from "./subscription.ts";

export class TableHosts {
  /** Tables whose virtual hosts are to be compared all at once, and since when. */
  readonly #due = new Map<string, number>();
  /** Tables that Envoy got anew in this stream: what it says it holds of them is not so. */
  readonly #anew = new Set<string>();

  /**
   * The proxy asks for a table.
   * @param isHeld whether it says that it holds it from an earlier stream
   * @param hosts the subscription to virtual hosts, if there is one yet
   */
  tableAsked(table: string, isHeld: boolean, hosts: Subscription | undefined, nowMs: number): void {
    if (!discoversHosts(table)) return;
    this.#due.set(table, nowMs);
    if (isHeld) return;
    this.#anew.add(table);
    forgetHosts(table, hosts);
  }

  /** The proxy no longer wants a table, and with it went its virtual hosts. */
  tableLeft(table: string, hosts: Subscription | undefined): void {
    this.#anew.delete(table);
    if (this.#due.delete(table) || discoversHosts(table)) forgetHosts(table, hosts);
  }

  /** Whether to believe what a proxy says at the beginning of a stream. */
  mayHold(name: string): boolean {
    return !this.#anew.has(partsOfDiscovered(name).table);
  }

  /** Everything of the table is to be looked at again, as soon as the proxy holds the table. */
  postpone(name: string, nowMs: number): void {
    const { table } = partsOfDiscovered(name);
    if (!this.#due.has(table)) this.#due.set(table, nowMs);
  }

  isPostponed(name: string): boolean {
    return this.#due.size > 0 && this.#due.has(partsOfDiscovered(name).table);
  }

  /** The due tables that the proxy has taken, with the time since when they are due. */
  ready(tables: Subscription | undefined): ReadonlyMap<string, number> {
    const ready = new Map<string, number>();
    for (const [table, sinceMs] of this.#due) {
      const held = tables?.held.get(table);
      if (held === undefined || held === toldAbsent || held === uncertain) continue;
      if (tables?.inFlight?.resources.has(table) !== true) ready.set(table, sinceMs);
    }
    return ready;
  }

  /** All virtual hosts of the table are being sent. */
  settled(table: string): void {
    this.#due.delete(table);
  }
}

/** The name whose removal tells Envoy that a table has no virtual hosts: any of the table that does not exist. */
export function noHostsOf(table: string): string {
  return `${table}/-`;
}

/** Whether a name is one of a table's virtual hosts while the proxy has not asked for that table. */
export function isOfUnaskedTable(name: string, tables: Subscription | undefined): boolean {
  const { table } = partsOfDiscovered(name);
  return table !== "" && tables?.names.has(table) !== true;
}

function forgetHosts(table: string, hosts: Subscription | undefined): void {
  for (const name of hosts?.held.keys() ?? []) {
    if (partsOfDiscovered(name).table === table) hosts?.held.delete(name);
  }
}
