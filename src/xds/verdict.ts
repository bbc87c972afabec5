// What an acknowledgement or a rejection says of what was sent, to the proxy's state and to its views.

import { partsOfDiscovered, type ResourceType } from "#plan";
import type { ProxyState } from "./proxy-state.ts";
import { culpritsOf, halves, reasonFor, renderRejection } from "./rejection.ts";
import { uncertain, type InFlight, type SentResource, type Subscription } from "./subscription.ts";
import { noHostsOf } from "./table-hosts.ts";
import type { LiveView, Rejection } from "./view.ts";

/** Tells the mesh of a rejection. */
export type Reject = (rejection: Rejection, views: readonly LiveView[]) => boolean;

export function takeAcknowledgement(
  state: ProxyState,
  type: ResourceType,
  subscription: Subscription,
  inFlight: InFlight,
): void {
  const nowMs = state.nowMs();
  subscription.inFlight = undefined;
  subscription.ackedNonce = inFlight.nonce;
  subscription.lastAckedMs = nowMs;
  subscription.trialGroups.shift();
  if (type === "virtualHost") state.tableHosts.removed(inFlight.removed.keys());
  const awaiting = state.views.filter((view) => view.awaitsVerdict(type));
  const matters = awaiting.length > 0 || subscription.refused.size > 0;
  for (const [name, { resource, trial }] of matters ? inFlight.resources : []) {
    subscription.refused.delete(name);
    for (const view of awaiting) view.accept(type, name, resource, trial, nowMs);
  }
  if (subscription.refused.size === 0) subscription.lastRejection = undefined;
}

/** Returns the names of the resources at fault, none if that is still to be found out. */
export function takeRejection(
  state: ProxyState,
  type: ResourceType,
  subscription: Subscription,
  inFlight: InFlight,
  reason: string,
  reject: Reject,
): readonly string[] {
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
    if (type === "virtualHost") postponeHosts(state, name);
  }
  const culprits = culpritsOf(inFlight.resources, reason);
  subscription.lastRejection = renderRejection(culprits, inFlight.resources, reason);
  for (const name of culprits) {
    const sent = inFlight.resources.get(name)!;
    noteRefused(state, type, subscription, name, sent);
    const { version, origins } = sent.resource;
    const because = reasonFor(name, reason);
    reject(
      { type, name, version, reason: because, proxy: state.id, atMs: state.nowMs(), origins },
      state.views,
    );
  }
  if (culprits.length === 0) subscription.trialGroups.unshift(...groupsOf(type, inFlight));
  else if (group !== undefined) subscription.trialGroups.unshift(group);
  return culprits;
}

function noteRefused(
  state: ProxyState,
  type: ResourceType,
  subscription: Subscription,
  name: string,
  sent: SentResource,
): void {
  subscription.refused.set(name, sent.resource.version);
  if (type === "virtualHost") state.tableHosts.refused(name);
  if (sent.versionBefore === undefined) subscription.held.delete(name);
  else subscription.held.set(name, sent.versionBefore);
}

/** A rejected response has said nothing about a table that has none, either. */
function postponeHosts(state: ProxyState, name: string): void {
  if (name === noHostsOf(partsOfDiscovered(name).table)) state.tableHosts.postpone(name, state.nowMs());
}

/**
 * The groups that a rejected response is sent again in. A virtual host's domain may come from one that the response
 * removes: each group says so again.
 */
function groupsOf(type: ResourceType, { resources, removed }: InFlight): string[][] {
  const groups = halves(resources);
  return type === "virtualHost" ? groups.map((names) => [...removed.keys(), ...names]) : groups;
}
