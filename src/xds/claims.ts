// What a proxy asks for, and what it says at the beginning of a stream that it holds from an earlier one.

import type { ResourceType } from "#plan";
import type { ProxyState } from "./proxy-state.ts";
import { Subscription } from "./subscription.ts";
import { contentVersion } from "./table-hosts.ts";
import type { DeltaRequest } from "./wire.ts";

/** Asks for names that the proxy's views have only for those who ask. */
export interface Offers {
  ask(type: ResourceType, names: Iterable<string>): void;
  release(type: ResourceType, names: Iterable<string>): void;
  isOffered(type: ResourceType, name: string): boolean;
}

export interface ClaimsOptions {
  /** Wakes the others after a claim that is a verdict. */
  readonly flush: () => void;
  readonly offers: Offers;
}

/** Reads one proxy's requests into its state. */
export class Claims {
  readonly #state: ProxyState;
  readonly #flush: () => void;
  readonly #offers: Offers;
  /** Clusters sent before the stream's first request for endpoints, which will claim to hold theirs. */
  readonly #endpointsDue: { has(name: string): boolean }[] = [];

  constructor(state: ProxyState, { flush, offers }: ClaimsOptions) {
    this.#state = state;
    this.#flush = flush;
    this.#offers = offers;
  }

  /** Asks other views for what the proxy wants. */
  viewsChanged(): void {
    for (const [type, subscription] of this.#state.subscriptions) {
      if (!this.#state.isOffered(type)) continue;
      this.#keepHeld(type, subscription, subscription.held.keys());
      this.#offers.ask(type, subscription.names);
    }
  }

  /**
   * What a proxy holds and would not get unasked counts as asked for: it may be in use, be it that the proxy was sent
   * everything before.
   */
  #keepHeld(type: ResourceType, subscription: Subscription, names: Iterable<string>): void {
    if (!subscription.wildcard) return;
    for (const name of names) if (this.#offers.isOffered(type, name)) subscription.names.add(name);
  }

  subscribe(request: DeltaRequest, type: ResourceType): Subscription {
    const { subscriptions } = this.#state;
    let subscription = subscriptions.get(type);
    const isFirst = subscription === undefined;
    const offers = this.#state.isOffered(type);
    if (offers) this.#offers.ask(type, request.subscribe.filter(isName));
    if (subscription === undefined) {
      subscription = new Subscription();
      subscriptions.set(type, subscription);
      this.#firstRequest(request, type, subscription);
    }
    const adopts = isFirst && this.#adoptsNames(request, type, subscription);
    for (const name of adopts ? [] : request.subscribe) {
      if (name === "*") {
        askForAll(subscription);
        continue;
      }
      subscription.names.add(name);
      // A name that is asked for again is to be sent again; what a new stream says it holds is not.
      const isHeld = request.initialVersions.has(name);
      const isDue = type === "endpoint" && isHeld && this.#endpointsDue.some((due) => due.has(name));
      if (isDue || !isHeld) subscription.held.delete(name);
      if (!isFirst || !subscription.held.isOfBase(name)) subscription.recheck.add(name);
      if (type === "route") this.#tableAsked(name, request.initialVersions.get(name));
    }
    // What is held and not asked for is to be forgotten.
    const { wildcard, held, names } = subscription;
    if (isFirst && !wildcard && held.size !== names.size) subscription.recheckAll = true;
    // Only the first request says what is held.
    if (type === "endpoint") this.#endpointsDue.length = 0;
    if (offers) this.#offers.release(type, request.unsubscribe);
    for (const name of request.unsubscribe) {
      if (type === "route") this.#state.tableHosts.tableLeft(name, subscriptions.get("virtualHost"));
      if (name === "*") subscription.wildcard = false;
      subscription.names.delete(name);
      if (!subscription.wildcard) subscription.held.delete(name);
    }
    return subscription;
  }

  /**
   * Asks for exactly what a proxy that comes back says it holds, if it asks for that: name by name that would come to the same,
   * where nothing is to be sent again and no name means more than itself.
   */
  #adoptsNames(request: DeltaRequest, type: ResourceType, subscription: Subscription): boolean {
    if (type !== "endpoint" || this.#endpointsDue.length > 0) return false;
    const { subscribe, initialVersions } = request;
    if (subscription.wildcard || subscription.names.size > 0 || !areNamesOf(subscribe, initialVersions))
      return false;
    subscription.names.adopt(initialVersions);
    return true;
  }

  #tableAsked(name: string, claimed: string | undefined): void {
    const { subscriptions, tableHosts, isBack, views, nowMs } = this.#state;
    const mayList = isBack && views.some((view) => view.hasAny("virtualHost"));
    tableHosts.tableAsked(name, claimed, subscriptions.get("virtualHost"), mayList, nowMs());
  }

