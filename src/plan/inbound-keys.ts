// Keys of the resources of a workload's inbound side.

import type { InboundPort, InboundScope, ProxyTuning, Upstream } from "#model";

/** `inbound|9080||`: everything is in the key, so workloads with the same port and service share the bytes. */
export interface InboundClusterKey {
  readonly kind: "inbound";
  readonly port: number;
  readonly upstream: Upstream;
  readonly protocol: InboundPort["protocol"];
  readonly http2: boolean;
  readonly services: InboundPort["services"];
  /** Of the first service: what DestinationRules say of a port is said of this one. */
  readonly servicePort: number;
  readonly pool?: InboundPort["pool"];
  readonly tuning?: ProxyTuning;
}

/** `InboundPassthroughCluster`: ports that no service names. */
export interface InboundPassthroughClusterKey {
  readonly kind: "inbound-passthrough";
  readonly tuning?: ProxyTuning;
}

/** `local_cluster`: how the proxy's own service is spread, for proxies that balance by zone. */
export interface LocalClusterKey {
  readonly kind: "local-cluster";
  /** `namespace/host`. */
  readonly service: string;
  readonly port: number;
  readonly region: string;
}

/** `virtualInbound`, where capture brings every connection to the workload. */
export interface VirtualInboundKey {
  readonly kind: "virtual-inbound";
  readonly scope: InboundScope;
  readonly tuning?: ProxyTuning;
}

/** A port of a Sidecar's ingress that binds by itself. */
export interface InboundListenerKey {
  readonly kind: "inbound";
  readonly scope: InboundScope;
  readonly port: number;
  readonly tuning?: ProxyTuning;
}
