// What Mizzen says it can do, in the names of the Gateway API's features: a report declares what is not here as unsupported.

import { gatewayFeatures } from "#model";

/** The suite's runs: gateways and sidecars need different namespaces (with sidecars, without). */
export interface SuiteRun {
  readonly name: string;
  readonly profiles: readonly string[];
  readonly features: readonly string[];
  readonly sidecars: boolean;
}

export const suiteRuns: readonly SuiteRun[] = [
  {
    name: "gateway",
    profiles: ["GATEWAY-HTTP", "GATEWAY-GRPC", "GATEWAY-TLS", "GATEWAY-TCP", "GATEWAY-UDP"],
    sidecars: false,
    features: gatewayFeatures,
  },
  {
    name: "mesh",
    profiles: ["MESH-HTTP", "MESH-GRPC"],
    sidecars: true,
    features: [
      "Mesh",
      "HTTPRoute",
      "GRPCRoute",
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
