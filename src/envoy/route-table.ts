// Route tables: their virtual hosts' bytes one after the other. A change in one virtual host encodes that one alone.

import type { Read } from "#engine";
import { readTuning } from "#model";
import { virtualHostsOf, type OutboundRouteKey, type OutboundVirtualHostKey } from "#plan";
import { durationOf, encodeMessage, wrapped, type Message } from "./proto/api.ts";
import { onDemandOn } from "./filters.ts";
import { resource, resourceOfBytes, type EnvoyResource, type Origin } from "./resource.ts";
import { catchAllVirtualHost } from "./virtual-host.ts";

/** Body of a direct response that Istio allows: Envoy's own limit is 4 KiB. */
const directResponseBytesMax = 1_048_576;

/** Field 2 of RouteConfiguration, `virtual_hosts`, length-delimited. */
const virtualHostsTag = 0x12;

/** @param hostOf reads one virtual host; undefined for a host without routes */
export function outboundRouteTable(
  read: Read,
  key: OutboundRouteKey,
  hostOf: (host: OutboundVirtualHostKey) => EnvoyResource | undefined,
): EnvoyResource {
  const name = key.everyPort ?? (key.host === "" ? String(key.port) : `${key.host}:${key.port}`);
  const settings = {
    ...tableSettings(name, key.discoversClusters === true),
    ...(key.everyPort === undefined ? {} : { ignorePortInHostMatching: false }),
  };
  const { tuning } = key;
  const catchAll = catchAllVirtualHost(key.unknownTo, readTuning(read, tuning));
  if (key.discovers === true) return discoveringTable(name, settings, catchAll);
  const hosts = read(virtualHostsOf, key).flatMap(
    (host) => hostOf(tuning === undefined ? host : { ...host, tuning }) ?? [],
  );
  const encoded = hosts.map(({ bytes }) => bytes);
  if (key.host === "") encoded.push(encodeMessage("envoy.config.route.v3.VirtualHost", catchAll));
  return joinedTable(
    name,
    settings,
    encoded,
    hosts.flatMap(({ name: host, origins }) =>
      origins.map((origin) => ({ ...origin, at: origin.at === "" ? host : `${host}.${origin.at}` })),
    ),
  );
}

/** A table that holds the catch-all alone; Envoy asks for the rest. */
function discoveringTable(name: string, settings: Message, catchAll: Message): EnvoyResource {
  return resource("route", name, {
    ...settings,
    virtualHosts: [catchAll],
    // Without its virtual hosts a table sends everything to the catch-all: a new listener waits for them.
    vhds: { configSource: { ads: {}, initialFetchTimeout: durationOf(0), resourceApiVersion: "V3" } },
  });
}

function tableSettings(name: string, discoversClusters: boolean): Message {
  return {
    name,
    ...(discoversClusters ? { typedPerFilterConfig: onDemandOn } : {}),
    // Clusters may come after the routes to them; a missing one answers 503 instead of refusing the table.
    validateClusters: wrapped(false),
    ignorePortInHostMatching: true,
    maxDirectResponseBodySizeBytes: wrapped(directResponseBytesMax),
  };
}

/** A RouteConfiguration of virtual hosts that are encoded already. */
export function routeTable(
  name: string,
  virtualHosts: readonly Uint8Array[],
  origins: readonly Origin[],
): EnvoyResource {
  return joinedTable(name, tableSettings(name, false), virtualHosts, origins);
}

function joinedTable(
  name: string,
  settings: Message,
  virtualHosts: readonly Uint8Array[],
  origins: readonly Origin[],
): EnvoyResource {
  // Protobuf lets the fields of a message be written in pieces.
  const head = encodeMessage("envoy.config.route.v3.RouteConfiguration", settings);
  const parts: Uint8Array[] = [head];
  for (const bytes of virtualHosts) parts.push(lengthPrefix(virtualHostsTag, bytes.length), bytes);
  return resourceOfBytes("route", name, Buffer.concat(parts), origins);
}

/** A field's tag and length as protobuf writes them: seven bits a byte, lowest first. */
function lengthPrefix(tag: number, length: number): Uint8Array {
  const bytes = [tag];
  let rest = length;
  while (rest > 0x7f) {
    bytes.push((rest & 0x7f) | 0x80);
    rest >>>= 7;
  }
  bytes.push(rest);
  return Uint8Array.from(bytes);
}
