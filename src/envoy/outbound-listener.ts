// Listeners of the outbound side: `virtualOutbound`, where capture brings every connection, and those to which it hands
// connections by their original destination.

import { ports as meshPorts } from "#base";
import type { Read } from "#engine";
import {
  mergedRule,
  readMesh,
  selects,
  serviceOf,
  servicesOfHost,
  streamRoutesOf,
  type StreamRoutes,
} from "#model";
import {
  lookedUpCluster,
  outboundClusterName,
  outboundListenerName,
  type ClientFacts,
  type OutboundListenerKey,
  type OutboundPart,
  type VirtualOutboundKey,
} from "#plan";
import type { Destination, RouteDestination } from "#objects";
import { durationMsOf } from "./duration.ts";
import { dynamicHttpFilter, dynamicSniFilters } from "./dynamic-forward.ts";
import {
  httpConnectionManager,
  httpInspector,
  meshHttpAlpnFilter,
  originalDestination,
  unknownHostFilter,
  tcpProxy,
  tlsInspector,
  type FilterSettings,
} from "./filters.ts";
import { externalAuthFilter } from "./external-auth.ts";
import { statefulSession } from "./route-filters.ts";
import { readFilterSettings } from "./mesh-settings.ts";
import { objectPath } from "./object-path.ts";
import { durationOf, structOf, wrapped, type Message } from "./proto/api.ts";
import { resource, type EnvoyResource, type Origin } from "./resource.ts";
import { statName, type StatSubject } from "./stat-name.ts";
import { listenerAccessLogs } from "./telemetry.ts";
import { listenerBuffer } from "./tuning.ts";
import { policyFor, streamPolicy } from "./traffic-policy.ts";
import { catchAllVirtualHost, clusterOf, destinationPolicy } from "./virtual-host.ts";

/** Connections taken from the socket in one turn of the event loop; more would starve those that are open. */
const acceptsPerEventMax = 1;

export function virtualOutbound(read: Read, key: VirtualOutboundKey): EnvoyResource {
  const { unknownTo } = key;
  const lookedUp = unknownTo === lookedUpCluster;
  const settings = settingsFor(read, key);
  const name = "virtualOutbound";
  return resource("listener", name, {
    name,
    address: socketAddress("0.0.0.0", meshPorts.outbound),
    trafficDirection: "OUTBOUND",
    ...listenerBuffer(settings.tuning?.connectionSettings),
    useOriginalDst: wrapped(true),
    maxConnectionsToAcceptPerSocketEvent: wrapped(acceptsPerEventMax),
    accessLog: listenerAccessLogs(settings),
    filterChains: [
      {
        name: "virtualOutbound-blackhole",
        // Somebody calls the capture port itself: passing it on would come back here for ever.
        filterChainMatch: { destinationPort: wrapped(meshPorts.outbound) },
        filters: [clusterProxy(settings, "BlackHoleCluster")],
      },
      ...(lookedUp ? [lookedUpChain(settings)] : []),
      {
        name: "virtualOutbound-catchall-tcp",
        filters: [clusterProxy(settings, streamsTo(unknownTo))],
      },
    ],
    ...(lookedUp ? inspection(read, key) : {}),
  });
}

/** For clients that wait for the server to speak, beyond which a connection is none of HTTP. */
const firstBytesMaxMs = 1_000;

/**
 * HTTP has to be told from other traffic by the client's first bytes. Ports of services have listeners of their own, to which the
 * connection goes only after these filters: there nobody waits, since servers that speak first would not be heard.
 */
function inspection(read: Read, { servicePorts = [] }: VirtualOutboundKey): Message {
  const timeoutMs = durationMsOf(readMesh(read, "protocolDetectionTimeout"));
  return {
    // Only after the first of these the destination is the port that the client meant; `use_original_dst` would come last.
    listenerFilters: [originalDestination, httpInspector([meshPorts.outbound, ...servicePorts])],
    listenerFiltersTimeout: durationOf(timeoutMs === 0 ? firstBytesMaxMs : timeoutMs),
    continueOnListenerFiltersTimeout: true,
  };
}

/** HTTP on ports that no service has, to hosts that are looked up as requests name them. */
function lookedUpChain(settings: FilterSettings): Message {
  const name = "virtualOutbound-catchall-http";
  const table = {
    name: "allow_any_dynamic_dns",
    virtualHosts: [catchAllVirtualHost(lookedUpCluster, settings.tuning ?? {})],
    validateClusters: wrapped(false),
    ignorePortInHostMatching: true,
  };
  const manager = httpConnectionManager(settings, {
    side: "client",
    statPrefix: `outbound_${name};`,
    routes: { kind: "inline", table },
    policyFilters: [meshHttpAlpnFilter, unknownHostFilter, dynamicHttpFilter],
  });
  return { name, filterChainMatch: plainHttp, filters: [manager] };
}

