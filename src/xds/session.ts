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
import { resourceTypes, type ResourceType } from "#plan";
import { Claims, type Offers } from "./claims.ts";
import { Draft } from "./draft.ts";
import type { Fill } from "./fill.ts";
import {
  newcomerWaitMs,
  orderWaitMs,
  stuckAfterMs,
  subscribedNamesMax,
  type ReachXdsLimit,
} from "./limits.ts";
import { ProxyState } from "./proxy-state.ts";
import { toldAbsent, type InFlight, type Subscription } from "./subscription.ts";
import { isOfUnaskedTable } from "./table-hosts.ts";
import { takeAcknowledgement, takeRejection, type Reject } from "./verdict.ts";
import type { LiveView } from "./view.ts";
import { renderResponse, type DeltaRequest, type DeltaResponse } from "./wire.ts";

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
  readonly reached: ReachXdsLimit;
}

export interface SessionOptions {
  readonly id: string;
  readonly nowMs: () => number;
  /** Puts a response together; delta xDS unless told otherwise. @param sent all its resources */
  readonly render?: (response: DeltaResponse, sent: Iterable<EnvoyResource>) => readonly Uint8Array[];
  /** Takes one response in pieces. */
  readonly send: (pieces: readonly Uint8Array[]) => void;
  readonly close: (closing: Closing) => void;
  readonly reject: Reject;
  /** Wakes the others after a verdict of this proxy. */
  readonly flush: () => void;
  readonly offers: Offers;
  readonly reports: SessionReports;
}

/** How `syncz` shows one type of one proxy. */
export interface TypeStatus {
  readonly type: ResourceType;
  readonly subscribed: number | "*";
  /** Names asked for besides "*": clusters on demand. */
  readonly onDemand: number;
  readonly held: number;
  readonly state: "SYNCED" | "STALE" | "NOT SENT" | "ERROR";
  readonly lastSentMs: number;
  readonly lastAckedMs: number;
  readonly rejection: string | undefined;
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
  readonly #state: ProxyState;
  readonly #claims: Claims;
  #nonce = 0;

  constructor(options: SessionOptions) {
    this.id = options.id;
    this.#options = options;
    this.#state = new ProxyState(this, options.nowMs);
    this.#claims = new Claims(this.#state, options);
  }

  get views(): readonly LiveView[] {
    return this.#state.views;
  }

  /** The views that the proxy is entitled to, now and whenever its class gets others. */
  viewsChanged(views: readonly LiveView[]): void {
    this.#state.views = views;
    for (const subscription of this.#state.subscriptions.values()) {
      subscription.recheckAll = true;
      subscription.cursors.clear();
      subscription.caughtUpAt = -1;
    }
    this.#claims.viewsChanged();
    this.wake();
  }

  askAgain(): void {
    this.#claims.viewsChanged();
  }

