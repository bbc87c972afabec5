// Keys of the resources that only routers have.

import type { GatewayScope, ProxyTuning } from "#model";

/** `0.0.0.0_8080`. */
export interface GatewayListenerKey {
  readonly kind: "gateway";
  readonly scope: GatewayScope;
  readonly name: string;
  readonly tuning?: ProxyTuning;
}

/** `http.8080`, or `https.443.<port name>.<gateway>.<namespace>`. */
export interface GatewayRouteKey {
  readonly kind: "gateway";
  readonly scope: GatewayScope;
  readonly name: string;
  readonly tuning?: ProxyTuning;
}

/** A port of UDP of a service, to which routers alone send. */
export interface DatagramClusterKey {
  readonly kind: "datagram";
  /** `namespace/host`. */
  readonly service: string;
  readonly port: number;
  /** Row keys of the DestinationRules that apply, merged in this order: load balancing counts, and nothing else of them. */
  readonly rules: readonly string[];
  readonly tuning?: ProxyTuning;
}

/** `kubernetes://name` and `kubernetes://name-cacert`. */
export interface CredentialKey {
  readonly kind: "credential";
  /** The name that Envoy asks for. */
  readonly name: string;
  /** Row key of the Secret, or of the ConfigMap, that the credential names. */
  readonly secret: string;
  readonly part: "pair" | "ca" | "ca-of-config-map";
}
