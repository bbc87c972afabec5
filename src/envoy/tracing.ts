// Tracing as Telemetry asks for it: Envoy's own tracers, in every connection manager of a listener. What differs between
// workloads that share a listener (their names) Envoy takes from the environment that its agent gives it.

import { traceEnvironment, tracerClusters, type BootstrapTracer } from "#base";
import type { Read } from "#engine";
import type {
  MeshConfigExtensionProvider,
  ProviderOpenTelemetryTracingProvider,
  ProviderSkyWalkingTracingProvider,
  ProviderZipkinTracingProvider,
  TelemetryTracingCustomTag,
} from "#objects";
import { readMesh, readTuning, type ProxyTuning, type WorkloadTracing } from "#model";
import { outboundClusterName } from "#plan";
import { durationMsOf } from "./duration.ts";
import { durationOf, typed, wrapped, type Message } from "./proto/api.ts";
import { changeLoggingFilters } from "./provider-logs.ts";

/** Istio's own default, in percent. */
const samplingDefault = 1;
const collectorTimeoutMs = 5_000;

/** @param own what the proxies' Pods say for themselves */
export function withTracing(
  read: Read,
  listener: Message,
  tracing: WorkloadTracing,
  own: ProxyTuning | undefined,
): Message {
  const provider = (readMesh(read, "extensionProviders") ?? []).find(({ name }) => name === tracing.provider);
  const tracer = provider === undefined ? undefined : tracerOf(provider, tracing);
  if (tracer === undefined) return listener;
  const settings = readTuning(read, own).tracing ?? {};
  const message: Message = {
    ...spans(
      {
        ...settings,
        maxPathTagLength: tracer.maxTagLength ?? settings.maxPathTagLength ?? 0,
        // A sampler decides by itself, and has to see every request.
        sampling:
          tracing.sampler === undefined
            ? (tracing.samplingPercent ?? settings.sampling ?? samplingDefault)
            : 100,
        enableIstioTags: tracing.namesWorkload,
      },
      Object.keys(tracing.customTags).length > 0 ? tracing.customTags : (settings.customTags ?? {}),
    ),
    provider: tracer.provider,
    ...(tracer.spansEachHop === true ? { spawnUpstreamSpan: wrapped(true) } : {}),
    ...(tracing.propagates ? {} : { noContextPropagation: true }),
  };
  return changeLoggingFilters(listener, (config, place) =>
    place !== "http"
      ? config
      : { ...config, tracing: message, ...(tracing.byRequestId ? {} : { requestIdExtension: samplesAnew }) },
  );
}

/** How spans are made. */
function spans(
  settings: NonNullable<ProxyTuning["tracing"]>,
  tags: Readonly<Record<string, CustomTag>>,
): Message {
  const { sampling = samplingDefault, maxPathTagLength = 0, enableIstioTags = true } = settings;
  return {
    clientSampling: { value: 100 },
    randomSampling: { value: sampling },
    overallSampling: { value: 100 },
    ...(maxPathTagLength === 0 ? {} : { maxPathTagLength: wrapped(maxPathTagLength) }),
    customTags: [...(enableIstioTags ? workloadTags : []), ...ownTags(tags)],
  };
}

/** Of a connection manager: to the collector that the bootstrap knows, where neither Telemetry nor a provider has a say. */
export function tracerOfBootstrap({ tracesBy, tracing = {} }: ProxyTuning): Message {
  if (tracesBy === undefined) return {};
  return { tracing: { ...spans(tracing, tracing.customTags ?? {}), provider: bootstrapProviders[tracesBy] } };
}

const bootstrapProviders: Readonly<Record<BootstrapTracer, Message>> = {
  zipkin: {
    name: "envoy.tracers.zipkin",
    typedConfig: typed("envoy.config.trace.v3.ZipkinConfig", {
      collectorCluster: tracerClusters.zipkin,
      collectorEndpoint: "/api/v2/spans",
      collectorEndpointVersion: "HTTP_JSON",
      traceId_128bit: true,
      sharedSpanContext: wrapped(false),
    }),
  },
  datadog: {
    name: "envoy.tracers.datadog",
    typedConfig: typed("envoy.config.trace.v3.DatadogConfig", {
      collectorCluster: tracerClusters.datadog,
      // The workload's name is in the environment, which goes before.
      serviceName: "istio-proxy",
    }),
  },
};

