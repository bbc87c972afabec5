// Keys of what gRPC clients without a proxy get.

import type { OutboundClusterKey, OutboundVirtualHostKey } from "./keys.ts";

/** What a client dials: `reviews.default.svc.cluster.local:9080`, or a shorter form of it. */
export interface ProxylessListenerKey {
  readonly kind: "proxyless";
  readonly target: string;
  readonly route: string;
  /** `namespace/host`. */
  readonly service: string;
}

export interface ProxylessRouteKey {
  readonly kind: "proxyless";
  readonly name: string;
  readonly host: OutboundVirtualHostKey;
}

/** A cluster, or its endpoints. */
export interface ProxylessClusterKey {
  readonly kind: "proxyless";
  /** Undefined for the cluster without endpoints, where calls end that a proxy would have answered itself. */
  readonly base: OutboundClusterKey | undefined;
}

/** Istio's name for it. */
export const nowhereCluster = "BlackHoleCluster";
