// What the inbound side of a workload wants: one listener for captured connections, a cluster for each port.

import { defineKeyedQuery, sameData, type Read } from "#engine";
import {
  clusterDiscoveryOf,
  inboundPortsOf,
  inboundScopeOf,
  inboundScopeText,
  jwksServicesOf,
  moduleServicesOf,
  namespaceNamesCredentials,
  outboundScopeOf,
  proxyClassText,
  selfDiscoveryField,
  workloadOf,
  type InboundPort,
  type InboundScope,
  type ProxyClass,
} from "#model";
import { sidecarCredentials } from "./credential-keys.ts";
import { serviceClusterChunks, type ClusterChunks } from "./outbound.ts";
import { emptyPlan, type Chunk, type Plan, type Planned } from "./plan.ts";
import type {
  InboundClusterKey,
  InboundListenerKey,
  InboundPassthroughClusterKey,
  LocalClusterKey,
  VirtualInboundKey,
} from "./inbound-keys.ts";
import type { InboundView } from "./views.ts";

export function planInbound(read: Read, { proxy }: InboundView): Plan {
  const plan = planWorkload(read, proxy);
  // Here and not on the outbound side, which workloads of several service accounts share.
  if (!read(namespaceNamesCredentials, proxy.namespace)) return plan;
  const secret = read(sidecarCredentials, proxy);
  return secret.entries.length === 0 ? plan : { ...plan, secret: [secret] };
}

function planWorkload(read: Read, proxy: ProxyClass): Plan {
  const plan = read(inboundPlanOf, inboundScopeOf(proxy));
  const own = proxy.metadata[selfDiscoveryField] === "true" ? [read(ownService, proxy)] : [];
  if (read(clusterDiscoveryOf, proxy) === "eager")
    return own.length === 0 ? plan : { ...plan, endpoint: own };
  const { cluster, endpoint } = read(filterClusters, proxy);
  return { ...plan, cluster: [...plan.cluster, cluster], endpoint: [endpoint, ...own] };
}

/** Where a proxy's bootstrap has a cluster of its own service, it waits for these endpoints: without a service there are none of them. */
const ownService = defineKeyedQuery<ProxyClass, Chunk>(
  "ownService",
  proxyClassText,
  (read, proxy) => {
    const first = read(inboundPortsOf, inboundScopeOf(proxy)).find(({ services }) => services.length > 0);
    const [service] = first?.services ?? [];
    const key: LocalClusterKey = {
      kind: "local-cluster",
      service: service === undefined ? "" : `${service.namespace}/${service.host}`,
      port: first?.servicePort ?? 0,
      region: proxy.locality.split("/")[0] ?? "",
    };
    return { id: "own-service", entries: [{ name: "local_cluster", key }] };
  },
  sameData,
);

/** Where clusters come on demand, nothing asks for those of the services that a workload's own filters fetch from. */
const filterClusters = defineKeyedQuery<ProxyClass, ClusterChunks>(
  "filterClusters",
  proxyClassText,
  (read, proxy) => {
    const workload = workloadOf(proxy);
    const services = [...read(jwksServicesOf, workload), ...read(moduleServicesOf, workload)];
    const scope = read(outboundScopeOf, proxy);
    return serviceClusterChunks(read, "filters", scope, [...new Set(services)].toSorted());
  },
  sameData,
);

const inboundPlanOf = defineKeyedQuery<InboundScope, Plan>(
  "inboundPlanOf",
  inboundScopeText,
  (read, scope) => {
    const ports = read(inboundPortsOf, scope);
    const captured = scope.interception !== "NONE";
    const passthrough: Planned<InboundPassthroughClusterKey> = {
      name: "InboundPassthroughCluster",
      key: { kind: "inbound-passthrough" },
    };
    const virtual: Planned<VirtualInboundKey> = {
      name: "virtualInbound",
      key: { kind: "virtual-inbound", scope },
    };
    const clusters: readonly Planned[] = [...(captured ? [passthrough] : []), ...ports.map(plannedCluster)];
    const bound = ports.flatMap((port): Planned<InboundListenerKey>[] =>
      port.bind === undefined
        ? []
        : [{ name: `${port.bind}_${port.port}`, key: { kind: "inbound", scope, port: port.port } }],
    );
    return {
      ...emptyPlan,
      cluster: [{ id: "inbound", entries: clusters }],
      listener: [{ id: "inbound", entries: [...(captured ? [virtual] : []), ...bound] }],
    };
  },
  sameData,
);

function plannedCluster(port: InboundPort): Planned<InboundClusterKey> {
  const { upstream, protocol, http2, services, pool, servicePort } = port;
  return {
    name: inboundClusterName(port.port),
    key: {
      kind: "inbound",
      port: port.port,
      upstream,
      protocol,
      http2,
      services,
      servicePort,
      ...(pool === undefined ? {} : { pool }),
    },
  };
}

export function inboundClusterName(port: number): string {
  return `inbound|${port}||`;
}
