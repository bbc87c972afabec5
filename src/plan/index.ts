export type { Chunk, Plan, Planned, ResourceType } from "./plan.ts";
export { emptyPlan, resourceTypes } from "./plan.ts";
export type { GatewayView, InboundView, OutboundView, ProxylessView, View } from "./views.ts";
export { viewsOf, viewText } from "./views.ts";
export { planOf } from "./plan-of.ts";
export type {
  ClientFacts,
  ClusterKey,
  DnsTableKey,
  EndpointKey,
  KeyOf,
  ListenerKey,
  OutboundClusterKey,
  OutboundListenerKey,
  OutboundPart,
  OutboundRouteKey,
  OutboundVirtualHostKey,
  RouteKey,
  SecretKey,
  VirtualHostKey,
  VirtualOutboundKey,
  WellKnownClusterKey,
} from "./keys.ts";
export {
  keyText,
  clusterNameOf,
  lookedUpCluster,
  outboundClusterName,
  outboundListenerName,
  passthroughClusterName,
  stableText,
} from "./keys.ts";
export { discoveredName, discoversHosts, partsOfDiscovered } from "./discovered-tables.ts";
export { virtualHostName, virtualHostsOf } from "./virtual-hosts.ts";
export type {
  InboundClusterKey,
  InboundListenerKey,
  InboundPassthroughClusterKey,
  LocalClusterKey,
  VirtualInboundKey,
} from "./inbound-keys.ts";
export { inboundClusterName } from "./inbound.ts";
export { coversService, passthroughClusters } from "./gateway.ts";
export { datagramClusterName } from "./datagrams.ts";
export type {
  CredentialKey,
  DatagramClusterKey,
  GatewayListenerKey,
  GatewayRouteKey,
} from "./gateway-keys.ts";
export type { ProxylessClusterKey, ProxylessListenerKey, ProxylessRouteKey } from "./proxyless-keys.ts";
export { nowhereCluster } from "./proxyless-keys.ts";
export type { Overlay } from "./overlays.ts";
export type { AddedKey, PatchContext, PatchedKey, PatchRef } from "./patches.ts";
export { isForProxy } from "./patches.ts";
