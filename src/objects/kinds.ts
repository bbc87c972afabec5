// Every kind that the mesh watches or checks, in one table: discovery, watch caches, webhooks and CRDs read it.

export interface KindInfo {
  readonly kind: string;
  /** "" is the core group. */
  readonly group: string;
  /** All served versions, the preferred one first. */
  readonly versions: readonly string[];
  /** The version in which the mesh watches it, and in which its CRD stores it. */
  readonly storageVersion: string;
  readonly plural: string;
  readonly shortNames: readonly string[];
  readonly namespaced: boolean;
  /** Whose API it is. */
  readonly family: "kubernetes" | "istio" | "gateway-api";
}

type Row = readonly [kind: string, plural: string, versions: string, shortNames: string, scope?: "cluster"];

const networkingVersions = "v1 v1beta1 v1alpha3";

const kubernetes: Readonly<Record<string, readonly Row[]>> = {
  "": [
    ["Namespace", "namespaces", "v1", "ns", "cluster"],
    ["Node", "nodes", "v1", "no", "cluster"],
    ["Service", "services", "v1", "svc"],
    ["Pod", "pods", "v1", "po"],
    ["Secret", "secrets", "v1", ""],
    ["ConfigMap", "configmaps", "v1", "cm"],
    ["ServiceAccount", "serviceaccounts", "v1", "sa"],
  ],
  "discovery.k8s.io": [["EndpointSlice", "endpointslices", "v1", ""]],
  "networking.k8s.io": [
    ["Ingress", "ingresses", "v1", "ing"],
    ["IngressClass", "ingressclasses", "v1", "", "cluster"],
  ],
};

const istio: Readonly<Record<string, readonly Row[]>> = {
  "networking.istio.io": [
    ["VirtualService", "virtualservices", networkingVersions, "vs"],
    ["DestinationRule", "destinationrules", networkingVersions, "dr"],
    ["Gateway", "gateways", networkingVersions, "gw"],
    ["ServiceEntry", "serviceentries", networkingVersions, "se"],
    ["WorkloadEntry", "workloadentries", networkingVersions, "we"],
    ["WorkloadGroup", "workloadgroups", networkingVersions, "wg"],
    ["Sidecar", "sidecars", networkingVersions, ""],
    ["EnvoyFilter", "envoyfilters", "v1alpha3", ""],
    ["ProxyConfig", "proxyconfigs", "v1beta1", ""],
  ],
  "security.istio.io": [
    ["PeerAuthentication", "peerauthentications", "v1 v1beta1", "pa"],
    ["RequestAuthentication", "requestauthentications", "v1 v1beta1", "ra"],
    ["AuthorizationPolicy", "authorizationpolicies", "v1 v1beta1", "ap"],
  ],
  // Istio stores Telemetry in v1alpha1 although it serves v1.
  "telemetry.istio.io": [["Telemetry", "telemetries", "v1alpha1 v1", "telemetry"]],
  "extensions.istio.io": [
    ["WasmPlugin", "wasmplugins", "v1alpha1", ""],
    ["TrafficExtension", "trafficextensions", "v1alpha1", ""],
  ],
};

const gatewayApi: Readonly<Record<string, readonly Row[]>> = {
  "gateway.networking.k8s.io": [
    ["GatewayClass", "gatewayclasses", "v1 v1beta1", "gc", "cluster"],
    ["Gateway", "gateways", "v1 v1beta1", "gtw"],
    ["HTTPRoute", "httproutes", "v1 v1beta1", ""],
    ["GRPCRoute", "grpcroutes", "v1", ""],
    ["TLSRoute", "tlsroutes", "v1 v1alpha3 v1alpha2", ""],
    ["TCPRoute", "tcproutes", "v1 v1alpha2", ""],
    ["UDPRoute", "udproutes", "v1 v1alpha2", ""],
    ["ReferenceGrant", "referencegrants", "v1beta1 v1", "refgrant"],
    ["BackendTLSPolicy", "backendtlspolicies", "v1 v1alpha3", "btlspolicy"],
    ["ListenerSet", "listenersets", "v1", "lset"],
  ],
  "gateway.networking.x-k8s.io": [["XBackend", "xbackends", "v1alpha1", "xbackend"]],
};

export const kinds: readonly KindInfo[] = [
  ...rows("kubernetes", kubernetes),
  ...rows("istio", istio),
  ...rows("gateway-api", gatewayApi),
];

function rows(family: KindInfo["family"], groups: Readonly<Record<string, readonly Row[]>>): KindInfo[] {
  return Object.entries(groups).flatMap(([group, list]) =>
    list.map(([kind, plural, versions, shortNames, scope]) => {
      const served = versions.split(" ");
      return {
        kind,
        group,
        versions: served,
        storageVersion: served[0]!,
        plural,
        shortNames: shortNames === "" ? [] : shortNames.split(" "),
        namespaced: scope !== "cluster",
        family,
      };
    }),
  );
}

const byGroupKind = new Map(kinds.map((info) => [`${info.group}/${info.kind}`, info]));

/** The group of an `apiVersion`: "" for the core. */
export function groupOf(apiVersion: string): string {
  const slash = apiVersion.indexOf("/");
  return slash < 0 ? "" : apiVersion.slice(0, slash);
}

/** The version of an `apiVersion`. */
export function versionOf(apiVersion: string): string {
  return apiVersion.slice(apiVersion.indexOf("/") + 1);
}

export function kindInfo(group: string, kind: string): KindInfo | undefined {
  return byGroupKind.get(`${group}/${kind}`);
}

/** The row of an object's kind, whatever version it is written in. */
export function kindOf(object: { readonly apiVersion: string; readonly kind: string }): KindInfo | undefined {
  return kindInfo(groupOf(object.apiVersion), object.kind);
}

/** `virtualservices.networking.istio.io`: a kind's name among all resources. */
export function resourceName(info: KindInfo): string {
  return info.group === "" ? info.plural : `${info.plural}.${info.group}`;
}
