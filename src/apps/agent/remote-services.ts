// The services outside of Envoy that ProxyConfig has it tell of every request (envoyAccessLogService), of its statistics
// (envoyMetricsService) and of its spans (tracing): clusters of the bootstrap. What cannot be reached costs their messages, and no traffic.

import { isIP } from "node:net";
import { accessLogServiceCluster, tracerClusters } from "#base";
import { assignment, http2Options, secretConfig, socket } from "./bootstrap-parts.ts";
import { hostOf, portOf } from "./ca-client.ts";
import { durationMs, tracerOf, type AgentConfig, type RemoteService } from "./config.ts";
import { secretNames } from "./sds.ts";

/** Istio's names. */
const remoteClusterNames = { logs: accessLogServiceCluster, metrics: "envoy_metrics_service" } as const;

/** The older field is an address alone. */
function metricsService({ proxyConfig }: AgentConfig): RemoteService {
  const { envoyMetricsService: service, envoyMetricsServiceAddress: address = "" } = proxyConfig;
  return (service?.address ?? "") === "" ? { address } : (service ?? {});
}

/** Of spans. */
function collector({ proxyConfig, hostIp }: AgentConfig): object[] {
  const tracer = tracerOf(proxyConfig);
  if (tracer === undefined) return [];
  const address = tracer.address.replace("$(HOST_IP)", hostIp);
  const { tlsSettings } = proxyConfig.tracing ?? {};
  const service = { address, ...(tlsSettings === undefined ? {} : { tlsSettings }) };
  return cluster(tracerClusters[tracer.kind], service, "http/1.1");
}

export function remoteClusters(config: AgentConfig): object[] {
  return [
    ...cluster(remoteClusterNames.logs, config.proxyConfig.envoyAccessLogService ?? {}, "h2"),
    ...cluster(remoteClusterNames.metrics, metricsService(config), "h2"),
    ...collector(config),
  ];
}

/** The sink of the service for statistics; none where there is no service. */
export function metricsSinks(config: AgentConfig): object[] {
  if ((metricsService(config).address ?? "") === "") return [];
  const typed_config = {
    "@type": "type.googleapis.com/envoy.config.metrics.v3.MetricsServiceConfig",
    transport_api_version: "V3",
    grpc_service: { envoy_grpc: { cluster_name: remoteClusterNames.metrics } },
  };
  return [{ name: "envoy.stat_sinks.metrics_service", typed_config }];
}

type Protocol = "h2" | "http/1.1";

function cluster(name: string, service: RemoteService, protocol: Protocol): object[] {
  const { address = "", tlsSettings, tcpKeepalive } = service;
  if (address === "") return [];
  const host = hostOf(address);
  return [
    {
      name,
      type: isIP(host) === 0 ? "STRICT_DNS" : "STATIC",
      connect_timeout: "1s",
      // Traffic does not wait for it.
      ...(isIP(host) === 0
        ? { wait_for_warm_on_init: false, dns_refresh_rate: "30s", respect_dns_ttl: true }
        : {}),
      lb_policy: "ROUND_ROBIN",
      ...(protocol === "h2" ? { typed_extension_protocol_options: http2Options } : {}),
      load_assignment: assignment(name, socket(host, portOf(address))),
      ...keepAlive(tcpKeepalive),
      ...transport(host, tlsSettings ?? {}, protocol),
    },
  ];
}

function keepAlive(settings: RemoteService["tcpKeepalive"]): object {
  if (settings === undefined) return {};
  const { probes, time, interval } = settings;
  const seconds = (text: string): number => Math.round(durationMs(text, 0) / 1_000);
  const tcp_keepalive = {
    ...(probes === undefined ? {} : { keepalive_probes: probes }),
    ...(time === undefined ? {} : { keepalive_time: seconds(time) }),
    ...(interval === undefined ? {} : { keepalive_interval: seconds(interval) }),
  };
  return { upstream_connection_options: { tcp_keepalive } };
}

/** A server's certificate that does not come in this time leaves the service out of reach, and the proxy at work. */
const secretTimeout = "5s";

function transport(host: string, tls: NonNullable<RemoteService["tlsSettings"]>, protocol: Protocol): object {
  const { mode = "DISABLE", clientCertificate = "", privateKey = "", caCertificates = "", caCrl = "" } = tls;
  if (mode === "DISABLE") return {};
  const ofMesh = mode === "ISTIO_MUTUAL";
  const pair = ofMesh ? secretNames.workload : `file-cert:${clientCertificate}~${privateKey}`;
  const trusted = caCertificates === "" ? secretNames.systemRoots : `file-root:${caCertificates}`;
  // The agent serves the roots with what they have revoked, under the name that the control plane uses for both.
  const roots = ofMesh ? secretNames.root : caCrl === "" ? trusted : `file-crl:${caCrl}~${trusted}`;
  const sni = (tls.sni ?? "") === "" ? host : tls.sni;
  const context = {
    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    sni,
    common_tls_context: {
      tls_params: { tls_minimum_protocol_version: "TLSv1_2" },
      alpn_protocols: ofMesh ? [`istio-${protocol}`, "istio", protocol] : [protocol],
      ...(ofMesh || mode === "MUTUAL"
        ? { tls_certificate_sds_secret_configs: [secretConfig(pair, secretTimeout)] }
        : {}),
      ...(tls.insecureSkipVerify === true
        ? {}
        : {
            combined_validation_context: {
              default_validation_context: {
                match_typed_subject_alt_names: subjects(tls, ofMesh ? "" : (sni ?? "")),
              },
              validation_context_sds_secret_config: secretConfig(roots, secretTimeout),
            },
          }),
    },
  };
  return { transport_socket: { name: "envoy.transport_sockets.tls", typed_config: context } };
}

/** Whose certificate it has to be: those named, or the host. Within the mesh anybody's without a name, as in Istio. */
function subjects(
  { subjectAltNames = [] }: NonNullable<RemoteService["tlsSettings"]>,
  host: string,
): object[] {
  const names = subjectAltNames.length > 0 || host === "" ? subjectAltNames : [host];
  return names.flatMap((exact) =>
    (isIP(exact) === 0 ? ["DNS", "URI"] : ["IP_ADDRESS"]).map((san_type) => ({
      san_type,
      matcher: { exact },
    })),
  );
}
