// One proxy's delta xDS stream, free of any transport: requests come in parsed, responses go out as bytes.
//
// The state that it keeps is what the proxy holds (name to version); what to send follows from comparing that with what
// its views say now, so no order of changes, acknowledgements and reconnects can lead astray. Which names to compare
// comes from the views' logs. Per type one response is in flight; what changes meanwhile waits in the logs, not here.
//
// Make before break: clusters with their endpoints go first, listeners and routes wait for the proxy to have taken them,
// and clusters go away only when the listeners and routes of the same proxy have settled. A proxy that gets a cluster
// again warms it anew and asks for no endpoints, so these follow each cluster unasked.

import { typeUrlOf, type EnvoyResource } from "#envoy";
import { partsOfDiscovered, resourceTypes, type ResourceType } from "#plan";
import type { LiveView, Rejection, Target } from "./view.ts";
import { namedBy } from "./view.ts";
import { newcomerWaitMs, orderWaitMs, responseBytesMax, stuckAfterMs, subscribedNamesMax } from "./limits.ts";
import type { Fill } from "./fill.ts";
import { LayeredMap } from "./layered-map.ts";
import { culpritsOf, halves, reasonFor, renderRejection } from "./rejection.ts";
import { Subscription, toldAbsent, uncertain, type InFlight, type SentResource } from "./subscription.ts";
import { isOfUnaskedTable, noHostsOf, TableHosts } from "./table-hosts.ts";
import { renderResponse, type DeltaRequest } from "./wire.ts";

/** Why a session ended a stream, with gRPC's code. */
export interface Closing {
  readonly code: number;
  readonly message: string;
}

export const grpcAborted = 10;
export const grpcResourceExhausted = 8;

export interface SessionReports {
  sent(type: ResourceType, resources: number, bytes: number): void;
  /** @param sinceMs from when something that the proxy wants changed, or it asked, to this acknowledgement */
  acknowledged(type: ResourceType, sinceMs: number): void;
  rejected(type: ResourceType, culprits: readonly string[], reason: string): void;
}

export interface SessionOptions {
  readonly id: string;
  readonly nowMs: () => number;
  /** Takes one response in pieces. */
  readonly send: (pieces: readonly Uint8Array[]) => void;
  readonly close: (closing: Closing) => void;
  /** Tells the mesh of a rejection. */
  readonly reject: (rejection: Rejection, views: readonly LiveView[]) => boolean;
  /** Wakes the others after a verdict of this proxy. */
  readonly flush: () => void;
  readonly reports: SessionReports;
}

/** How `syncz` shows one type of one proxy. */
export interface TypeStatus {
  readonly type: ResourceType;
  readonly subscribed: number | "*";
  readonly held: number;
  readonly state: "SYNCED" | "STALE" | "NOT SENT" | "ERROR";
  readonly lastSentMs: number;
  readonly lastAckedMs: number;
  readonly rejection: string | undefined;
}

interface Draft {
  /** What all newcomers of the view get, besides `resources`. */
  readonly fill: Fill | undefined;
  readonly resources: Map<string, SentResource>;
  readonly removed: Map<string, string | undefined>;
  bytes: number;
  waits: boolean;
}

// Secrets first: clusters and listeners warm until they have them. Listeners before the routes that they name.
const sendOrder: readonly ResourceType[] = [
  "secret",
  "cluster",
  "endpoint",
  "listener",
  "route",
  "virtualHost",
];
const waitsForClusters: ReadonlySet<ResourceType> = new Set<ResourceType>([
  "listener",
  "route",
  "virtualHost",
]);

export class AdsSession {
  readonly id: string;
  readonly #options: SessionOptions;
  readonly #subscriptions = new Map<ResourceType, Subscription>();
  #views: readonly LiveView[] = [];
  #nonce = 0;
  /** Clusters sent before the stream's first request for endpoints, which will claim to hold theirs. */
  readonly #endpointsDue: { has(name: string): boolean }[] = [];
  readonly #tableHosts = new TableHosts();
  #wokenAtMs: number | undefined;