const plainHttp: Message = {
  transportProtocol: "raw_buffer",
  applicationProtocols: ["http/1.0", "http/1.1", "h2c"],
};

/** Only HTTP names the host to look up; other connections go where they were sent. */
function streamsTo(unknownTo: string): string {
  return unknownTo === lookedUpCluster ? "PassthroughCluster" : unknownTo;
}

function settingsFor(read: Read, key: VirtualOutboundKey | OutboundListenerKey): FilterSettings {
  const settings = readFilterSettings(read, key.tuning);
  return key.discoversClusters === true ? { ...settings, discoversClusters: true } : settings;
}

export function outboundListener(read: Read, key: OutboundListenerKey): EnvoyResource {
  const settings = settingsFor(read, key);
  const name = outboundListenerName(key);
  const chains = distinct(
    key.parts.flatMap((part) =>
      part.kind === "http" ? [httpChain(settings, name, key, part)] : streamChains(read, settings, key, part),
    ),
  );
  const matchAll = chains.find(isMatchAll);
  const matching = chains.filter((chain) => !isMatchAll(chain)).map(({ message }) => message);
  const fallback = matchAll?.message ?? {
    name: "PassthroughFilterChain",
    filters: [clusterProxy(settings, streamsTo(key.unknownTo))],
  };
  const sniffs = chains.some(({ match }) => match.http);
  const timeoutMs = durationMsOf(readMesh(read, "protocolDetectionTimeout"));
  const message: Message = {
    name,
    address: key.bind.startsWith("unix://")
      ? { pipe: { path: key.bind.slice("unix://".length) } }
      : socketAddress(key.bind, key.port),
    trafficDirection: "OUTBOUND",
    ...listenerBuffer(settings.tuning?.connectionSettings),
    ...(key.bindToPort
      ? { maxConnectionsToAcceptPerSocketEvent: wrapped(acceptsPerEventMax) }
      : { bindToPort: wrapped(false) }),
    listenerFilters: [
      ...(chains.some(({ match }) => match.serverNames.length > 0) ? [tlsInspector()] : []),
      ...(sniffs ? [httpInspector()] : []),
    ],
    // 0 waits for the client's first bytes as long as it takes, which is Istio's default.
    listenerFiltersTimeout: durationOf(sniffs ? timeoutMs : 0),
    continueOnListenerFiltersTimeout: true,
    // One chain that takes everything needs no fallback.
    ...(matching.length === 0 && matchAll !== undefined
      ? { filterChains: [fallback] }
      : { filterChains: matching, defaultFilterChain: fallback }),
  };
  return resource("listener", name, message, originsOf(read, key));
}

/** A filter chain with what it is chosen by. */
interface Chain {
  readonly match: {
    readonly http: boolean;
    readonly serverNames: readonly string[];
    readonly ranges: readonly string[];
  };
  readonly message: Message;
}

function isMatchAll({ match }: Chain): boolean {
  return !match.http && match.serverNames.length === 0 && match.ranges.length === 0;
}

/** Envoy refuses two chains with the same match: the first stays, as Istio has it. */
function distinct(chains: readonly Chain[]): Chain[] {
  const seen = new Set<string>();
  return chains.filter(({ match }) => {
    const text = JSON.stringify([
      match.http,
      match.serverNames.toSorted(),
      match.ranges.map(masked).toSorted(),
    ]);
    if (seen.has(text)) return false;
    seen.add(text);
    return true;
  });
}

type HttpPart = Extract<OutboundPart, { readonly kind: "http" }>;

function httpChain(
  settings: FilterSettings,
  listener: string,
  { unknownTo }: OutboundListenerKey,
  { route, dynamic, sessions, asks }: HttpPart,
): Chain {
  const looksUp = dynamic === true || unknownTo === lookedUpCluster;
  return {
    match: { http: true, serverNames: [], ranges: [] },
    message: {
      filterChainMatch: plainHttp,
      filters: [
        httpConnectionManager(settings, {
          side: "client",
          statPrefix: `outbound_${listener};`,
          routes: { kind: "named", name: route },
          policyFilters: [
            meshHttpAlpnFilter,
            unknownHostFilter,
            ...(sessions === true ? [statefulSession] : []),
            ...(looksUp ? [dynamicHttpFilter] : []),
          ],
          routeFilters: asks === true ? [externalAuthFilter] : [],
        }),
      ],
    },
  };
}

type StreamPart = Extract<OutboundPart, { readonly kind: "stream" }>;

