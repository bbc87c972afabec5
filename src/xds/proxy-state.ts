// What a session knows of its proxy: what it is entitled to, what it asked for and what it holds, and what follows from
// these together.

import { absentCluster, type EnvoyResource } from "#envoy";
import { partsOfDiscovered, type ResourceType } from "#plan";
import { stale, toldAbsent, type Subscription } from "./subscription.ts";
import { isOfUnaskedTable, TableHosts } from "./table-hosts.ts";
import { namedBy, type LiveView, type Subscriber, type Target } from "./view.ts";

export class ProxyState {
  readonly nowMs: () => number;
  readonly subscriptions = new Map<ResourceType, Subscription>();
  readonly tableHosts = new TableHosts();
  /** The views that the proxy is entitled to. */
  views: readonly LiveView[] = [];
  /** Whether the proxy holds something from an earlier stream; its first requests, for clusters and listeners, say so. */
  isBack = false;
  /** Since when something that the proxy wants is other than what it holds, for reports. */
  wokenAtMs: number | undefined;
  /** The session, as its views see it. */
  readonly #subscriber: Subscriber;

  constructor(subscriber: Subscriber, nowMs: () => number) {
    this.#subscriber = subscriber;
    this.nowMs = nowMs;
  }

  get id(): string {
    return this.#subscriber.id;
  }

  target(type: ResourceType, name: string): Target {
    let target: Target = { kind: "absent" };
    for (const view of this.views) {
      target = view.target(type, name, this.#subscriber);
      if (target.kind !== "absent") return target;
    }
    return target;
  }

  /** Whether some view has names of the type for those alone who ask. */
  isOffered(type: ResourceType): boolean {
    return this.views.some((view) => view.demand(type).isOffering);
  }

  /** Whether the proxy is to have what there is of a name, or to be told that there is nothing. */
  wants(type: ResourceType, name: string): boolean {
    const subscription = this.subscriptions.get(type);
    if (subscription === undefined) return false;
    if (subscription.names.has(name)) return true;
    if (!subscription.wildcard) return false;
    return !this.views.some((view) => view.isOptional(type, name)) || this.#isForEveryone(type, name);
  }

  #isForEveryone(type: ResourceType, name: string): boolean {
    return this.views.some(
      (view) => view.demand(type).isForEveryone(name) && view.entry(type, name) !== undefined,
    );
  }

  /** What takes the place of a cluster that the proxy asked for by name and that there is none of. */
  standIn(type: ResourceType, name: string): EnvoyResource | undefined {
    if (type !== "cluster" || !this.isOffered(type)) return undefined;
    return this.subscriptions.get(type)?.names.has(name) === true ? absentCluster(name) : undefined;
  }

  /** Whether a newcomer is to wait for the verdict of another proxy. */
  isHeldBack(type: ResourceType): boolean {
    return this.views.some((view) => view.holdsBack(type, this.#subscriber));
  }

  plansTable(host: string): boolean {
    const { table } = partsOfDiscovered(host);
    return table === "" || this.views.some((view) => view.entry("route", table) !== undefined);
  }

  holdsHost(name: string): boolean {
    const held = this.subscriptions.get("virtualHost")?.held.get(name);
    return held !== undefined && held !== toldAbsent && held !== stale;
  }

  holdsCluster(name: string): boolean {
    const clusters = this.subscriptions.get("cluster");
    return clusters === undefined || clusters.held.has(name);
  }

  /** Whether a virtual host is of a table that the proxy does not want, and so never to be sent. */
  isOfUnaskedTable(host: string): boolean {
    return isOfUnaskedTable(host, this.subscriptions.get("route"));
  }

  /** The version under which the proxy is sent a resource. */
  versionFor(type: ResourceType, name: string, resource: EnvoyResource): string {
    return type === "route" ? this.tableHosts.tableVersion(name, resource) : resource.version;
  }

  /** Whether the proxy may still hold something that names a resource of this type which is to go. */
  mayBeNamedStill(type: ResourceType): boolean {
    if (this.views.some((view) => view.mayBeNamed(type))) return true;
    return namedBy[type].some((naming) => {
      const subscription = this.subscriptions.get(naming);
      if (subscription === undefined) return false;
      if (subscription.inFlight !== undefined || subscription.trialGroups.length > 0) return true;
      if (subscription.recheckAll || subscription.recheck.size > 0) return true;
      return this.views.some((view) => subscription.cursors.get(view) !== view.log(naming).head);
    });
  }

  /** What was refused is remembered only as long as it is wanted. */
  forgetRefused(
    type: ResourceType,
    subscription: Subscription,
    name: string,
    resource: EnvoyResource | undefined,
  ): void {
    const refused = subscription.refused.get(name);
    if (refused === undefined || refused === resource?.version) return;
    if (this.views.some((view) => view.entry(type, name)?.rejection?.version === refused)) return;
    subscription.refused.delete(name);
    if (subscription.refused.size === 0) subscription.lastRejection = undefined;
  }
}
