// What a proxy reports of its traffic: the access log for people and Istio's metrics for Prometheus, the latter by
// Envoy's own stats access logger as the contract in #base says.

import {
  accessLogServiceCluster,
  egressRecords,
  telemetryMetrics,
  telemetryRecordFormats,
  telemetryRecords,
  telemetryScope,
  telemetryTags,
  type Reporter,
  type TelemetryMetric,
  type TelemetryTag,
} from "#base";
import { fileAccessLogs, type AccessLog, type AccessLogSettings } from "./access-log.ts";
import { durationOf, neverChanging, typed, wrapped, type Message } from "./proto/api.ts";
import { agentSdsCluster } from "./tls.ts";

export interface AccessLogPlace {
  /** The side of the call that the listener is on; a gateway reports as a client does. */
  readonly side: "client" | "server" | "gateway";
  readonly protocol: "http" | "tcp";
  /** Of a TCP proxy with a single cluster: its name. */
  readonly cluster?: string;
}

/** The access loggers of a connection manager (`http`) or a TCP proxy (`tcp`). */
export function accessLogs(settings: AccessLogSettings, place: AccessLogPlace): readonly AccessLog[] {
  // A TCP proxy that also reports its connects would write two lines a connection: people get the last one.
  const lines = [...fileAccessLogs(settings), ...serviceLogs(settings, place.protocol)].map((log) =>
    place.protocol === "tcp" ? { ...log, filter: atLastLine } : log,
  );
  const unknown = place.side !== "client" ? [] : egressLog(place.protocol, place.cluster);
  return [...lines, ...countingLogs(place), ...unknown];
}

/** MeshConfig's enableEnvoyAccessLogService: Envoy's own protocol, to the service that the bootstrap knows. Names are Istio's. */
function serviceLogs({ logsToService }: AccessLogSettings, place: "http" | "tcp" | "listener"): AccessLog[] {
  if (logsToService !== true) return [];
  const kind = place === "http" ? "Http" : "Tcp";
  const config = {
    commonConfig: {
      logName: `${place}_envoy_accesslog`,
      transportApiVersion: "V3",
      grpcService: { envoyGrpc: { clusterName: accessLogServiceCluster } },
    },
  };
  return [
    {
      name: `envoy.access_loggers.${kind.toLowerCase()}_grpc`,
      typedConfig: typed(`envoy.extensions.access_loggers.grpc.v3.${kind}GrpcAccessLogConfig`, config),
    },
  ];
}

const countingLogsMade = new Map<string, readonly AccessLog[]>();

/** What counts is the same in all listeners of a side, and the better part of an inbound listener's bytes: made once. */
function countingLogs(place: AccessLogPlace): readonly AccessLog[] {
  const { side, protocol } = place;
  let logs = countingLogsMade.get(`${side} ${protocol}`);
  if (logs === undefined) {
    logs = [...statsLogs(place), recordsLog(place)].map((log) => ({
      ...log,
      typedConfig: neverChanging(log.typedConfig),
    }));
    countingLogsMade.set(`${side} ${protocol}`, logs);
  }
  return logs;
}

/** Calls of hosts that nobody claims: those that the catch-all of a route table takes, and connections to its clusters. */
function egressLog(protocol: "http" | "tcp", cluster = ""): AccessLog[] {
  const { outcomes, formats } = egressRecords;
  if (protocol === "tcp" && !Object.hasOwn(outcomes, cluster)) return [];
  const filter = protocol === "tcp" ? atLogTypes(["TcpConnectionEnd", "NotSet"]) : isOfUnknownHost;
  const decided = protocol === "tcp" ? [cluster, ...formats.tcp] : formats.http;
  return [toAgent(filter, ["egress", protocol, ...decided])];
}

/** The mark that `unknownHostFilter` leaves on a call, in dynamic metadata. */
export const unknownHostMark = {
  filter: "mesh.unknown_host",
  namespace: "mesh.egress",
  key: "unknown",
} as const;

const isOfUnknownHost: Message = {
  metadataFilter: {
    matcher: {
      filter: unknownHostMark.namespace,
      path: [{ key: unknownHostMark.key }],
      value: { boolMatch: true },
    },
    matchIfKeyNotFound: wrapped(false),
  },
};

/** What a TCP proxy needs beside its access log so that connects and bytes are counted when they happen. */
export const tcpAccessLogOptions: Message = {
  flushAccessLogOnConnected: true,
  accessLogFlushInterval: durationOf(telemetryRecords.periodSeconds * 1_000),
};

