// The contract between those who build Envoy's stats access logger (envoy) and the agent, which turns what Envoy counts
// into Istio's metrics. Envoy carries few tags (each is formatted for each metric of each request); what is constant for
// a proxy, or follows from another tag, the agent adds when it is scraped.
//
//   tag in Envoy              becomes Istio's label(s)
//   reporter                  reporter; and says whose facts are the proxy's own: source_* or destination_*
//   peer                      the other side's seven workload labels
//   peer_principal            the other side's principal; none at the destination means no mutual TLS
//   service                   destination_service, destination_service_name, destination_service_namespace
//   request_protocol, response_code, grpc_response_status, response_flags: as they are
//
// Any other tag passes unchanged, so that a Telemetry object's own tags need nothing from the agent.
// How Envoy writes absence differs ("-", "", several of them): the agent reads all as absent.

export type Reporter = "source" | "destination";

/** The filter-metadata namespace of endpoints, clusters and routes that the formats below read. */
export const telemetryMetadata = {
  key: "mesh",
  /** On endpoints: `packWorkload(...)`. */
  peer: "peer",
  /** On clusters, and on routes that have no cluster (direct responses, redirects): `packService(...)`. */
  service: "service",
} as const;

/**
 * A tag that names labels, by commas, which the agent is to leave out of a series: those that Telemetry takes away or gives
 * another value by a tag of that name.
 */
export const removedLabelsTag = "removed";

export interface TelemetryTag {
  readonly name: string;
  /** An Envoy access-log format string. */
  readonly format: string;
  /** Values by prefix; what matches no prefix becomes `otherwise`. Bounds what a caller can put into a tag. */
  readonly byPrefix?: { readonly prefixes: Readonly<Record<string, string>>; readonly otherwise: string };
}

export interface TelemetryMetric {
  /** The stat's name in Envoy and, once the agent has removed Envoy's `envoy_` prefix, in Prometheus. */
  readonly name: string;
  readonly kind: "counter" | "histogram";
  readonly protocol: "http" | "tcp";
  /** The access-log types at which it is counted (`log_type_filter`). NotSet is what a listener of no type reports. */
  readonly at: readonly ("DownstreamEnd" | "NotSet" | "TcpUpstreamConnected" | "TcpConnectionEnd")[];
  /** `1`, or the format of the value to add. */
  readonly value: 1 | string;
  readonly unit?: "Milliseconds" | "Bytes";
}

/**
 * What Envoy cannot count as it should is told to the agent, one record at a time, over the socket of its secrets: Envoy's
 * counters learn a TCP connection's bytes when it ends and gRPC's messages never. A record is one text of these formats
 * and the tags of the metric, separated by a character that no value can hold.
 */
export const telemetryRecords = {
  separator: "\u001f",
  /** Envoy tells of open connections this often; Istio's own proxies do so every 15 s. */
  periodSeconds: 10,
  tcp: {
    at: ["TcpPeriodic", "TcpConnectionEnd"],
    values: ["%BYTES_RECEIVED%", "%BYTES_SENT%"],
    metrics: ["istio_tcp_received_bytes_total", "istio_tcp_sent_bytes_total"],
  },
  grpc: {
    at: ["DownstreamEnd", "NotSet"],
    /** "requests,responses", kept by Envoy's grpc_stats filter. */
    values: ["%FILTER_STATE(envoy.filters.http.grpc_stats:PLAIN)%"],
    metrics: ["istio_request_messages_total", "istio_response_messages_total"],
  },
} as const;

/**
 * Calls to hosts that the mesh does not know are told to the agent as well, so that an alert on new hosts outside can be
 * written: by a metric of their own, whose hosts are bounded, since a caller makes them up.
 */
export const egressRecords = {
  metric: "istio_egress_requests_total",
  /** What an agent counts by name; calls to further hosts are counted together. */
  hostsMax: 200,
  otherHosts: "other",
  /** The route of an outbound table that takes unknown hosts, or the cluster of a connection, to what becomes of the call. */
  outcomes: {
    block_all: "blocked",
    BlackHoleCluster: "blocked",
    allow_any: "passed",
    allow_any_dynamic_dns: "passed",
    PassthroughCluster: "passed",
  },
  /** `egress`, the protocol, who decided, then the host by what is known of it: the first that is there. */
  formats: {
    http: ["%ROUTE_NAME%", "%REQ(:AUTHORITY)%", "%DOWNSTREAM_LOCAL_ADDRESS%"],
    /** A TCP proxy's cluster stands before these. */
    tcp: ["%REQUESTED_SERVER_NAME%", "%DOWNSTREAM_LOCAL_ADDRESS%"],
  },
} as const;

