// The kinds of Gateway API, as far as the mesh reads them. `Kube` tells its Gateway from Istio's.

import type { KubeObject } from "./object.ts";

export interface ParentReference {
  readonly group?: string;
  readonly kind?: string;
  readonly namespace?: string;
  readonly name: string;
  readonly sectionName?: string;
  readonly port?: number;
}

/** Of default Gateways, and of the routes that use them. */
export type DefaultScope = "All" | "None";

/** What all kinds of routes have. */
export interface CommonRouteSpec {
  readonly parentRefs?: readonly ParentReference[];
  readonly useDefaultGateways?: DefaultScope;
}

export interface BackendObjectReference {
  readonly group?: string;
  readonly kind?: string;
  readonly namespace?: string;
  readonly name: string;
  readonly port?: number;
}

export interface BackendRef extends BackendObjectReference {
  readonly weight?: number;
}

export interface SecretObjectReference {
  readonly group?: string;
  readonly kind?: string;
  readonly namespace?: string;
  readonly name: string;
}

export interface Condition {
  readonly type: string;
  readonly status: "True" | "False" | "Unknown";
  readonly reason: string;
  readonly message: string;
  readonly observedGeneration?: number;
  readonly lastTransitionTime?: string;
}

export interface KubeGatewayListener {
  readonly name: string;
  readonly hostname?: string;
  readonly port: number;
  readonly protocol: string;
  readonly tls?: {
    readonly mode?: "Terminate" | "Passthrough";
    readonly certificateRefs?: readonly SecretObjectReference[];
    readonly options?: Readonly<Record<string, string>>;
  };
  readonly allowedRoutes?: {
    readonly namespaces?: NamespaceChoice;
    readonly kinds?: readonly { readonly group?: string; readonly kind: string }[];
  };
}

/** A Kubernetes label selector. */
export interface LabelSelectorObject {
  readonly matchLabels?: Readonly<Record<string, string>>;
  readonly matchExpressions?: readonly {
    readonly key: string;
    readonly operator: "In" | "NotIn" | "Exists" | "DoesNotExist";
    readonly values?: readonly string[];
  }[];
}

export interface KubeGatewaySpec {
  readonly gatewayClassName: string;
  readonly listeners: readonly KubeGatewayListener[];
  readonly addresses?: readonly { readonly type?: string; readonly value?: string }[];
  readonly infrastructure?: {
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly parametersRef?: { readonly group: string; readonly kind: string; readonly name: string };
  };
  readonly tls?: {
    readonly frontend?: {
      readonly default?: KubeGatewayFrontendTls;
      readonly perPort?: readonly { readonly port: number; readonly tls: KubeGatewayFrontendTls }[];
    };
    readonly backend?: { readonly clientCertificateRef?: SecretObjectReference };
  };
  /** With `All` routes that use default Gateways are its own as if they named it (experimental). */
  readonly defaultScope?: DefaultScope;
  /** Which namespaces' ListenerSets may add listeners; none when absent. */
  readonly allowedListeners?: { readonly namespaces?: NamespaceChoice };
}

/** Which namespaces may attach. */
export interface NamespaceChoice {
  readonly from?: "All" | "Selector" | "Same" | "None";
  readonly selector?: LabelSelectorObject;
}

/** How clients' certificates are checked. */
export interface KubeGatewayFrontendTls {
  readonly validation?: {
    readonly mode?: "AllowValidOnly" | "AllowInsecureFallback";
    readonly caCertificateRefs?: readonly {
      readonly group: string;
      readonly kind: string;
      readonly name: string;
      readonly namespace?: string;
    }[];
  };
}

export interface ListenerSetSpec {
  readonly parentRef: {
    readonly group?: string;
    readonly kind?: string;
    readonly namespace?: string;
    readonly name: string;
  };
  readonly listeners: readonly (Omit<KubeGatewayListener, "port"> & { readonly port?: number })[];
}

export type ListenerSet = KubeObject<ListenerSetSpec>;

export type KubeGateway = KubeObject<KubeGatewaySpec>;

export interface GatewayClassSpec {
  readonly controllerName: string;
  readonly description?: string;
  readonly parametersRef?: {
    readonly group: string;
    readonly kind: string;
    readonly name: string;
    readonly namespace?: string;
  };
}

export type GatewayClass = KubeObject<GatewayClassSpec>;

export interface HeaderMatch {
  readonly type?: "Exact" | "RegularExpression";
  readonly name: string;
  readonly value: string;
}

export interface HTTPRouteMatch {
  readonly path?: { readonly type?: "Exact" | "PathPrefix" | "RegularExpression"; readonly value?: string };
  readonly headers?: readonly HeaderMatch[];
  readonly queryParams?: readonly HeaderMatch[];
  readonly method?: string;
}

export interface HeaderFilter {
  readonly set?: readonly { readonly name: string; readonly value: string }[];
  readonly add?: readonly { readonly name: string; readonly value: string }[];
  readonly remove?: readonly string[];
}

export interface PathModifier {
  readonly type: "ReplaceFullPath" | "ReplacePrefixMatch";
  readonly replaceFullPath?: string;
  readonly replacePrefixMatch?: string;
}

