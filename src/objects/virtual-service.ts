// VirtualService: the shape of its spec, as its YAML says it.

import type { HTTPExternalAuthFilter, SessionPersistence } from "./gateway-api.ts";
import type { KubeObject } from "./object.ts";

export type VirtualService = KubeObject<VirtualServiceSpec>;

export interface VirtualServiceSpec {
  readonly hosts?: readonly string[];
  readonly gateways?: readonly string[];
  readonly http?: readonly VirtualServiceHttpRoute[];
  readonly tls?: readonly VirtualServiceTlsRoute[];
  readonly tcp?: readonly VirtualServiceTcpRoute[];
  readonly exportTo?: readonly string[];
}

export interface Destination {
  readonly host: string;
  readonly subset?: string;
  readonly port?: PortSelector;
}

export interface VirtualServiceHttpRoute {
  readonly name?: string;
  readonly match?: readonly HTTPMatchRequest[];
  readonly route?: readonly HTTPRouteDestination[];
  readonly redirect?: HTTPRedirect;
  readonly directResponse?: HTTPDirectResponse;
  readonly delegate?: Delegate;
  readonly rewrite?: HTTPRewrite;
  readonly timeout?: string;
  readonly retries?: HTTPRetry;
  readonly fault?: HTTPFaultInjection;
  readonly mirror?: Destination;
  readonly mirrors?: readonly HTTPMirrorPolicy[];
  readonly mirrorPercent?: number;
  readonly mirrorPercentage?: Percent;
  readonly corsPolicy?: CorsPolicy;
  readonly headers?: Headers;
  /** Of routes of the Gateway API alone: no VirtualService that a user writes has it. */
  readonly sessionPersistence?: SessionPersistence;
  /** The same holds for it. */
  readonly externalAuth?: ExternalAuth;
  /**
   * And for this: of a million requests of the match so many are for this route or for one before it, and the rest for the next ones. A rule whose
   * backends have filters of their own is such a row of routes, since Envoy has most filters for a route and not for a weighted cluster.
   */
  readonly upToShare?: number;
}

/** Whom a route asks whether a request may go on, and what is told to whom. */
export interface ExternalAuth extends Omit<HTTPExternalAuthFilter, "backendRef"> {
  readonly destination: Destination;
}

export interface Delegate {
  readonly name?: string;
  readonly namespace?: string;
}

export interface Headers {
  readonly request?: HeaderOperations;
  readonly response?: HeaderOperations;
}

export interface HeaderOperations {
  readonly set?: Readonly<Record<string, string>>;
  readonly add?: Readonly<Record<string, string>>;
  readonly remove?: readonly string[];
}

export interface VirtualServiceTlsRoute {
  readonly match: readonly TLSMatchAttributes[];
  readonly route?: readonly RouteDestination[];
}

export interface VirtualServiceTcpRoute {
  readonly match?: readonly L4MatchAttributes[];
  readonly route?: readonly RouteDestination[];
}

export interface HTTPMatchRequest {
  readonly name?: string;
  readonly uri?: StringMatch;
  readonly scheme?: StringMatch;
  readonly method?: StringMatch;
  readonly authority?: StringMatch;
  readonly headers?: Readonly<Record<string, StringMatch>>;
  readonly port?: number;
  readonly sourceLabels?: Readonly<Record<string, string>>;
  readonly gateways?: readonly string[];
  readonly queryParams?: Readonly<Record<string, StringMatch>>;
  readonly ignoreUriCase?: boolean;
  readonly withoutHeaders?: Readonly<Record<string, StringMatch>>;
  readonly sourceNamespace?: string;
  readonly statPrefix?: string;
}

export interface HTTPRouteDestination {
  readonly destination: Destination;
  readonly weight?: number;
  readonly headers?: Headers;
}

export interface RouteDestination {
  readonly destination: Destination;
  readonly weight?: number;
}

export interface L4MatchAttributes {
  readonly destinationSubnets?: readonly string[];
  readonly port?: number;
  readonly sourceSubnet?: string;
  readonly sourceLabels?: Readonly<Record<string, string>>;
  readonly gateways?: readonly string[];
  readonly sourceNamespace?: string;
}

export interface TLSMatchAttributes {
  readonly sniHosts: readonly string[];
  readonly destinationSubnets?: readonly string[];
  readonly port?: number;
  readonly sourceLabels?: Readonly<Record<string, string>>;
  readonly gateways?: readonly string[];
  readonly sourceNamespace?: string;
}

export interface HTTPRedirect {
  readonly uri?: string;
  readonly authority?: string;
  readonly port?: number;
  readonly derivePort?: HTTPRedirectRedirectPortSelection;
  readonly scheme?: string;
  readonly redirectCode?: number;
  readonly prefixRewrite?: string;
}

export type HTTPRedirectRedirectPortSelection = "FROM_PROTOCOL_DEFAULT" | "FROM_REQUEST_PORT";

export interface HTTPDirectResponse {
  readonly status: number;
  readonly body?: HTTPBody;
}

export interface HTTPBody {
  readonly string?: string;
  readonly bytes?: string;
}

export interface HTTPRewrite {
  readonly uri?: string;
  readonly authority?: string;
  readonly uriRegexRewrite?: RegexRewrite;
}

export interface RegexRewrite {
  readonly match?: string;
  readonly rewrite?: string;
}

export interface StringMatch {
  readonly exact?: string;
  readonly prefix?: string;
  readonly regex?: string;
}

export interface HTTPRetry {
  readonly attempts?: number;
  readonly perTryTimeout?: string;
  readonly retryOn?: string;
  readonly retryRemoteLocalities?: boolean;
  readonly retryIgnorePreviousHosts?: boolean;
  readonly backoff?: string;
}

export interface CorsPolicy {
  readonly allowOrigin?: readonly string[];
  readonly allowOrigins?: readonly StringMatch[];
  readonly allowMethods?: readonly string[];
  readonly allowHeaders?: readonly string[];
  readonly exposeHeaders?: readonly string[];
  readonly maxAge?: string;
  readonly allowCredentials?: boolean;
  readonly unmatchedPreflights?: CorsPolicyUnmatchedPreflights;
}

export type CorsPolicyUnmatchedPreflights = "UNSPECIFIED" | "FORWARD" | "IGNORE";

export interface HTTPFaultInjection {
  readonly delay?: HTTPFaultInjectionDelay;
  readonly abort?: HTTPFaultInjectionAbort;
}

export interface HTTPFaultInjectionDelay {
  readonly percent?: number;
  readonly fixedDelay?: string;
  readonly exponentialDelay?: string;
  readonly percentage?: Percent;
}

export interface HTTPFaultInjectionAbort {
  readonly httpStatus?: number;
  readonly grpcStatus?: string;
  readonly http2Error?: string;
  readonly percentage?: Percent;
}

export interface HTTPMirrorPolicy {
  readonly destination: Destination;
  readonly percentage?: Percent;
}

export interface PortSelector {
  readonly number?: number;
}

export interface Percent {
  readonly value?: number;
}
