// The filters that every listener is made of: the HTTP connection manager with its HTTP filters, the TCP proxy, and
// the listener filters that look at a connection before a filter chain is chosen. Defaults are Istio's, all written out.

import { accessLogs, tcpAccessLogOptions, unknownHostMark, type AccessLogPlace } from "./telemetry.ts";
import type { AccessLogSettings } from "./access-log.ts";
import type { ProxyTuning } from "#model";
import type { ConnectionPoolSettings } from "#objects";
import { durationMsOf } from "./duration.ts";
import { durationOf, structOf, typed, wrapped, type Message } from "./proto/api.ts";
import { tracerOfBootstrap } from "./tracing.ts";
import { headerCase, httpTuning, serverClientCertificate, serverName } from "./tuning.ts";

/** The parts of MeshConfig that connection managers and TCP proxies read. */
export interface FilterSettings extends AccessLogSettings {
  readonly pathNormalization?: { readonly normalization?: string };
  readonly defaultConfig?: {
    readonly gatewayTopology?: {
      readonly numTrustedProxies?: number;
      readonly forwardClientCertDetails?: string;
      readonly proxyProtocol?: object;
    };
  };
  /** ProxyConfig's headers and connections, as they hold for the proxies of the resource. */
  readonly tuning?: ProxyTuning;
  /** A cluster that a request or a connection wants and that is not there is asked for. */
  readonly discoversClusters?: boolean;
}

export interface HttpConnectionManager {
  readonly side: AccessLogPlace["side"];
  readonly statPrefix: string;
  /** A route table by name (fetched over ADS), or the table itself. */
  readonly routes:
    | { readonly kind: "named"; readonly name: string }
    | { readonly kind: "inline"; readonly table: Message };
  /** Filters that decide before routing: authentication and authorization, in their order. */
  readonly policyFilters?: readonly Message[];
  /** Over QUIC. */
  readonly isHttp3?: boolean;
  /** Filters that routes ask for, right before the router: preflights of CORS are answered by then. */
  readonly routeFilters?: readonly Message[];
}

/** Streams that one peer may have open on one connection; beyond it the peer waits. */
const streamsPerConnectionMax = 1024;
/** HTTP/1.0 knows requests without a Host. No service has this name, so they go where unknown hosts go. */
const hostOfHttp10 = "http10.invalid";
/** Istio's own default of Envoy's one hour, for connections without any stream. */
const idleTimeoutMs = 3_600_000;
/** Bytes read from a TCP client before the upstream connection, while its TLS handshake runs. */
const earlyDataBytesMax = 65_536;

/** The network filter of an HTTP filter chain. */
export function httpConnectionManager(settings: FilterSettings, manager: HttpConnectionManager): Message {
  const { side, routes } = manager;
  const { proxyHeaders, connectionSettings } = settings.tuning ?? {};
  const tuned = httpTuning(connectionSettings);
  return {
    name: "envoy.filters.network.http_connection_manager",
    typedConfig: typed("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", {
      ...(manager.isHttp3 === true
        ? { codecType: "HTTP3", http3ProtocolOptions: {} }
        : { codecType: "AUTO" }),
      statPrefix: manager.statPrefix,
      ...(routes.kind === "named" ? { rds: routeSource(routes.name) } : { routeConfig: routes.table }),
      httpFilters: httpFilters(manager, settings),
      ...serverName(side, proxyHeaders),
      ...pathNormalization(settings.pathNormalization?.normalization),
      ...clientCertificate(settings, side),
      useRemoteAddress: wrapped(side === "gateway"),
      ...(side === "gateway" ? trustedHops(settings) : {}),
      internalAddressConfig: {},
      generateRequestId: wrapped(proxyHeaders?.requestId?.disabled !== true),
      ...(proxyHeaders?.xForwardedPort?.enabled === true ? { appendXForwardedPort: true } : {}),
      // A caller inside of the mesh keeps the id it came with, so that one call has one id on its whole way.
      preserveExternalRequestId: side !== "gateway",
      proxy_100Continue: true,
      upgradeConfigs: [{ upgradeType: "websocket" }],
      commonHttpProtocolOptions: { idleTimeout: durationOf(idleTimeoutMs), ...tuned.common },
      // Old clients are answered, and not told to upgrade.
      httpProtocolOptions: {
        acceptHttp_10: true,
        defaultHostForHttp_10: hostOfHttp10,
        ...headerCase(proxyHeaders),
      },
      http2ProtocolOptions: { maxConcurrentStreams: wrapped(streamsPerConnectionMax), ...tuned.http2 },
      // Long polls and streams are the application's business; routes carry the time-outs.
      streamIdleTimeout: durationOf(0),
      requestTimeout: durationOf(0),
      ...tuned.manager,
      accessLog: accessLogs(settings, { side, protocol: "http" }),
      ...tracerOfBootstrap(settings.tuning ?? {}),
    }),
  };
}

