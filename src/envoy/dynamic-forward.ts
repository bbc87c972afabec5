// Hosts that are looked up as requests name them (ServiceEntries with DYNAMIC_DNS): Envoy's dynamic forward proxy. A
// virtual host or a chain's SNI has checked the name against the entry's wildcard before it gets here.

import type { Read } from "#engine";
import { serviceOf, servicesOfHost } from "#model";
import { typed, wrapped, type Message } from "./proto/api.ts";

/** One cache for all: filters and clusters that share a cache have to describe it alike. */
const cacheName = "mesh";
/** Names of one wildcard are chosen by clients: beyond this many the next requests get 503 until some are forgotten. */
const hostsMax = 1_024;

const dnsCacheConfig: Message = {
  name: cacheName,
  dnsLookupFamily: "V4_PREFERRED",
  maxHosts: wrapped(hostsMax),
};

/** The cluster's type and what goes with it. */
export const dynamicDiscovery: Message = {
  lbPolicy: "CLUSTER_PROVIDED",
  clusterType: {
    name: "envoy.clusters.dynamic_forward_proxy",
    typedConfig: typed("envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig", {
      dnsCacheConfig,
      // A DestinationRule may name a server name of its own, as for any other cluster.
      allowInsecureClusterOptions: true,
    }),
  },
};

/** Looks a request's host up before it is routed on; leaves requests to other clusters alone. */
export const dynamicHttpFilter: Message = {
  name: "envoy.filters.http.dynamic_forward_proxy",
  typedConfig: typed("envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig", {
    dnsCacheConfig,
  }),
};

/** `typed_per_filter_config` of a route that gives the request another authority: that one is looked up, and not the client's. */
export function dynamicLookup(authority: string): Message {
  return {
    [dynamicHttpFilter["name"] as string]: typed(
      "envoy.extensions.filters.http.dynamic_forward_proxy.v3.PerRouteConfig",
      { hostRewriteLiteral: authority },
    ),
  };
}

/** Whether a destination's host is looked up as requests name it. */
export function isDynamicHost(read: Read, host: string): boolean {
  return read(servicesOfHost, host).some((key) => read(serviceOf, key)?.resolution === "dynamic-dns");
}

/** The same for a connection's SNI, where one of its destinations is such a host. It goes before the TCP proxy. */
export function dynamicSniFilters(
  read: Read,
  destinations: readonly { readonly host: string; readonly port: number }[],
): Message[] {
  const dynamic = destinations.find(({ host }) => isDynamicHost(read, host));
  return dynamic === undefined ? [] : [sniFilter(dynamic.port)];
}

function sniFilter(port: number): Message {
  return {
    name: "envoy.filters.network.sni_dynamic_forward_proxy",
    typedConfig: typed("envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig", {
      dnsCacheConfig,
      portValue: port,
    }),
  };
}
