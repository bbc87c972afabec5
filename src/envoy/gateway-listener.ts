// Listeners of a router: a filter chain for each server that TLS tells apart, one for all servers of plain HTTP.

import type { Read } from "#engine";
import { refOf, type L4MatchAttributes, type RouteDestination } from "#objects";
import {
  asksOutside,
  boundRoutes,
  hostsMeet,
  hostsForNamespace,
  mergedGatewayOf,
  persistsSessions,
  routesDynamically,
  streamRoutesOf,
  type GatewayScope,
  type JwtRules,
  type MergedServer,
  type RouteFacts,
} from "#model";
import { coversService, passthroughClusters, type GatewayListenerKey } from "#plan";
import {
  httpConnectionManager,
  meshHttpAlpnFilter,
  proxyProtocol,
  tcpProxy,
  tlsInspector,
  type FilterSettings,
} from "./filters.ts";
import { dynamicHttpFilter, dynamicSniFilters } from "./dynamic-forward.ts";
import { datagramListener } from "./datagram-listener.ts";
import { destinationCluster, destinationPolicy } from "./gateway-destination.ts";
import { readFilterSettings, readMeshTls, readSecretService } from "./mesh-settings.ts";
import { objectPath } from "./object-path.ts";
import { durationOf, structOf, wrapped, type Message } from "./proto/api.ts";
import { httpRbacFilters, tcpRbacFilters, type RbacInput } from "./rbac.ts";
import { readRbac } from "./rbac-input.ts";
import { jwtFilters, readJwt } from "./request-authentication.ts";
import { resource, type EnvoyResource, type Origin } from "./resource.ts";
import { externalAuthFilter } from "./external-auth.ts";
import { streamPolicy } from "./traffic-policy.ts";
import { statefulSession } from "./route-filters.ts";
import { listenerAccessLogs } from "./telemetry.ts";
import { listenerBuffer } from "./tuning.ts";
import {
  meshAlpn,
  quicTransportSocket,
  serverTls,
  serverTlsOverQuic,
  serverTransportSocket,
  type MeshTls,
} from "./tls.ts";

/** How long a client may take for its TLS handshake: slow ones must not pile up at the edge. */
const handshakeTimeoutMs = 15_000;

interface Edge {
  readonly read: Read;
  readonly scope: GatewayScope;
  readonly settings: FilterSettings;
  readonly tls: MeshTls;
  readonly rbac: RbacInput;
  readonly jwt: JwtRules;
  readonly listenerName: string;
}

interface Chain {
  readonly message: Message;
  readonly serverNames: readonly string[];
  readonly tls: boolean;
  readonly origins: readonly Origin["object"][];
}

/** Undefined while no server of the listener has anything to do: Envoy takes no listener without a chain. */
export function gatewayListener(
  read: Read,
  { scope, name, tuning }: GatewayListenerKey,
): EnvoyResource | undefined {
  const { listeners, quicListeners, datagramListeners } = read(mergedGatewayOf, scope);
  const datagrams = datagramListeners.find((one) => one.name === name);
  if (datagrams !== undefined) return datagramListener(read, scope, datagrams);
  const quic = quicListeners.find((one) => one.name === name);
  const listener = quic ?? listeners.find((one) => one.name === name);
  if (listener === undefined) return undefined;
  const edge: Edge = {
    read,
    scope,
    settings: settingsFor(readFilterSettings(read, tuning), scope),
    tls: { ...readMeshTls(read), secretService: readSecretService(read) },
    rbac: readRbac(read, scope),
    jwt: readJwt(read, scope),
    listenerName: name,
  };
  const isQuic = quic !== undefined;
  const chains = isQuic ? quicChains(edge, quic.servers) : chainsOf(edge, listener.servers);
  if (chains.length === 0) return undefined;
  const address = { address: listener.bind, portValue: listener.port };
  const transport = isQuic
    ? {
        address: { socketAddress: { ...address, protocol: "UDP" } },
        udpListenerConfig: { quicOptions: {}, downstreamSocketConfig: {} },
      }
    : { address: { socketAddress: address }, ...acceptance(edge, chains) };
  const message: Message = {
    name,
    ...transport,
    trafficDirection: "OUTBOUND",
    ...listenerBuffer(edge.settings.tuning?.connectionSettings),
    filterChains: chains.map(({ message: built }) => built),
    accessLog: listenerAccessLogs(edge.settings),
  };
  const ofPolicies = edge.rbac.policies.map((policy) => ({ at: "", object: refOf(policy) }));
  const ofChains = chains.flatMap(({ origins }, at) =>
    origins.map((object) => ({ at: `filter_chains[${at}]`, object })),
  );
  const ofTokens = edge.jwt.objects.map((object) => ({ at: "", object }));
  return resource("listener", name, message, [...ofPolicies, ...ofTokens, ...ofChains]);
}