  wants(type: ResourceType, name: string): boolean {
    if (!this.#state.wants(type, name)) return false;
    return type !== "virtualHost" || !isOfUnaskedTable(name, this.#state.subscriptions.get("route"));
  }

  wake(): void {
    this.#state.wokenAtMs ??= this.#options.nowMs();
    this.#pump();
  }

  /** To be called every second or so: lets go what waited too long and ends a stream that is stuck. */
  tick(): void {
    const nowMs = this.#options.nowMs();
    for (const [type, { inFlight }] of this.#state.subscriptions) {
      if (inFlight === undefined || nowMs - inFlight.sentAtMs < stuckAfterMs) continue;
      this.#options.reports.reached("stuck");
      const message = `no answer to ${type} response ${inFlight.nonce} for ${stuckAfterMs / 1000} s`;
      this.#options.close({ code: grpcAborted, message });
      return;
    }
    this.#pump();
  }

  receive(request: DeltaRequest, type: ResourceType): void {
    const subscription = this.#claims.subscribe(request, type);
    if (subscription.names.size > subscribedNamesMax) {
      this.#options.reports.reached("subscribedNames");
      const message = `more than ${subscribedNamesMax} names of type ${type} asked for`;
      this.#options.close({ code: grpcResourceExhausted, message });
      return;
    }
    if (request.responseNonce !== "" && request.responseNonce === subscription.inFlight?.nonce) {
      this.#takeVerdict(type, subscription, subscription.inFlight, request.rejection);
      this.#options.flush();
    }
    this.#pump();
  }

  status(): TypeStatus[] {
    return resourceTypes.flatMap((type) => {
      const subscription = this.#state.subscriptions.get(type);
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
        {
          type,
          subscribed,
          onDemand: wildcard ? names.size : 0,
          held: held.size,
          state,
          lastSentMs,
          lastAckedMs,
          rejection: lastRejection,
        },
      ];
    });
  }

  /** The names that the proxy asks for, "*" aside. */
  asked(type: ResourceType): Iterable<string> {
    return this.#state.subscriptions.get(type)?.names ?? [];
  }

  /** Name to version of what the proxy holds or is about to. */
  held(type: ResourceType): ReadonlyMap<string, string> {
    return this.#state.subscriptions.get(type)?.held ?? new Map<string, string>();
  }

  hasTaken(type: ResourceType, name: string, version: string): boolean {
    const subscription = this.#state.subscriptions.get(type);
    return subscription?.held.get(name) === version && subscription.inFlight?.resources.has(name) !== true;
  }

  #takeVerdict(
    type: ResourceType,
    subscription: Subscription,
    inFlight: InFlight,
    rejection: string | undefined,
  ): void {
    const { reports, nowMs, reject } = this.#options;
    if (rejection !== undefined) {
      const culprits = takeRejection(this.#state, type, subscription, inFlight, rejection, reject);
      reports.rejected(type, culprits, rejection);
      return;
    }
    takeAcknowledgement(this.#state, type, subscription, inFlight);
    reports.acknowledged(type, nowMs() - (this.#state.wokenAtMs ?? inFlight.sentAtMs));
    this.#state.wokenAtMs = undefined;
  }

  #pump(): void {
    for (const type of sendOrder) {
      const subscription = this.#state.subscriptions.get(type);
      if (subscription === undefined || subscription.inFlight !== undefined) continue;
      if (this.#isCaughtUp(type, subscription)) continue;
      if (waitsForClusters.has(type) && this.#clustersUnsettled()) continue;
      this.#sendWhatDiffers(type, subscription);
    }
    // Removals wait for what may name them. Where that had nothing to send, no acknowledgement will come to go on from.
    for (const [type, subscription] of this.#state.subscriptions) {
      if (subscription.inFlight !== undefined || subscription.recheck.size === 0) continue;
      if (waitsForClusters.has(type) && this.#clustersUnsettled()) continue;
      this.#sendWhatDiffers(type, subscription);
    }
    // With nothing under way what woke the session is done, be it that it concerned others only.
    for (const { inFlight } of this.#state.subscriptions.values()) if (inFlight !== undefined) return;
    this.#state.wokenAtMs = undefined;
  }

  /** Whether clusters (with their endpoints) are on their way: what names them comes after. */
  #clustersUnsettled(): boolean {
    return this.#clustersInFlight(this.#options.nowMs() - orderWaitMs);
  }

  #clustersInFlight(sentAfterMs = -Infinity): boolean {
    return (["cluster", "endpoint"] as const).some((type) => {
      const sentAtMs = this.#state.subscriptions.get(type)?.inFlight?.sentAtMs;
      return sentAtMs !== undefined && sentAtMs > sentAfterMs;
    });
  }

  #sendWhatDiffers(type: ResourceType, subscription: Subscription): void {
    if (this.#isCaughtUp(type, subscription) || this.#waitsForOthers(type, subscription)) return;
    const names = subscription.trialGroups[0] ?? this.#namesToCompare(type, subscription);
    const draft = new Draft(this.#state, type, subscription, this.#fillFor(type, subscription));
    draft.compareAll(names);
    if (type === "virtualHost" && subscription.trialGroups.length === 0) draft.compareDueTables();
    if (draft.isEmpty && subscription.trialGroups.length > 0) {
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
      if (draft.waits) this.#options.reports.reached("newcomerWait");
    } else if (draft.isEmpty) {
      this.#share(type, subscription);
      return;
    }
    this.#send(type, subscription, draft);
    this.#share(type, subscription);
  }

  /** The common case at every tick and acknowledgement: nothing was noted, and the views' logs have not moved on. */
  #isCaughtUp(type: ResourceType, subscription: Subscription): boolean {
    const { trialGroups, recheck, recheckAll, mustAnswerSinceMs, cursors } = subscription;
    if (recheckAll || recheck.size > 0 || trialGroups.length > 0 || mustAnswerSinceMs !== undefined)
      return false;
    const { views, tableHosts } = this.#state;
    if (type === "virtualHost" && !tableHosts.isIdle) return false;
    let changes = 0;
    for (const view of views) changes += view.changes;
    if (subscription.caughtUpAt === changes) return true;
    for (const view of views) if (cursors.get(view) !== view.log(type).head) return false;
    subscription.caughtUpAt = changes;
    return true;
  }

  /** Whether a newcomer's first answer waits for what another tries out; asked anew at each verdict, so it is cheap. */
  #waitsForOthers(type: ResourceType, subscription: Subscription): boolean {
    const sinceMs = subscription.mustAnswerSinceMs;
    if (sinceMs === undefined || this.#options.nowMs() - sinceMs >= newcomerWaitMs) return false;
    if (!this.#state.isHeldBack(type)) return false;
    subscription.recheckAll = true;
    return true;
  }

  /** The first answer that the proxy has in common with others of its first view. */
  #fillFor(type: ResourceType, subscription: Subscription): Fill | undefined {
    const [view] = this.#state.views;
    if (view === undefined) return undefined;
    if (type === "route" && this.#state.tableHosts.anyProvisional) return undefined;
    const { held, refused, trialGroups, names } = subscription;
    if (held.size > 0 || refused.size > 0 || trialGroups.length > 0) return undefined;
    if (!subscription.wildcard && names.size === 0) return undefined;
    if (type === "virtualHost") return this.#hostsFill(view, subscription);
    const fill = view.fill(type, this.#options.nowMs());
    if (fill === undefined || subscription.wildcard) return fill;
    if (names.size < fill.versions.size) return undefined;
    for (const name of fill.versions.keys()) if (!names.has(name)) return undefined;
    return fill;
  }

  /** Virtual hosts go table by table: all of them are for a proxy that has just taken all tables. */
  #hostsFill(view: LiveView, { wildcard }: Subscription): Fill | undefined {
    const { tableHosts, subscriptions, views } = this.#state;
    const ready = tableHosts.ready(subscriptions.get("route"));
    if (!wildcard || ready.size === 0) return undefined;
    if (views.some((other) => other !== view && other.hasAny("virtualHost"))) return undefined;
    const fill = view.fill("virtualHost", this.#options.nowMs());
    return fill?.tables.values().every((table) => ready.has(table)) === true ? fill : undefined;
  }

  #share(type: ResourceType, subscription: Subscription): void {
    const [view] = this.#state.views;
    if (view !== undefined) subscription.share(() => view.versions(type));
  }

  /** The names of the views' logs since the last look that the proxy asked for, and those noted besides. */
  #namesToCompare(type: ResourceType, subscription: Subscription): Iterable<string> {
    const names = new Set(subscription.recheck);
    subscription.recheck.clear();
    let all = subscription.recheckAll;
    subscription.recheckAll = false;
    for (const view of this.#state.views) {
      const log = view.log(type);
      const cursor = subscription.cursors.get(view);
      subscription.cursors.set(view, log.head);
      const changed = cursor === undefined ? undefined : log.since(cursor);
      if (cursor !== undefined && changed === undefined) this.#options.reports.reached("changeLog");
      if (changed === undefined) all = true;
      else for (const name of changed) if (this.#state.wants(type, name)) names.add(name);
    }
    if (!all) return names;
    for (const name of subscription.names) names.add(name);
    for (const name of subscription.held.keys()) names.add(name);
    if (subscription.wildcard) {
      for (const view of this.#state.views) for (const name of view.names(type)) names.add(name);
    }
    return names;
  }

  #send(type: ResourceType, subscription: Subscription, draft: Draft): void {
    const nowMs = this.#options.nowMs();
    const nonce = String(++this.#nonce);
    const { fill, removed } = draft;
    const resources: EnvoyResource[] = [];
    if (fill !== undefined) subscription.held.adopt(fill.versions);
    for (const [name, { resource }] of draft.resources) {
      const version = this.#state.versionFor(type, name, resource);
      subscription.held.set(name, version);
      resources.push(version === resource.version ? resource : { ...resource, version });
    }
    for (const name of removed.keys()) {
      if (subscription.names.has(name)) subscription.held.set(name, toldAbsent);
      else subscription.held.delete(name);
    }
    const sent = draft.sent();
    subscription.inFlight = { nonce, sentAtMs: nowMs, resources: sent, removed };
    subscription.sentNonce = nonce;
    subscription.lastSentMs = nowMs;
    subscription.mustAnswerSinceMs = undefined;
    const response = {
      typeUrl: typeUrlOf(type),
      nonce,
      // Not a version of anything, since each resource has its own; shown by Envoy's config dump.
      systemVersion: resources[0]?.version ?? "",
      resources,
      body: fill?.body,
      removed: [...removed.keys()],
    };
    const { render = renderResponse } = this.#options;
    const pieces = render(
      response,
      sent.values().map(({ resource }) => resource),
    );
    if (type === "cluster") this.#claims.clustersSent(sent);
    const bytes = pieces.reduce((sum, { length }) => sum + length, 0);
    const { reports } = this.#options;
    reports.sent(type, sent.size, bytes);
    if (draft.isCut) reports.reached("responseBytes");
    if (waitsForClusters.has(type) && this.#clustersInFlight()) reports.reached("orderWait");
    this.#options.send(pieces);
  }
}
