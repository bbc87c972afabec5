// A proxy as the control plane knows it after authentication: what it is entitled to is decided by these facts alone.

import type { Topology } from "#objects";
import type { ProxyTuning } from "./proxy-tuning.ts";

/** The field of `ProxyClass.metadata` that says `true` where the sidecar answers its workload's DNS. */
export const dnsCaptureField = "DNS_CAPTURE";

/** The field that says `true` where the proxy's bootstrap has a cluster of its own service, as zone-aware balancing needs. */
export const selfDiscoveryField = "ENABLE_SELF_DISCOVERY";

/**
 * What makes two proxies want the same configuration. Addresses and pod names are deliberately absent: replicas of
 * one workload are one class. Filled from the Pod (not from what the proxy says) where a Pod is known.
 */
export interface ProxyClass {
  /** "grpc" is a program that speaks xDS itself and has no proxy. */
  readonly kind: "sidecar" | "router" | "grpc";
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly serviceAccount: string;
  /** The istio network of the workload; "" when none is set. */
  readonly network: string;
  /** region/zone/subzone; "" when unknown. */
  readonly locality: string;
  /** The Kubernetes node that it runs on; absent outside of the cluster. */
  readonly node?: string;
  readonly clusterId: string;
  /** e.g. "default.svc.cluster.local": what short names are completed with. */
  readonly dnsDomain: string;
  /** The capture mode of the sidecar. */
  readonly interception: "REDIRECT" | "TPROXY" | "NONE";
  /** What the Pod's annotation says of how it gets clusters; absent without one. */
  readonly clusterDiscovery?: string;
  /** Envoy's version as it says it, e.g. "1.40.0"; "" when unknown. */
  readonly envoyVersion: string;
  /** Of routers: what their Pods say of the load balancers before them. */
  readonly topology?: Topology;
  /** What the Pod says of its proxy's headers and connections; absent where it says nothing. */
  readonly tuning?: ProxyTuning;
  /** It speaks state-of-the-world xDS instead of delta. */
  readonly stateOfTheWorld?: true;
  /** Of "grpc": the listeners and clusters that it asks for, in order. */
  readonly targets?: readonly string[];
  /** Ports of the workload that the kubelet probes directly and capture leaves alone, and the like, by metadata name. */
  readonly metadata: Readonly<Record<string, string>>;
}

/** One connected proxy. */
export interface Proxy {
  /** Envoy's node id: `sidecar~10.244.0.7~reviews-v1-abc.default~default.svc.cluster.local`. */
  readonly id: string;
  readonly name: string;
  readonly addresses: readonly string[];
  readonly class: ProxyClass;
}

/**
 * What EnvoyFilters may ask of a proxy, under the names of its metadata: what the control plane knows itself, and what the
 * proxy says beside that.
 */
export function proxyFacts(proxy: ProxyClass): Readonly<Record<string, string>> {
  const { namespace, clusterId, serviceAccount, network, interception, metadata } = proxy;
  return {
    ...metadata,
    NAMESPACE: namespace,
    CLUSTER_ID: clusterId,
    ISTIO_VERSION: istioVersion,
    SERVICE_ACCOUNT: serviceAccount,
    INTERCEPTION_MODE: interception,
    ...(network === "" ? {} : { NETWORK: network }),
  };
}

/** The version of Istio that the mesh's proxies stand for where an object asks for one. */
export const istioVersion = "1.30.0";

/** A stable text for a class: equal classes have equal texts whatever the order of their labels. */
export function proxyClassText(proxy: ProxyClass): string {
  return JSON.stringify(proxy, (_key, value: unknown) =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  );
}
