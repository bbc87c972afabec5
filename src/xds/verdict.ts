// What an acknowledgement or a rejection says of what was sent, to the proxy's state and to its views.

import type { ResourceType } from "#plan";
import type { ProxyState } from "./proxy-state.ts";
import { culpritsOf, halves, reasonFor, renderRejection } from "./rejection.ts";
import { uncertain, type InFlight, type SentResource, type Subscription } from "./subscription.ts";
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
  if (type === "virtualHost") {
    for (const table of state.tableHosts.taken(subscription))
      state.subscriptions.get("route")?.recheck.add(table);
  }
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
  for (const [name, { versionBefore }] of inFlight.resources) {
    takeBack(type, subscription, name, versionBefore);
    subscription.recheck.add(name);
  }
  // A response of removals alone is not sent twice: nothing in it could become better.
  for (const [name, versionBefore] of inFlight.resources.size > 0 ? inFlight.removed : []) {
    if (versionBefore !== undefined) takeBack(type, subscription, name, versionBefore);
    subscription.recheck.add(name);
  }
  if (type === "virtualHost") state.tableHosts.doubt([inFlight.resources.keys(), inFlight.removed.keys()]);
  const culprits = culpritsOf(inFlight.resources, reason);
  subscription.lastRejection = renderRejection(culprits, inFlight.resources, reason);
  for (const name of culprits) {
    const sent = inFlight.resources.get(name)!;
    noteRefused(subscription, name, sent);
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

function noteRefused(subscription: Subscription, name: string, sent: SentResource): void {
  subscription.refused.set(name, sent.resource.version);
  setHeld(subscription, name, sent.versionBefore);
}

/** Of a rejected response Envoy may have taken the good ones (clusters, listeners) or nothing (virtual hosts). */
function takeBack(
  type: ResourceType,
  subscription: Subscription,
  name: string,
  versionBefore: string | undefined,
): void {
  setHeld(subscription, name, type === "virtualHost" ? versionBefore : uncertain);
}

function setHeld(subscription: Subscription, name: string, version: string | undefined): void {
  if (version === undefined) subscription.held.delete(name);
  else subscription.held.set(name, version);
}

/**
 * The groups that a rejected response is sent again in. A virtual host's domain may come from one that the response
 * removes: each group says so again.
 */
function groupsOf(type: ResourceType, { resources, removed }: InFlight): string[][] {
  const groups = halves(resources);
  return type === "virtualHost" ? groups.map((names) => [...removed.keys(), ...names]) : groups;
}