/** How connections of TCP are taken. */
function acceptance({ settings }: Edge, chains: readonly Chain[]): Message {
  const inspects = chains.some(({ serverNames, tls }) => tls || serverNames.length > 0);
  return {
    listenerFilters: [
      ...(settings.defaultConfig?.gatewayTopology?.proxyProtocol === undefined ? [] : [proxyProtocol]),
      ...(inspects ? [tlsInspector()] : []),
    ],
    // A client that connects and says nothing is cut off.
    listenerFiltersTimeout: durationOf(15_000),
    // One by one, so that a burst is spread over the workers.
    maxConnectionsToAcceptPerSocketEvent: wrapped(1),
  };
}

/** The same servers over QUIC: HTTP/3 by the same route tables. */
function quicChains(edge: Edge, servers: readonly MergedServer[]): Chain[] {
  return distinct(servers.map((server) => httpChain(edge, server, [server], true)));
}

function chainsOf(edge: Edge, servers: readonly MergedServer[]): Chain[] {
  const [first] = servers;
  if (first?.kind === "http") return [httpChain(edge, first, servers)];
  const chains = servers.flatMap((server) => {
    switch (server.kind) {
      case "https":
        return [httpChain(edge, server, [server])];
      case "passthrough":
        return passthroughChains(edge, server);
      case "auto-passthrough":
        return autoPassthroughChains(edge, server);
      case "tcp":
      case "tls-terminating":
        return tcpChains(edge, server);
      case "http":
      case "udp":
        return [];
    }
  });
  return distinct(chains);
}

/** Two chains that match alike would make Envoy reject the whole listener: the first one keeps what both want. */
function distinct(chains: readonly Chain[]): Chain[] {
  const taken = new Set<string>();
  return chains.flatMap((one) => {
    const wanted = one.serverNames.length === 0 ? [""] : one.serverNames;
    const left = wanted.filter((name) => !taken.has(name));
    for (const name of left) taken.add(name);
    if (left.length === wanted.length) return [one];
    if (left.length === 0) return [];
    const match = { ...(one.message["filterChainMatch"] as Message | undefined), serverNames: left };
    return [{ ...one, serverNames: left, message: { ...one.message, filterChainMatch: match } }];
  });
}

function httpChain(
  edge: Edge,
  server: MergedServer,
  servers: readonly MergedServer[],
  isQuic = false,
): Chain {
  const { settings, rbac, jwt, listenerName } = edge;
  const statPrefix = server.name !== "" && server.kind === "https" ? server.name : `outbound_${listenerName}`;
  const anyRoute = (query: typeof persistsSessions): boolean =>
    servers.some((one) => boundTo(edge, one).some(({ key }) => edge.read(query, key)));
  const filter = httpConnectionManager(settings, {
    side: "gateway",
    isHttp3: isQuic,
    statPrefix: `${statPrefix};`,
    routes: { kind: "named", name: server.routeName },
    policyFilters: [
      ...jwtFilters(jwt, true),
      ...httpRbacFilters(rbac),
      meshHttpAlpnFilter,
      ...(anyRoute(persistsSessions) ? [statefulSession] : []),
      ...(edge.read(routesDynamically, edge.scope) ? [dynamicHttpFilter] : []),
    ],
    routeFilters: anyRoute(asksOutside) ? [externalAuthFilter] : [],
  });
  const hosts = server.kind === "https" ? serverNamesOf(server) : [];
  const objects = servers.map(({ object }) => object);
  const built = chain(edge, server, [filter], hosts, objects);
  if (!isQuic || server.tls === undefined) return built;
  const { transportSocketConnectTimeout: _forTcp, ...message } = built.message;
  const transportSocket = quicTransportSocket(serverTlsOverQuic(server.tls, edge.tls));
  return { ...built, message: { ...message, transportSocket } };
}

/** TCP, plain or with its TLS ended here: the first TCP route that is for this server. */
function tcpChains(edge: Edge, server: MergedServer): Chain[] {
  for (const facts of boundTo(edge, server)) {
    const routes = edge.read(streamRoutesOf, facts.key);
    const terminated = server.kind === "tls-terminating" ? routes.tls : [];
    const candidates = [
      ...routes.tcp.filter(
        ({ match }) => match === undefined || match.length === 0 || match.some(isFor(server)),
      ),
      ...terminated.filter(({ match }) => match.some(isFor(server))),
    ];
    const route = candidates.find((one) => (one.route ?? []).length > 0)?.route;
    if (route === undefined) continue;
    const filters = streamFilters(edge, server, facts, route, server.kind === "tls-terminating");
    // Only a TLS hello names a server.
    const hosts = server.kind === "tcp" ? [] : serverNamesOf(server);
    return [chain(edge, server, filters, hosts, [server.object, ...facts.origins])];
  }
  return [];
}

/** TLS that passes through: a chain for each match on server names. */
function passthroughChains(edge: Edge, server: MergedServer): Chain[] {
  return boundTo(edge, server).flatMap((facts) =>
    edge.read(streamRoutesOf, facts.key).tls.flatMap(({ match, route = [] }) =>
      match.filter(isFor(server)).flatMap(({ sniHosts }) => {
        if (route.length === 0) return [];
        const hosts = sniHosts.map((host) => host.toLowerCase());
        const filters = streamFilters(edge, server, facts, route, false);
        return [chain(edge, server, filters, hosts, [server.object, ...facts.origins])];
      }),
    ),
  );
}

