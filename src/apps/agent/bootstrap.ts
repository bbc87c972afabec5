// Envoy's bootstrap: who this proxy is, where the control plane is and how to trust it, and the three listeners that are
// there before any configuration arrives. Everything else comes over ADS. Pure: configuration in, JSON out.

import { hostOf, portOf } from "./ca-client.ts";
import { assignment, http2Options, secretConfig, socket, staticClusters } from "./bootstrap-parts.ts";
import { statsCompressors, statsConfig, statsIntervals, statsSinks } from "./bootstrap-stats.ts";
import type { AgentConfig } from "./config.ts";
import { remoteClusters } from "./remote-services.ts";
import { secretNames } from "./sds.ts";

/** Beyond it new connections are refused, before memory and file descriptors run out. */
const downstreamConnectionsMax = 100_000;
const loopback = "127.0.0.1";

export function renderBootstrap(config: AgentConfig): object {
  return {
    node: nodeOf(config),
    admin: { address: socket(loopback, config.ports.admin), ignore_global_conn_limit: true },
    dynamic_resources: dynamicResources(),
    static_resources: {
      listeners: [
        forwardListener(
          config,
          "envoy_prometheus",
          config.ports.envoyStats,
          "/stats/prometheus",
          staticClusters.admin,
          statsCompressors(config),
        ),
        forwardListener(config, "envoy_ready", config.ports.ready, "/healthz/ready", staticClusters.agent),
      ],
      clusters: [
        xdsCluster(config),
        sdsCluster(config),
        loopbackCluster(staticClusters.admin, config.ports.admin),
        loopbackCluster(staticClusters.agent, config.ports.agent),
        ...(knowsItself(config) ? [localCluster] : []),
        ...remoteClusters(config),
      ],
    },
    ...(knowsItself(config) ? { cluster_manager: { local_cluster_name: localCluster.name } } : {}),
    stats_config: statsConfig(config),
    ...statsIntervals(config),
    ...statsSinks(config),
    deferred_stat_options: { enable_deferred_creation_stats: true },
    overload_manager: overloadManager(config),
    layered_runtime: {
      layers: [
        { name: "static", static_layer: runtimeOf(config) },
        { name: "admin", admin_layer: {} },
      ],
    },
    default_regex_engine: {
      name: "envoy.regex_engines.google_re2",
      typed_config: { "@type": "type.googleapis.com/envoy.extensions.regex_engines.v3.GoogleRE2" },
    },
  };
}

/** `sidecar~<ip>~<pod>.<namespace>~<domain>`, as Istio names its proxies. */
export function nodeIdOf(config: AgentConfig): string {
  const ip = config.instanceIps[0] ?? loopback;
  return `${config.role}~${ip}~${config.podName}.${config.namespace}~${config.dnsDomain}`;
}

function nodeOf(config: AgentConfig): object {
  const metadata = {
    ...config.metadata,
    ENVOY_PROMETHEUS_PORT: config.ports.envoyStats,
    ENVOY_STATUS_PORT: config.ports.ready,
  };
  return { id: nodeIdOf(config), cluster: config.serviceCluster, locality: localityOf(config), metadata };
}

/** Kubernetes' slash-separated `region/zone/subzone`; Istio takes dots too, since labels hold no slash. */
function localityOf(config: AgentConfig): object | undefined {
  const text = config.labels["istio-locality"];
  if (text === undefined) return undefined;
  const [region = "", zone = "", subZone = ""] = text.split(text.includes("/") ? "/" : ".");
  return { region, zone, sub_zone: subZone };
}

const runtimeDefaults: Readonly<Record<string, unknown>> = { "re2.max_program_size.error_level": 32_768 };

/**
 * ProxyConfig's runtimeValues over ours: an empty text takes one away, as in Istio. Envoy reads no truth from texts, and the API has
 * texts alone.
 */
function runtimeOf({ proxyConfig, role }: AgentConfig): object {
  const limit = proxyConfig.connectionSettings?.listenerConnectionLimit;
  // Of a router's listeners the agent learns from Envoy, which gets their limits as they come.
  const limits =
    limit === undefined || role === "router" ? [] : capturing.map((name) => [connectionLimitOf(name), limit]);
  const values: [string, unknown][] = [
    ...Object.entries(runtimeDefaults),
    ...(limits as [string, unknown][]),
  ];
  const runtime = new Map(values);
  for (const [name, value] of Object.entries(proxyConfig.runtimeValues ?? {})) {
    if (value === "") runtime.delete(name);
    else runtime.set(name, runtimeValue(value));
  }
  return Object.fromEntries(runtime);
}

function runtimeValue(text: string): unknown {
  if (text === "true" || text === "false") return text === "true";
  return /^\d{1,15}(\.\d{1,9})?$/.test(text) ? Number(text) : text;
}

/** The listeners of a sidecar to which capture brings everything. */
const capturing = ["virtualInbound", "virtualOutbound"] as const;

/** The runtime value by which Envoy limits the connections of a listener. */
export function connectionLimitOf(listener: string): string {
  return `envoy.resource_limits.listener.${listener}.connection_limit`;
}

/** Names of before connectionSettings, which Istio still takes. */
const limitVariable = "ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS";
const limitRuntime = "overload.global_downstream_max_connections";

