// Which fields have an effect, as lines of `Kind path status`, and a reason where that will stay so. A line marks its path and all below it; a longer line prevails.
// A path without a line "warns": the object is taken, and its writer is told that the field has no effect yet. Whoever makes a
// field work adds or changes its line here; `npm run generate -- fields` renders docs/reference/supported-fields.md.
// Lists are written `[]`, entries of maps `{}`.

export type FieldStatus = "works" | "warns" | "refused";

/** Marks of the annotations and labels stand under the kinds `annotation` and `label`. */
export const fieldMarks = `
VirtualService spec.hosts works
VirtualService spec.gateways works
VirtualService spec.exportTo works
VirtualService spec.http works
VirtualService spec.http[].fault.abort.http2Error refused
VirtualService spec.http[].fault.delay.exponentialDelay refused
VirtualService spec.tls works
VirtualService spec.tcp works
VirtualService spec.tcp[].match[].sourceSubnet warns

DestinationRule spec.host works
DestinationRule spec.exportTo works
DestinationRule spec.workloadSelector works
DestinationRule spec.trafficPolicy works
DestinationRule spec.subsets works

Gateway spec works
Gateway spec.servers[].defaultEndpoint warns

ServiceEntry spec works
ServiceEntry spec.resolution works
WorkloadEntry spec works
WorkloadGroup spec works

Sidecar spec.workloadSelector works
Sidecar spec.egress works
Sidecar spec.ingress works
Sidecar spec.ingress[].connectionPool.http.h2UpgradePolicy warns
Sidecar spec.inboundConnectionPool works
Sidecar spec.inboundConnectionPool.http.h2UpgradePolicy warns
Sidecar spec.outboundTrafficPolicy works

ProxyConfig spec works

EnvoyFilter spec works
EnvoyFilter spec.configPatches[].match.listener.portName warns
EnvoyFilter spec.configPatches[].match.waypoint warns

PeerAuthentication spec works

AuthorizationPolicy spec.selector works
AuthorizationPolicy spec.targetRef works
AuthorizationPolicy spec.targetRefs works
AuthorizationPolicy spec.action works
AuthorizationPolicy spec.rules works
AuthorizationPolicy spec.provider works

RequestAuthentication spec works

gateway-api/GatewayClass spec works
gateway-api/Gateway spec works
gateway-api/HTTPRoute spec works
gateway-api/HTTPRoute spec.rules[].filters[].extensionRef warns no kind is known that it could name, as in Istio; the rule, or the share of the backend whose filter it is, answers 500
gateway-api/HTTPRoute spec.rules[].backendRefs[].filters[].extensionRef warns no kind is known that it could name, as in Istio; the rule, or the share of the backend whose filter it is, answers 500
gateway-api/GRPCRoute spec works
gateway-api/GRPCRoute spec.rules[].filters[].extensionRef warns no kind is known that it could name, as in Istio; the rule, or the share of the backend whose filter it is, answers 500
gateway-api/GRPCRoute spec.rules[].backendRefs[].filters[].extensionRef warns no kind is known that it could name, as in Istio; the rule, or the share of the backend whose filter it is, answers 500
gateway-api/TLSRoute spec works
gateway-api/TCPRoute spec works
gateway-api/UDPRoute spec works
gateway-api/ReferenceGrant spec works
gateway-api/BackendTLSPolicy spec works
gateway-api/BackendTLSPolicy spec.options warns no options are known beside what the policy itself says, as in Istio
gateway-api/ListenerSet spec works
gateway-api/XBackend spec works

Telemetry spec.selector works
Telemetry spec.targetRef works
Telemetry spec.targetRefs works
Telemetry spec.accessLogging works
Telemetry spec.tracing works
Telemetry spec.metrics[].providers works
Telemetry spec.metrics[].overrides[].disabled works
Telemetry spec.metrics[].overrides[].tagOverrides works
Telemetry spec.metrics[].overrides[].match works
Telemetry spec.metrics[].overrides[].match.customMetric warns

TrafficExtension spec works
TrafficExtension spec.wasm.verificationKey warns

WasmPlugin spec works
WasmPlugin spec.verificationKey warns

MeshConfig accessLogFile works
MeshConfig ingressClass works
MeshConfig ingressService works
MeshConfig ingressControllerMode works
MeshConfig ingressSelector works
MeshConfig accessLogFormat works
MeshConfig accessLogEncoding works
MeshConfig connectTimeout works
MeshConfig discoverySelectors works
MeshConfig h2UpgradePolicy works
MeshConfig meshMTLS works
MeshConfig meshMTLS.ecdhCurves refused
MeshConfig tlsDefaults works
MeshConfig defaultConfig.configPath works
MeshConfig defaultConfig.serviceCluster works
MeshConfig defaultConfig.proxyAdminPort works
MeshConfig defaultConfig.meshId works
MeshConfig defaultConfig.proxyStatsMatcher works
MeshConfig defaultConfig.image works
MeshConfig defaultConfig.concurrency works
MeshConfig defaultConfig.discoveryAddress works
MeshConfig defaultConfig.drainDuration works
MeshConfig defaultConfig.gatewayTopology works
MeshConfig defaultConfig.proxyHeaders works
MeshConfig defaultConfig.connectionSettings works
MeshConfig defaultConfig.runtimeValues works
MeshConfig defaultConfig.extraStatTags works
MeshConfig defaultConfig.statsCompression works
MeshConfig defaultConfig.statsdUdpAddress works
MeshConfig defaultConfig.fileFlushInterval works
MeshConfig defaultConfig.fileFlushMinSizeKb works
MeshConfig defaultConfig.caCertificatesPem works
MeshConfig defaultConfig.readinessProbe works
MeshConfig defaultConfig.tracingServiceName works
MeshConfig defaultConfig.binaryPath works
MeshConfig defaultConfig.customConfigFile works
MeshConfig defaultConfig.envoyAccessLogService works
MeshConfig defaultConfig.envoyAccessLogService.tlsSettings.credentialName warns a proxy's bootstrap knows no Secrets: name files of its container
MeshConfig defaultConfig.envoyMetricsService works
MeshConfig defaultConfig.envoyMetricsService.tlsSettings.credentialName warns a proxy's bootstrap knows no Secrets: name files of its container
MeshConfig defaultConfig.envoyMetricsServiceAddress works
MeshConfig enableEnvoyAccessLogService works
MeshConfig defaultConfig.tracing.enableIstioTags works
MeshConfig defaultConfig.tracing.zipkin works
MeshConfig defaultConfig.tracing.datadog works
MeshConfig defaultConfig.tracing.tlsSettings works
MeshConfig defaultConfig.tracing.tlsSettings.credentialName warns a proxy's bootstrap knows no Secrets: name files of its container
MeshConfig defaultConfig.zipkinAddress works
MeshConfig enableTracing works
MeshConfig defaultConfig.tracing.lightstep warns Envoy has no tracer of LightStep's any more: name an opentelemetry provider
MeshConfig defaultConfig.tracing.stackdriver warns Envoy has no tracer of Stackdriver's any more: name an opentelemetry provider
MeshConfig defaultConfig.tracing.openCensusAgent warns Envoy has no tracer of OpenCensus any more: name an opentelemetry provider
MeshConfig defaultConfig.proxyBootstrapTemplatePath warns a template of Istio's own agent; an EnvoyFilter with applyTo BOOTSTRAP, sidecar.istio.io/bootstrapOverride or customConfigFile change the bootstrap
MeshConfig defaultConfig.privateKeyProvider warns stock Envoy carries no CryptoMB or QAT, so keys are used by BoringSSL, as with fallback
MeshConfig defaultConfig.controlPlaneAuthPolicy warns proxies always prove who they are to the control plane, and it to them
MeshConfig defaultConfig.discoveryRefreshDelay warns configuration is pushed and nobody polls, so it is without meaning in Istio as well
MeshConfig defaultConfig.availabilityZone warns without meaning in Istio as well; a proxy's place is that of its Node, or of its label istio-locality
MeshConfig defaultConfig.statNameLength warns Envoy bounds no names of statistics any more, so it is without meaning in Istio as well
MeshConfig defaultConfig.sds warns secrets always come over a socket of the proxy's own Pod, so it is without meaning in Istio as well
MeshConfig defaultConfig.holdApplicationUntilProxyStarts works
MeshConfig defaultConfig.interceptionMode works
MeshConfig defaultConfig.proxyMetadata works
MeshConfig defaultConfig.statusPort works
MeshConfig defaultConfig.terminationDrainDuration works
MeshConfig defaultDestinationRuleExportTo works
MeshConfig defaultHttpRetryPolicy works
MeshConfig defaultServiceExportTo works
MeshConfig defaultVirtualServiceExportTo works
MeshConfig defaultProviders.accessLogging works
MeshConfig defaultProviders.tracing works
MeshConfig defaultConfig.tracing.sampling works
MeshConfig defaultConfig.tracing.customTags works
MeshConfig defaultConfig.tracing.maxPathTagLength works
MeshConfig extensionProviders[].zipkin works
MeshConfig extensionProviders[].opentelemetry works
MeshConfig extensionProviders[].envoyOtelAls works
MeshConfig extensionProviders[].envoyHttpAls works
MeshConfig extensionProviders[].envoyTcpAls works
MeshConfig extensionProviders[].prometheus works
MeshConfig dnsRefreshRate works
MeshConfig enableAutoMtls works
MeshConfig enablePrometheusMerge works
MeshConfig extensionProviders[].name works
MeshConfig extensionProviders[].envoyFileAccessLog works
MeshConfig inboundTrafficPolicy works
MeshConfig outboundTrafficPolicy works
MeshConfig outboundTrafficPolicy.tls.credentialName warns sidecars get Secrets by rules that select them: name files of the proxy's container
MeshConfig pathNormalization works
MeshConfig protocolDetectionTimeout works
MeshConfig proxyInboundListenPort works
MeshConfig proxyListenPort works
MeshConfig proxyHttpPort works
MeshConfig rootNamespace works
MeshConfig tcpKeepalive works
MeshConfig trustDomain works
MeshConfig trustDomainAliases works
MeshConfig zoneAwareLbSetting works
MeshConfig serviceSettings warns of several clusters alone: with one all endpoints are local
MeshConfig serviceScopeConfigs warns of ambient between several clusters alone
MeshConfig verifyCertificateAtClient warns certificates of servers outside are always verified, so it is without meaning in Istio as well
MeshConfig hboneIdleTimeout warns of ambient alone
MeshConfig localityLbSetting works
MeshConfig extensionProviders[].sds works
MeshConfig defaultProviders.metrics works
MeshConfig caCertificates[].pem works
MeshConfig caCertificates[].trustDomains works
MeshConfig caCertificates[].spiffeBundleUrl warns the control plane calls nobody outside: name the certificates in pem
MeshConfig caCertificates[].certSigners warns the control plane signs by itself, and asks no signer of Kubernetes
MeshConfig ca warns the control plane signs by itself: bring its signing certificate in the Secret cacerts
MeshConfig certificates warns an older Istio made certificates for other services so; without meaning in Istio by now
MeshConfig configSources warns objects come from the Kubernetes API alone
MeshConfig disableEnvoyListenerLog works
MeshConfig extensionProviders[].skywalking works
MeshConfig extensionProviders[].datadog works
MeshConfig extensionProviders[].lightstep warns Envoy has no tracer of LightStep's any more: name an opentelemetry provider
MeshConfig extensionProviders[].stackdriver warns Envoy has nothing of Stackdriver's any more: name an opentelemetry provider
MeshConfig extensionProviders[].opencensus warns Envoy has no tracer of OpenCensus any more: name an opentelemetry provider
MeshConfig inboundClusterStatName works
MeshConfig outboundClusterStatName works
MeshConfig serviceEntryVisibility works
MeshConfig defaultTrafficPolicy works
MeshConfig defaultInboundHttpRetryPolicy works
MeshConfig extensionProviders[].envoyExtAuthzHttp works
MeshConfig extensionProviders[].envoyExtAuthzGrpc works

MeshNetworks networks works
MeshNetworks networks{}.gateways[].locality warns without meaning in Istio as well: endpoints behind a gateway have places of their own

annotation inject.istio.io/templates works
annotation istio.io/autoRegistrationGroup works
annotation istio.io/workloadController works
annotation istio.io/connectedAt works
annotation istio.io/disconnectedAt works
annotation istio.io/rev works
annotation prometheus.istio.io/merge-metrics works
annotation proxy.istio.io/config works
annotation readiness.status.sidecar.istio.io/failureThreshold works
annotation readiness.status.sidecar.istio.io/initialDelaySeconds works
annotation readiness.status.sidecar.istio.io/periodSeconds works
annotation sidecar.istio.io/agentLogLevel works
annotation sidecar.istio.io/componentLogLevel works
annotation sidecar.istio.io/inject works
annotation sidecar.istio.io/logLevel works
annotation sidecar.istio.io/nativeSidecar works
annotation sidecar.istio.io/proxyCPU works
annotation sidecar.istio.io/proxyCPULimit works
annotation sidecar.istio.io/proxyImage works
annotation sidecar.istio.io/proxyImageType works
annotation sidecar.istio.io/interceptionMode works
annotation sidecar.istio.io/bootstrapOverride works
annotation sidecar.istio.io/statsInclusionPrefixes works
annotation sidecar.istio.io/statsInclusionSuffixes works
annotation sidecar.istio.io/statsInclusionRegexps works
annotation traffic.sidecar.istio.io/excludeInterfaces works
annotation traffic.sidecar.istio.io/kubevirtInterfaces works
annotation istio.io/reroute-virtual-interfaces works
annotation networking.istio.io/exportTo works
annotation networking.istio.io/service-type works
annotation traffic.istio.io/nodeSelector works
annotation networking.istio.io/traffic-distribution works
annotation proxy.istio.io/overrides works
annotation sidecar.istio.io/proxyMemory works
annotation sidecar.istio.io/proxyMemoryLimit works
annotation sidecar.istio.io/rewriteAppHTTPProbers works
annotation sidecar.istio.io/status works
annotation sidecar.istio.io/userVolume works
annotation sidecar.istio.io/userVolumeMount works
annotation status.sidecar.istio.io/port works
annotation traffic.sidecar.istio.io/excludeInboundPorts works
annotation traffic.sidecar.istio.io/excludeOutboundIPRanges works
annotation traffic.sidecar.istio.io/excludeOutboundPorts works
annotation traffic.sidecar.istio.io/includeInboundPorts works
annotation traffic.sidecar.istio.io/includeOutboundIPRanges works
annotation traffic.sidecar.istio.io/includeOutboundPorts works
annotation alpha.istio.io/kubernetes-serviceaccounts works
annotation alpha.istio.io/canonical-serviceaccounts works
annotation istio.io/dry-run works
annotation sidecar.istio.io/statsFlushInterval works
annotation sidecar.istio.io/statsEvictionInterval works
annotation sidecar.istio.io/statsHistogramBuckets works
annotation sidecar.istio.io/statsHistogramBins works
annotation gateway.istio.io/controller-version works
annotation ambient.istio.io/redirection warns
annotation ambient.istio.io/waypoint-inbound-binding warns
annotation gateway.istio.io/service-account works
annotation gateway.istio.io/name-override works
annotation istio.io/use-waypoint-canary-weight warns
annotation ambient.istio.io/bypass-inbound-capture warns
annotation ambient.istio.io/dns-capture warns
annotation sidecar.istio.io/statsCompression works
annotation sidecar.istio.io/extraStatTags works
annotation sidecar.istio.io/discoveryAddress works

label istio-injection works
label istio.io/rev works
label security.istio.io/tlsMode works
label networking.istio.io/enable-autoallocate-ip works
label networking.istio.io/gatewayPort works
label topology.istio.io/network works
label topology.istio.io/subzone works
label topology.istio.io/cluster works
label topology.istio.io/locality works
label gateway.istio.io/managed works
label service.istio.io/workload-name works
label service.istio.io/canonical-name works
label service.istio.io/canonical-revision works
label sidecar.istio.io/inject works
label operator.istio.io/component warns
label operator.istio.io/managed warns
label operator.istio.io/version warns
label istio.io/use-waypoint-canary warns
label istio.io/use-waypoint-canary-namespace warns
`;