  constructor(options: SessionOptions) {
    this.id = options.id;
    this.#options = options;
  }

  get views(): readonly LiveView[] {
    return this.#views;
  }

  /** The views that the proxy is entitled to, now and whenever its class gets others. */
  viewsChanged(views: readonly LiveView[]): void {
    this.#views = views;
    for (const subscription of this.#subscriptions.values()) {
      subscription.recheckAll = true;
      subscription.cursors.clear();
    }
    this.wake();
  }

  wants(type: ResourceType, name: string): boolean {
    if (this.#subscriptions.get(type)?.wants(name) !== true) return false;
    return type !== "virtualHost" || !isOfUnaskedTable(name, this.#subscriptions.get("route"));
  }

  wake(): void {
    this.#wokenAtMs ??= this.#options.nowMs();
    this.#pump();
  }

  /** To be called every second or so: lets go what waited too long and ends a stream that is stuck. */
  tick(): void {
    const nowMs = this.#options.nowMs();
    for (const [type, { inFlight }] of this.#subscriptions) {
      if (inFlight === undefined || nowMs - inFlight.sentAtMs < stuckAfterMs) continue;
      const message = `no answer to ${type} response ${inFlight.nonce} for ${stuckAfterMs / 1000} s`;
      this.#options.close({ code: grpcAborted, message });
      return;
    }
    this.#pump();
  }

  receive(request: DeltaRequest, type: ResourceType): void {
    const subscription = this.#subscribe(request, type);
    if (subscription.names.size > subscribedNamesMax) {
      const message = `more than ${subscribedNamesMax} names of type ${type} asked for`;
      this.#options.close({ code: grpcResourceExhausted, message });
      return;
    }
    if (request.responseNonce !== "" && request.responseNonce === subscription.inFlight?.nonce) {
      if (request.rejection === undefined) this.#acknowledged(type, subscription);
      else this.#rejected(type, subscription, request.rejection);
      this.#options.flush();
    }
    this.#pump();
  }

  status(): TypeStatus[] {
    return resourceTypes.flatMap((type) => {
      const subscription = this.#subscriptions.get(type);
      if (subscription === undefined) return [];
      const { names, wildcard, held, inFlight, lastRejection, lastSentMs, lastAckedMs } = subscription;
      const state =
        lastRejection !== undefined
          ? "ERROR"
          : inFlight !== undefined
            ? "STALE"
            : lastSentMs === 0 && held.size === 0
              ? "NOT SENT"
              : "SYNCED";
      const subscribed = wildcard ? "*" : names.size;
      return [
        { type, subscribed, held: held.size, state, lastSentMs, lastAckedMs, rejection: lastRejection },
      ];
    });
  }

  /** Name to version of what the proxy holds or is about to. */
  held(type: ResourceType): ReadonlyMap<string, string> {
    return this.#subscriptions.get(type)?.held ?? new Map<string, string>();
  }

  #subscribe(request: DeltaRequest, type: ResourceType): Subscription {
    let subscription = this.#subscriptions.get(type);
    const isFirst = subscription === undefined;
    if (subscription === undefined) {
      subscription = new Subscription();
      this.#subscriptions.set(type, subscription);
      this.#firstRequest(request, type, subscription);
    }
    const hosts = this.#subscriptions.get("virtualHost");
    for (const name of request.subscribe) {
      if (name === "*") {
        this.#wildcard(subscription);
        continue;
      }
      subscription.names.add(name);
      // A name that is asked for again is to be sent again; what a new stream says it holds is not.
      const isHeld = request.initialVersions.has(name);
      const isDue = type === "endpoint" && isHeld && this.#endpointsDue.some((due) => due.has(name));
      if (isDue || !isHeld) subscription.held.delete(name);
      if (!isFirst || !subscription.held.isOfBase(name)) subscription.recheck.add(name);
      if (type === "route") this.#tableHosts.tableAsked(name, isHeld, hosts, this.#options.nowMs());
    }
    // What is held and not asked for is to be forgotten.
    const { wildcard, held, names } = subscription;
    if (isFirst && !wildcard && held.size !== names.size) subscription.recheckAll = true;
    // Only the first request says what is held.
    if (type === "endpoint") this.#endpointsDue.length = 0;
    for (const name of request.unsubscribe) {
      if (type === "route") this.#tableHosts.tableLeft(name, hosts);
      if (name === "*") subscription.wildcard = false;
      subscription.names.delete(name);
      if (!subscription.wildcard) subscription.held.delete(name);
    }
    return subscription;
  }

  #firstRequest(request: DeltaRequest, type: ResourceType, subscription: Subscription): void {
    const nowMs = this.#options.nowMs();
    // As in the first versions of xDS, a first request without names asks for everything.
    const asksForAll = request.subscribe.length === 0 || request.subscribe.includes("*");
    if (asksForAll) this.#wildcard(subscription);
    // Envoy waits for the virtual hosts of each table, and not for an answer to this request.
    if (request.initialVersions.size === 0 && asksForAll && type !== "virtualHost")
      subscription.mustAnswerSinceMs = nowMs;
    this.#wokenAtMs ??= nowMs;
    if (request.initialVersions.size === 0) return;
    const { initialVersions } = request;
    const believed =
      type === "virtualHost"
        ? this.#tableHosts.believed(initialVersions, this.#subscriptions.get("route"))
        : initialVersions;
    this.#claimed(type, subscription, believed);
    this.#options.flush();
  }