export interface TcpProxy {
  readonly side: AccessLogPlace["side"];
  readonly statPrefix: string;
  readonly to:
    | { readonly kind: "cluster"; readonly name: string }
    | {
        readonly kind: "weighted";
        readonly clusters: readonly { readonly name: string; readonly weight: number }[];
      };
  /** The chain terminates TLS: the upstream is connected once the peer is known, so that its metrics can name it. */
  readonly afterHandshake?: boolean;
  readonly hashOnSourceIp?: boolean;
  /** What a DestinationRule says of connections; an idle time-out of 0 is none. */
  readonly pool?: ConnectionPoolSettings["tcp"];
  /** The upstream is an HTTP proxy, which is asked to connect on to a host. */
  readonly tunnel?: { readonly targetHost: string; readonly targetPort: number; readonly protocol?: string };
}

/** The last network filter of a TCP filter chain. */
export function tcpProxy(settings: FilterSettings, proxy: TcpProxy): Message {
  return {
    name: "envoy.filters.network.tcp_proxy",
    typedConfig: typed("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", {
      statPrefix: proxy.statPrefix,
      ...(proxy.to.kind === "cluster"
        ? { cluster: proxy.to.name }
        : { weightedClusters: { clusters: proxy.to.clusters } }),
      ...(settings.discoversClusters === true
        ? { onDemand: { odcdsConfig: clusterSource, timeout: durationOf(discoveryTimeoutMs) } }
        : {}),
      idleTimeout: durationOf(
        proxy.pool?.idleTimeout === undefined ? idleTimeoutMs : durationMsOf(proxy.pool.idleTimeout),
      ),
      ...(proxy.pool?.maxConnectionDuration === undefined
        ? {}
        : { maxDownstreamConnectionDuration: durationOf(durationMsOf(proxy.pool.maxConnectionDuration)) }),
      maxConnectAttempts: wrapped(1),
      ...(proxy.tunnel === undefined
        ? {}
        : {
            tunnelingConfig: {
              hostname: `${bracketed(proxy.tunnel.targetHost)}:${proxy.tunnel.targetPort}`,
              usePost: proxy.tunnel.protocol === "POST",
            },
          }),
      ...(proxy.hashOnSourceIp === true ? { hashPolicy: [{ sourceIp: {} }] } : {}),
      ...(proxy.afterHandshake === true
        ? {
            upstreamConnectMode: "ON_DOWNSTREAM_TLS_HANDSHAKE",
            maxEarlyDataBytes: wrapped(earlyDataBytesMax),
          }
        : {}),
      accessLog: accessLogs(settings, {
        side: proxy.side,
        protocol: "tcp",
        ...(proxy.to.kind === "cluster" ? { cluster: proxy.to.name } : {}),
      }),
      accessLogOptions: tcpAccessLogOptions,
    }),
  };
}

/** How long a first request waits for its cluster: as long as for a connection, by Istio's default. */
const discoveryTimeoutMs = 10_000;