/** Each proxy decides for itself whether a request is traced, whatever the request's id says. */
const samplesAnew: Message = {
  typedConfig: typed("envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig", {
    useRequestIdForTraceSampling: wrapped(false),
  }),
};

const workloadTags: readonly Message[] = Object.entries(traceEnvironment.tags).map(([tag, name]) => ({
  tag,
  environment: { name, defaultValue: "unknown" },
}));

/** As Telemetry has it, or MeshConfig's defaultConfig, which requires less. */
type CustomTag = {
  readonly [Kind in keyof TelemetryTracingCustomTag]?: Partial<TelemetryTracingCustomTag[Kind]>;
};

/** In order of name. What an entry leaves empty Envoy would refuse. */
function ownTags(tags: Readonly<Record<string, CustomTag>>): readonly Message[] {
  return Object.entries(tags)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([tag, { literal, environment, header, formatter }]): Message[] => {
      if (literal?.value) return [{ tag, literal: { value: literal.value } }];
      if (environment?.name) return [{ tag, environment: withDefault(environment) }];
      if (header?.name) return [{ tag, requestHeader: withDefault(header) }];
      return formatter?.value ? [{ tag, value: formatter.value }] : [];
    });
}

function withDefault({ name, defaultValue = "" }: { name?: string; defaultValue?: string }): Message {
  return { name, ...(defaultValue === "" ? {} : { defaultValue }) };
}

interface Tracer {
  readonly provider: Message;
  readonly maxTagLength?: number | undefined;
  /** A span of its own for each call that goes on: the tracer's format tells the two apart. */
  readonly spansEachHop?: true;
}

function tracerOf(provider: MeshConfigExtensionProvider, tracing: WorkloadTracing): Tracer | undefined {
  const { zipkin, opentelemetry, skywalking, datadog } = provider;
  if (zipkin !== undefined)
    return { provider: zipkinTracer(zipkin, tracing), maxTagLength: zipkin.maxTagLength };
  if (skywalking !== undefined)
    return { provider: skywalkingTracer(skywalking, tracing), spansEachHop: true };
  if (datadog !== undefined) return { provider: datadogTracer(tracing), maxTagLength: datadog.maxTagLength };
  if (opentelemetry === undefined) return undefined;
  return {
    provider: openTelemetryTracer(opentelemetry, tracing),
    maxTagLength: opentelemetry.maxTagLength,
  };
}

/** The service's name is in the environment, which goes before this one: listeners are shared by workloads. */
function datadogTracer({ service: { host, port } }: WorkloadTracing): Message {
  return {
    name: "envoy.tracers.datadog",
    typedConfig: typed("envoy.config.trace.v3.DatadogConfig", {
      collectorCluster: outboundClusterName(port, "", host),
      serviceName: "istio-proxy",
      collectorHostname: host,
    }),
  };
}

/** Service and instance are named by Envoy itself, after its cluster and its node. */
function skywalkingTracer(
  { accessToken = "" }: ProviderSkyWalkingTracingProvider,
  { service: { host, port } }: WorkloadTracing,
): Message {
  return {
    name: "envoy.tracers.skywalking",
    typedConfig: typed("envoy.config.trace.v3.SkyWalkingConfig", {
      grpcService: { envoyGrpc: { clusterName: outboundClusterName(port, "", host), authority: host } },
      ...(accessToken === "" ? {} : { clientConfig: { backendToken: accessToken } }),
    }),
  };
}

function zipkinTracer(settings: ProviderZipkinTracingProvider, tracing: WorkloadTracing): Message {
  const { path = "", timeout = "", headers = [] } = settings;
  const { host, port } = tracing.service;
  const uri = path === "" ? "/api/v2/spans" : path;
  return {
    name: "envoy.tracers.zipkin",
    typedConfig: typed("envoy.config.trace.v3.ZipkinConfig", {
      collectorEndpointVersion: "HTTP_JSON",
      traceId_128bit: settings.enable64bitTraceId !== true,
      sharedSpanContext: wrapped(false),
      traceContextOption: settings.traceContextOption ?? "USE_B3",
      collectorService: {
        httpUri: {
          uri: `http://${host}:${port}${uri}`,
          cluster: outboundClusterName(port, "", host),
          timeout: timeoutOf(timeout),
        },
        ...headersToAdd(headers),
      },
    }),
  };
}

