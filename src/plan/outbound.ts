// What the outbound side of a sidecar wants: clusters and endpoints in one chunk a namespace of services, listeners
// and route tables in one chunk a port.

import { defineKeyedQuery, defineQuery, sameData, type Read } from "#engine";
import {
  anyClient,
  anyOutlet,
  asksForLocality,
  destinationsOf,
  egressOf,
  failoverLabelsOf,
  failoverLabelsOfHost,
  isExportedTo,
  isPublicMesh,
  isPublicNamespace,
  namespacesWithRules,
  nodeLabel,
  meshBalancing,
  rulesFor,
  scopeText,
  serviceOf,
  servicesOfHost,
  servicesOfNamespace,
  subsetNames,
  unknownTrafficOf,
  visibleNamespaces,
  visibleRoutes,
  visibleService,
  visibleServices,
  type MeshService,
  type Labels,
  type OutboundScope,
} from "#model";
import {
  lookedUpCluster,
  outboundClusterName,
  stableText,
  type DnsTableKey,
  type OutboundClusterKey,
  type VirtualOutboundKey,
  type WellKnownClusterKey,
} from "./keys.ts";
import { httpProxyChunks } from "./http-proxy.ts";
import { outboundPortChunks, unknownCluster } from "./outbound-ports.ts";
import { discoveredTables, type TableChunks } from "./discovered-tables.ts";
import { discovering, eagerServices, offered } from "./on-demand.ts";
import { emptyPlan, type Chunk, type Plan, type Planned } from "./plan.ts";
import type { OutboundView } from "./views.ts";

/** Clusters, and the endpoints of those that Envoy asks endpoints for. */
export interface ClusterChunks {
  readonly cluster: Chunk;
  readonly endpoint: Chunk;
}

export function planOutbound(read: Read, view: OutboundView): Plan {
  const plan = planEagerly(read, view);
  if (view.clusters === "eager") return plan;
  const { scope } = view;
  const eager = read(eagerClusters, scope);
  // Capture brings to BlackHoleCluster and PassthroughCluster what has no service: they are as good as always in use.
  const ofServices = ({ id }: Chunk): boolean => id !== wellKnownClusters.id;
  return {
    ...plan,
    cluster: [
      nothingOffered,
      ...plan.cluster.map((chunk) => (ofServices(chunk) ? offered(chunk) : chunk)),
      ...[eager.cluster].filter(hasEntries),
    ],
    endpoint: [nothingOffered, ...plan.endpoint.map(offered), ...[eager.endpoint].filter(hasEntries)],
    listener: plan.listener.map(discovering),
    route: plan.route.map(discovering),
  };
}

/** Says that the view offers clusters even while there are none: who asks then is remembered. */
const nothingOffered = offered({ id: "offered", entries: [] });

const eagerClusters = defineKeyedQuery<OutboundScope, ClusterChunks>(
  "eagerClusters",
  scopeText,
  (read, scope) => serviceClusterChunks(read, "eager", scope, read(eagerServices, scope)),
  sameData,
);

function planEagerly(read: Read, { scope, delivery }: OutboundView): Plan {
  const any = { scope, port: anyOutlet };
  const clusters = read(visibleNamespaces, any).map((namespace) =>
    read(namespaceClusters, { scope, namespace }),
  );
  if (scope.sidecar !== "") clusters.push(read(impliedClusters, scope));
  const numbers = read(scopePorts, scope);
  const ports = numbers.map((port) => read(outboundPortChunks, { scope, port }));
  const httpProxy = read(httpProxyChunks, scope);
  const tables: readonly TableChunks[] =
    delivery === "tables"
      ? ports.map(({ route }) => ({ route, virtualHosts: [] }))
      : numbers.map((port) => read(discoveredTables, { scope, port }));
  return {
    ...emptyPlan,
    cluster: [
      read(unknownTrafficOf, scope).kind === "look-up" ? clustersWithLookedUp : wellKnownClusters,
      ...clusters.map(({ cluster }) => cluster),
    ].filter(hasEntries),
    endpoint: clusters.map(({ endpoint }) => endpoint).filter(hasEntries),
    listener: [
      read(virtualOutbound, scope),
      read(dnsTable, scope),
      ...ports.map(({ listener }) => listener),
      httpProxy.listener,
    ].filter(hasEntries),
    route: [...tables.map(({ route }) => route), httpProxy.route].filter(hasEntries),
    virtualHost: tables.flatMap(({ virtualHosts }) => virtualHosts).filter(hasEntries),
  };
}

const wellKnownClusters = wellKnown(["BlackHoleCluster", "PassthroughCluster"]);
const clustersWithLookedUp = wellKnown([lookedUpCluster, "BlackHoleCluster", "PassthroughCluster"]);

function wellKnown(names: readonly WellKnownClusterKey["name"][]): Chunk {
  const entries = names.map((name): Planned<WellKnownClusterKey> => ({
    name,
    key: { kind: "well-known", name },
  }));
  return { id: "well-known", entries };
}