const clusterSource: Message = { ads: {}, resourceApiVersion: "V3" };
const clusterDiscovery: Message = {
  odcds: { source: clusterSource, timeout: durationOf(discoveryTimeoutMs) },
};
const onDemandFilterName = "envoy.filters.http.on_demand";

/**
 * Off where a request has no route: there the filter would ask for virtual hosts, and the request hang instead of getting
 * its 404. So it is turned on by the route table, whose word holds for requests that have a route.
 */
const onDemandFilter: Message = {
  name: onDemandFilterName,
  disabled: true,
  typedConfig: typed("envoy.extensions.filters.http.on_demand.v3.OnDemand", clusterDiscovery),
};

/** `typedPerFilterConfig` of route tables whose clusters are asked for. */
export const onDemandOn: Message = {
  [onDemandFilterName]: typed("envoy.config.route.v3.FilterConfig", {
    config: typed("envoy.extensions.filters.http.on_demand.v3.PerRouteConfig", clusterDiscovery),
  }),
};

function bracketed(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}

/** Where a route table that is fetched by name comes from. */
export function routeSource(name: string): Message {
  return {
    routeConfigName: name,
    configSource: { ads: {}, initialFetchTimeout: durationOf(0), resourceApiVersion: "V3" },
  };
}

export const originalDestination: Message = {
  name: "envoy.filters.listener.original_dst",
  typedConfig: typed("envoy.extensions.filters.listener.original_dst.v3.OriginalDst"),
};

/** The load balancer before a gateway says whose connection it is. Connections without that header are refused. */
export const proxyProtocol: Message = {
  name: "envoy.filters.listener.proxy_protocol",
  typedConfig: typed("envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"),
};

/** Under TPROXY the application sees its caller's own address; the mark lets the answers back to the proxy. */
export const originalSource: Message = {
  name: "envoy.filters.listener.original_src",
  typedConfig: typed("envoy.extensions.filters.listener.original_src.v3.OriginalSrc", { mark: 1337 }),
};

/** Looks for a TLS hello: server name, ALPN. `ports` says at which destination ports, or at which ones not. */
export function tlsInspector(
  ports: { readonly only?: readonly number[]; readonly not?: readonly number[] } = {},
): Message {
  const only = predicate(ports.only ?? []);
  return {
    name: "envoy.filters.listener.tls_inspector",
    typedConfig: typed("envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"),
    ...(only === undefined ? disabledFor(ports.not ?? []) : { filterDisabled: { notMatch: only } }),
  };
}

/** Looks for an HTTP request line. Waits for the client's first bytes, so server-first protocols must be excluded. */
export function httpInspector(disabledOn: readonly number[] = []): Message {
  return {
    name: "envoy.filters.listener.http_inspector",
    typedConfig: typed("envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"),
    ...disabledFor(disabledOn),
  };
}

/**
 * Offers `istio-http/1.1` to servers of the mesh instead of the cluster's own ALPN, so that a port whose protocol was
 * found by sniffing reaches the server's HTTP filter chain. Disabled unless a virtual host turns it on with
 * `meshHttpAlpnOn`: servers outside of the mesh must not see it.
 */
export const meshHttpAlpnFilter: Message = {
  name: "mesh.http_alpn",
  disabled: true,
  typedConfig: typed("envoy.extensions.filters.http.set_filter_state.v3.Config", {
    onRequestHeaders: [
      {
        objectKey: "envoy.network.application_protocols",
        formatString: { textFormatSource: { inlineString: "istio-http/1.1,istio" } },
        sharedWithUpstream: "ONCE",
      },
    ],
  }),
};

/** `typedPerFilterConfig` of virtual hosts whose servers are in the mesh. */
export const meshHttpAlpnOn: Message = {
  "mesh.http_alpn": typed("envoy.config.route.v3.FilterConfig", {
    config: meshHttpAlpnFilter["typedConfig"],
  }),
};