  /**
   * What the proxy holds from an earlier stream. That is mostly what its first view serves: the proxy then keeps a
   * pointer to that, and only what differs is looked at.
   */
  #claimed(type: ResourceType, subscription: Subscription, versions: ReadonlyMap<string, string>): void {
    const nowMs = this.#options.nowMs();
    for (const view of this.#views) {
      if (!view.awaitsVerdict(type)) continue;
      for (const [name, version] of versions) view.accept(type, name, version, undefined, nowMs);
    }
    const [view, ...others] = this.#views;
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

  #wildcard(subscription: Subscription): void {
    if (subscription.wildcard) return;
    subscription.wildcard = true;
    subscription.recheckAll = true;
  }

  #acknowledged(type: ResourceType, subscription: Subscription): void {
    const nowMs = this.#options.nowMs();
    const inFlight = subscription.inFlight!;
    subscription.inFlight = undefined;
    subscription.ackedNonce = inFlight.nonce;
    subscription.lastAckedMs = nowMs;
    subscription.trialGroups.shift();
    if (type === "virtualHost") this.#tableHosts.removed(inFlight.removed.keys());
    const awaiting = this.#views.filter((view) => view.awaitsVerdict(type));
    const matters = awaiting.length > 0 || subscription.refused.size > 0;
    for (const [name, { resource, trial }] of matters ? inFlight.resources : []) {
      subscription.refused.delete(name);
      for (const view of awaiting) view.accept(type, name, resource, trial, nowMs);
    }
    if (subscription.refused.size === 0) subscription.lastRejection = undefined;
    this.#options.reports.acknowledged(type, nowMs - (this.#wokenAtMs ?? inFlight.sentAtMs));
    this.#wokenAtMs = undefined;
  }

  #rejected(type: ResourceType, subscription: Subscription, reason: string): void {
    const inFlight = subscription.inFlight!;
    subscription.inFlight = undefined;
    const group = subscription.trialGroups.shift();
    // Of a rejected response Envoy may have taken the good ones (clusters, listeners) or nothing (virtual hosts).
    for (const name of inFlight.resources.keys()) {
      subscription.held.set(name, uncertain);
      subscription.recheck.add(name);
    }
    // A response of removals alone is not sent twice: nothing in it could become better.
    for (const [name, versionBefore] of inFlight.resources.size > 0 ? inFlight.removed : []) {
      if (versionBefore !== undefined) subscription.held.set(name, uncertain);
      subscription.recheck.add(name);
      if (type === "virtualHost") this.#postponeHosts(name);
    }
    const culprits = culpritsOf(inFlight.resources, reason);
    subscription.lastRejection = renderRejection(culprits, inFlight.resources, reason);
    for (const name of culprits)
      this.#refuse(type, subscription, name, inFlight.resources.get(name)!, reasonFor(name, reason));
    if (culprits.length === 0) subscription.trialGroups.unshift(...groupsOf(type, inFlight));
    else if (group !== undefined) subscription.trialGroups.unshift(group);
    this.#options.reports.rejected(type, culprits, reason);
  }

  #refuse(
    type: ResourceType,
    subscription: Subscription,
    name: string,
    sent: SentResource,
    reason: string,
  ): void {
    const { version, origins } = sent.resource;
    subscription.refused.set(name, version);
    if (type === "virtualHost") this.#tableHosts.refused(name);
    if (sent.versionBefore === undefined) subscription.held.delete(name);
    else subscription.held.set(name, sent.versionBefore);
    const atMs = this.#options.nowMs();
    this.#options.reject({ type, name, version, reason, proxy: this.id, atMs, origins }, this.#views);
  }

  #pump(): void {
    for (const type of sendOrder) {
      const subscription = this.#subscriptions.get(type);
      if (subscription === undefined || subscription.inFlight !== undefined) continue;
      if (waitsForClusters.has(type) && this.#clustersUnsettled()) continue;
      this.#sendWhatDiffers(type, subscription);
    }
    // Removals wait for what may name them. Where that had nothing to send, no acknowledgement will come to go on from.
    for (const [type, subscription] of this.#subscriptions) {
      if (subscription.inFlight !== undefined || subscription.recheck.size === 0) continue;
      if (waitsForClusters.has(type) && this.#clustersUnsettled()) continue;
      this.#sendWhatDiffers(type, subscription);
    }
    // With nothing under way what woke the session is done, be it that it concerned others only.
    if (this.#subscriptions.values().every(({ inFlight }) => inFlight === undefined))
      this.#wokenAtMs = undefined;
  }

  /** Whether clusters (with their endpoints) are on their way: what names them comes after. */
  #clustersUnsettled(): boolean {
    const nowMs = this.#options.nowMs();
    return (["cluster", "endpoint"] as const).some((type) => {
      const inFlight = this.#subscriptions.get(type)?.inFlight;
      return inFlight !== undefined && nowMs - inFlight.sentAtMs < orderWaitMs;
    });
  }

  #sendWhatDiffers(type: ResourceType, subscription: Subscription): void {
    if (this.#isCaughtUp(type, subscription) || this.#waitsForOthers(type, subscription)) return;
    const names = subscription.trialGroups[0] ?? this.#namesToCompare(type, subscription);
    const fill = this.#fillFor(type, subscription);
    const bytes = fill?.body.length ?? 0;
    const draft: Draft = { fill, resources: new Map(), removed: new Map(), bytes, waits: false };
    for (const name of names) {
      if (fill === undefined || !fill.resources.has(name)) this.#compare(type, subscription, name, draft);
    }
    if (type === "virtualHost" && subscription.trialGroups.length === 0)
      this.#compareDueTables(subscription, draft);
    const nothing = draft.fill === undefined && draft.resources.size === 0 && draft.removed.size === 0;
    if (nothing && subscription.trialGroups.length > 0) {
      // What the group held has changed or gone meanwhile.
      subscription.trialGroups.shift();
      this.#sendWhatDiffers(type, subscription);
      return;
    }
    if (subscription.mustAnswerSinceMs !== undefined) {
      const waitedMs = this.#options.nowMs() - subscription.mustAnswerSinceMs;
      if (draft.waits && waitedMs < newcomerWaitMs) {
        subscription.recheckAll = true;
        return;
      }
    } else if (nothing) {
      this.#share(type, subscription);
      return;
    }
    this.#send(type, subscription, draft);
    this.#share(type, subscription);
  }

  /** The common case at every tick: nothing was noted, and the views' logs have not moved on. */
  #isCaughtUp(type: ResourceType, subscription: Subscription): boolean {
    const { trialGroups, recheck, recheckAll, mustAnswerSinceMs, cursors } = subscription;
    if (recheckAll || recheck.size > 0 || trialGroups.length > 0 || mustAnswerSinceMs !== undefined)
      return false;
    // A table of virtual hosts may be due.
    if (type === "virtualHost") return false;
    return this.#views.every((view) => cursors.get(view) === view.log(type).head);
  }

  /** Whether a newcomer's first answer waits for what another tries out; asked anew at each verdict, so it is cheap. */
  #waitsForOthers(type: ResourceType, subscription: Subscription): boolean {
    const sinceMs = subscription.mustAnswerSinceMs;
    if (sinceMs === undefined || this.#options.nowMs() - sinceMs >= newcomerWaitMs) return false;
    if (!this.#views.some((view) => view.holdsBack(type, this))) return false;
    subscription.recheckAll = true;
    return true;
  }

  /** The first answer that the proxy has in common with others of its first view. */
  #fillFor(type: ResourceType, subscription: Subscription): Fill | undefined {
    const [view] = this.#views;
    // Virtual hosts go table by table.
    if (view === undefined || type === "virtualHost") return undefined;
    const { held, refused, trialGroups, names } = subscription;
    if (held.size > 0 || refused.size > 0 || trialGroups.length > 0) return undefined;
    if (!subscription.wildcard && names.size === 0) return undefined;
    const fill = view.fill(type);
    if (fill === undefined || subscription.wildcard) return fill;
    if (names.size < fill.versions.size) return undefined;
    for (const name of fill.versions.keys()) if (!names.has(name)) return undefined;
    return fill;
  }

  #share(type: ResourceType, subscription: Subscription): void {
    const [view] = this.#views;
    if (view !== undefined) subscription.share(() => view.versions(type));
  }

  /** The names of the views' logs since the last look that the proxy asked for, and those noted besides. */
  #namesToCompare(type: ResourceType, subscription: Subscription): Iterable<string> {
    const names = new Set(subscription.recheck);
    subscription.recheck.clear();
    let all = subscription.recheckAll;
    subscription.recheckAll = false;
    for (const view of this.#views) {
      const log = view.log(type);
      const cursor = subscription.cursors.get(view);
      subscription.cursors.set(view, log.head);
      const changed = cursor === undefined ? undefined : log.since(cursor);
      if (changed === undefined) all = true;
      else for (const name of changed) if (subscription.wants(name)) names.add(name);
    }
    if (!all) return names;
    for (const name of subscription.names) names.add(name);
    for (const name of subscription.held.keys()) names.add(name);
    if (subscription.wildcard) {
      for (const view of this.#views) for (const name of view.names(type)) names.add(name);
    }
    return names;
  }

  #compare(type: ResourceType, subscription: Subscription, name: string, draft: Draft): void {
    const held = subscription.held.get(name);
    if (type === "virtualHost" && this.#isNotNow(name)) return;
    if (type === "route" && this.#tableHosts.isUnclean(name)) {
      subscription.recheck.add(name);
      return;
    }
    if (!subscription.wants(name)) {
      subscription.held.delete(name);
      return;
    }
    const target = this.#target(type, name);
    if (target.kind === "hold") {
      draft.waits = true;
      return;
    }
    if (target.kind === "keep" && held !== undefined) return;
    if (target.kind !== "resource") {
      this.#compareAbsent(type, subscription, name, draft);
      return;
    }
    const { resource, trial } = target;
    this.#forgetRefused(type, subscription, name, resource);
    if (held === resource.version) return;
    // On trial is only what no proxy has refused, or what is tried again.
    if (trial === undefined && subscription.refused.get(name) === resource.version) return;
    if (draft.bytes > 0 && draft.bytes + resource.bytes.length > responseBytesMax) {
      subscription.recheck.add(name);
      return;
    }
    draft.bytes += resource.bytes.length;
    draft.resources.set(name, { resource, trial, versionBefore: held });
  }

  #compareAbsent(type: ResourceType, subscription: Subscription, name: string, draft: Draft): void {
    const held = subscription.held.get(name);
    this.#forgetRefused(type, subscription, name, undefined);
    if (held === toldAbsent) return;
    // A wildcard's client knows nothing of a name that it never got.
    if (held === undefined && !subscription.names.has(name)) return;
    if (held !== undefined && this.#mayBeNamedStill(type)) {
      subscription.recheck.add(name);
      return;
    }
    if (type === "virtualHost" && !this.#plansTable(name)) {
      // While an old listener still serves the table, it answers as before; with the table the virtual hosts go.
      this.#tableHosts.postpone(name, this.#options.nowMs());
      return;
    }
    if (type === "endpoint" && held !== undefined && !this.#holdsCluster(name)) {
      // Its cluster went before it, and with that Envoy's interest in the name: there is nobody to tell.
      subscription.held.set(name, toldAbsent);
      return;
    }
    draft.removed.set(name, held);
  }

  /** Sends all that there is of tables that the proxy has just taken, each whole or not at all. */
  #compareDueTables(subscription: Subscription, draft: Draft): void {
    for (const name of this.#tableHosts.leftHosts()) draft.removed.set(name, undefined);
    for (const table of this.#tableHosts.takeDoubtful()) {
      const holdsAny = subscription.held.keys().some((name) => partsOfDiscovered(name).table === table);
      if (!holdsAny) draft.removed.set(noHostsOf(table), undefined);
    }
    const ready = this.#tableHosts.ready(this.#subscriptions.get("route"));
    if (ready.size === 0) return;
    const names = new Map([...ready.keys()].map((table) => [table, new Set<string>()]));
    for (const view of this.#views) {
      for (const name of view.names("virtualHost")) names.get(partsOfDiscovered(name).table)?.add(name);
    }
    for (const name of subscription.held.keys()) names.get(partsOfDiscovered(name).table)?.add(name);
    for (const [table, sinceMs] of ready) {
      const ofTable = names.get(table)!;
      const waitedMs = this.#options.nowMs() - sinceMs;
      if (!this.#plansTable(noHostsOf(table))) continue;
      if (waitedMs < newcomerWaitMs && ofTable.values().some((name) => this.#isHeldBack(name))) continue;
      this.#tableHosts.settled(table);
      for (const name of ofTable) this.#compare("virtualHost", subscription, name, draft);
      const isEmpty = !ofTable.values().some((name) => draft.resources.has(name) || this.#holds(name));
      if (isEmpty) draft.removed.set(noHostsOf(table), undefined);
    }
  }

  #isHeldBack(host: string): boolean {
    return this.#target("virtualHost", host).kind === "hold";
  }

  #holds(host: string): boolean {
    const held = this.#subscriptions.get("virtualHost")?.held.get(host);
    return held !== undefined && held !== toldAbsent;
  }

  /** Virtual hosts of a table that the proxy has not (yet): never sent, and what it says of them is kept in mind. */
  #isNotNow(host: string): boolean {
    return this.#tableHosts.isPostponed(host) || isOfUnaskedTable(host, this.#subscriptions.get("route"));
  }

  #plansTable(host: string): boolean {
    const { table } = partsOfDiscovered(host);
    return table === "" || this.#views.some((view) => view.entry("route", table) !== undefined);
  }

  /** A rejected response has said nothing about a table that has none, either. */
  #postponeHosts(name: string): void {
    if (name === noHostsOf(partsOfDiscovered(name).table))
      this.#tableHosts.postpone(name, this.#options.nowMs());
  }

  #holdsCluster(name: string): boolean {
    const clusters = this.#subscriptions.get("cluster");
    return clusters === undefined || clusters.held.has(name);
  }

  /** What was refused is remembered only as long as it is wanted. */
  #forgetRefused(
    type: ResourceType,
    subscription: Subscription,
    name: string,
    resource: EnvoyResource | undefined,
  ): void {
    const refused = subscription.refused.get(name);
    if (refused === undefined || refused === resource?.version) return;
    if (this.#views.some((view) => view.entry(type, name)?.rejection?.version === refused)) return;
    subscription.refused.delete(name);
    if (subscription.refused.size === 0) subscription.lastRejection = undefined;
  }

  #target(type: ResourceType, name: string): Target {
    let target: Target = { kind: "absent" };
    for (const view of this.#views) {
      target = view.target(type, name, this);
      if (target.kind !== "absent") return target;
    }
    return target;
  }

  /** Whether the proxy may still hold something that names a resource of this type which is to go. */
  #mayBeNamedStill(type: ResourceType): boolean {
    if (this.#views.some((view) => view.mayBeNamed(type))) return true;
    return namedBy[type].some((naming) => {
      const subscription = this.#subscriptions.get(naming);
      if (subscription === undefined) return false;
      if (subscription.inFlight !== undefined || subscription.trialGroups.length > 0) return true;
      if (subscription.recheckAll || subscription.recheck.size > 0) return true;
      return this.#views.some((view) => subscription.cursors.get(view) !== view.log(naming).head);
    });
  }

  #send(type: ResourceType, subscription: Subscription, draft: Draft): void {
    const nowMs = this.#options.nowMs();
    const nonce = String(++this.#nonce);
    const { fill, removed } = draft;
    const resources: EnvoyResource[] = [];
    if (fill !== undefined) subscription.held.adopt(fill.versions);
    for (const [name, { resource }] of draft.resources) {
      subscription.held.set(name, resource.version);
      resources.push(resource);
    }
    for (const name of removed.keys()) {
      if (subscription.names.has(name)) subscription.held.set(name, toldAbsent);
      else subscription.held.delete(name);
    }
    const sent = withFill(draft);
    subscription.inFlight = { nonce, sentAtMs: nowMs, resources: sent, removed };
    subscription.sentNonce = nonce;
    subscription.lastSentMs = nowMs;
    subscription.mustAnswerSinceMs = undefined;
    const pieces = renderResponse({
      typeUrl: typeUrlOf(type),
      nonce,
      // Not a version of anything, since each resource has its own; shown by Envoy's config dump.
      systemVersion: resources[0]?.version ?? "",
      resources,
      body: fill?.body,
      removed: [...removed.keys()],
    });
    if (type === "cluster") this.#resendEndpoints(sent);
    const bytes = pieces.reduce((sum, { length }) => sum + length, 0);
    this.#options.reports.sent(type, sent.size, bytes);
    this.#options.send(pieces);
  }

  /** An EDS cluster's endpoints have its name. */
  #resendEndpoints(clusters: ReadonlyMap<string, unknown>): void {
    const endpoints = this.#subscriptions.get("endpoint");
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
}

/** All that a draft sends. */
function withFill({ fill, resources }: Draft): ReadonlyMap<string, SentResource> {
  if (fill === undefined) return resources;
  if (resources.size === 0) return fill.resources;
  const all = new LayeredMap<SentResource>();
  all.adopt(fill.resources);
  for (const [name, sent] of resources) all.set(name, sent);
  return all;
}

/**
 * The groups that a rejected response is sent again in. A virtual host's domain may come from one that the response
 * removes: each group says so again.
 */
function groupsOf(type: ResourceType, { resources, removed }: InFlight): string[][] {
  const groups = halves(resources);
  return type === "virtualHost" ? groups.map((names) => [...removed.keys(), ...names]) : groups;
}