/** Access log of a listener for connections that find no filter chain: Istio's NR lines. */
export function listenerAccessLogs(settings: AccessLogSettings): readonly AccessLog[] {
  if (settings.disableEnvoyListenerLog === true) return [];
  return [...fileAccessLogs(settings), ...serviceLogs(settings, "listener")].map((log) => ({
    ...log,
    filter: atListener,
  }));
}

function statsLogs({ side, protocol }: AccessLogPlace): AccessLog[] {
  const reporter: Reporter = side === "server" ? "destination" : "source";
  const metrics = telemetryMetrics.filter((metric) => metric.protocol === protocol);
  const tags = telemetryTags(reporter, protocol).map(tagOf);
  // One logger for each moment at which something is counted, since the filter is the logger's.
  const moments = new Map<string, TelemetryMetric[]>();
  for (const metric of metrics) {
    const moment = metric.at.join();
    moments.set(moment, [...(moments.get(moment) ?? []), metric]);
  }
  return [...moments.values()].map((group) => ({
    name: "envoy.access_loggers.stats",
    filter: atLogTypes(group[0]?.at ?? []),
    typedConfig: typed("envoy.extensions.access_loggers.stats.v3.Config", {
      statPrefix: "",
      statsScope: {
        prefix: "",
        sharingName: telemetryScope.sharingName,
        maxCounters: wrapped(telemetryScope.countersMax),
        maxHistograms: wrapped(telemetryScope.histogramsMax),
        enableEviction: true,
      },
      counters: group.filter(({ kind }) => kind === "counter").map((metric) => counterOf(metric, tags)),
      histograms: group.filter(({ kind }) => kind === "histogram").map((metric) => histogramOf(metric, tags)),
    }),
  }));
}

/** Tells the agent of what it counts itself, see `telemetryRecords`. */
function recordsLog({ side, protocol }: AccessLogPlace): AccessLog {
  const reporter: Reporter = side === "server" ? "destination" : "source";
  const kind = protocol === "tcp" ? "tcp" : "grpc";
  const atTypes = atLogTypes(telemetryRecords[kind].at);
  const filter = kind === "tcp" ? atTypes : { andFilter: { filters: [atTypes, isGrpc] } };
  return toAgent(filter, telemetryRecordFormats(reporter, kind));
}

/** One text for each access-log entry, over the socket of the secrets. */
function toAgent(filter: Message, formats: readonly string[]): AccessLog {
  return {
    name: "envoy.access_loggers.open_telemetry",
    filter,
    typedConfig: typed("envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig", {
      commonConfig: {
        logName: "mesh",
        transportApiVersion: "V3",
        grpcService: { envoyGrpc: { clusterName: agentSdsCluster } },
        bufferFlushInterval: durationOf(1_000),
      },
      disableBuiltinLabels: true,
      body: {
        stringValue: formats.join(telemetryRecords.separator),
      },
    }),
  };
}

const isGrpc: Message = {
  headerFilter: { header: { name: "content-type", stringMatch: { prefix: "application/grpc" } } },
};

function counterOf(metric: TelemetryMetric, tags: readonly Message[]): Message {
  const value = metric.value === 1 ? { valueFixed: wrapped(1) } : { valueFormat: metric.value };
  return { stat: { name: metric.name, tags }, ...value };
}

function histogramOf(metric: TelemetryMetric, tags: readonly Message[]): Message {
  return {
    stat: { name: metric.name, tags },
    unit: metric.unit ?? "Unspecified",
    valueFormat: String(metric.value),
  };
}

function tagOf({ name, format, byPrefix }: TelemetryTag): Message {
  if (byPrefix === undefined) return { name, valueFormat: format };
  return {
    name,
    valueFormat: format,
    rules: {
      matcherTree: {
        input: {
          name: "value",
          typedConfig: typed("envoy.extensions.matching.common_inputs.stats.v3.StatTagValueInput"),
        },
        prefixMatchMap: {
          map: Object.fromEntries(
            Object.entries(byPrefix.prefixes).map(([prefix, value]) => [prefix, updateTag(value)]),
          ),
        },
      },
      onNoMatch: updateTag(byPrefix.otherwise),
    },
  };
}

function updateTag(newTagValue: string): Message {
  return {
    action: {
      name: "update",
      typedConfig: typed("envoy.extensions.matching.actions.transform_stat.v3.TransformStat", {
        updateTag: { newTagValue },
      }),
    },
  };
}

/** The line of a TCP connection that is written at its end. */
export const atLastLine: Message = atLogTypes(["TcpConnectionEnd", "NotSet"]);

/** Connections that found no filter chain. */
export const atListener: Message = { responseFlagFilter: { flags: ["NR"] } };

function atLogTypes(types: readonly string[]): Message {
  return { logTypeFilter: { types } };
}