function connectionsMax({ proxyConfig }: AgentConfig): number {
  const older = [proxyConfig.proxyMetadata?.[limitVariable], proxyConfig.runtimeValues?.[limitRuntime]];
  const given = [proxyConfig.connectionSettings?.globalDownstreamConnectionLimit, ...older.map(Number)];
  return (
    given.find((limit) => limit !== undefined && Number.isInteger(limit) && limit > 0) ??
    downstreamConnectionsMax
  );
}

function overloadManager(config: AgentConfig): object {
  return {
    refresh_interval: "0.25s",
    resource_monitors: [
      {
        name: "envoy.resource_monitors.global_downstream_max_connections",
        typed_config: {
          "@type":
            "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
          max_active_downstream_connections: connectionsMax(config),
        },
      },
    ],
  };
}

function dynamicResources(): object {
  return {
    ads_config: {
      api_type: "DELTA_GRPC",
      transport_api_version: "V3",
      set_node_on_first_message_only: true,
      grpc_services: [
        {
          envoy_grpc: {
            cluster_name: staticClusters.xds,
            // After a restart of the control plane proxies come back soon, but not all in one moment (Envoy adds jitter).
            retry_policy: { retry_back_off: { base_interval: "0.1s", max_interval: "5s" } },
          },
        },
      ],
    },
    lds_config: { ads: {}, resource_api_version: "V3", initial_fetch_timeout: "0s" },
    cds_config: { ads: {}, resource_api_version: "V3", initial_fetch_timeout: "0s" },
  };
}

function xdsCluster(config: AgentConfig): object {
  const host = hostOf(config.discoveryAddress);
  const numeric = /^[0-9.]+$/.test(host);
  return {
    name: staticClusters.xds,
    type: numeric ? "STATIC" : "STRICT_DNS",
    connect_timeout: "5s",
    dns_lookup_family: "V4_PREFERRED",
    dns_refresh_rate: "5s",
    respect_dns_ttl: true,
    load_assignment: assignment(staticClusters.xds, socket(host, portOf(config.discoveryAddress))),
    typed_extension_protocol_options: http2Options,
    // A control plane that has gone without a word (its node died) is noticed, and another replica is asked.
    upstream_connection_options: {
      tcp_keepalive: { keepalive_time: 30, keepalive_interval: 5, keepalive_probes: 3 },
    },
    circuit_breakers: {
      thresholds: [{ max_connections: 1_000, max_pending_requests: 1_000, max_requests: 10_000 }],
    },
    transport_socket: {
      name: "envoy.transport_sockets.tls",
      typed_config: {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        sni: host,
        common_tls_context: {
          tls_params: { tls_minimum_protocol_version: "TLSv1_2" },
          alpn_protocols: ["h2"],
          tls_certificate_sds_secret_configs: [secretConfig(secretNames.workload)],
          combined_validation_context: {
            default_validation_context: {
              match_typed_subject_alt_names: [
                { san_type: numeric ? "IP_ADDRESS" : "DNS", matcher: { exact: host } },
              ],
            },
            validation_context_sds_secret_config: secretConfig(controlPlaneRoot(config)),
          },
        },
      },
    },
  };
}

/** Roots that ProxyConfig adds are for workloads; the control plane is known by the mesh's own alone. */
function controlPlaneRoot({ proxyConfig }: AgentConfig): string {
  return (proxyConfig.caCertificatesPem ?? []).length === 0 ? secretNames.root : secretNames.meshRoot;
}

function sdsCluster(config: AgentConfig): object {
  return {
    name: staticClusters.sds,
    type: "STATIC",
    connect_timeout: "1s",
    typed_extension_protocol_options: http2Options,
    load_assignment: assignment(staticClusters.sds, { pipe: { path: config.paths.sdsSocket } }),
  };
}

/** Zone-aware balancing compares how the proxy's own service is spread with how the others are. */
function knowsItself({ metadata }: AgentConfig): boolean {
  return String(metadata["ENABLE_SELF_DISCOVERY"]) === "true";
}

/** Istio's name; its endpoints come over ADS. */
const localCluster = {
  name: "local_cluster",
  type: "EDS",
  connect_timeout: "1s",
  common_lb_config: { zone_aware_lb_config: { min_cluster_size: 1 } },
  eds_cluster_config: { eds_config: { ads: {}, resource_api_version: "V3" }, service_name: "local_cluster" },
} as const;

function loopbackCluster(name: string, port: number): object {
  return {
    name,
    type: "STATIC",
    connect_timeout: "0.25s",
    load_assignment: assignment(name, socket(loopback, port)),
  };
}

/** A listener that passes one path on to a loopback port, and answers 404 to everything else. */
function forwardListener(
  config: AgentConfig,
  name: string,
  port: number,
  path: string,
  cluster: string,
  filters: readonly object[] = [],
): object {
  const address = (config.instanceIps[0] ?? "").includes(":") ? "::" : "0.0.0.0";
  const manager = {
    "@type":
      "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    stat_prefix: name,
    codec_type: "AUTO",
    stream_idle_timeout: "60s",
    route_config: {
      name,
      virtual_hosts: [
        { name, domains: ["*"], routes: [{ match: { path }, route: { cluster, timeout: "10s" } }] },
      ],
    },
    http_filters: [
      ...filters,
      {
        name: "envoy.filters.http.router",
        typed_config: { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
      },
    ],
  };
  return {
    name,
    address: socket(address, port),
    // Health and metrics stay reachable when the proxy is full of other people's connections.
    ignore_global_conn_limit: true,
    filter_chains: [
      { filters: [{ name: "envoy.filters.network.http_connection_manager", typed_config: manager }] },
    ],
  };
}
