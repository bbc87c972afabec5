// The shape of MeshConfig: the YAML under the key `mesh` of ConfigMap `istio`.
import type {
  ClientTLSSettings,
  ConnectionPoolSettings,
  TcpKeepalive,
  LocalityLoadBalancerSetting,
  OutlierDetection,
  ZoneAwareLoadBalancerSetting,
} from "./destination-rule.ts";
import type { MeshProxyConfig } from "./mesh-proxy-config.ts";
import type { HTTPRetry } from "./virtual-service.ts";

export interface MeshConfig {
  readonly proxyListenPort?: number;
  readonly proxyInboundListenPort?: number;
  readonly proxyHttpPort?: number;
  readonly connectTimeout?: string;
  readonly hboneIdleTimeout?: string;
  readonly protocolDetectionTimeout?: string;
  readonly tcpKeepalive?: TcpKeepalive;
  readonly ingressClass?: string;
  readonly ingressService?: string;
  readonly ingressControllerMode?: MeshConfigIngressControllerMode;
  readonly ingressSelector?: string;
  readonly enableTracing?: boolean;
  readonly accessLogFile?: string;
  readonly accessLogFormat?: string;
  readonly accessLogEncoding?: MeshConfigAccessLogEncoding;
  readonly enableEnvoyAccessLogService?: boolean;
  readonly disableEnvoyListenerLog?: boolean;
  readonly defaultConfig?: MeshProxyConfig;
  readonly outboundTrafficPolicy?: MeshConfigOutboundTrafficPolicy;
  readonly inboundTrafficPolicy?: MeshConfigInboundTrafficPolicy;
  readonly configSources?: readonly ConfigSource[];
  readonly enableAutoMtls?: boolean;
  readonly trustDomain?: string;
  readonly trustDomainAliases?: readonly string[];
  readonly caCertificates?: readonly MeshConfigCertificateData[];
  readonly defaultServiceExportTo?: readonly string[];
  readonly defaultVirtualServiceExportTo?: readonly string[];
  readonly defaultDestinationRuleExportTo?: readonly string[];
  readonly rootNamespace?: string;
  readonly localityLbSetting?: LocalityLoadBalancerSetting;
  readonly zoneAwareLbSetting?: ZoneAwareLoadBalancerSetting;
  readonly dnsRefreshRate?: string;
  readonly h2UpgradePolicy?: MeshConfigH2UpgradePolicy;
  readonly inboundClusterStatName?: string;
  readonly outboundClusterStatName?: string;
  readonly certificates?: readonly Certificate[];
  readonly serviceSettings?: readonly MeshConfigServiceSettings[];
  readonly serviceScopeConfigs?: readonly MeshConfigServiceScopeConfigs[];
  readonly enablePrometheusMerge?: boolean;
  readonly verifyCertificateAtClient?: boolean;
  readonly ca?: MeshConfigCA;
  readonly extensionProviders?: readonly MeshConfigExtensionProvider[];
  readonly defaultProviders?: MeshConfigDefaultProviders;
  readonly discoverySelectors?: readonly LabelSelector[];
  readonly pathNormalization?: MeshConfigProxyPathNormalization;
  readonly defaultHttpRetryPolicy?: HTTPRetry;
  readonly meshMTLS?: MeshConfigTLSConfig;
  readonly tlsDefaults?: MeshConfigTLSConfig;
  readonly defaultTrafficPolicy?: MeshConfigDefaultTrafficPolicy;
  readonly serviceEntryVisibility?: ServiceEntryVisibility;
  readonly defaultInboundHttpRetryPolicy?: HTTPRetry;
}

export type MeshConfigIngressControllerMode = "UNSPECIFIED" | "OFF" | "DEFAULT" | "STRICT";

export type MeshConfigAuthPolicy = "NONE" | "MUTUAL_TLS";

export type MeshConfigAccessLogEncoding = "TEXT" | "JSON";

export interface MeshConfigOutboundTrafficPolicy {
  readonly mode?: MeshConfigOutboundTrafficPolicyMode;
  readonly tls?: ClientTLSSettings;
}

