// What a gRPC client that speaks xDS itself wants, without any proxy: it names its resources one by one, and each name is
// a view of its own. A listener is called like the target that the client dials, and brings the route table of the service
// behind it; the clusters that its routes lead to are asked for by the client, and stay for as long as it does and they
// exist, wherever the routes lead meanwhile. The names are Istio's (its `GENERATOR: grpc`).

import { defineKeyedQuery, sameData, type Read } from "#engine";
import {
  environmentOf,
  scopeText,
  serviceOf,
  servicesOfHost,
  visibleService,
  type OutboundScope,
  type Outlet,
} from "#model";
import { outboundClusterName, type OutboundClusterKey } from "./keys.ts";
import { serviceClusterChunks } from "./outbound.ts";
import { emptyPlan, type Chunk, type Plan } from "./plan.ts";
import {
  nowhereCluster,
  type ProxylessClusterKey,
  type ProxylessListenerKey,
  type ProxylessRouteKey,
} from "./proxyless-keys.ts";
import type { ProxylessView } from "./views.ts";
import { virtualHostsOf } from "./virtual-hosts.ts";

export function planProxyless(read: Read, { scope, target }: ProxylessView): Plan {
  const { listener, route, cluster, endpoint } = read(targetChunks, { scope, target });
  return {
    ...emptyPlan,
    listener: listener === undefined ? [] : [listener],
    route: route === undefined ? [] : [route],
    cluster: cluster === undefined ? [] : [cluster],
    endpoint: endpoint === undefined ? [] : [endpoint],
  };
}

interface TargetChunks {
  readonly listener?: Chunk<ProxylessListenerKey>;
  readonly route?: Chunk<ProxylessRouteKey>;
  readonly cluster?: Chunk<ProxylessClusterKey>;
  readonly endpoint?: Chunk<ProxylessClusterKey>;
}

/** Empty for a name that means nothing. */
const targetChunks = defineKeyedQuery<
  { readonly scope: OutboundScope; readonly target: string },
  TargetChunks
>(
  "proxylessTarget",
  ({ scope, target }) => `${target} ${scopeText(scope)}`,
  (read, { scope, target }) =>
    target === nowhereCluster || target.includes("|")
      ? clusterChunks(read, scope, target)
      : listenerChunks(read, scope, target),
  sameData,
);

function listenerChunks(read: Read, scope: OutboundScope, target: string): TargetChunks {
  const outlet: Outlet = { scope, port: 0 };
  const at = target.lastIndexOf(":");
  const port = Number(target.slice(at + 1));
  const service = at < 0 ? undefined : serviceNamed(read, outlet, target.slice(0, at));
  if (service === undefined || !service.ports.some((one) => one.port === port)) return {};
  const { host, key } = service;
  const unknownTo = nowhereCluster;
  const [virtualHost] = read(virtualHostsOf, { kind: "outbound", outlet, port, host, unknownTo });
  if (virtualHost === undefined) return {};
  const name = outboundClusterName(port, "", host);
  const id = `target/${target}`;
  return {
    listener: {
      id,
      entries: [{ name: target, key: { kind: "proxyless", target, route: name, service: key } }],
    },
    route: { id, entries: [{ name, key: { kind: "proxyless", name, host: virtualHost } }] },
  };
}

/** A cluster and its endpoints. */
function clusterChunks(read: Read, scope: OutboundScope, target: string): TargetChunks {
  const base = target === nowhereCluster ? undefined : baseOf(read, scope, target);
  if (base === undefined && target !== nowhereCluster) return {};
  const key: ProxylessClusterKey = { kind: "proxyless", base };
  const chunk = { id: `target/${target}`, entries: [{ name: target, key }] };
  return { cluster: chunk, endpoint: chunk };
}

function baseOf(read: Read, scope: OutboundScope, target: string): OutboundClusterKey | undefined {
  const host = target.slice(target.lastIndexOf("|") + 1);
  const service = serviceNamed(read, { scope, port: 0 }, host);
  if (service === undefined) return undefined;
  const { cluster } = serviceClusterChunks(read, "", scope, [service.key]);
  return cluster.entries.find(({ name }) => name === target)?.key as OutboundClusterKey | undefined;
}

/** The service of a host as a client writes it, in full or as its resolver would complete it. */
function serviceNamed(read: Read, outlet: Outlet, host: string) {
  const { clusterDomain } = read(environmentOf, "");
  const parts = host.split(".");
  const names = [host];
  if (parts.length === 1) names.push(`${host}.${outlet.scope.namespace}.svc.${clusterDomain}`);
  if (parts.length === 2) names.push(`${host}.svc.${clusterDomain}`);
  if (parts.length === 3 && parts[2] === "svc") names.push(`${host}.${clusterDomain}`);
  for (const name of names) {
    const key = read(visibleService, { outlet, host: name });
    const service = key === undefined ? undefined : read(serviceOf, key);
    if (service !== undefined) {
      return service.resolution === "alias"
        ? read(servicesOfHost, service.aliasOf).flatMap((one) => read(serviceOf, one) ?? [])[0]
        : service;
    }
  }
  return undefined;
}
