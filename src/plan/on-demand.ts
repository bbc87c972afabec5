// Clusters on demand: what of the outbound side stays as it is, what is only offered, and what Envoy cannot ask for.
//
// Envoy's on-demand discovery finds the cluster that a request or a connection is routed to. Clusters that something else
// names must be there before: mirrors, the services behind filters (external authorization, tracing, logs), and whatever
// an EnvoyFilter writes by name.

import { defineKeyedQuery, sameData, type Read } from "#engine";
import {
  anyOutlet,
  envoyFiltersOf,
  hostsAside,
  readMesh,
  scopeText,
  servicesOfHost,
  tables,
  visibleService,
  type OutboundScope,
} from "#model";
import type { OutboundListenerKey, OutboundRouteKey, VirtualOutboundKey } from "./keys.ts";
import type { Chunk, Planned } from "./plan.ts";

/** Chunks come from memoized queries and are compared by identity: each has one counterpart. */
const offeredChunks = new WeakMap<Chunk, Chunk>();
const discoveringChunks = new WeakMap<Chunk, Chunk>();

/** The same chunk for those alone who ask. */
export function offered(chunk: Chunk): Chunk {
  let result = offeredChunks.get(chunk);
  if (result === undefined) offeredChunks.set(chunk, (result = { ...chunk, onDemand: true }));
  return result;
}

type DiscoveringKey = OutboundListenerKey | VirtualOutboundKey | OutboundRouteKey;

/** The same listeners or route tables, asking for clusters that are not there. */
export function discovering(chunk: Chunk): Chunk {
  let result = discoveringChunks.get(chunk);
  if (result === undefined) {
    const entries = (chunk as Chunk<DiscoveringKey>).entries.map(
      ({ name, key }): Planned<DiscoveringKey> => ({ name, key: { ...key, discoversClusters: true } }),
    );
    discoveringChunks.set(chunk, (result = { ...chunk, entries }));
  }
  return result;
}

/** The services whose clusters are sent to everyone of an on-demand scope, as `namespace/host`. */
export const eagerServices = defineKeyedQuery<OutboundScope, readonly string[]>(
  "eagerServices",
  scopeText,
  (read, scope) => {
    const outlet = { scope, port: anyOutlet };
    const visible = read(hostsAside, "").flatMap((host) => read(visibleService, { outlet, host }) ?? []);
    const named = [...providerHosts(read), ...filterHosts(read, scope)].flatMap(
      (host) => read(visibleService, { outlet, host }) ?? read(servicesOfHost, host)[0] ?? [],
    );
    return [...new Set([...visible, ...named])].toSorted();
  },
  sameData,
);

/** Every provider of MeshConfig keeps the address of its service under `service`: a host, or `namespace/host`. */
function providerHosts(read: Read): readonly string[] {
  return (readMesh(read, "extensionProviders") ?? []).flatMap((provider) =>
    [...Object.values(provider), provider.opentelemetry?.dynatraceSampler?.httpService].flatMap(
      (settings: unknown) => {
        const service = (settings as { readonly service?: unknown } | undefined)?.service;
        return typeof service === "string" ? [service.slice(service.indexOf("/") + 1)] : [];
      },
    ),
  );
}

/** The hosts of outbound clusters that the EnvoyFilters of a scope write anywhere by name. */
function filterHosts(read: Read, { namespace, labels }: OutboundScope): readonly string[] {
  return read(envoyFiltersOf, { namespace, labels }).flatMap((filter) => read(hostsNamedBy, filter));
}

const hostsNamedBy = defineKeyedQuery<string, readonly string[]>(
  "hostsNamedByEnvoyFilter",
  (filter) => filter,
  (read, filter) => {
    const patches = read(tables.EnvoyFilter, filter)?.spec?.configPatches ?? [];
    const text = JSON.stringify(patches.map(({ patch }) => patch?.value));
    return [...text.matchAll(/outbound\|\d+\|[^|"\\]*\|([^|"\\]+)/g)].map(([, host = ""]) => host);
  },
  sameData,
);