export type MeshConfigOutboundTrafficPolicyMode = "REGISTRY_ONLY" | "ALLOW_ANY" | "ALLOW_ANY_DYNAMIC_DNS";

export interface MeshConfigInboundTrafficPolicy {
  readonly mode?: MeshConfigInboundTrafficPolicyMode;
}

export type MeshConfigInboundTrafficPolicyMode = "PASSTHROUGH" | "LOCALHOST";

export interface MeshConfigCertificateData {
  readonly pem?: string;
  readonly spiffeBundleUrl?: string;
  readonly certSigners?: readonly string[];
  readonly trustDomains?: readonly string[];
}

export type MeshConfigH2UpgradePolicy = "DO_NOT_UPGRADE" | "UPGRADE";

export interface MeshConfigServiceSettings {
  readonly settings?: MeshConfigServiceSettingsSettings;
  readonly hosts?: readonly string[];
}

export interface MeshConfigServiceSettingsSettings {
  readonly clusterLocal?: boolean;
}

export interface MeshConfigServiceScopeConfigs {
  readonly namespaceSelector?: LabelSelector;
  readonly servicesSelector?: LabelSelector;
  readonly scope?: MeshConfigServiceScopeConfigsScope;
}

export type MeshConfigServiceScopeConfigsScope = "LOCAL" | "GLOBAL";

export interface MeshConfigCA {
  readonly address?: string;
  readonly tlsSettings?: ClientTLSSettings;
  readonly requestTimeout?: string;
  readonly istiodSide?: boolean;
}

export interface MeshConfigExtensionProvider {
  readonly name?: string;
  readonly envoyExtAuthzHttp?: ProviderEnvoyExternalAuthorizationHttpProvider;
  readonly envoyExtAuthzGrpc?: ProviderEnvoyExternalAuthorizationGrpcProvider;
  readonly zipkin?: ProviderZipkinTracingProvider;
  readonly lightstep?: ProviderLightstepTracingProvider;
  readonly datadog?: ProviderDatadogTracingProvider;
  readonly stackdriver?: ProviderStackdriverProvider;
  readonly opencensus?: ProviderOpenCensusAgentTracingProvider;
  readonly skywalking?: ProviderSkyWalkingTracingProvider;
  readonly opentelemetry?: ProviderOpenTelemetryTracingProvider;
  readonly prometheus?: ProviderPrometheusMetricsProvider;
  readonly envoyFileAccessLog?: ProviderEnvoyFileAccessLogProvider;
  readonly envoyHttpAls?: ProviderEnvoyHttpGrpcV3LogProvider;
  readonly envoyTcpAls?: ProviderEnvoyTcpGrpcV3LogProvider;
  readonly envoyOtelAls?: ProviderEnvoyOpenTelemetryLogProvider;
  readonly sds?: ProviderSDSProvider;
}

export interface ProviderEnvoyExternalAuthorizationRequestBody {
  readonly maxRequestBytes?: number;
  readonly allowPartialMessage?: boolean;
  readonly packAsBytes?: boolean;
}

export interface ProviderEnvoyExternalAuthorizationHttpProvider {
  readonly service?: string;
  readonly port?: number;
  readonly timeout?: string;
  readonly pathPrefix?: string;
  readonly failOpen?: boolean;
  readonly clearRouteCache?: boolean;
  readonly statusOnError?: string;
  readonly includeHeadersInCheck?: readonly string[];
  readonly includeRequestHeadersInCheck?: readonly string[];
  readonly includeAdditionalHeadersInCheck?: Readonly<Record<string, string>>;
  readonly includeRequestBodyInCheck?: ProviderEnvoyExternalAuthorizationRequestBody;
  readonly headersToUpstreamOnAllow?: readonly string[];
  readonly headersToDownstreamOnDeny?: readonly string[];
  readonly headersToDownstreamOnAllow?: readonly string[];
}

