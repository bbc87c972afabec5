// The shape of the proxy part of MeshConfig (`defaultConfig`), and of the annotation `proxy.istio.io/config`.
import type { ClientTLSSettings, TcpKeepalive } from "./destination-rule.ts";
import type { ProxyImage } from "./proxy-config.ts";
import type { ReadinessProbe } from "./workload-group.ts";

export type AuthenticationPolicy = "NONE" | "MUTUAL_TLS" | "INHERIT";

export interface MeshTracing {
  readonly zipkin?: MeshTracingZipkin;
  readonly lightstep?: MeshTracingLightstep;
  readonly datadog?: MeshTracingDatadog;
  readonly stackdriver?: MeshTracingStackdriver;
  readonly openCensusAgent?: MeshTracingOpenCensusAgent;
  readonly customTags?: Readonly<Record<string, MeshTracingCustomTag>>;
  readonly maxPathTagLength?: number;
  readonly sampling?: number;
  readonly tlsSettings?: ClientTLSSettings;
  readonly enableIstioTags?: boolean;
}

export interface MeshTracingZipkin {
  readonly address?: string;
}

export interface MeshTracingLightstep {
  readonly address?: string;
  readonly accessToken?: string;
}

export interface MeshTracingDatadog {
  readonly address?: string;
}

export interface MeshTracingStackdriver {
  readonly debug?: boolean;
  readonly maxNumberOfAttributes?: number;
  readonly maxNumberOfAnnotations?: number;
  readonly maxNumberOfMessageEvents?: number;
}

export interface MeshTracingOpenCensusAgent {
  readonly address?: string;
  readonly context?: readonly MeshTracingOpenCensusAgentTraceContext[];
}

export type MeshTracingOpenCensusAgentTraceContext =
  | "UNSPECIFIED"
  | "W3C_TRACE_CONTEXT"
  | "GRPC_BIN"
  | "CLOUD_TRACE_CONTEXT"
  | "B3";

export interface MeshTracingCustomTag {
  readonly literal?: MeshTracingLiteral;
  readonly environment?: MeshTracingEnvironment;
  readonly header?: MeshTracingRequestHeader;
}

export interface MeshTracingLiteral {
  readonly value?: string;
}

export interface MeshTracingEnvironment {
  readonly name?: string;
  readonly defaultValue?: string;
}

export interface MeshTracingRequestHeader {
  readonly name?: string;
  readonly defaultValue?: string;
}

export interface Sds {
  readonly enabled?: boolean;
  readonly k8sSaJwtPath?: string;
}

export interface Topology {
  readonly numTrustedProxies?: number;
  readonly forwardClientCertDetails?: ForwardClientCertDetails;
  readonly proxyProtocol?: TopologyProxyProtocolConfiguration;
}

export type TopologyProxyProtocolConfiguration = Readonly<Record<string, never>>;

export type ForwardClientCertDetails =
  | "UNDEFINED"
  | "SANITIZE"
  | "FORWARD_ONLY"
  | "APPEND_FORWARD"
  | "SANITIZE_SET"
  | "ALWAYS_FORWARD_ONLY";

export interface PrivateKeyProvider {
  readonly cryptomb?: PrivateKeyProviderCryptoMb;
  readonly qat?: PrivateKeyProviderQAT;
}

export interface PrivateKeyProviderCryptoMb {
  readonly pollDelay?: string;
  readonly fallback?: boolean;
}

export interface PrivateKeyProviderQAT {
  readonly pollDelay?: string;
  readonly fallback?: boolean;
}

export interface MeshProxyConfig {
  readonly configPath?: string;
  readonly binaryPath?: string;
  readonly serviceCluster?: string;
  readonly tracingServiceName?: MeshProxyConfigTracingServiceName;
  readonly drainDuration?: string;
  readonly discoveryAddress?: string;
  readonly discoveryRefreshDelay?: string;
  readonly zipkinAddress?: string;
  readonly statsdUdpAddress?: string;
  readonly envoyMetricsServiceAddress?: string;
  readonly proxyAdminPort?: number;
  readonly availabilityZone?: string;
  readonly controlPlaneAuthPolicy?: AuthenticationPolicy;
  readonly customConfigFile?: string;
  readonly statNameLength?: number;
  readonly concurrency?: number;
  readonly proxyBootstrapTemplatePath?: string;
  readonly interceptionMode?: MeshProxyConfigInboundInterceptionMode;
  readonly tracing?: MeshTracing;
  readonly sds?: Sds;
  readonly envoyAccessLogService?: RemoteService;
  readonly envoyMetricsService?: RemoteService;
  readonly proxyMetadata?: Readonly<Record<string, string>>;
  readonly runtimeValues?: Readonly<Record<string, string>>;
  readonly statusPort?: number;
  readonly extraStatTags?: readonly string[];
  readonly gatewayTopology?: Topology;
  readonly terminationDrainDuration?: string;
  readonly meshId?: string;
  readonly readinessProbe?: ReadinessProbe;
  readonly proxyStatsMatcher?: MeshProxyConfigProxyStatsMatcher;
  readonly holdApplicationUntilProxyStarts?: boolean;
  readonly caCertificatesPem?: readonly string[];
  readonly image?: ProxyImage;
  readonly privateKeyProvider?: PrivateKeyProvider;
  readonly proxyHeaders?: ProxyHeaders;
  readonly fileFlushInterval?: string;
  readonly fileFlushMinSizeKb?: number;
  readonly statsCompression?: boolean;
  readonly connectionSettings?: MeshProxyConfigConnectionSettings;
}