const virtualOutbound = defineKeyedQuery<OutboundScope, Chunk>(
  "virtualOutboundChunk",
  scopeText,
  (read, scope) => {
    // Where nothing captures connections, nothing arrives at the capture port.
    if (scope.unintercepted) return { id: "virtual", entries: [] };
    const unknownTo = read(unknownCluster, scope);
    const servicePorts = unknownTo === lookedUpCluster ? { servicePorts: read(scopePorts, scope) } : {};
    const key: VirtualOutboundKey = { kind: "virtual-outbound", unknownTo, ...servicePorts };
    return { id: "virtual", entries: [{ name: "virtualOutbound", key }] };
  },
  sameData,
);

const dnsTable = defineKeyedQuery<OutboundScope, Chunk>(
  "dnsTableChunk",
  scopeText,
  (_read, scope) => {
    const key: DnsTableKey = { kind: "dns-table", scope };
    return { id: "dns", entries: scope.dns === "none" ? [] : [{ name: "dns", key }] };
  },
  sameData,
);

const namespaceClusters = defineKeyedQuery<
  { readonly scope: OutboundScope; readonly namespace: string },
  ClusterChunks
>(
  "namespaceClusters",
  ({ scope, namespace }) => `${namespace} ${scopeText(scope)}`,
  (read, { scope, namespace }) =>
    chunksOf(
      `services/${namespace}`,
      read(visibleServices, { outlet: { scope, port: anyOutlet }, namespace }).map((service) =>
        read(serviceClusters, clientOf(scope, service)),
      ),
    ),
  sameData,
  (read, { scope, namespace }) => ({
    namespace,
    scope:
      scope.sidecar === "" &&
      read(isPublicNamespace, namespace) &&
      !read(namespacesWithRulesOf, namespace).includes(scope.namespace)
        ? {
            ...anyClient,
            labels: hasLabels(scope) ? picked(scope.labels, read(orderingLabels, namespace)) : noLabels,
            locality: scope.locality,
            network: scope.network,
            unintercepted: scope.unintercepted,
          }
        : scope,
  }),
);

/** The client namespaces for which the clusters of a namespace may be others than everyone's. */
const namespacesWithRulesOf = defineQuery<readonly string[]>(
  "namespacesWithRulesOf",
  (read, namespace) => {
    const hosts = read(servicesOfNamespace, namespace).map((key) => key.slice(namespace.length + 1));
    return [...new Set(hosts.flatMap((host) => read(namespacesWithRules, host)))].toSorted();
  },
  sameData,
);

/** Labels of clients that order the endpoints of any service of a namespace. */
const orderingLabels = defineQuery<readonly string[]>(
  "orderingLabels",
  (read, namespace) => [
    ...new Set(read(servicesOfNamespace, namespace).flatMap((key) => read(orderingLabelsOf, key))),
  ],
  sameData,
);

/** Of one service: those that rules and the mesh name, and the node where its own endpoints go first. */
const orderingLabelsOf = defineQuery<readonly string[]>(
  "orderingLabelsOf",
  (read, service) => {
    const named = [...read(failoverLabelsOfHost, hostOfKey(service)), ...read(meshBalancing, "").labels];
    return withNode(named, read(serviceOf, service));
  },
  sameData,
);

/** A Sidecar that imports a VirtualService gets the clusters of its destinations as well, and its egress proxy's. */
const impliedClusters = defineKeyedQuery<OutboundScope, ClusterChunks>(
  "impliedClusters",
  scopeText,
  (read, scope) => {
    const outlet = { scope, port: anyOutlet };
    const unknown = read(unknownTrafficOf, scope);
    const hosts = read(visibleRoutes, outlet).flatMap(({ key }) => read(destinationsOf, key));
    if (unknown.kind === "proxy") hosts.push(unknown.host);
    const services = [...new Set(hosts)].toSorted().flatMap((host) => {
      if (read(visibleService, { outlet, host }) !== undefined) return [];
      const candidates = read(servicesOfHost, host).flatMap((key) => {
        const service = read(serviceOf, key);
        return service !== undefined && isExportedTo(service.exportTo, service.namespace, scope.namespace)
          ? [service]
          : [];
      });
      return (candidates.find(({ namespace }) => namespace === scope.namespace) ?? candidates[0])?.key ?? [];
    });
    return chunksOf(
      "implied",
      services.map((service) => read(serviceClusters, clientOf(scope, service))),
    );
  },
  sameData,
);

/** Clusters and endpoints of some services for a client, as one chunk each. */
export function serviceClusterChunks(
  read: Read,
  id: string,
  scope: OutboundScope,
  services: readonly string[],
): ClusterChunks {
  return chunksOf(
    id,
    services.map((service) => read(serviceClusters, clientOf(scope, service))),
  );
}

/** What a service's clusters depend on in the client. */
interface ServiceClient {
  readonly service: string;
  readonly namespace: string;
  readonly labels: Labels;
  readonly locality: string;
  readonly network: string;
  readonly unintercepted: boolean;
}