/** The chains of one service: one for each rule of its VirtualServices that can be told apart, or one for itself. */
function streamChains(
  read: Read,
  settings: FilterSettings,
  key: OutboundListenerKey,
  part: StreamPart,
): Chain[] {
  const ruled = part.routing.flatMap((row) => {
    const routes = read(streamRoutesOf, row);
    const context = { read, settings, key, part, row };
    return part.tls ? tlsChains(routes, context) : tcpChains(routes, context);
  });
  const open = ruled.some(({ match }) => match.serverNames.length === 0 && match.ranges.length === 0);
  if (part.tls ? ruled.length > 0 : open) return ruled;
  const sameRanges = ruled.some(({ match }) => match.ranges.join() === part.ranges.join());
  return !part.tls && sameRanges ? ruled : [...ruled, ownChain(read, settings, part)];
}

interface StreamContext {
  readonly read: Read;
  readonly settings: FilterSettings;
  readonly key: OutboundListenerKey;
  readonly part: StreamPart;
  /** Row key of the VirtualService. */
  readonly row: string;
}

function tlsChains({ tls }: StreamRoutes, context: StreamContext): Chain[] {
  const { key, part } = context;
  return tls.flatMap((route) =>
    (route.route ?? []).length === 0
      ? []
      : route.match
          .filter((match) => isStreamSource(match, key))
          .map((match) =>
            streamChain(
              context,
              match.sniHosts.includes("*") ? [] : match.sniHosts,
              match.destinationSubnets === undefined || match.destinationSubnets.length === 0
                ? part.ranges
                : match.destinationSubnets,
              route.route ?? [],
            ),
          ),
  );
}

function tcpChains({ tcp }: StreamRoutes, context: StreamContext): Chain[] {
  const { key, part } = context;
  const chains: Chain[] = [];
  for (const route of tcp) {
    const targets = route.route ?? [];
    if (targets.length === 0) continue;
    const matches = (route.match ?? []).filter((match) => isStreamSource(match, key));
    const always = route.match === undefined || route.match.length === 0;
    if (always || matches.some(({ destinationSubnets }) => (destinationSubnets ?? []).length === 0))
      return [...chains, streamChain(context, [], part.ranges, targets)];
    const subnets = matches.flatMap(({ destinationSubnets }) => destinationSubnets ?? []);
    if (subnets.length > 0) chains.push(streamChain(context, [], subnets, targets));
  }
  return chains;
}

/** What TLS and TCP matches have in common. */
interface StreamMatch {
  readonly port?: number;
  readonly gateways?: readonly string[];
  readonly sourceLabels?: Readonly<Record<string, string>>;
  readonly sourceNamespace?: string;
}

function isStreamSource(match: StreamMatch, { port, client }: OutboundListenerKey): boolean {
  const source: ClientFacts = client ?? { namespace: "", labels: {} };
  const gateways = match.gateways ?? [];
  const namespace = match.sourceNamespace ?? "";
  return (
    (gateways.length === 0 || gateways.includes("mesh")) &&
    (match.port === undefined || match.port === 0 || match.port === port) &&
    selects(match.sourceLabels, source.labels) &&
    (namespace === "" || namespace === source.namespace)
  );
}

function streamChain(
  { read, settings, key, row }: StreamContext,
  serverNames: readonly string[],
  ranges: readonly string[],
  targets: readonly RouteDestination[],
): Chain {
  const clusters = targets.map(({ destination, weight }) => ({
    name: clusterOf(read, destination, key.port),
    weight: weight ?? (targets.length === 1 ? 100 : 0),
  }));
  const [only] = clusters;
  const weighted = clusters.filter(({ weight }) => weight > 0);
  const client = key.client ?? { namespace: "", labels: {} };
  const policy = streamPolicy(targets, (one) => destinationPolicy(read, one, key.port, client));
  const [target] = targets;
  const ownName = target && statName(read, "outbound", subjectOf(read, target.destination, key.port));
  const filter = tcpProxy(settings, {
    side: "client",
    statPrefix: weighted.length > 1 ? row : (ownName ?? only?.name ?? ""),
    to:
      weighted.length > 1
        ? { kind: "weighted", clusters: weighted }
        : { kind: "cluster", name: weighted[0]?.name ?? only?.name ?? "" },
    ...(policy?.tunnel === undefined ? {} : { tunnel: policy.tunnel }),
    hashOnSourceIp: policy?.loadBalancer?.consistentHash?.useSourceIp === true,
    pool: policy?.connectionPool?.tcp,
  });
  return {
    match: { http: false, serverNames, ranges },
    message: {
      ...chainMatch(serverNames, ranges),
      metadata: { filterMetadata: { istio: structOf({ config: objectPath("virtual-service", row) }) } },
      filters: [
        ...dynamicSniFilters(
          read,
          targets.map(({ destination }) => ({
            host: destination.host,
            port: destination.port?.number ?? key.port,
          })),
        ),
        filter,
      ],
    },
  };
}