export type MeshProxyConfigTracingServiceName =
  | "APP_LABEL_AND_NAMESPACE"
  | "CANONICAL_NAME_ONLY"
  | "CANONICAL_NAME_AND_NAMESPACE";

export type MeshProxyConfigInboundInterceptionMode = "REDIRECT" | "TPROXY" | "NONE";

export interface MeshProxyConfigProxyStatsMatcher {
  readonly inclusionPrefixes?: readonly string[];
  readonly inclusionSuffixes?: readonly string[];
  readonly inclusionRegexps?: readonly string[];
}

export interface ProxyHeaders {
  readonly forwardedClientCert?: ForwardClientCertDetails;
  readonly setCurrentClientCertDetails?: ProxyHeadersSetCurrentClientCertDetails;
  readonly requestId?: ProxyHeadersRequestId;
  readonly server?: ProxyHeadersServer;
  readonly attemptCount?: ProxyHeadersAttemptCount;
  readonly envoyDebugHeaders?: ProxyHeadersEnvoyDebugHeaders;
  readonly metadataExchangeHeaders?: ProxyHeadersMetadataExchangeHeaders;
  readonly preserveHttp1HeaderCase?: boolean;
  readonly xForwardedHost?: ProxyHeadersXForwardedHost;
  readonly xForwardedPort?: ProxyHeadersXForwardedPort;
}

export interface ProxyHeadersServer {
  readonly disabled?: boolean;
  readonly value?: string;
}

export interface ProxyHeadersRequestId {
  readonly disabled?: boolean;
}

export interface ProxyHeadersAttemptCount {
  readonly disabled?: boolean;
}

export interface ProxyHeadersXForwardedHost {
  readonly enabled?: boolean;
}

export interface ProxyHeadersXForwardedPort {
  readonly enabled?: boolean;
}

export interface ProxyHeadersEnvoyDebugHeaders {
  readonly disabled?: boolean;
}

export type ProxyHeadersMetadataExchangeMode = "UNDEFINED" | "IN_MESH";

export interface ProxyHeadersMetadataExchangeHeaders {
  readonly mode?: ProxyHeadersMetadataExchangeMode;
}

export interface ProxyHeadersSetCurrentClientCertDetails {
  readonly subject?: boolean;
  readonly cert?: boolean;
  readonly chain?: boolean;
  readonly dns?: boolean;
  readonly uri?: boolean;
}

export interface MeshProxyConfigConnectionSettings {
  readonly profile?: MeshProxyConfigConnectionSettingsProfile;
  readonly listenerPerConnectionBufferLimitBytes?: number;
  readonly clusterPerConnectionBufferLimitBytes?: number;
  readonly httpIdleTimeout?: string;
  readonly httpMaxConnectionDuration?: string;
  readonly httpDrainTimeout?: string;
  readonly httpRequestTimeout?: string;
  readonly httpRequestHeadersTimeout?: string;
  readonly httpStreamIdleTimeout?: string;
  readonly httpMaxStreamDuration?: string;
  readonly httpMaxConcurrentStreams?: number;
  readonly http2InitialStreamWindowSize?: number;
  readonly http2InitialConnectionWindowSize?: number;
  readonly httpHeadersWithUnderscoresAction?: MeshProxyConfigConnectionSettingsHeadersWithUnderscoresAction;
  readonly httpMergeSlashes?: boolean;
  readonly httpPathWithEscapedSlashesAction?: MeshProxyConfigConnectionSettingsPathWithEscapedSlashesAction;
  readonly listenerConnectionLimit?: number;
  readonly globalDownstreamConnectionLimit?: number;
}

export type MeshProxyConfigConnectionSettingsProfile = "SIDECAR" | "EDGE";

export type MeshProxyConfigConnectionSettingsHeadersWithUnderscoresAction =
  | "HEADERS_WITH_UNDERSCORES_UNSPECIFIED"
  | "HEADERS_WITH_UNDERSCORES_ALLOW"
  | "HEADERS_WITH_UNDERSCORES_REJECT_REQUEST"
  | "HEADERS_WITH_UNDERSCORES_DROP_HEADER";

export type MeshProxyConfigConnectionSettingsPathWithEscapedSlashesAction =
  | "PATH_WITH_ESCAPED_SLASHES_UNSPECIFIED"
  | "KEEP_UNCHANGED"
  | "REJECT_REQUEST"
  | "UNESCAPE_AND_REDIRECT"
  | "UNESCAPE_AND_FORWARD";

export interface RemoteService {
  readonly address?: string;
  readonly tlsSettings?: ClientTLSSettings;
  readonly tcpKeepalive?: TcpKeepalive;
}
