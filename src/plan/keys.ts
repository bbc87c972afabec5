// Keys of resources: everything that a resource's bytes depend on beside the facts it reads. A key carries resolved
// names (which DestinationRules apply), never the proxy that asks, so that views share bytes.

import type { Labels, OutboundScope, Outlet, ProxyTuning } from "#model";
import type {
  CredentialKey,
  DatagramClusterKey,
  GatewayListenerKey,
  GatewayRouteKey,
} from "./gateway-keys.ts";
import type {
  InboundClusterKey,
  InboundListenerKey,
  InboundPassthroughClusterKey,
  LocalClusterKey,
  VirtualInboundKey,
} from "./inbound-keys.ts";
import type { ResourceType } from "./plan.ts";
import type { ProxylessClusterKey, ProxylessListenerKey, ProxylessRouteKey } from "./proxyless-keys.ts";

export interface OutboundClusterKey {
  readonly kind: "outbound";
  /** `namespace/host` of the service. */
  readonly service: string;
  readonly port: number;
  /** "" is the whole service. */
  readonly subset: string;
  /** Row keys of the DestinationRules that apply, merged in this order. */
  readonly rules: readonly string[];
  /** The client's locality, where load balancing looks at it; otherwise "". */
  readonly locality: string;
  /** The client's network, where networks have gateways; otherwise absent. */
  readonly network?: string;
  /** Those of the client's labels that an order of failover names; absent where none is named. */
  readonly clientLabels?: Labels;
  /** Connections go on to the address that the client meant: headless services, for captured traffic. */
  readonly toOriginal: boolean;
  /** What the client shows to servers that it speaks TLS to: the name of a secret. A router's, by Gateway API. */
  readonly clientCertificate?: string;
  /** A router's: where a port's protocol is left to be found out, requests go on as HTTP/1.1, whatever the client speaks. */
  readonly byRouter?: true;
  /** For mutual TLS that passes through a gateway between networks: nothing is added to it, and nothing else gets in. */
  readonly passthrough?: true;
  /** What its proxies' Pods say of headers and connections; absent where MeshConfig alone does. */
  readonly tuning?: ProxyTuning;
}

/** PassthroughCluster, BlackHoleCluster, and that of hosts that are looked up: the same bytes for every proxy. */
export interface WellKnownClusterKey {
  readonly kind: "well-known";
  readonly name: "PassthroughCluster" | "BlackHoleCluster" | typeof lookedUpCluster;
  readonly tuning?: ProxyTuning;
}

/** Takes HTTP to hosts that no service claims, where MeshConfig's outboundTrafficPolicy has them looked up. */
export const lookedUpCluster = "AllowAnyDynamicDNSCluster";

export type ClusterKey =
  | OutboundClusterKey
  | WellKnownClusterKey
  | InboundClusterKey
  | InboundPassthroughClusterKey
  | ProxylessClusterKey
  | DatagramClusterKey;

export type EndpointKey = OutboundClusterKey | LocalClusterKey | ProxylessClusterKey | DatagramClusterKey;

/** `virtualOutbound`, at 15001. */
export interface VirtualOutboundKey {
  readonly kind: "virtual-outbound";
  /** Ports that services have, where it matters that others may be looked up; otherwise absent. */
  readonly servicePorts?: readonly number[];
  /** The cluster of what no service claims: PassthroughCluster, BlackHoleCluster, that of hosts that are looked up, or an egress proxy. */
  readonly unknownTo: string;
  /** Clusters that are not there are asked for; absent where all are sent. */
  readonly discoversClusters?: true;
  readonly tuning?: ProxyTuning;
}

/** The client's facts that rules match sources by. */
export interface ClientFacts {
  readonly namespace: string;
  readonly labels: Labels;
}

/** What takes connections of one address and port. */
export type OutboundPart =
  /** Everything that looks like HTTP goes to a route table. */
  | {
      readonly kind: "http";
      readonly route: string;
      /** Some host of the table is looked up as requests name it. */
      readonly dynamic?: true;
      /** Some route of the table has sessions. */
      readonly sessions?: true;
      /** Some route of the table asks a service whether requests may go on. */
      readonly asks?: true;
    }
  /** Connections to one service. */
  | {
      readonly kind: "stream";
      /** `namespace/host`. */
      readonly service: string;
      readonly port: number;
      /** The application speaks TLS: connections are told apart by SNI. */
      readonly tls: boolean;
      /** Destination ranges where the listener's own address does not tell the service. */
      readonly ranges: readonly string[];
      /** Nothing but the SNI tells this service from others at the listener. */
      readonly bySni: boolean;
      /** Row keys of VirtualServices with TCP or TLS routes for it, first wins. */
      readonly routing: readonly string[];
      readonly rules: readonly string[];
    };