function subjectOf(read: Read, { host, port, subset = "" }: Destination, listenerPort: number): StatSubject {
  const [service = ""] = read(servicesOfHost, host);
  return { service, port: port?.number ?? listenerPort, subset };
}

/** The chain of a service that no VirtualService routes. */
function ownChain(read: Read, settings: FilterSettings, part: StreamPart): Chain {
  const host = part.service.slice(part.service.indexOf("/") + 1);
  const serverNames = part.tls && part.bySni ? [host] : [];
  const policy = policyFor(read(mergedRule, part.rules.join(",")), "", part.port);
  const cluster = outboundClusterName(part.port, "", host);
  return {
    match: { http: false, serverNames, ranges: part.ranges },
    message: {
      ...chainMatch(serverNames, part.ranges),
      filters: [
        ...dynamicSniFilters(read, [{ host, port: part.port }]),
        tcpProxy(settings, {
          side: "client",
          statPrefix: statName(read, "outbound", part) ?? cluster,
          to: { kind: "cluster", name: cluster },
          hashOnSourceIp: policy.loadBalancer?.consistentHash?.useSourceIp === true,
          pool: policy.connectionPool?.tcp,
          ...(policy.tunnel === undefined ? {} : { tunnel: policy.tunnel }),
        }),
      ],
    },
  };
}

function chainMatch(serverNames: readonly string[], ranges: readonly string[]): Message {
  if (serverNames.length === 0 && ranges.length === 0) return {};
  return {
    filterChainMatch: {
      ...(serverNames.length === 0 ? {} : { serverNames: serverNames.toSorted() }),
      ...(ranges.length === 0
        ? {}
        : { prefixRanges: [...new Set(ranges.map(masked))].toSorted().map(rangeOf) }),
    },
  };
}

function rangeOf(text: string): Message {
  const [address = "", length] = text.split("/");
  const whole = address.includes(":") ? 128 : 32;
  return { addressPrefix: address, prefixLen: wrapped(length === undefined ? whole : Number(length)) };
}

/** The range without the bits that its length leaves open: 1.2.3.4/8 and 1.5.6.7/8 are one range. */
function masked(text: string): string {
  const [address = "", length] = text.split("/");
  if (length === undefined) return text;
  const bits = address.includes(":") ? ipv6Bits(address) : ipv4Bits(address);
  if (bits === undefined) return text;
  const kept = bits.slice(0, Number(length)).padEnd(bits.length, "0");
  return `${renderBits(kept)}/${length}`;
}

function ipv4Bits(address: string): string | undefined {
  const parts = address.split(".").map(Number);
  if (parts.length !== 4 || parts.some((part) => !(part >= 0 && part <= 255))) return undefined;
  return parts.map((part) => part.toString(2).padStart(8, "0")).join("");
}

function ipv6Bits(address: string): string | undefined {
  const [head = "", tail] = address.split("::");
  const words = (text: string): string[] => (text === "" ? [] : text.split(":"));
  const before = words(head);
  const after = tail === undefined ? [] : words(tail);
  const gap = tail === undefined ? 0 : 8 - before.length - after.length;
  const all = [...before, ...Array<string>(Math.max(gap, 0)).fill("0"), ...after];
  if (all.length !== 8) return undefined;
  return all.map((word) => Number.parseInt(word, 16).toString(2).padStart(16, "0")).join("");
}

function renderBits(bits: string): string {
  const size = bits.length === 32 ? 8 : 16;
  const words: string[] = [];
  for (let at = 0; at < bits.length; at += size) {
    words.push(Number.parseInt(bits.slice(at, at + size), 2).toString(size === 8 ? 10 : 16));
  }
  return words.join(size === 8 ? "." : ":");
}

function clusterProxy(settings: FilterSettings, cluster: string): Message {
  return tcpProxy(settings, {
    side: "client",
    statPrefix: cluster,
    to: { kind: "cluster", name: cluster },
  });
}

function socketAddress(address: string, portValue: number): Message {
  return { socketAddress: { address, portValue } };
}

function originsOf(read: Read, { parts }: OutboundListenerKey): Origin[] {
  return parts.flatMap((part) =>
    part.kind === "http"
      ? []
      : [
          ...(read(serviceOf, part.service)?.objects ?? []).map((object) => ({ at: "", object })),
          ...part.routing.map((row) => {
            const [namespace = "", name = ""] = row.split("/");
            return { at: "", object: { kind: "VirtualService", namespace, name } };
          }),
        ],
  );
}