function openTelemetryTracer(
  settings: ProviderOpenTelemetryTracingProvider,
  tracing: WorkloadTracing,
): Message {
  const { host, port } = tracing.service;
  const cluster = outboundClusterName(port, "", host);
  const { http, grpc } = settings;
  const path = http?.path ?? "";
  const service =
    http === undefined
      ? {
          grpcService: {
            envoyGrpc: { clusterName: cluster, authority: host },
            timeout: timeoutOf(grpc?.timeout),
            ...initialMetadata(grpc?.initialMetadata ?? []),
          },
        }
      : {
          httpService: {
            httpUri: {
              uri: `http://${host}${path.startsWith("/") ? path : `/${path}`}`,
              cluster,
              timeout: timeoutOf(http.timeout),
            },
            ...headersToAdd(http.headers ?? []),
          },
        };
  return {
    name: "envoy.tracers.opentelemetry",
    typedConfig: typed("envoy.config.trace.v3.OpenTelemetryConfig", {
      ...service,
      // The workload's name is in the environment, for the reason above.
      resourceDetectors: [
        environmentDetector,
        ...(settings.resourceDetectors?.dynatrace === undefined ? [] : [dynatraceDetector]),
      ],
      ...dynatraceSampler(settings, tracing),
    }),
  };
}

/** `{ sampler }`: asks Dynatrace how many requests to trace, and traces so many a minute until it answers. */
function dynatraceSampler(
  { http, dynatraceSampler: sampler }: ProviderOpenTelemetryTracingProvider,
  { sampler: asked }: WorkloadTracing,
): Message {
  if (sampler === undefined || asked === undefined) return {};
  const { tenant = "", clusterId = 0, rootSpansPerMinute = 0, httpService } = sampler;
  const settings = httpService === undefined ? http : httpService.http;
  const path = httpService === undefined ? samplingPath : (settings?.path ?? "");
  const config = {
    tenant,
    clusterId,
    rootSpansPerMinute,
    httpService: {
      httpUri: {
        uri: `http://${asked.host}${path.startsWith("/") ? path : `/${path}`}`,
        cluster: outboundClusterName(asked.port, "", asked.host),
        timeout: timeoutOf(settings?.timeout),
      },
      ...headersToAdd(settings?.headers ?? []),
    },
  };
  return {
    sampler: {
      name: "envoy.tracers.opentelemetry.samplers.dynatrace",
      typedConfig: typed("envoy.extensions.tracers.opentelemetry.samplers.v3.DynatraceSamplerConfig", config),
    },
  };
}

/** Of Dynatrace's API. */
const samplingPath = "/api/v2/samplingConfiguration";

const dynatraceDetector: Message = {
  name: "envoy.tracers.opentelemetry.resource_detectors.dynatrace",
  typedConfig: typed(
    "envoy.extensions.tracers.opentelemetry.resource_detectors.v3.DynatraceResourceDetectorConfig",
  ),
};

const environmentDetector: Message = {
  name: "envoy.tracers.opentelemetry.resource_detectors.environment",
  typedConfig: typed(
    "envoy.extensions.tracers.opentelemetry.resource_detectors.v3.EnvironmentResourceDetectorConfig",
  ),
};

type Header = { readonly name?: string; readonly value?: string; readonly envName?: string };

function headersToAdd(headers: readonly Header[]): Message {
  const added = headers.flatMap(({ name = "", value = "" }) =>
    name === "" || value === ""
      ? []
      : [{ header: { key: name, value }, appendAction: "OVERWRITE_IF_EXISTS_OR_ADD" }],
  );
  return added.length === 0 ? {} : { requestHeadersToAdd: added };
}

function initialMetadata(headers: readonly Header[]): Message {
  const added = headers.flatMap(({ name = "", value = "" }) =>
    name === "" || value === "" ? [] : [{ key: name, value }],
  );
  return added.length === 0 ? {} : { initialMetadata: added };
}

function timeoutOf(text = ""): Message {
  return durationOf(text === "" ? collectorTimeoutMs : durationMsOf(text));
}
