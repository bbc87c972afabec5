// What differs between what a proxy holds and what its views say now: the content of its next response.

import type { EnvoyResource } from "#envoy";
import { partsOfDiscovered, type ResourceType } from "#plan";
import type { Fill } from "./fill.ts";
import { LayeredMap } from "./layered-map.ts";
import { newcomerWaitMs, responseBytesMax } from "./limits.ts";
import type { ProxyState } from "./proxy-state.ts";
import { stale, toldAbsent, type SentResource, type Subscription } from "./subscription.ts";
import { noHostsOf, tablesOf } from "./table-hosts.ts";

export class Draft {
  /** What all newcomers of the view get, besides `resources`. */
  readonly fill: Fill | undefined;
  readonly resources = new Map<string, SentResource>();
  /** Removed names with the version held before. */
  readonly removed = new Map<string, string | undefined>();
  /** Whether something is held back until another proxy has tried it. */
  waits = false;
  /** Whether some of it has to follow in another response. */
  isCut = false;
  readonly #state: ProxyState;
  readonly #type: ResourceType;
  readonly #subscription: Subscription;
  #bytes: number;

  constructor(state: ProxyState, type: ResourceType, subscription: Subscription, fill: Fill | undefined) {
    this.#state = state;
    this.#type = type;
    this.#subscription = subscription;
    this.fill = fill;
    this.#bytes = fill?.bodyBytes ?? 0;
  }

  get isEmpty(): boolean {
    return this.fill === undefined && this.resources.size === 0 && this.removed.size === 0;
  }

  /** All that is sent. */
  sent(): ReadonlyMap<string, SentResource> {
    const { fill, resources } = this;
    if (fill === undefined) return resources;
    if (resources.size === 0) return fill.resources;
    const all = new LayeredMap<SentResource>();
    all.adopt(fill.resources);
    for (const [name, sent] of resources) all.set(name, sent);
    return all;
  }

  compareAll(names: Iterable<string>): void {
    for (const name of names) {
      if (this.fill === undefined || !this.fill.resources.has(name)) this.#compare(name);
    }
  }

  /** Sends all that there is of tables that the proxy has just taken, each whole or not at all. */
  compareDueTables(): void {
    const { tableHosts, subscriptions, views } = this.#state;
    const { held } = this.#subscription;
    for (const table of tableHosts.takeDoubtful()) this.#compareDoubtful(table);
    const ready = new Map(tableHosts.ready(subscriptions.get("route")));
    for (const table of this.fill?.tables ?? []) {
      tableHosts.settled(table);
      ready.delete(table);
    }
    if (ready.size === 0) return;
    for (const table of this.#tablesHeld(ready.keys())) {
      tableHosts.settled(table);
      ready.delete(table);
    }
    if (ready.size === 0) return;
    const names = new Map([...ready.keys()].map((table) => [table, new Set<string>()]));
    for (const view of views) {
      for (const name of view.names("virtualHost")) names.get(partsOfDiscovered(name).table)?.add(name);
    }
    for (const name of held.keys()) names.get(partsOfDiscovered(name).table)?.add(name);
    for (const [table, sinceMs] of ready) this.#compareDueTable(table, sinceMs, names.get(table)!);
  }

  /** Tables of which the proxy holds just what it is served: of a proxy that comes back, all of them. */
  #tablesHeld(tables: Iterable<string>): string[] {
    const { views } = this.#state;
    const [view, ...others] = views.filter((one) => one.hasAny("virtualHost"));
    if (view === undefined || others.length > 0 || view.isOnTrial("virtualHost")) return [];
    const served = view.versions("virtualHost");
    if (!this.#subscription.held.isAs(served)) return [];
    const held = tablesOf(served);
    return [...tables].filter((table) => held.has(table));
  }

