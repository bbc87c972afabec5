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
   * Virtual hosts of tables that the proxy let go, by table: it lists them as held until it is told otherwise, and would
   * after a reconnect. The table does not come again before it has been told.
   */
  readonly #left = new Map<string, Set<string>>();
  /** Tables of which a new virtual host was refused: if it was the only one, the listener still waits. */
  readonly #doubtful = new Set<string>();

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
    this.#due.delete(table);
    if (!discoversHosts(table)) return;
    const left = forgetHosts(table, hosts);
    if (left.length > 0) this.#left.set(table, new Set([...left, ...(this.#left.get(table) ?? [])]));
  }

  /**
   * What a proxy says at the beginning of a stream that it holds, without what cannot be: virtual hosts of tables that it
   * got anew, or does not ask for (unless its request for tables is still to come).
   */
  believed(
    versions: ReadonlyMap<string, string>,
    tables: Subscription | undefined,
  ): ReadonlyMap<string, string> {
    const believed = new Map<string, string>();
    for (const [name, version] of versions) {
      const { table } = partsOfDiscovered(name);
      if (tables === undefined || !isOfUnaskedTable(name, tables)) {
        if (!this.#anew.has(table)) believed.set(name, version);
      } else this.#left.set(table, (this.#left.get(table) ?? new Set()).add(name));
    }
    return believed;
  }

  /** Whether the proxy is still to be told that the table's old virtual hosts are gone. */
  isUnclean(table: string): boolean {
    return this.#left.has(table);
  }

  leftHosts(): readonly string[] {
    return [...this.#left.values()].flatMap((names) => [...names]);
  }

  /** The proxy has taken these removals. */
  removed(names: Iterable<string>): void {
    if (this.#left.size === 0) return;
    for (const name of names) {
      const { table } = partsOfDiscovered(name);
      const left = this.#left.get(table);
      if (left?.delete(name) === true && left.size === 0) this.#left.delete(table);
    }
  }

  refused(name: string): void {
    this.#doubtful.add(partsOfDiscovered(name).table);
  }

  takeDoubtful(): readonly string[] {
    const tables = [...this.#doubtful];
    this.#doubtful.clear();
    return tables;
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
    if (tables === undefined || tables.inFlight !== undefined) return ready;
    for (const [table, sinceMs] of this.#due) {
      const held = tables.held.get(table);
      if (held !== undefined && held !== toldAbsent && held !== uncertain) ready.set(table, sinceMs);
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

function forgetHosts(table: string, hosts: Subscription | undefined): readonly string[] {
  const names = [...(hosts?.held.keys() ?? [])].filter((name) => partsOfDiscovered(name).table === table);
  for (const name of names) hosts?.held.delete(name);
  return names;
}