export interface HTTPRouteFilter {
  readonly type: string;
  readonly requestHeaderModifier?: HeaderFilter;
  readonly responseHeaderModifier?: HeaderFilter;
  readonly requestMirror?: {
    readonly backendRef: BackendObjectReference;
    readonly percent?: number;
    readonly fraction?: { readonly numerator: number; readonly denominator?: number };
  };
  readonly requestRedirect?: {
    readonly scheme?: string;
    readonly hostname?: string;
    readonly path?: PathModifier;
    readonly port?: number;
    readonly statusCode?: number;
  };
  readonly urlRewrite?: { readonly hostname?: string; readonly path?: PathModifier };
  readonly cors?: {
    readonly allowOrigins?: readonly string[];
    readonly allowCredentials?: boolean;
    readonly allowMethods?: readonly string[];
    readonly allowHeaders?: readonly string[];
    readonly exposeHeaders?: readonly string[];
    readonly maxAge?: number;
  };
  readonly externalAuth?: HTTPExternalAuthFilter;
  readonly extensionRef?: { readonly group: string; readonly kind: string; readonly name: string };
}

/** A service is asked whether a request may go on (experimental). */
export interface HTTPExternalAuthFilter {
  readonly protocol: "HTTP" | "GRPC";
  readonly backendRef: BackendObjectReference;
  readonly grpc?: { readonly allowedHeaders?: readonly string[] };
  readonly http?: {
    readonly path?: string;
    readonly allowedHeaders?: readonly string[];
    readonly allowedResponseHeaders?: readonly string[];
  };
  readonly forwardBody?: { readonly maxSize?: number };
}

export interface HTTPBackendRef extends BackendRef {
  readonly filters?: readonly HTTPRouteFilter[];
}

/** Requests of one session go to one endpoint: Envoy keeps its address in a cookie or a header. */
export interface SessionPersistence {
  readonly sessionName?: string;
  readonly type?: "Cookie" | "Header";
  readonly absoluteTimeout?: string;
  readonly cookieConfig?: { readonly lifetimeType?: "Permanent" | "Session" };
}

export interface HTTPRouteRule {
  readonly name?: string;
  readonly matches?: readonly HTTPRouteMatch[];
  readonly filters?: readonly HTTPRouteFilter[];
  readonly backendRefs?: readonly HTTPBackendRef[];
  readonly timeouts?: { readonly request?: string; readonly backendRequest?: string };
  readonly retry?: {
    readonly codes?: readonly number[];
    readonly attempts?: number;
    readonly backoff?: string;
  };
  readonly sessionPersistence?: SessionPersistence;
}

export interface HTTPRouteSpec extends CommonRouteSpec {
  readonly hostnames?: readonly string[];
  readonly rules?: readonly HTTPRouteRule[];
}

export type HTTPRoute = KubeObject<HTTPRouteSpec>;

export interface GRPCRouteRule {
  readonly name?: string;
  readonly matches?: readonly {
    readonly method?: {
      readonly type?: "Exact" | "RegularExpression";
      readonly service?: string;
      readonly method?: string;
    };
    readonly headers?: readonly HeaderMatch[];
  }[];
  readonly filters?: readonly HTTPRouteFilter[];
  readonly backendRefs?: readonly HTTPBackendRef[];
  readonly sessionPersistence?: SessionPersistence;
}

export interface GRPCRouteSpec extends CommonRouteSpec {
  readonly hostnames?: readonly string[];
  readonly rules?: readonly GRPCRouteRule[];
}

export type GRPCRoute = KubeObject<GRPCRouteSpec>;

export interface L4RouteRule {
  readonly name?: string;
  readonly backendRefs?: readonly BackendRef[];
}

export interface TLSRouteSpec extends CommonRouteSpec {
  readonly hostnames?: readonly string[];
  readonly rules: readonly L4RouteRule[];
}

export type TLSRoute = KubeObject<TLSRouteSpec>;

export interface TCPRouteSpec extends CommonRouteSpec {
  readonly rules: readonly L4RouteRule[];
}

export type TCPRoute = KubeObject<TCPRouteSpec>;

export type UDPRoute = KubeObject<TCPRouteSpec>;

export interface ReferenceGrantSpec {
  readonly from: readonly { readonly group: string; readonly kind: string; readonly namespace: string }[];
  readonly to: readonly { readonly group: string; readonly kind: string; readonly name?: string }[];
}

export type ReferenceGrant = KubeObject<ReferenceGrantSpec>;

export interface BackendTLSPolicySpec {
  readonly targetRefs: readonly {
    readonly group: string;
    readonly kind: string;
    readonly name: string;
    readonly sectionName?: string;
  }[];
  readonly validation: {
    readonly caCertificateRefs?: readonly {
      readonly group: string;
      readonly kind: string;
      readonly name: string;
    }[];
    readonly wellKnownCACertificates?: string;
    readonly hostname: string;
    readonly subjectAltNames?: readonly {
      readonly type: "Hostname" | "URI";
      readonly hostname?: string;
      readonly uri?: string;
    }[];
  };
  readonly options?: Readonly<Record<string, string>>;
}

export type BackendTLSPolicy = KubeObject<BackendTLSPolicySpec>;

/** A host outside of the cluster as a backend (experimental). */
export interface XBackendSpec {
  readonly type: string;
  readonly externalHostname?: { readonly hostname: string };
  readonly port: { readonly port: number; readonly protocol?: string };
  readonly tls?: {
    readonly mode: string;
    readonly validation?: Partial<BackendTLSPolicySpec["validation"]>;
  };
}

export type XBackend = KubeObject<XBackendSpec>;