/** A listener for one address and port of the outbound side. */
export interface OutboundListenerKey {
  readonly kind: "outbound";
  readonly bind: string;
  readonly port: number;
  readonly bindToPort: boolean;
  readonly parts: readonly OutboundPart[];
  /** The cluster of what no service claims: PassthroughCluster, BlackHoleCluster, that of hosts that are looked up, or an egress proxy. */
  readonly unknownTo: string;
  /** Only where some part is routed by VirtualServices: without, clients of all namespaces share the bytes. */
  readonly client?: ClientFacts;
  /** Clusters that are not there are asked for; absent where all are sent. */
  readonly discoversClusters?: true;
  readonly tuning?: ProxyTuning;
}

/** `dns`: the names that a sidecar answers its workload for. */
export interface DnsTableKey {
  readonly kind: "dns-table";
  readonly scope: OutboundScope;
}

export type ListenerKey =
  | VirtualOutboundKey
  | DnsTableKey
  | OutboundListenerKey
  | InboundListenerKey
  | VirtualInboundKey
  | GatewayListenerKey
  | ProxylessListenerKey;

/** A table of the outbound side: "9080", or "host:9080" for a sniffed port of one service. */
export interface OutboundRouteKey {
  readonly kind: "outbound";
  readonly outlet: Outlet;
  readonly port: number;
  /** The host of a sniffed service; "" is the table of all services of the port. */
  readonly host: string;
  /** The table's name, where it has hosts of every port: of an egress listener at a unix socket, or one that is an HTTP proxy. */
  readonly everyPort?: string;
  /** The cluster of what no service claims: PassthroughCluster, BlackHoleCluster, that of hosts that are looked up, or an egress proxy. */
  readonly unknownTo: string;
  /** Its virtual hosts are resources of their own; absent where they stand in the table. */
  readonly discovers?: true;
  /** Clusters that are not there are asked for; absent where all are sent. */
  readonly discoversClusters?: true;
  readonly tuning?: ProxyTuning;
}

export type RouteKey = OutboundRouteKey | GatewayRouteKey | ProxylessRouteKey;

/** One virtual host of an outbound table. */
export interface OutboundVirtualHostKey {
  readonly kind: "outbound";
  readonly host: string;
  readonly port: number;
  readonly domains: readonly string[];
  /** `namespace/host`, or "" for a host that only VirtualServices know. */
  readonly service: string;
  /** Row keys of VirtualServices, the first with a route for the client wins. */
  readonly routing: readonly string[];
  /** DestinationRules of the service itself. */
  readonly rules: readonly string[];
  /** Only where VirtualServices route: without, clients of all namespaces share the bytes. */
  readonly client?: ClientFacts;
  /** A resource of its own, whose name says which table it belongs to; absent where it stands in its table. */
  readonly discovered?: true;
  readonly tuning?: ProxyTuning;
}

export type VirtualHostKey = OutboundVirtualHostKey;

export type SecretKey = CredentialKey;

/** `0.0.0.0_9080`, or `unix:///path`. */
export function outboundListenerName({ bind, port }: Pick<OutboundListenerKey, "bind" | "port">): string {
  return bind.startsWith("unix://") ? bind : `${bind}_${port}`;
}

/** `outbound|9080|v1|reviews.default.svc.cluster.local`, the name that Istio's users know. */
export function outboundClusterName(port: number, subset: string, host: string): string {
  return `outbound|${port}|${subset}|${host}`;
}

/** `outbound_.9080_.v1_.reviews.default.svc.cluster.local`: the cluster of TLS that passes through, and the SNI it is chosen by. */
export function passthroughClusterName(port: number, subset: string, host: string): string {
  return `outbound_.${port}_.${subset}_.${host}`;
}

export function clusterNameOf({ service, port, subset, passthrough }: OutboundClusterKey): string {
  const host = service.slice(service.indexOf("/") + 1);
  return passthrough === true
    ? passthroughClusterName(port, subset, host)
    : outboundClusterName(port, subset, host);
}

/** A resource's key, by type; "inbound" and "gateway" members are added by those who build them. */
export interface KeyOf {
  readonly cluster: ClusterKey;
  readonly endpoint: EndpointKey;
  readonly listener: ListenerKey;
  readonly route: RouteKey;
  readonly virtualHost: VirtualHostKey;
  readonly secret: SecretKey;
}

/** A stable text for a key: equal keys have equal texts whatever the order of their fields. */
export function keyText(type: ResourceType, key: unknown): string {
  return `${type} ${stableText(key)}`;
}

/** Keys are asked for their text at every read, and never change: each object's text is made once. */
const texts = new WeakMap<object, string>();

/** JSON with the fields of every object in order. */
export function stableText(value: unknown): string {
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null";
  let text = texts.get(value);
  if (text === undefined) texts.set(value, (text = textOf(value)));
  return text;
}

function textOf(value: object): string {
  if (Array.isArray(value)) return `[${value.map(stableText).join(",")}]`;
  const entries = Object.entries(value).filter(([, field]) => field !== undefined);
  const fields = entries.toSorted(([a], [b]) => (a < b ? -1 : 1));
  return `{${fields.map(([name, field]) => `${JSON.stringify(name)}:${stableText(field)}`).join(",")}}`;
}
