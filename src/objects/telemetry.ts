// Telemetry: the shape of its spec, as its YAML says it.

import type { KubeObject } from "./object.ts";
import type { PolicyTargetReference, WorkloadSelector } from "./selector.ts";

export type Telemetry = KubeObject<TelemetrySpec>;

export interface TelemetrySpec {
  readonly selector?: WorkloadSelector;
  readonly targetRef?: PolicyTargetReference;
  readonly targetRefs?: readonly PolicyTargetReference[];
  readonly tracing?: readonly TelemetryTracing[];
  readonly metrics?: readonly TelemetryMetrics[];
  readonly accessLogging?: readonly TelemetryAccessLogging[];
}

export interface TelemetryTracing {
  readonly match?: TelemetryTracingTracingSelector;
  readonly providers?: readonly ProviderRef[];
  readonly randomSamplingPercentage?: number;
  readonly disableSpanReporting?: boolean;
  readonly customTags?: Readonly<Record<string, TelemetryTracingCustomTag>>;
  readonly useRequestIdForTraceSampling?: boolean;
  readonly enableIstioTags?: boolean;
  readonly disableContextPropagation?: boolean;
}

export interface TelemetryTracingTracingSelector {
  readonly mode?: WorkloadMode;
}

export interface TelemetryTracingCustomTag {
  readonly literal?: TelemetryTracingLiteral;
  readonly environment?: TelemetryTracingEnvironment;
  readonly header?: TelemetryTracingRequestHeader;
  readonly formatter?: TelemetryTracingFormatter;
}

export interface TelemetryTracingLiteral {
  readonly value: string;
}

export interface TelemetryTracingEnvironment {
  readonly name: string;
  readonly defaultValue?: string;
}

export interface TelemetryTracingRequestHeader {
  readonly name: string;
  readonly defaultValue?: string;
}

export interface TelemetryTracingFormatter {
  readonly value: string;
}

export interface ProviderRef {
  readonly name: string;
}

export interface TelemetryMetrics {
  readonly providers?: readonly ProviderRef[];
  readonly overrides?: readonly MetricsOverrides[];
  readonly reportingInterval?: string;
}

export type WorkloadMode = "CLIENT_AND_SERVER" | "CLIENT" | "SERVER";

export interface MetricSelector {
  readonly metric?: MetricSelectorIstioMetric;
  readonly customMetric?: string;
  readonly mode?: WorkloadMode;
}

export type MetricSelectorIstioMetric =
  | "ALL_METRICS"
  | "REQUEST_COUNT"
  | "REQUEST_DURATION"
  | "REQUEST_SIZE"
  | "RESPONSE_SIZE"
  | "TCP_OPENED_CONNECTIONS"
  | "TCP_CLOSED_CONNECTIONS"
  | "TCP_SENT_BYTES"
  | "TCP_RECEIVED_BYTES"
  | "GRPC_REQUEST_MESSAGES"
  | "GRPC_RESPONSE_MESSAGES";

export interface MetricsOverrides {
  readonly match?: MetricSelector;
  readonly disabled?: boolean;
  readonly tagOverrides?: Readonly<Record<string, MetricsOverridesTagOverride>>;
}

export interface MetricsOverridesTagOverride {
  readonly operation?: MetricsOverridesTagOverrideOperation;
  readonly value?: string;
}

export type MetricsOverridesTagOverrideOperation = "UPSERT" | "REMOVE";

export interface TelemetryAccessLogging {
  readonly match?: TelemetryAccessLoggingLogSelector;
  readonly providers?: readonly ProviderRef[];
  readonly disabled?: boolean;
  readonly filter?: TelemetryAccessLoggingFilter;
}

export interface TelemetryAccessLoggingLogSelector {
  readonly mode?: WorkloadMode;
}

export interface TelemetryAccessLoggingFilter {
  readonly expression?: string;
}