  /** Clusters are sent, and an EDS cluster's endpoints, which have its name, are to follow. */
  clustersSent(clusters: ReadonlyMap<string, unknown>): void {
    const endpoints = this.#state.subscriptions.get("endpoint");
    if (endpoints === undefined) {
      this.#endpointsDue.push(clusters);
      return;
    }
    for (const name of clusters.keys()) {
      if (!endpoints.names.has(name)) continue;
      endpoints.held.delete(name);
      endpoints.recheck.add(name);
    }
  }

  #firstRequest(request: DeltaRequest, type: ResourceType, subscription: Subscription): void {
    const { tableHosts, subscriptions, nowMs } = this.#state;
    // As in the first versions of xDS, a first request without names asks for everything.
    const asksForAll = request.subscribe.length === 0 || request.subscribe.includes("*");
    if (asksForAll) askForAll(subscription);
    // Envoy waits for the virtual hosts of each table, and not for an answer to this request.
    if (request.initialVersions.size === 0 && asksForAll && type !== "virtualHost")
      subscription.mustAnswerSinceMs = nowMs();
    this.#state.wokenAtMs ??= nowMs();
    if (request.initialVersions.size === 0) return;
    this.#state.isBack = true;
    const { initialVersions } = request;
    if (this.#state.isOffered(type)) {
      // Before anything is compared: what nobody offers and was asked for has a stand-in.
      for (const name of request.subscribe.filter(isName)) subscription.names.add(name);
      this.#keepHeld(type, subscription, initialVersions.keys());
      this.#offers.ask(type, subscription.names);
    }
    const believed =
      type === "virtualHost"
        ? tableHosts.believed(initialVersions, subscriptions.get("route"))
        : initialVersions;
    this.#claimed(type, subscription, believed);
    this.#flush();
  }

  /**
   * What the proxy holds from an earlier stream. That is mostly what its first view serves: the proxy then keeps a
   * pointer to that, and only what differs is looked at.
   */
  #claimed(type: ResourceType, subscription: Subscription, versions: ReadonlyMap<string, string>): void {
    const { views, nowMs } = this.#state;
    for (const view of views) {
      for (const name of view.awaitedVerdicts(type)) {
        const version = versions.get(name);
        if (version !== undefined) view.accept(type, name, contentVersion(version), undefined, nowMs());
      }
    }
    const [view, ...others] = views;
    subscription.held.adopt(versions);
    if (view === undefined || view.isOnTrial(type)) {
      subscription.held.moveTo(new Map());
      subscription.recheckAll = true;
      return;
    }
    for (const name of subscription.held.moveTo(view.versions(type))) subscription.recheck.add(name);
    subscription.cursors.set(view, view.log(type).head);
    for (const other of others) {
      subscription.cursors.set(other, other.log(type).head);
      for (const name of other.names(type)) subscription.recheck.add(name);
    }
    subscription.recheckAll = false;
  }
}

function isName(name: string): boolean {
  return name !== "*";
}

function askForAll(subscription: Subscription): void {
  if (subscription.wildcard) return;
  subscription.wildcard = true;
  subscription.recheckAll = true;
}

/** By the names asked for: what they were last compared with. Both are shared by the proxies that say the same. */
const comparedNames = new WeakMap<
  readonly string[],
  { readonly versions: ReadonlyMap<string, string>; readonly areSame: boolean }
>();

function areNamesOf(names: readonly string[], versions: ReadonlyMap<string, string>): boolean {
  const known = comparedNames.get(names);
  if (known?.versions === versions) return known.areSame;
  const areSame =
    names.length === versions.size &&
    new Set(names).size === names.length &&
    names.every((name) => versions.has(name));
  comparedNames.set(names, { versions, areSame });
  return areSame;
}
