// DestinationRule: the shape of its spec, as its YAML says it.

import type { KubeObject } from "./object.ts";
import type { WorkloadSelector } from "./selector.ts";
import type { PortSelector } from "./virtual-service.ts";

export type DestinationRule = KubeObject<DestinationRuleSpec>;

export interface DestinationRuleSpec {
  readonly host: string;
  readonly trafficPolicy?: TrafficPolicy;
  readonly subsets?: readonly Subset[];
  readonly exportTo?: readonly string[];
  readonly workloadSelector?: WorkloadSelector;
}

export interface TrafficPolicy {
  readonly loadBalancer?: LoadBalancerSettings;
  readonly connectionPool?: ConnectionPoolSettings;
  readonly outlierDetection?: OutlierDetection;
  readonly tls?: ClientTLSSettings;
  readonly portLevelSettings?: readonly PortTrafficPolicy[];
  readonly tunnel?: TrafficPolicyTunnelSettings;
  readonly proxyProtocol?: TrafficPolicyProxyProtocol;
  readonly retryBudget?: TrafficPolicyRetryBudget;
}

export interface PortTrafficPolicy {
  readonly port?: PortSelector;
  readonly loadBalancer?: LoadBalancerSettings;
  readonly connectionPool?: ConnectionPoolSettings;
  readonly outlierDetection?: OutlierDetection;
  readonly tls?: ClientTLSSettings;
}

export interface TrafficPolicyTunnelSettings {
  readonly protocol?: string;
  readonly targetHost: string;
  readonly targetPort: number;
}

export interface TrafficPolicyProxyProtocol {
  readonly version?: ProxyProtocolVersion;
}

export type ProxyProtocolVersion = "V1" | "V2";

export interface TrafficPolicyRetryBudget {
  readonly percent?: number;
  readonly minRetryConcurrency?: number;
  readonly budgetInterval?: string;
}

export interface Subset {
  readonly name: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly trafficPolicy?: TrafficPolicy;
}

export interface LoadBalancerSettings {
  readonly simple?: SimpleLoadBalancer;
  readonly consistentHash?: ConsistentHash;
  readonly localityLbSetting?: LocalityLoadBalancerSetting;
  readonly zoneAwareLbSetting?: ZoneAwareLoadBalancerSetting;
  readonly warmupDurationSecs?: string;
  readonly warmup?: WarmupConfiguration;
}

export type SimpleLoadBalancer =
  | "UNSPECIFIED"
  | "LEAST_CONN"
  | "RANDOM"
  | "PASSTHROUGH"
  | "ROUND_ROBIN"
  | "LEAST_REQUEST";

export interface ConsistentHash {
  readonly httpHeaderName?: string;
  readonly httpCookie?: HashCookie;
  readonly useSourceIp?: boolean;
  readonly httpQueryParameterName?: string;
  readonly ringHash?: ConsistentHashRingHash;
  readonly maglev?: ConsistentHashMagLev;
  readonly minimumRingSize?: number;
}

export interface ConsistentHashRingHash {
  readonly minimumRingSize?: number;
}

export interface ConsistentHashMagLev {
  readonly tableSize?: number;
}

export interface HashCookie {
  readonly name: string;
  readonly path?: string;
  readonly ttl?: string;
  readonly attributes?: readonly HashCookieAttribute[];
}

export interface HashCookieAttribute {
  readonly name: string;
  readonly value?: string;
}

export interface WarmupConfiguration {
  readonly duration: string;
  readonly minimumPercent?: number;
  readonly aggression?: number;
}

export interface ConnectionPoolSettings {
  readonly tcp?: TcpPoolSettings;
  readonly http?: HttpPoolSettings;
}

export interface TcpPoolSettings {
  readonly maxConnections?: number;
  readonly connectTimeout?: string;
  readonly tcpKeepalive?: TcpKeepalive;
  readonly maxConnectionDuration?: string;
  readonly idleTimeout?: string;
}

export interface TcpKeepalive {
  readonly probes?: number;
  readonly time?: string;
  readonly interval?: string;
}

export interface HttpPoolSettings {
  readonly http1MaxPendingRequests?: number;
  readonly http2MaxRequests?: number;
  readonly maxRequestsPerConnection?: number;
  readonly maxRetries?: number;
  readonly idleTimeout?: string;
  readonly h2UpgradePolicy?: H2UpgradePolicy;
  readonly useClientProtocol?: boolean;
  readonly maxConcurrentStreams?: number;
  readonly http2KeepAlive?: Http2KeepAlive;
}

export type H2UpgradePolicy = "DEFAULT" | "DO_NOT_UPGRADE" | "UPGRADE";

export interface Http2KeepAlive {
  readonly interval?: string;
  readonly timeout?: string;
}

export interface OutlierDetection {
  readonly consecutiveErrors?: number;
  readonly splitExternalLocalOriginErrors?: boolean;
  readonly consecutiveLocalOriginFailures?: number;
  readonly consecutiveGatewayErrors?: number;
  readonly consecutive5xxErrors?: number;
  readonly interval?: string;
  readonly baseEjectionTime?: string;
  readonly maxEjectionPercent?: number;
  readonly minHealthPercent?: number;
  readonly outlierDetectionHttpErrorCodes?: readonly number[];
}

export interface ClientTLSSettings {
  readonly mode?: ClientTLSMode;
  readonly clientCertificate?: string;
  readonly privateKey?: string;
  readonly caCertificates?: string;
  readonly credentialName?: string;
  readonly subjectAltNames?: readonly string[];
  readonly sni?: string;
  readonly insecureSkipVerify?: boolean;
  readonly caCrl?: string;
}

export type ClientTLSMode = "DISABLE" | "SIMPLE" | "MUTUAL" | "ISTIO_MUTUAL";

export interface LocalityLoadBalancerSetting {
  readonly distribute?: readonly LocalityLoadBalancerSettingDistribute[];
  readonly failover?: readonly LocalityLoadBalancerSettingFailover[];
  readonly failoverPriority?: readonly string[];
  readonly enabled?: boolean;
}

export interface LocalityLoadBalancerSettingDistribute {
  readonly from?: string;
  readonly to?: Readonly<Record<string, number>>;
}

export interface LocalityLoadBalancerSettingFailover {
  readonly from?: string;
  readonly to?: string;
}

export interface ZoneAwareLoadBalancerSetting {
  readonly enabled?: boolean;
  readonly failover?: readonly ZoneAwareLoadBalancerSettingFailover[];
  readonly failoverPriority?: readonly string[];
  readonly minClusterSize?: number;
}

export interface ZoneAwareLoadBalancerSettingFailover {
  readonly from?: string;
  readonly to?: string;
}
