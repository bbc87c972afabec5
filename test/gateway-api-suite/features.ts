// What Mizzen says it can do, in the names of the Gateway API's features: a report declares what is not here as unsupported.

/** The suite's runs: gateways and sidecars need different namespaces (with sidecars, without). */
export interface SuiteRun {
  readonly name: string;
  readonly profiles: readonly string[];
  readonly features: readonly string[];
  readonly sidecars: boolean;
}

const gatewayFeatures = [
  "Gateway",
  "GatewayPort8080",
  "GatewayStaticAddresses",
  "GatewayHTTPListenerIsolation",
  "GatewayHTTPSListenerDetectMisdirectedRequests",
  "GatewayInfrastructure",
  "GatewayAddressEmpty",
  "ListenerSet",
  "GatewayBackendClientCertificate",
  "GatewayFrontendClientCertificateValidation",
  "GatewayFrontendClientCertificateValidationInsecureFallback",
  "ReferenceGrant",
  "BackendTLSPolicy",
  "BackendTLSPolicySANValidation",
];

const httpRouteFeatures = [
  "HTTPRoute",
  "HTTPRoute303RedirectStatusCode",
  "HTTPRoute307RedirectStatusCode",
  "HTTPRoute308RedirectStatusCode",
  "HTTPRouteBackendProtocolH2C",
  "HTTPRouteBackendProtocolWebSocket",
  "HTTPRouteBackendRequestHeaderModification",
  "HTTPRouteBackendTimeout",
  "HTTPRouteCORS",
  "HTTPRouteDestinationPortMatching",
  "HTTPRouteHostRewrite",
  "HTTPRouteMethodMatching",
  "HTTPRouteNamedRouteRule",
  "HTTPRouteParentRefPort",
  "HTTPRoutePathRedirect",
  "HTTPRoutePathRewrite",
  "HTTPRoutePortRedirect",
  "HTTPRouteQueryParamMatching",
  "HTTPRouteRequestMirror",
  "HTTPRouteRequestMultipleMirrors",
  "HTTPRouteRequestPercentageMirror",
  "HTTPRouteRequestTimeout",
  "HTTPRouteResponseHeaderModification",
  "HTTPRouteRetry",
  "HTTPRouteRetryBackendTimeout",
  "HTTPRouteRetryConnectionError",
  "HTTPRouteSchemeRedirect",
];

export const suiteRuns: readonly SuiteRun[] = [
  {
    name: "gateway",
    profiles: ["GATEWAY-HTTP", "GATEWAY-GRPC", "GATEWAY-TLS"],
    sidecars: false,
    features: [
      ...gatewayFeatures,
      ...httpRouteFeatures,
      "GRPCRoute",
      "GRPCRouteNamedRouteRule",
      "TLSRoute",
      "TLSRouteModeTerminate",
      "TLSRouteModeMixed",
    ],
  },
  {
    name: "mesh",
    profiles: ["MESH-HTTP"],
    sidecars: true,
    features: [
      "Mesh",
      "HTTPRoute",
      "MeshClusterIPMatching",
      "MeshConsumerRoute",
      "MeshHTTPRouteRewritePath",
      "MeshHTTPRouteSchemeRedirect",
      "MeshHTTPRouteRedirectPort",
      "MeshHTTPRouteRedirectPath",
      "MeshHTTPRouteBackendRequestHeaderModification",
      "MeshHTTPRouteQueryParamMatching",
      "MeshHTTPRouteNamedRouteRule",
    ],
  },
];