function clientOf(scope: OutboundScope, service: string): ServiceClient {
  const { namespace, labels, locality, network, unintercepted } = scope;
  return { service, namespace, labels, locality, network, unintercepted };
}

interface ServiceClusters {
  readonly entries: readonly Planned<OutboundClusterKey>[];
  readonly byEndpoints: boolean;
}

const noClusters: ServiceClusters = { entries: [], byEndpoints: false };

/** The clusters of one service: each port as a whole, and in each subset. */
const serviceClusters = defineKeyedQuery<ServiceClient, ServiceClusters>(
  "serviceClusters",
  ({ service, namespace, labels, locality, network, unintercepted }) =>
    `${service} ${namespace} ${unintercepted} ${locality} ${network} ${stableText(labels)}`,
  (read, { service: key, namespace, labels, locality, network, unintercepted }) => {
    const service = read(serviceOf, key);
    if (service === undefined || service.resolution === "alias") return noClusters;
    const { host } = service;
    const rules = read(rulesFor, { client: namespace, labels, host, serviceNamespace: service.namespace });
    const joined = rules.join(",");
    const subsets = ["", ...read(subsetNames, joined)];
    const byMesh = read(meshBalancing, "");
    const byPlace = byMesh.always || read(asksForLocality, joined);
    const near = byPlace || service.prefers !== "any" ? locality : "";
    const named = [...read(failoverLabelsOf, joined), ...(byPlace ? byMesh.labels : [])];
    const ordering = withNode(named, service);
    const ordered = ordering.length === 0 ? {} : { clientLabels: picked(labels, ordering) };
    // Nothing that reaches a router was meant for an address that it could go on to: it picks an endpoint itself.
    const toOriginal = service.resolution === "original-destination" && !unintercepted;
    const entries = service.ports
      .filter(({ protocol }) => protocol !== "udp")
      .flatMap(({ port }) =>
        subsets.map((subset): Planned<OutboundClusterKey> => ({
          name: outboundClusterName(port, subset, host),
          key: {
            kind: "outbound",
            service: key,
            port,
            subset,
            rules,
            locality: near,
            ...(network === "" ? {} : { network }),
            ...ordered,
            toOriginal,
          },
        })),
      );
    const byEndpoints =
      service.resolution === "endpoints" || (service.resolution === "original-destination" && !toOriginal);
    return { entries, byEndpoints };
  },
  sameData,
  (read, key) =>
    read(namespacesWithRules, key.service.slice(key.service.indexOf("/") + 1)).includes(key.namespace)
      ? key
      : {
          ...key,
          namespace: "",
          labels: picked(key.labels, read(orderingLabelsOf, key.service)),
        },
);

/** Most clients have no label that anyone asks for. */
function hasLabels({ labels }: OutboundScope): boolean {
  return Object.keys(labels).length > 0;
}

/** With the client's node, where endpoints of it go first. */
function withNode(labels: readonly string[], service: MeshService | undefined): readonly string[] {
  return service?.prefers === "node" ? [...labels, nodeLabel] : labels;
}

function hostOfKey(service: string): string {
  return service.slice(service.indexOf("/") + 1);
}

function picked(labels: Labels, names: readonly string[]): Labels {
  if (names.length === 0) return noLabels;
  return Object.fromEntries(Object.entries(labels).filter(([name]) => names.includes(name)));
}

const noLabels: Labels = {};

function chunksOf(id: string, services: readonly ServiceClusters[]): ClusterChunks {
  return {
    cluster: { id, entries: services.flatMap(({ entries }) => entries) },
    endpoint: { id, entries: services.flatMap(({ entries, byEndpoints }) => (byEndpoints ? entries : [])) },
  };
}

/** Port numbers for which a scope has listeners. */
const scopePorts = defineKeyedQuery<OutboundScope, readonly number[]>(
  "scopePorts",
  scopeText,
  (read, scope) => {
    const named = read(egressOf, scope).flatMap(({ port }) => (port === 0 ? [] : [port]));
    const outlet = { scope, port: 0 };
    const ofServices = read(visibleNamespaces, outlet)
      .flatMap((namespace) => read(visibleServices, { outlet, namespace }))
      .flatMap((key) => read(portsOfService, key));
    return [...new Set([...named, ...ofServices])].toSorted((a, b) => a - b);
  },
  sameData,
  (read, scope) => (scope.sidecar === "" && read(isPublicMesh, "") ? anyClient : scope),
);

const portsOfService = defineQuery<readonly number[]>(
  "portsOfService",
  (read, key) =>
    (read(serviceOf, key)?.ports ?? [])
      .filter(({ protocol }) => protocol !== "udp")
      .map(({ port }) => port)
      .toSorted((a, b) => a - b),
  sameData,
);

function hasEntries({ entries }: Chunk): boolean {
  return entries.length > 0;
}
