// The endpoints of a cluster: addresses grouped by locality, each with what Envoy needs to know of the workload.

import { telemetryMetadata } from "#base";
import type { Read } from "#engine";
import {
  endpointsOf,
  mergedRule,
  mtlsModeOf,
  readMesh,
  selects,
  type Endpoint,
  type MergedRule,
} from "#model";
import { clusterNameOf, type OutboundClusterKey } from "#plan";
import type { LocalityLoadBalancerSetting } from "#objects";
import { throughGateways, type Reached } from "./network-endpoints.ts";
import { structOf, wrapped, type Message } from "./proto/api.ts";
import { resource, type EnvoyResource } from "./resource.ts";
import { policyFor } from "./traffic-policy.ts";

/** ClusterLoadAssignment of an EDS cluster. */
export function outboundEndpoints(read: Read, key: OutboundClusterKey): EnvoyResource {
  // Envoy refuses the whole assignment for one name among the addresses.
  const assignment = loadAssignment(read, key, isAddress);
  return resource("endpoint", String(assignment["clusterName"]), assignment);
}

/** The same as part of a cluster whose endpoints Envoy resolves by DNS. */
export function loadAssignment(
  read: Read,
  key: OutboundClusterKey,
  isUsable: (address: string) => boolean = () => true,
): Message {
  const rule = read(mergedRule, key.rules.join(","));
  const labels = subsetLabels(rule, key.subset);
  const found = read(endpointsOf, key.service).filter(
    (endpoint) =>
      endpoint.servicePort === key.port &&
      endpoint.healthy &&
      isUsable(endpoint.address) &&
      selects(labels, endpoint.labels) &&
      // What passes through unread has to be proven by whoever ends it.
      (key.passthrough !== true || speaksMutualTls(read, endpoint)),
  );
  const reached = reachedFrom(read, key, found);
  const near = nearness(read, key, rule);
  const groups = Map.groupBy(reached, ({ locality }) => locality);
  const localities = [...groups.keys()].toSorted().map((locality) => {
    const members = groups.get(locality) ?? [];
    return { locality, members, weight: members.reduce((sum, { weight }) => sum + weight, 0) };
  });
  const shaped = shape(localities, near);
  return {
    clusterName: clusterNameOf(key),
    endpoints: shaped.map(({ locality, members, weight, priority }) => ({
      ...(locality === "" ? {} : { locality: localityMessage(locality) }),
      lbEndpoints: members.map((endpoint) =>
        lbEndpoint(endpoint, endpoint.viaGateway === true || speaksMutualTls(read, endpoint)),
      ),
      loadBalancingWeight: wrapped(weight),
      priority,
    })),
  };
}

/** The endpoints as a client of the key's network gets to them. */
function reachedFrom(
  read: Read,
  { network, passthrough }: OutboundClusterKey,
  found: readonly Endpoint[],
): readonly Reached[] {
  if (network === undefined) return found;
  // Whoever came by a gateway between networks has been sent to the right one: no second hop.
  if (passthrough === true)
    return found.filter((endpoint) => endpoint.network === network || endpoint.network === "");
  return throughGateways(read, network, found, (endpoint) => speaksMutualTls(read, endpoint));
}

/** An IP address or a socket's path. */
function isAddress(text: string): boolean {
  return /^[0-9.]+$/.test(text) || text.includes(":");
}

function subsetLabels(rule: MergedRule, subset: string): Readonly<Record<string, string>> {
  return rule.subsets.find(({ name }) => name === subset)?.labels ?? {};
}

/** A sidecar answers there, and no PeerAuthentication keeps it from mutual TLS. */
export function speaksMutualTls(read: Read, { mesh, namespace, labels, port }: Endpoint): boolean {
  return mesh && read(mtlsModeOf, { workload: { namespace, labels }, port }) !== "DISABLE";
}

function lbEndpoint(endpoint: Endpoint, mutualTls: boolean): Message {
  const { address, port, facts, weight } = endpoint;
  return {
    endpoint: {
      address: address.startsWith("unix://")
        ? { pipe: { path: address.slice("unix://".length) } }
        : { socketAddress: { address, portValue: port } },
    },
    healthStatus: "HEALTHY",
    metadata: {
      filterMetadata: {
        ...(mutualTls ? { "envoy.transport_socket_match": structOf({ tlsMode: "istio" }) } : {}),
        [telemetryMetadata.key]: structOf({ [telemetryMetadata.peer]: facts }),
      },
    },
    loadBalancingWeight: wrapped(weight),
  };
}

interface Locality {
  readonly locality: string;
  readonly members: readonly Reached[];
  readonly weight: number;
}

/** How a client's locality shapes the endpoints; nothing when balancing does not look at it. */
interface Nearness {
  readonly client: string;
  readonly setting: LocalityLoadBalancerSetting;
  /** Failover needs outlier detection: otherwise nothing would ever be taken for broken. */
  readonly failover: boolean;
}

function nearness(read: Read, key: OutboundClusterKey, rule: MergedRule): Nearness | undefined {
  if (key.locality === "") return undefined;
  const policy = policyFor(rule, key.subset, key.port);
  const setting = policy.loadBalancer?.localityLbSetting ?? readMesh(read, "localityLbSetting") ?? {};
  if (setting.enabled === false) return undefined;
  return { client: key.locality, setting, failover: policy.outlierDetection !== undefined };
}

function shape(
  localities: readonly Locality[],
  near: Nearness | undefined,
): (Locality & { readonly priority: number })[] {
  if (near === undefined) return localities.map((locality) => ({ ...locality, priority: 0 }));
  const rules = near.setting.distribute ?? [];
  if (rules.length > 0) {
    const rule = rules.find(({ from }) => localityCovers(from ?? "*", near.client));
    if (rule === undefined) return localities.map((locality) => ({ ...locality, priority: 0 }));
    return localities.flatMap((locality) => {
      const share = Object.entries(rule.to ?? {}).find(([to]) => localityCovers(to, locality.locality));
      return share === undefined ? [] : [{ ...locality, weight: share[1], priority: 0 }];
    });
  }
  if (!near.failover) return localities.map((locality) => ({ ...locality, priority: 0 }));
  const ranked = localities.map((locality) => ({ locality, rank: distance(locality.locality, near) }));
  // Envoy wants priorities without gaps.
  const ranks = [...new Set(ranked.map(({ rank }) => rank))].toSorted((a, b) => a - b);
  return ranked.map(({ locality, rank }) => ({ ...locality, priority: ranks.indexOf(rank) }));
}

/** 0 for the same subzone, then zone, then region; after these the region that a failover rule names. */
function distance(locality: string, { client, setting }: Nearness): number {
  const [region, zone, subzone] = locality.split("/");
  const [ownRegion, ownZone, ownSubzone] = client.split("/");
  if (region === ownRegion && zone === ownZone && subzone === ownSubzone) return 0;
  if (region === ownRegion && zone === ownZone) return 1;
  if (region === ownRegion) return 2;
  const rule = (setting.failover ?? []).find(({ from }) => from === ownRegion);
  return rule === undefined || rule.to === region ? 3 : 4;
}

function localityCovers(pattern: string, locality: string): boolean {
  if (pattern === "*" || pattern === locality) return true;
  return pattern.endsWith("/*")
    ? locality.startsWith(pattern.slice(0, -1))
    : locality.startsWith(`${pattern}/`);
}

function localityMessage(locality: string): Message {
  const [region = "", zone = "", subZone = ""] = locality.split("/");
  return { region, zone, subZone };
}