export interface ProviderEnvoyExternalAuthorizationGrpcProvider {
  readonly service?: string;
  readonly port?: number;
  readonly timeout?: string;
  readonly failOpen?: boolean;
  readonly clearRouteCache?: boolean;
  readonly statusOnError?: string;
  readonly includeRequestBodyInCheck?: ProviderEnvoyExternalAuthorizationRequestBody;
}

export interface ProviderZipkinTracingProvider {
  readonly service?: string;
  readonly port?: number;
  readonly maxTagLength?: number;
  readonly enable64bitTraceId?: boolean;
  readonly path?: string;
  readonly traceContextOption?: ProviderZipkinTracingProviderTraceContextOption;
  readonly timeout?: string;
  readonly headers?: readonly ProviderHttpHeader[];
}

export type ProviderZipkinTracingProviderTraceContextOption = "USE_B3" | "USE_B3_WITH_W3C_PROPAGATION";

export interface ProviderLightstepTracingProvider {
  readonly service?: string;
  readonly port?: number;
  readonly accessToken?: string;
  readonly maxTagLength?: number;
}

export interface ProviderDatadogTracingProvider {
  readonly service?: string;
  readonly port?: number;
  readonly maxTagLength?: number;
}

export interface ProviderSkyWalkingTracingProvider {
  readonly service?: string;
  readonly port?: number;
  readonly accessToken?: string;
}

export interface ProviderStackdriverProvider {
  readonly debug?: boolean;
  readonly maxNumberOfAttributes?: number;
  readonly maxNumberOfAnnotations?: number;
  readonly maxNumberOfMessageEvents?: number;
  readonly maxTagLength?: number;
  readonly logging?: ProviderStackdriverProviderLogging;
}

export interface ProviderStackdriverProviderLogging {
  readonly labels?: Readonly<Record<string, string>>;
}

export interface ProviderOpenCensusAgentTracingProvider {
  readonly service?: string;
  readonly port?: number;
  readonly context?: readonly ProviderOpenCensusAgentTracingProviderTraceContext[];
  readonly maxTagLength?: number;
}

export type ProviderOpenCensusAgentTracingProviderTraceContext =
  | "UNSPECIFIED"
  | "W3C_TRACE_CONTEXT"
  | "GRPC_BIN"
  | "CLOUD_TRACE_CONTEXT"
  | "B3";

export type ProviderPrometheusMetricsProvider = Readonly<Record<string, never>>;

export interface ProviderEnvoyFileAccessLogProvider {
  readonly path?: string;
  readonly logFormat?: ProviderEnvoyFileAccessLogProviderLogFormat;
  readonly omitEmptyValues?: boolean;
}

export interface ProviderEnvoyFileAccessLogProviderLogFormat {
  readonly text?: string;
  readonly labels?: Readonly<Record<string, unknown>>;
}

export interface ProviderEnvoyHttpGrpcV3LogProvider {
  readonly service?: string;
  readonly port?: number;
  readonly logName?: string;
  readonly filterStateObjectsToLog?: readonly string[];
  readonly additionalRequestHeadersToLog?: readonly string[];
  readonly additionalResponseHeadersToLog?: readonly string[];
  readonly additionalResponseTrailersToLog?: readonly string[];
}

export interface ProviderEnvoyTcpGrpcV3LogProvider {
  readonly service?: string;
  readonly port?: number;
  readonly logName?: string;
  readonly filterStateObjectsToLog?: readonly string[];
}

export interface ProviderEnvoyOpenTelemetryLogProvider {
  readonly service?: string;
  readonly port?: number;
  readonly logName?: string;
  readonly logFormat?: ProviderEnvoyOpenTelemetryLogProviderLogFormat;
}

export interface ProviderEnvoyOpenTelemetryLogProviderLogFormat {
  readonly text?: string;
  readonly labels?: Readonly<Record<string, unknown>>;
}

export type ProviderServiceAttributeEnrichment = "ISTIO_CANONICAL" | "OTEL_SEMANTIC_CONVENTIONS";

