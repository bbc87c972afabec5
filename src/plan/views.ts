// Views: what proxies share. Everything in which one proxy's configuration may differ from another's is in a view's
// key, and nothing else, so that as many proxies as possible share one.

import { defineKeyedQuery, sameData } from "#engine";
import {
  clusterDiscoveryOf,
  environmentOf,
  nodesMatter,
  outboundScopeOf,
  proxyClassText,
  readOwnTuning,
  type ClusterDiscovery,
  type OutboundScope,
  type ProxyClass,
  type ProxyTuning,
  type RouteDelivery,
} from "#model";
import { stableText } from "./keys.ts";

export interface OutboundView {
  readonly kind: "outbound";
  readonly scope: OutboundScope;
  readonly delivery: RouteDelivery;
  readonly clusters: ClusterDiscovery;
  /** What its Pods say of headers and connections for themselves. */
  readonly tuning?: ProxyTuning;
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

/** One name that gRPC clients without a proxy ask for: shared by all of a scope that do. */
export interface ProxylessView {
  readonly kind: "proxyless";
  readonly scope: OutboundScope;
  /** The name of a listener, which is what the client dials, or of a cluster. */
  readonly target: string;
}

/** Views of Envoys, which EnvoyFilters may change. */
export type PatchedView = OutboundView | InboundView | GatewayView;

export type View = PatchedView | ProxylessView;

export function viewText(view: View): string {
  return stableText(view);
}

/** The views of a proxy; it gets the union of their plans. */
export const viewsOf = defineKeyedQuery<ProxyClass, readonly View[]>(
  "viewsOf",
  proxyClassText,
  (read, proxy) => {
    const { node: _node, ...anywhere } = proxy;
    switch (proxy.kind) {
      case "router":
        return [{ kind: "gateway", proxy: read(nodesMatter, "") ? proxy : anywhere }];
      case "grpc": {
        const scope = read(outboundScopeOf, proxy);
        return (proxy.targets ?? []).map((target) => ({ kind: "proxyless", scope, target }));
      }
      case "sidecar": {
        const tuning = readOwnTuning(read, proxy);
        return [
          {
            kind: "outbound",
            scope: read(outboundScopeOf, proxy),
            delivery: isRecentEnvoy(proxy) ? read(environmentOf, "").routeDelivery : "tables",
            clusters: isRecentEnvoy(proxy) ? read(clusterDiscoveryOf, proxy) : "eager",
            ...(tuning === undefined ? {} : { tuning }),
          },
          { kind: "inbound", proxy: anywhere },
        ];
      }
    }
  },
  sameData,
);

/**
 * The first Envoy with which both were tried. Before, Envoy refuses virtual hosts over ADS (envoyproxy/envoy#34122), and
 * starts a request anew once it has the cluster, filters and all.
 */
const recentSince = { major: 1, minor: 40 } as const;

/** State-of-the-world clients get whole tables and all clusters: Envoy knows the rest in delta xDS alone. */
function isRecentEnvoy({ envoyVersion, stateOfTheWorld }: ProxyClass): boolean {
  if (stateOfTheWorld === true) return false;
  const [major = 0, minor = 0] = envoyVersion.split(".").map(Number);
  return major > recentSince.major || (major === recentSince.major && minor >= recentSince.minor);
}
