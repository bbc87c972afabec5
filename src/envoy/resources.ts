// One query for each type of resource: from a key of a plan to bytes.

import { defineKeyedQuery, type Query, type Read } from "#engine";
import {
  keyText,
  type AddedKey,
  type ClusterKey,
  type EndpointKey,
  type ListenerKey,
  type PatchedKey,
  type ResourceType,
  type RouteKey,
  type SecretKey,
  type VirtualHostKey,
} from "#plan";
import { outboundCluster, wellKnownCluster } from "./cluster.ts";
import { datagramCluster, datagramEndpoints } from "./datagram-cluster.ts";
import { dnsTable } from "./dns-listener.ts";
import { outboundEndpoints } from "./endpoint.ts";
import { addedResource, patchedResource } from "./envoy-filter.ts";
import { gatewayListener } from "./gateway-listener.ts";
import { gatewayRoute } from "./gateway-route.ts";
import { inboundCluster, inboundPassthroughCluster } from "./inbound-cluster.ts";
import { inboundListener, virtualInbound } from "./inbound-listener.ts";
import { outboundListener, virtualOutbound } from "./outbound-listener.ts";
import { sameResource, type EnvoyResource } from "./resource.ts";
import { proxylessCluster, proxylessEndpoints, proxylessListener, proxylessRoute } from "./proxyless.ts";
import { outboundRouteTable } from "./route-table.ts";
import { credentialSecret } from "./secret.ts";
import { outboundVirtualHost } from "./virtual-host.ts";
import { localCluster } from "./zone-aware.ts";

type Built = EnvoyResource | undefined;

/**
 * The resource of a planned key, by type. Undefined when what the key names is gone, which a plan that is up to date
 * never asks for. Keys are those of the plan's entries of the same type.
 */
export const resourceOf: Readonly<Record<ResourceType, Query<never, Built>>> = {
  cluster: resourceQuery<ClusterKey>("cluster", buildCluster),
  endpoint: resourceQuery<EndpointKey>("endpoint", buildEndpoints),
  listener: resourceQuery<ListenerKey>("listener", buildListener),
  route: resourceQuery<RouteKey>("route", buildRoute),
  virtualHost: resourceQuery<VirtualHostKey>("virtualHost", outboundVirtualHost),
  secret: resourceQuery<SecretKey>("secret", credentialSecret),
};

function resourceQuery<K>(type: ResourceType, build: (read: Read, key: K) => Built): Query<never, Built> {
  return defineKeyedQuery<K | PatchedKey | AddedKey, Built>(
    `resource.${type}`,
    (key) => keyText(type, key),
    (read, key) => {
      const { kind } = key as { readonly kind: string };
      if (kind === "added") return addedResource(read, type, key as AddedKey);
      if (kind !== "patched") return build(read, key as K);
      const patched = key as PatchedKey;
      return patchedResource(read, type, patched, read(resourceOf[type], patched.base as never));
    },
    sameResource,
  );
}

function buildCluster(read: Read, key: ClusterKey): Built {
  switch (key.kind) {
    case "outbound":
      return outboundCluster(read, key);
    case "well-known":
      return wellKnownCluster(read, key);
    case "inbound":
      return inboundCluster(read, key);
    case "inbound-passthrough":
      return inboundPassthroughCluster(read, key);
    case "proxyless":
      return proxylessCluster(read, key);
    case "datagram":
      return datagramCluster(read, key);
  }
}

function buildEndpoints(read: Read, key: EndpointKey): Built {
  switch (key.kind) {
    case "outbound":
      return outboundEndpoints(read, key);
    case "local-cluster":
      return localCluster(read, key);
    case "proxyless":
      return proxylessEndpoints(read, key);
    case "datagram":
      return datagramEndpoints(read, key);
  }
}

function buildListener(read: Read, key: ListenerKey): Built {
  switch (key.kind) {
    case "virtual-outbound":
      return virtualOutbound(read, key);
    case "dns-table":
      return dnsTable(read, key);
    case "outbound":
      return outboundListener(read, key);
    case "virtual-inbound":
      return virtualInbound(read, key);
    case "inbound":
      return inboundListener(read, key);
    case "gateway":
      return gatewayListener(read, key);
    case "proxyless":
      return proxylessListener(read, key);
  }
}

function buildRoute(read: Read, key: RouteKey): Built {
  if (key.kind === "gateway") return gatewayRoute(read, key);
  if (key.kind === "proxyless") return proxylessRoute(read, key);
  return outboundRouteTable(read, key, (host) => read(resourceOf.virtualHost, host as never));
}
