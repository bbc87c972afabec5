// Views: what proxies share. Everything in which one proxy's configuration may differ from another's is in a view's
// key, and nothing else, so that as many proxies as possible share one.

import { defineKeyedQuery, sameData } from "#engine";
import {
  clusterDiscoveryOf,
  environmentOf,
  outboundScopeOf,
  proxyClassText,
  type ClusterDiscovery,
  type OutboundScope,
  type ProxyClass,
  type RouteDelivery,
} from "#model";
import { stableText } from "./keys.ts";

export interface OutboundView {
  readonly kind: "outbound";
  readonly scope: OutboundScope;
  readonly delivery: RouteDelivery;
  readonly clusters: ClusterDiscovery;
}

/** The inbound side of a workload: shared by its replicas. */
export interface InboundView {
  readonly kind: "inbound";
  readonly proxy: ProxyClass;
}

export interface GatewayView {
  readonly kind: "gateway";
  readonly proxy: ProxyClass;
}

export type View = OutboundView | InboundView | GatewayView;

export function viewText(view: View): string {
  return stableText(view);
}

/** The views of a proxy; it gets the union of their plans. */
export const viewsOf = defineKeyedQuery<ProxyClass, readonly View[]>(
  "viewsOf",
  proxyClassText,
  (read, proxy) =>
    proxy.kind === "router"
      ? [{ kind: "gateway", proxy }]
      : [
          {
            kind: "outbound",
            scope: read(outboundScopeOf, proxy),
            delivery: isRecentEnvoy(proxy) ? read(environmentOf, "").routeDelivery : "tables",
            clusters: isRecentEnvoy(proxy) ? read(clusterDiscoveryOf, proxy) : "eager",
          },
          { kind: "inbound", proxy },
        ],
  sameData,
);

/**
 * The first Envoy with which both were tried. Before, Envoy refuses virtual hosts over ADS (envoyproxy/envoy#34122), and
 * starts a request anew once it has the cluster, filters and all.
 */
const recentSince = { major: 1, minor: 40 } as const;

/** A client that names no version is no Envoy: gRPC without proxies knows route tables and wants all clusters. */
function isRecentEnvoy({ envoyVersion }: ProxyClass): boolean {
  const [major = 0, minor = 0] = envoyVersion.split(".").map(Number);
  return major > recentSince.major || (major === recentSince.major && minor >= recentSince.minor);
}
