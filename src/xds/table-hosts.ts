// Virtual hosts that are resources of their own, as Envoy 1.40 really takes them; `docs/decisions` has the study.
//
// One subscription, without names, is for the virtual hosts of all tables of the stream; Envoy drops those of a table
// that it does not hold, and yet lists them as held after a reconnect. A table that it has just got makes no request
// for its virtual hosts: its listener waits for the first of them, or for word that there are none, which is the
// removal of any name of that table. So a table is *due* from the moment the proxy asks for it: once the proxy has
// taken the table itself, all its virtual hosts follow in one response, whatever the proxy was said to hold.
//
// What a proxy lists of a table that left and came again may be of the table's earlier life (*stale*). The only memory
// that outlives streams and replicas is the proxy's own, so there it is written down: a table that comes while the
// proxy may list such virtual hosts goes under a *provisional* version until it has taken the new ones. Who comes back
// with a provisional version is not believed what it lists of that table; who has the final one is.

import type { EnvoyResource } from "#envoy";
import { discoversHosts, partsOfDiscovered } from "#plan";
import type { Subscription } from "./subscription.ts";
import { stale, toldAbsent, uncertain } from "./subscription.ts";

const provisionalMark = "~";

export class TableHosts {
  /** Tables whose virtual hosts are to be compared all at once, and since when. */
  readonly #due = new Map<string, number>();
  /** Tables that Envoy got anew, in this stream or since it last took their virtual hosts: what it lists is stale. */
  readonly #anew = new Set<string>();
  /** Tables that go under a provisional version. */
  readonly #provisional = new Set<string>();
  /** Tables of which virtual hosts were rejected: if the proxy has no others, their listener still waits. */
  readonly #doubtful = new Set<string>();

  /**
   * The proxy asks for a table.
   * @param claimed the version that it says it holds from an earlier stream
   * @param hosts the subscription to virtual hosts, if there is one yet
   * @param mayList whether the proxy may still come to list virtual hosts, if there is none
   */
  tableAsked(
    table: string,
    claimed: string | undefined,
    hosts: Subscription | undefined,
    mayList: boolean,
    nowMs: number,
  ): void {
    if (!discoversHosts(table)) return;
    this.#due.set(table, nowMs);
    if (claimed !== undefined && !isProvisional(claimed)) return;
    this.#anew.add(table);
    const lists = hosts === undefined ? mayList : makeStale(table, hosts);
    if (lists || claimed !== undefined) this.#provisional.add(table);
  }

  /** The proxy no longer wants a table, and with it went its virtual hosts, which it lists until it is told otherwise. */
  tableLeft(table: string, hosts: Subscription | undefined): void {
    this.#anew.delete(table);
    this.#due.delete(table);
    this.#provisional.delete(table);
    if (!discoversHosts(table) || hosts === undefined) return;
    makeStale(table, hosts);
  }

  /**
   * What a proxy says at the beginning of a stream that it holds, with the mark of what is stale: virtual hosts of tables
   * that it got anew, or does not ask for (unless its request for tables is still to come).
   */
  believed(
    versions: ReadonlyMap<string, string>,
    tables: Subscription | undefined,
  ): ReadonlyMap<string, string> {
    const isStaleTable = (table: string): boolean =>
      this.#anew.has(table) || (tables !== undefined && isOfUnaskedTable(noHostsOf(table), tables));
    if (!tablesOf(versions).values().some(isStaleTable)) return versions;
    const believed = new Map<string, string>();
    for (const [name, version] of versions) {
      believed.set(name, isStaleTable(partsOfDiscovered(name).table) ? stale : version);
    }
    return believed;
  }

  get anyProvisional(): boolean {
    return this.#provisional.size > 0;
  }

  /** The version under which the proxy is sent a table. */
  tableVersion(table: string, { version }: EnvoyResource): string {
    return this.#provisional.has(table) ? version + provisionalMark : version;
  }

  /** The proxy has taken virtual hosts. Returns the tables of which it lists what it holds from now on. */
  taken(hosts: Subscription): readonly string[] {
    if (this.#provisional.size === 0) return [];
    const open = new Set<string>();
    for (const [name, version] of hosts.held) {
      if (version === stale) open.add(partsOfDiscovered(name).table);
    }
    const settled = [...this.#provisional].filter((table) => !this.#due.has(table) && !open.has(table));
    for (const table of settled) {
      this.#provisional.delete(table);
      this.#anew.delete(table);
    }
    return settled;
  }

  /** The proxy has rejected a response with these names. */
  doubt(names: readonly Iterable<string>[]): void {
    for (const some of names) {
      for (const name of some) {
        const { table } = partsOfDiscovered(name);
        if (table !== "") this.#doubtful.add(table);
      }
    }
  }

  /** Whether there is no table to be looked at as a whole. */
  get isIdle(): boolean {
    return this.#due.size === 0 && this.#doubtful.size === 0;
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

const tablesKnown = new WeakMap<ReadonlyMap<string, unknown>, ReadonlySet<string>>();

/** The tables of virtual hosts in a map that many proxies share. */
export function tablesOf(hosts: ReadonlyMap<string, unknown>): ReadonlySet<string> {
  let tables = tablesKnown.get(hosts);
  if (tables === undefined) {
    tables = new Set([...hosts.keys()].map((name) => partsOfDiscovered(name).table));
    tablesKnown.set(hosts, tables);
  }
  return tables;
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

export function isProvisional(version: string): boolean {
  return version.endsWith(provisionalMark);
}

/** The version of the content that a proxy holds under this version. */
export function contentVersion(version: string): string {
  return isProvisional(version) ? version.slice(0, -provisionalMark.length) : version;
}

/** Returns whether the proxy lists any of the table, or may until it has taken what is in flight. */
function makeStale(table: string, hosts: Subscription): boolean {
  const isOfTable = (name: string) => partsOfDiscovered(name).table === table;
  const names = [...hosts.held.keys()].filter(isOfTable);
  for (const name of names) {
    hosts.held.set(name, stale);
    hosts.recheck.add(name);
  }
  return names.length > 0 || (hosts.inFlight?.removed.keys().some(isOfTable) ?? false);
}