  /** Says that a table has no virtual hosts, if so: its listener may still wait for word of any. */
  #compareDoubtful(table: string): void {
    const isOfTable = (name: string) => partsOfDiscovered(name).table === table;
    const { tableHosts } = this.#state;
    // Of a due table everything is said when its time comes.
    if (this.#state.isOfUnaskedTable(noHostsOf(table)) || tableHosts.isPostponed(noHostsOf(table))) return;
    if (this.resources.keys().some(isOfTable)) return;
    const holds = (name: string) => isOfTable(name) && this.#state.holdsHost(name);
    if (!this.#subscription.held.keys().some(holds)) this.removed.set(noHostsOf(table), undefined);
  }

  #compareDueTable(table: string, sinceMs: number, hosts: ReadonlySet<string>): void {
    const state = this.#state;
    if (!state.plansTable(noHostsOf(table))) return;
    const waitedMs = state.nowMs() - sinceMs;
    const isHeldBack = (name: string) => state.target("virtualHost", name).kind === "hold";
    if (waitedMs < newcomerWaitMs && hosts.values().some(isHeldBack)) return;
    state.tableHosts.settled(table);
    for (const name of hosts) this.#compare(name);
    const isEmpty = !hosts.values().some((name) => this.resources.has(name) || state.holdsHost(name));
    if (isEmpty) this.removed.set(noHostsOf(table), undefined);
  }

  #compare(name: string): void {
    const state = this.#state;
    const type = this.#type;
    const subscription = this.#subscription;
    const held = subscription.held.get(name);
    if (type === "virtualHost" && state.isOfUnaskedTable(name)) {
      if (held === stale) this.removed.set(name, stale);
      return;
    }
    if (type === "virtualHost" && state.tableHosts.isPostponed(name)) return;
    if (!state.wants(type, name)) {
      // Without a wildcard it has let go of the name itself.
      if (subscription.wildcard) this.#compareAbsent(name);
      else subscription.held.delete(name);
      return;
    }
    const target = state.target(type, name);
    if (target.kind === "hold") {
      this.waits = true;
      return;
    }
    if (target.kind === "keep" && held !== undefined && held !== stale) return;
    if (target.kind !== "resource") {
      const standIn = state.standIn(type, name);
      if (standIn === undefined) this.#compareAbsent(name);
      else this.#compareStandIn(name, standIn);
      return;
    }
    this.#compareWanted(name, target.resource, target.trial);
  }

  #compareWanted(name: string, resource: EnvoyResource, trial: number | undefined): void {
    const state = this.#state;
    const type = this.#type;
    const subscription = this.#subscription;
    const held = subscription.held.get(name);
    state.forgetRefused(type, subscription, name, resource);
    if (held === state.versionFor(type, name, resource)) {
      // It got it from another view, or from this one before that forgot it: nothing is left to be tried.
      if (trial !== undefined)
        for (const view of state.views) view.accept(type, name, resource, trial, state.nowMs());
      return;
    }
    // On trial is only what no proxy has refused, or what is tried again.
    if (trial === undefined && subscription.refused.get(name) === resource.version) return;
    if (this.#bytes > 0 && this.#bytes + resource.bytes.length > responseBytesMax) {
      this.isCut = true;
      subscription.recheck.add(name);
      return;
    }
    this.#bytes += resource.bytes.length;
    this.resources.set(name, { resource, trial, versionBefore: held });
  }

  /** A stand-in takes a cluster's place only once nothing names that any more, as a removal would. */
  #compareStandIn(name: string, standIn: EnvoyResource): void {
    const held = this.#subscription.held.get(name);
    const holdsCluster = held !== undefined && held !== toldAbsent && held !== standIn.version;
    if (holdsCluster && this.#state.mayBeNamedStill(this.#type)) this.#subscription.recheck.add(name);
    else this.#compareWanted(name, standIn, undefined);
  }

  #compareAbsent(name: string): void {
    const state = this.#state;
    const type = this.#type;
    const subscription = this.#subscription;
    const held = subscription.held.get(name);
    state.forgetRefused(type, subscription, name, undefined);
    if (held === toldAbsent) return;
    // A wildcard's client knows nothing of a name that it never got.
    if (held === undefined && !subscription.names.has(name)) return;
    if (held !== undefined && state.mayBeNamedStill(type)) {
      subscription.recheck.add(name);
      return;
    }
    if (type === "virtualHost" && !state.plansTable(name)) {
      // While an old listener still serves the table, it answers as before; with the table the virtual hosts go.
      state.tableHosts.postpone(name, state.nowMs());
      return;
    }
    if (type === "endpoint" && held !== undefined && !state.holdsCluster(name)) {
      // Its cluster went before it, and with that Envoy's interest in the name: there is nobody to tell.
      subscription.held.set(name, toldAbsent);
      return;
    }
    this.removed.set(name, held);
  }
}