export interface ProviderOpenTelemetryTracingProvider {
  readonly service?: string;
  readonly port?: number;
  readonly maxTagLength?: number;
  readonly http?: ProviderHttpService;
  readonly grpc?: ProviderGrpcService;
  readonly resourceDetectors?: ProviderResourceDetectors;
  readonly serviceAttributeEnrichment?: ProviderServiceAttributeEnrichment;
  readonly dynatraceSampler?: ProviderDynatraceSampler;
}

export interface ProviderDynatraceSampler {
  readonly tenant?: string;
  readonly clusterId?: number;
  readonly rootSpansPerMinute?: number;
  readonly httpService?: ProviderDynatraceApi;
}

export interface ProviderDynatraceApi {
  readonly service?: string;
  readonly port?: number;
  readonly http?: ProviderHttpService;
}

export interface ProviderSDSProvider {
  readonly name?: string;
  readonly service?: string;
  readonly port?: number;
}

export interface ProviderHttpService {
  readonly path?: string;
  readonly timeout?: string;
  readonly headers?: readonly ProviderHttpHeader[];
}

export interface ProviderHttpHeader {
  readonly name?: string;
  readonly value?: string;
  readonly envName?: string;
}

export interface ProviderResourceDetectors {
  readonly environment?: ProviderResourceDetectorsEnvironmentResourceDetector;
  readonly dynatrace?: ProviderResourceDetectorsDynatraceResourceDetector;
}

export type ProviderResourceDetectorsEnvironmentResourceDetector = Readonly<Record<string, never>>;

export type ProviderResourceDetectorsDynatraceResourceDetector = Readonly<Record<string, never>>;

export interface ProviderGrpcService {
  readonly timeout?: string;
  readonly initialMetadata?: readonly ProviderHttpHeader[];
}

export interface MeshConfigDefaultProviders {
  readonly tracing?: readonly string[];
  readonly metrics?: readonly string[];
  readonly accessLogging?: readonly string[];
}

export interface MeshConfigProxyPathNormalization {
  readonly normalization?: MeshConfigProxyPathNormalizationNormalizationType;
}

export type MeshConfigProxyPathNormalizationNormalizationType =
  | "DEFAULT"
  | "NONE"
  | "BASE"
  | "MERGE_SLASHES"
  | "DECODE_AND_MERGE_SLASHES";

export interface MeshConfigTLSConfig {
  readonly minProtocolVersion?: MeshConfigTLSConfigTLSProtocol;
  readonly ecdhCurves?: readonly string[];
  readonly cipherSuites?: readonly string[];
}

export type MeshConfigTLSConfigTLSProtocol = "TLS_AUTO" | "TLSV1_2" | "TLSV1_3";

export interface MeshConfigDefaultTrafficPolicy {
  readonly connectionPool?: ConnectionPoolSettings;
  readonly outlierDetection?: OutlierDetection;
}

export type Resource = "SERVICE_REGISTRY";

export interface LabelSelector {
  readonly matchLabels?: Readonly<Record<string, string>>;
  readonly matchExpressions?: readonly LabelSelectorRequirement[];
}

export interface LabelSelectorRequirement {
  readonly key?: string;
  readonly operator?: string;
  readonly values?: readonly string[];
}

export interface ServiceEntryVisibility {
  readonly defaultVisibility?: ServiceEntryVisibilityVisibility;
  readonly applyToSidecars?: boolean;
  readonly policies?: readonly ServiceEntryVisibilityPolicy[];
}

export type ServiceEntryVisibilityVisibility = "VISIBILITY_UNSPECIFIED" | "NONE" | "NAMESPACE" | "PUBLIC";

export interface ServiceEntryVisibilityPolicy {
  readonly visibility?: ServiceEntryVisibilityVisibility;
  readonly matchingRules?: readonly ServiceEntryVisibilityMatchRule[];
}

export interface ServiceEntryVisibilityMatchRule {
  readonly namespaceSelector?: LabelSelector;
}

export interface ConfigSource {
  readonly address?: string;
  readonly tlsSettings?: ClientTLSSettings;
  readonly subscribedResources?: readonly Resource[];
}

export interface Certificate {
  readonly secretName?: string;
  readonly dnsNames?: readonly string[];
}