/**
 * Mutual TLS between networks: the SNI is the cluster's name. Only what offers a protocol of the mesh is let in, and only
 * endpoints that demand mutual TLS are behind it, so that nobody reaches a workload without a certificate. Who may is
 * for the workload to say: nothing can be read here.
 */
function autoPassthroughChains({ read, scope, settings }: Edge, server: MergedServer): Chain[] {
  const { entries } = read(passthroughClusters, scope).cluster;
  return entries.flatMap(({ name, key }) => {
    if (!server.hosts.some((host) => coversService(host, key.service))) return [];
    const message: Message = {
      metadata: { filterMetadata: { istio: structOf({ config: objectPath("gateway", server.gateway) }) } },
      filterChainMatch: { serverNames: [name], applicationProtocols: meshAlpn.all },
      filters: [tcpProxy(settings, { side: "gateway", statPrefix: name, to: { kind: "cluster", name } })],
      transportSocketConnectTimeout: durationOf(handshakeTimeoutMs),
    };
    return [{ message, serverNames: [name], tls: false, origins: [server.object] }];
  });
}

/** What the Pod says of where its gateway stands goes before what the mesh says. */
function settingsFor(settings: FilterSettings, { topology }: GatewayScope): FilterSettings {
  if (topology === undefined) return settings;
  const { defaultConfig } = settings;
  const gatewayTopology = { ...defaultConfig?.gatewayTopology, ...topology };
  return { ...settings, defaultConfig: { ...defaultConfig, gatewayTopology } };
}

function chain(
  edge: Edge,
  server: MergedServer,
  filters: readonly Message[],
  hosts: readonly string[],
  origins: Chain["origins"],
): Chain {
  const ends = server.kind === "https" || server.kind === "tls-terminating";
  // "*" serves every name, and clients that send none.
  const serverNames = hosts.includes("*") ? [] : [...new Set(hosts)].toSorted();
  const context =
    ends && server.tls !== undefined ? serverTls(server.tls, edge.tls, server.kind !== "https") : undefined;
  const message: Message = {
    metadata: { filterMetadata: { istio: structOf({ config: objectPath("gateway", server.gateway) }) } },
    ...(serverNames.length === 0 ? {} : { filterChainMatch: { serverNames } }),
    filters,
    ...(context === undefined ? {} : { transportSocket: serverTransportSocket(context) }),
    transportSocketConnectTimeout: durationOf(handshakeTimeoutMs),
  };
  return { message, serverNames, tls: ends, origins };
}

function streamFilters(
  { read, scope, settings, rbac }: Edge,
  server: MergedServer,
  facts: RouteFacts,
  destinations: readonly RouteDestination[],
  afterHandshake: boolean,
): Message[] {
  const clusters = destinations.map(({ destination, weight }) => ({
    name: destinationCluster(read, scope, destination, server.number),
    weight: weight ?? 0,
  }));
  const [single] = clusters;
  const policy = streamPolicy(destinations, (one) => destinationPolicy(read, scope, one, server.number));
  const [namespace, name] = facts.key.split("/");
  return [
    ...tcpRbacFilters(rbac),
    ...dynamicSniFilters(
      read,
      destinations.map(({ destination }) => ({
        host: destination.host,
        port: destination.port?.number ?? server.number,
      })),
    ),
    tcpProxy(settings, {
      side: "gateway",
      statPrefix: clusters.length === 1 ? (single?.name ?? "") : `${name}.${namespace}`,
      to:
        clusters.length === 1
          ? { kind: "cluster", name: single?.name ?? "" }
          : { kind: "weighted", clusters: clusters.filter(({ weight }) => weight > 0) },
      afterHandshake,
      ...(policy?.tunnel === undefined ? {} : { tunnel: policy.tunnel }),
      hashOnSourceIp: policy?.loadBalancer?.consistentHash?.useSourceIp === true,
      pool: policy?.connectionPool?.tcp,
    }),
  ];
}

/** VirtualServices of the server's Gateway with a host that the server serves. */
function boundTo({ read, scope }: Edge, server: MergedServer): readonly RouteFacts[] {
  return read(boundRoutes, { gateway: server.gateway, namespace: scope.namespace }).filter((facts) =>
    hostsForNamespace(server.hosts, facts.namespace).some((served) =>
      facts.hosts.some((host) => hostsMeet(served, host)),
    ),
  );
}

function isFor(server: MergedServer): (match: Pick<L4MatchAttributes, "port" | "gateways">) => boolean {
  return ({ port, gateways }) =>
    (port === undefined || port === 0 || port === server.number) &&
    (gateways === undefined || gateways.length === 0 || gateways.includes(server.gateway));
}

function serverNamesOf({ hosts }: MergedServer): readonly string[] {
  return hosts.map((host) => host.slice(host.indexOf("/") + 1));
}
