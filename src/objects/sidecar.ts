// Sidecar: the shape of its spec, as its YAML says it.

import type { KubeObject } from "./object.ts";
import type { ConnectionPoolSettings } from "./destination-rule.ts";
import type { ServerTLSSettings } from "./gateway.ts";
import type { Destination } from "./virtual-service.ts";

export type Sidecar = KubeObject<SidecarSpec>;

export interface SidecarSpec {
  readonly workloadSelector?: SidecarWorkloadSelector;
  readonly ingress?: readonly IstioIngressListener[];
  readonly egress?: readonly IstioEgressListener[];
  readonly inboundConnectionPool?: ConnectionPoolSettings;
  readonly outboundTrafficPolicy?: OutboundTrafficPolicy;
}

export interface IstioIngressListener {
  readonly port: SidecarPort;
  readonly bind?: string;
  readonly captureMode?: CaptureMode;
  readonly defaultEndpoint?: string;
  readonly tls?: ServerTLSSettings;
  readonly connectionPool?: ConnectionPoolSettings;
}

export interface IstioEgressListener {
  readonly port?: SidecarPort;
  readonly bind?: string;
  readonly captureMode?: CaptureMode;
  readonly hosts: readonly string[];
}

export interface SidecarWorkloadSelector {
  readonly labels?: Readonly<Record<string, string>>;
}

export interface OutboundTrafficPolicy {
  readonly mode?: OutboundTrafficPolicyMode;
  readonly egressProxy?: Destination;
}

export type OutboundTrafficPolicyMode = "REGISTRY_ONLY" | "ALLOW_ANY";

export type CaptureMode = "DEFAULT" | "IPTABLES" | "NONE";

export interface SidecarPort {
  readonly number?: number;
  readonly protocol?: string;
  readonly name?: string;
  readonly targetPort?: number;
}
