// Metrics that Telemetry turns off: what Envoy would count of them is not configured, so they cost nothing.

import type { IstioMetric } from "#model";
import type { AccessLog } from "./access-log.ts";
import { listOf } from "./list-patch.ts";
import { changeLoggingFilters } from "./provider-logs.ts";
import type { Message } from "./proto/api.ts";
import { agentSdsCluster } from "./tls.ts";

/** Names of the API to those of the metrics. */
export const metricNames: Readonly<Record<IstioMetric, string>> = {
  REQUEST_COUNT: "istio_requests_total",
  REQUEST_DURATION: "istio_request_duration_milliseconds",
  REQUEST_SIZE: "istio_request_bytes",
  RESPONSE_SIZE: "istio_response_bytes",
  TCP_OPENED_CONNECTIONS: "istio_tcp_connections_opened_total",
  TCP_CLOSED_CONNECTIONS: "istio_tcp_connections_closed_total",
  TCP_SENT_BYTES: "istio_tcp_sent_bytes_total",
  TCP_RECEIVED_BYTES: "istio_tcp_received_bytes_total",
  GRPC_REQUEST_MESSAGES: "istio_request_messages_total",
  GRPC_RESPONSE_MESSAGES: "istio_response_messages_total",
};

/** Records that the agent counts: both metrics of a pair come from one, which goes when both are off. */
const recordPairs: Readonly<Record<"tcp" | "http", readonly IstioMetric[]>> = {
  tcp: ["TCP_SENT_BYTES", "TCP_RECEIVED_BYTES"],
  http: ["GRPC_REQUEST_MESSAGES", "GRPC_RESPONSE_MESSAGES"],
};

export function withoutMetrics(listener: Message, disabled: readonly IstioMetric[]): Message {
  const names = new Set(disabled.map((metric) => metricNames[metric]));
  return changeLoggingFilters(listener, (config, place) => {
    const recordsOff = recordPairs[place].every((metric) => disabled.includes(metric));
    const accessLog = listOf<AccessLog>(config, "accessLog").flatMap((log): readonly AccessLog[] => {
      if (log.name === "envoy.access_loggers.stats") return withoutStats(log, names);
      return recordsOff && isRecord(log, place) ? [] : [log];
    });
    return { ...config, accessLog };
  });
}

function withoutStats(log: AccessLog, names: ReadonlySet<string>): readonly AccessLog[] {
  const kept = (field: string): readonly Message[] =>
    listOf<Message>(log.typedConfig, field).filter(
      ({ stat }) => !names.has((stat as { readonly name: string }).name),
    );
  const [counters, histograms] = [kept("counters"), kept("histograms")];
  if (counters.length + histograms.length === 0) return [];
  return [{ ...log, typedConfig: { ...log.typedConfig, counters, histograms } }];
}

/** The record of a connection or a gRPC call begins with its kind. Calls of unknown hosts are told all the same. */
function isRecord({ name, typedConfig }: AccessLog, place: "tcp" | "http"): boolean {
  const text = (typedConfig["body"] as { readonly stringValue?: string } | undefined)?.stringValue ?? "";
  const common = typedConfig["commonConfig"] as
    | { readonly grpcService?: { readonly envoyGrpc?: { readonly clusterName?: string } } }
    | undefined;
  const isOurs = common?.grpcService?.envoyGrpc?.clusterName === agentSdsCluster;
  return (
    isOurs &&
    name === "envoy.access_loggers.open_telemetry" &&
    text.startsWith(place === "tcp" ? "tcp" : "grpc")
  );
}
