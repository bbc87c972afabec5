// The endpoints of a cluster: addresses grouped by locality, each with what Envoy needs to know of the workload.

import { telemetryMetadata } from "#base";
import type { Read } from "#engine";
import {
  endpointSelector,
  endpointsOf,
  mergedRule,
  mtlsModeOf,
  serviceOf,
  type Endpoint,
  type MergedRule,
} from "#model";
import { clusterNameOf, type OutboundClusterKey } from "#plan";
import { balancingOf } from "./balancing.ts";
import { throughGateways, type Reached } from "./network-endpoints.ts";
import { localityGroups, type Nearness } from "./locality.ts";
import { structOf, wrapped, type Message } from "./proto/api.ts";
import { resource, type EnvoyResource } from "./resource.ts";
import { readPolicy } from "./mesh-settings.ts";

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
  const isInSubset = endpointSelector(read, subsetLabels(rule, key.subset));
  const found = read(endpointsOf, key.service).filter(
    (endpoint) =>
      endpoint.servicePort === key.port &&
      endpoint.healthy &&
      isUsable(endpoint.address) &&
      isInSubset(endpoint) &&
      // What passes through unread has to be proven by whoever ends it.
      (key.passthrough !== true || speaksMutualTls(read, endpoint)),
  );
  const groups = localityGroups(reachedFrom(read, key, found), nearness(read, key, rule));
  return {
    clusterName: clusterNameOf(key),
    endpoints: groups.map(({ locality, members, weight, priority }) => ({
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
export function isAddress(text: string): boolean {
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

/** What is known of the client, and what its place makes of the endpoints; undefined where it makes nothing. */
function nearness(read: Read, key: OutboundClusterKey, rule: MergedRule): Nearness | undefined {
  if (key.locality === "" && key.clientLabels === undefined) return undefined;
  const policy = readPolicy(read, rule, key.subset, key.port);
  const balancing = balancingOf(read, policy, read(serviceOf, key.service));
  const client = { client: key.locality, labels: key.clientLabels ?? {} };
  switch (balancing.kind) {
    case "none":
      return undefined;
    case "zones": {
      const { setting } = balancing;
      return setting.enabled === false ? undefined : { ...client, setting, failover: true, byRegion: true };
    }
    case "places": {
      const { setting, always } = balancing;
      return { ...client, setting, failover: always === true || policy.outlierDetection !== undefined };
    }
  }
}

function localityMessage(locality: string): Message {
  const [region = "", zone = "", subZone = ""] = locality.split("/");
  return { region, zone, subZone };
}