/**
 * Marks the calls of hosts that no service claims, so that the access log which tells of them need only look for the mark:
 * an expression on the route's name would be worked out for every call. Only the catch-all turns it on.
 */
export const unknownHostFilter: Message = {
  name: unknownHostMark.filter,
  disabled: true,
  typedConfig: typed("envoy.extensions.filters.http.set_metadata.v3.Config", {
    metadata: [
      { metadataNamespace: unknownHostMark.namespace, value: structOf({ [unknownHostMark.key]: true }) },
    ],
  }),
};

/** `typedPerFilterConfig` of the virtual host that takes unknown hosts: an empty configuration turns a filter on as it is. */
export const unknownHostOn: Message = {
  [unknownHostMark.filter]: typed("envoy.config.route.v3.FilterConfig", { config: {} }),
};

function httpFilters(
  { policyFilters = [], routeFilters = [] }: HttpConnectionManager,
  { discoversClusters, tuning }: FilterSettings,
): Message[] {
  const suppressed = tuning?.proxyHeaders?.envoyDebugHeaders?.disabled === true;
  return [
    ...policyFilters,
    {
      name: "envoy.filters.http.grpc_stats",
      typedConfig: typed("envoy.extensions.filters.http.grpc_stats.v3.FilterConfig", {
        emitFilterState: true,
        statsForAllMethods: wrapped(false),
      }),
    },
    {
      name: "envoy.filters.http.fault",
      typedConfig: typed("envoy.extensions.filters.http.fault.v3.HTTPFault"),
    },
    { name: "envoy.filters.http.cors", typedConfig: typed("envoy.extensions.filters.http.cors.v3.Cors") },
    ...routeFilters,
    // By now nothing changes the route any more, so what is asked for is what the router will want.
    ...(discoversClusters === true ? [onDemandFilter] : []),
    {
      name: "envoy.filters.http.router",
      typedConfig: typed(
        "envoy.extensions.filters.http.router.v3.Router",
        suppressed ? { suppressEnvoyHeaders: true } : {},
      ),
    },
  ];
}

function pathNormalization(kind: string | undefined): Message {
  const merges = kind === "MERGE_SLASHES" || kind === "DECODE_AND_MERGE_SLASHES";
  return {
    normalizePath: wrapped(kind !== "NONE"),
    mergeSlashes: merges,
    pathWithEscapedSlashesAction:
      kind === "DECODE_AND_MERGE_SLASHES" ? "UNESCAPE_AND_FORWARD" : "KEEP_UNCHANGED",
  };
}

/** X-Forwarded-Client-Cert: a server in the mesh appends its caller, a gateway lets nobody from outside claim one. */
function clientCertificate(settings: FilterSettings, side: AccessLogPlace["side"]): Message {
  if (side === "client") return { forwardClientCertDetails: "SANITIZE" };
  if (side === "server") return serverClientCertificate(settings.tuning?.proxyHeaders);
  const asked = settings.defaultConfig?.gatewayTopology?.forwardClientCertDetails;
  const details = asked === undefined || asked === "UNDEFINED" ? "SANITIZE_SET" : asked;
  if (details !== "SANITIZE_SET" && details !== "APPEND_FORWARD")
    return { forwardClientCertDetails: details };
  return {
    forwardClientCertDetails: details,
    setCurrentClientCertDetails: { subject: wrapped(true), cert: true, dns: true, uri: true },
  };
}

function trustedHops(settings: FilterSettings): Message {
  return { xffNumTrustedHops: settings.defaultConfig?.gatewayTopology?.numTrustedProxies ?? 0 };
}

function disabledFor(portNumbers: readonly number[]): Message {
  const rule = predicate(portNumbers);
  return rule === undefined ? {} : { filterDisabled: rule };
}

/** Matches any of these destination ports. */
function predicate(portNumbers: readonly number[]): Message | undefined {
  const rules = portNumbers.map((port) => ({ destinationPortRange: { start: port, end: port + 1 } }));
  return rules.length > 1 ? { orMatch: { rules } } : rules[0];
}