/** The formats of a record, in order: what it is, which log entry, which connection, the values, the tags. */
export function telemetryRecordFormats(reporter: Reporter, protocol: "tcp" | "grpc"): readonly string[] {
  const tags = telemetryTags(reporter, protocol === "tcp" ? "tcp" : "http");
  const { values } = telemetryRecords[protocol];
  return [protocol, "%ACCESS_LOG_TYPE%", "%CONNECTION_ID%", ...values, ...tags.map(({ format }) => format)];
}

const httpEnd = ["DownstreamEnd", "NotSet"] as const;

export const telemetryMetrics: readonly TelemetryMetric[] = [
  { name: "istio_requests_total", kind: "counter", protocol: "http", at: httpEnd, value: 1 },
  {
    name: "istio_request_duration_milliseconds",
    kind: "histogram",
    protocol: "http",
    at: httpEnd,
    value: "%DURATION%",
    unit: "Milliseconds",
  },
  {
    name: "istio_request_bytes",
    kind: "histogram",
    protocol: "http",
    at: httpEnd,
    value: "%DOWNSTREAM_WIRE_BYTES_RECEIVED%",
    unit: "Bytes",
  },
  {
    name: "istio_response_bytes",
    kind: "histogram",
    protocol: "http",
    at: httpEnd,
    value: "%DOWNSTREAM_WIRE_BYTES_SENT%",
    unit: "Bytes",
  },
  // `flush_access_log_on_connected` makes TcpUpstreamConnected happen.
  {
    name: "istio_tcp_connections_opened_total",
    kind: "counter",
    protocol: "tcp",
    at: ["TcpUpstreamConnected"],
    value: 1,
  },
  {
    name: "istio_tcp_connections_closed_total",
    kind: "counter",
    protocol: "tcp",
    at: ["TcpConnectionEnd"],
    value: 1,
  },
  // Istio's words are those of a request: "sent" is what went back to the one who connected.
  {
    name: "istio_tcp_sent_bytes_total",
    kind: "counter",
    protocol: "tcp",
    at: ["TcpConnectionEnd"],
    value: "%BYTES_SENT%",
  },
  {
    name: "istio_tcp_received_bytes_total",
    kind: "counter",
    protocol: "tcp",
    at: ["TcpConnectionEnd"],
    value: "%BYTES_RECEIVED%",
  },
];

/** Limits of the shared stats scope; what comes beyond them Envoy drops, and eviction makes room again. */
export const telemetryScope = {
  sharingName: "istio",
  countersMax: 20_000,
  histogramsMax: 6_000,
  /** Series without a change for this long are evicted, so the agent must be scraped more often than this. */
  evictionSeconds: 1_800,
  /** Envoy demands that the eviction interval is a multiple of it. */
  flushSeconds: 10,
} as const;

const service = `%METADATA(CLUSTER:${telemetryMetadata.key}:${telemetryMetadata.service})%`;
const serviceOfRoute = `%METADATA(ROUTE:${telemetryMetadata.key}:${telemetryMetadata.service})%`;

const protocolTag: TelemetryTag = {
  name: "request_protocol",
  format: "%REQ(content-type)%",
  byPrefix: { prefixes: { "application/grpc": "grpc" }, otherwise: "http" },
};

const httpOnly: readonly TelemetryTag[] = [
  protocolTag,
  { name: "response_code", format: "%RESPONSE_CODE%" },
  { name: "grpc_response_status", format: "%GRPC_STATUS_NUMBER%" },
];

const peerOf: Record<Reporter, readonly TelemetryTag[]> = {
  // The endpoint's metadata and not its certificate: Istio names a plaintext destination's workload too.
  source: [
    { name: "peer", format: `%METADATA(UPSTREAM_HOST:${telemetryMetadata.key}:${telemetryMetadata.peer})%` },
    { name: "peer_principal", format: "%UPSTREAM_PEER_URI_SAN%" },
  ],
  // The Subject of a workload's certificate holds nothing but its facts; the agent takes them out.
  destination: [
    { name: "peer", format: "%DOWNSTREAM_PEER_SUBJECT%" },
    { name: "peer_principal", format: "%DOWNSTREAM_PEER_URI_SAN%" },
  ],
};

/** The tags of each metric, in the order in which they are to be written. */
export function telemetryTags(reporter: Reporter, protocol: "http" | "tcp"): readonly TelemetryTag[] {
  const http = protocol === "http";
  return [
    { name: "reporter", format: reporter },
    ...peerOf[reporter],
    { name: "service", format: http ? `${service}${serviceOfRoute}` : service },
    ...(http ? httpOnly : []),
    { name: "response_flags", format: "%RESPONSE_FLAGS%" },
  ];
}

/** A destination service in one text: `host|name|namespace`. For passthrough clusters host and name are the cluster's name and the namespace is "". */
export function packService(host: string, name: string, namespace: string): string {
  return [host, name, namespace].map((part) => part.replaceAll("|", "_")).join("|");
}
