// How a client's place shapes the endpoints of a cluster: shares for localities (`distribute`), or an order in which they
// are fallen back to (`failover`, `failoverPriority`, a Service's trafficDistribution).

import type { LocalityLoadBalancerSetting } from "#objects";
import { networkLabel, nodeLabel, partOfLocality } from "#model";
import type { Reached } from "./network-endpoints.ts";

/** Endpoints of one locality that are equally near. */
export interface LocalityGroup {
  readonly locality: string;
  readonly members: readonly Reached[];
  readonly weight: number;
  /** 0 is tried first; there are no gaps. */
  readonly priority: number;
}

/** What is known of a client, and what its rules make of it. */
export interface Nearness {
  /** region/zone/subzone; "" when unknown. */
  readonly client: string;
  /** Those of the client's labels that `failoverPriority` names. */
  readonly labels: Readonly<Record<string, string>>;
  readonly setting: LocalityLoadBalancerSetting;
  /** Failover needs outlier detection, or nothing would ever be taken for broken; a Service may ask for it without. */
  readonly failover: boolean;
  /** Of places only regions are ordered: Envoy itself balances between the zones of one. */
  readonly byRegion?: true;
}

/** In order of locality, then of priority. Without a client's place everything is as near. */
export function localityGroups(endpoints: readonly Reached[], near: Nearness | undefined): LocalityGroup[] {
  const distribute = near?.setting.distribute ?? [];
  if (near === undefined) return grouped(endpoints, () => 0);
  if (distribute.length > 0)
    return distributed(
      grouped(endpoints, () => 0),
      near.client,
      distribute,
    );
  return grouped(endpoints, near.failover ? (endpoint) => distance(endpoint, near) : () => 0);
}

function grouped(endpoints: readonly Reached[], distanceOf: (endpoint: Reached) => number): LocalityGroup[] {
  const ranked = endpoints.map((endpoint) => ({ endpoint, distance: distanceOf(endpoint) }));
  // Envoy wants priorities without gaps.
  const distances = [...new Set(ranked.map((one) => one.distance))].toSorted((a, b) => a - b);
  const groups = Map.groupBy(ranked, ({ endpoint, distance: far }) =>
    JSON.stringify([endpoint.locality, distances.indexOf(far)]),
  );
  return [...groups.values()]
    .map((group): LocalityGroup => {
      const members = group.map(({ endpoint }) => endpoint);
      return {
        locality: members[0]?.locality ?? "",
        members,
        weight: members.reduce((sum, { weight }) => sum + weight, 0),
        priority: distances.indexOf(group[0]?.distance ?? 0),
      };
    })
    .toSorted((a, b) =>
      a.locality === b.locality ? a.priority - b.priority : a.locality < b.locality ? -1 : 1,
    );
}

/** Shares by the first rule for the client's place. Localities under one wildcard divide its share by their own weights. */
function distributed(
  groups: readonly LocalityGroup[],
  client: string,
  rules: NonNullable<LocalityLoadBalancerSetting["distribute"]>,
): LocalityGroup[] {
  const rule = rules.find(({ from }) => covers(from ?? "*", client));
  if (rule === undefined) return [...groups];
  const shares = Object.entries(rule.to ?? {});
  const shareOf = ({ locality }: LocalityGroup): number => shares.findIndex(([to]) => covers(to, locality));
  return groups.flatMap((group) => {
    const at = shareOf(group);
    if (at === -1) return [];
    const together = groups
      .filter((other) => shareOf(other) === at)
      .reduce((sum, { weight }) => sum + weight, 0);
    const weight = Math.ceil((group.weight * (shares[at]?.[1] ?? 0)) / Math.max(together, 1));
    return weight === 0 ? [] : [{ ...group, weight }];
  });
}

/** By labels first, where they are ordered; then by place, unless only labels were named. */
function distance(endpoint: Reached, near: Nearness): number {
  const { failoverPriority = [], failover = [] } = near.setting;
  if (near.byRegion === true) {
    const labels = labelDistance(endpoint, near, failoverPriority);
    // Three steps of region fit below one of labels.
    return labels * 3 + Math.max(0, placeDistance(endpoint.locality, near) - 2);
  }
  if (failoverPriority.length === 0) return placeDistance(endpoint.locality, near);
  const byLabels = labelDistance(endpoint, near, failoverPriority);
  // Five steps of place fit below one of labels.
  return failover.length === 0 ? byLabels : byLabels * 5 + placeDistance(endpoint.locality, near);
}

/** Endpoints of other networks come after all of the client's, where the network is named first, and go by the other labels then. */
function labelDistance(endpoint: Reached, near: Nearness, names: readonly string[]): number {
  const distanceBy = (labels: readonly string[]) => labels.length - matchingLabels(endpoint, near, labels);
  const [first, ...others] = names;
  const isElsewhere = first === networkLabel && matchingLabels(endpoint, near, [first]) === 0;
  return isElsewhere ? names.length + distanceBy(others) : distanceBy(names);
}

/** How many of the labels agree, up to the first that does not. `label=value` wants that value of endpoints, whatever the client's. */
function matchingLabels(endpoint: Reached, near: Nearness, names: readonly string[]): number {
  const differs = names.findIndex((text) => {
    const [name = "", value] = text.split("=");
    const wanted = value ?? partOfLocality(name, near.client) ?? near.labels[name];
    return wanted !== (partOfLocality(name, endpoint.locality) ?? labelOf(endpoint, name));
  });
  return differs === -1 ? names.length : differs;
}

/** Node and network are known of every endpoint, whether or not a label says them. */
function labelOf({ labels, node, network }: Reached, name: string): string | undefined {
  return name === nodeLabel ? node : name === networkLabel ? network : labels[name];
}

/** 0 for the same subzone, then zone, then region; after these the region that a failover rule names. */
function placeDistance(locality: string, { client, setting }: Nearness): number {
  const [region, zone, subzone] = locality.split("/");
  const [ownRegion, ownZone, ownSubzone] = client.split("/");
  if (region === ownRegion && zone === ownZone && subzone === ownSubzone) return 0;
  if (region === ownRegion && zone === ownZone) return 1;
  if (region === ownRegion) return 2;
  const rule = (setting.failover ?? []).find(({ from }) => from === ownRegion);
  return rule === undefined || rule.to === region ? 3 : 4;
}

function covers(pattern: string, locality: string): boolean {
  if (pattern === "*" || pattern === locality) return true;
  return pattern.endsWith("/*")
    ? locality.startsWith(pattern.slice(0, -1))
    : locality.startsWith(`${pattern}/`);
}
