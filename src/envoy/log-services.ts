// Access logs that go over the network as they are written: extension providers of OpenTelemetry's and of Envoy's own protocol.

import type { Read } from "#engine";
import type { MeshConfigExtensionProvider } from "#objects";
import { logServiceSettings, providerService } from "#model";
import { outboundClusterName } from "#plan";
import { attributesOf, lineFormat, type AccessLog } from "./access-log.ts";
import { typed, type Message } from "./proto/api.ts";

/** The loggers of such a provider at one place; none where its service is not known, or takes no such connections. */
export function logServices(
  read: Read,
  provider: MeshConfigExtensionProvider,
  place: "http" | "tcp" | "listener",
): readonly AccessLog[] {
  const service = providerService(read, logServiceSettings(provider) ?? {});
  if (service === undefined) return [];
  const { envoyOtelAls: otel, envoyHttpAls: http, envoyTcpAls: tcp } = provider;
  const common = (logName: string, filterState: readonly string[] = []): Message => ({
    logName,
    transportApiVersion: "V3",
    grpcService: {
      envoyGrpc: {
        clusterName: outboundClusterName(service.port, "", service.host),
        authority: service.host,
      },
    },
    ...(filterState.length === 0 ? {} : { filterStateObjectsToLog: filterState }),
  });
  if (otel !== undefined) {
    const { text = "", labels = {} } = otel.logFormat ?? {};
    const config = {
      commonConfig: common(named(otel.logName, "otel_envoy_accesslog")),
      disableBuiltinLabels: true,
      body: { stringValue: text === "" ? lineFormat : text },
      attributes: attributesOf(labels),
    };
    return [
      {
        name: "envoy.access_loggers.open_telemetry",
        typedConfig: typed(
          "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig",
          config,
        ),
      },
    ];
  }
  if (http !== undefined && place === "http") {
    const config = {
      commonConfig: common(named(http.logName, "http_envoy_accesslog"), http.filterStateObjectsToLog),
      additionalRequestHeadersToLog: http.additionalRequestHeadersToLog ?? [],
      additionalResponseHeadersToLog: http.additionalResponseHeadersToLog ?? [],
      additionalResponseTrailersToLog: http.additionalResponseTrailersToLog ?? [],
    };
    return [
      {
        name: "envoy.access_loggers.http_grpc",
        typedConfig: typed("envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig", config),
      },
    ];
  }
  if (tcp === undefined || place === "http") return [];
  const config = {
    commonConfig: common(named(tcp.logName, "tcp_envoy_accesslog"), tcp.filterStateObjectsToLog),
  };
  return [
    {
      name: "envoy.access_loggers.tcp_grpc",
      typedConfig: typed("envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig", config),
    },
  ];
}

function named(name: string | undefined, otherwise: string): string {
  return name === undefined || name === "" ? otherwise : name;
}
