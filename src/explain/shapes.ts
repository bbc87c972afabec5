// What the explainer reads of Envoy's messages, as `decodeMessage` gives them: camelCase, enums by name, absent fields
// undefined, an Any as its fields beside "@type".

import type { Fraction } from "./fraction.ts";

export interface SocketAddress {
  readonly address?: string;
  readonly portValue?: number;
  readonly protocol?: string;
}

export interface CidrRange {
  readonly addressPrefix: string;
  readonly prefixLen?: { readonly value?: number };
}

export interface FilterChainMatch {
  readonly destinationPort?: { readonly value?: number };
  readonly prefixRanges?: readonly CidrRange[];
  readonly serverNames?: readonly string[];
  readonly transportProtocol?: string;
  readonly applicationProtocols?: readonly string[];
}

export interface NamedFilter {
  readonly name: string;
  readonly typedConfig?: { readonly "@type"?: string; readonly [field: string]: unknown };
  readonly disabled?: boolean;
}

export interface ListenerFilter extends NamedFilter {
  readonly filterDisabled?: PortPredicate;
}

export interface PortPredicate {
  readonly anyMatch?: boolean;
  readonly orMatch?: { readonly rules?: readonly PortPredicate[] };
  readonly andMatch?: { readonly rules?: readonly PortPredicate[] };
  readonly notMatch?: PortPredicate;
  readonly destinationPortRange?: { readonly start?: number; readonly end?: number };
}

export interface TlsContext {
  readonly "@type"?: string;
  readonly requireClientCertificate?: { readonly value?: boolean };
  readonly commonTlsContext?: {
    readonly tlsCertificateSdsSecretConfigs?: readonly { readonly name?: string }[];
  };
}

export interface FilterChain {
  readonly name?: string;
  readonly filterChainMatch?: FilterChainMatch;
  readonly filters?: readonly NamedFilter[];
  readonly transportSocket?: { readonly name?: string; readonly typedConfig?: TlsContext };
}

export interface Listener {
  readonly name: string;
  readonly address?: { readonly socketAddress?: SocketAddress };
  readonly additionalAddresses?: readonly { readonly address?: { readonly socketAddress?: SocketAddress } }[];
  readonly filterChains?: readonly FilterChain[];
  readonly defaultFilterChain?: FilterChain;
  readonly listenerFilters?: readonly ListenerFilter[];
}

export interface StringMatcher {
  readonly exact?: string;
  readonly prefix?: string;
  readonly suffix?: string;
  readonly contains?: string;
  readonly safeRegex?: { readonly regex?: string };
  readonly ignoreCase?: boolean;
}

export interface HeaderMatcher {
  readonly name: string;
  readonly stringMatch?: StringMatcher;
  readonly presentMatch?: boolean;
  readonly invertMatch?: boolean;
  readonly treatMissingHeaderAsEmpty?: boolean;
}

export interface QueryParameterMatcher {
  readonly name: string;
  readonly stringMatch?: StringMatcher;
  readonly presentMatch?: boolean;
}

export interface RouteMatch {
  readonly prefix?: string;
  readonly path?: string;
  readonly pathSeparatedPrefix?: string;
  readonly safeRegex?: { readonly regex?: string };
  readonly caseSensitive?: { readonly value?: boolean };
  readonly headers?: readonly HeaderMatcher[];
  readonly queryParameters?: readonly QueryParameterMatcher[];
  readonly dynamicMetadata?: readonly MetadataMatcher[];
  readonly runtimeFraction?: { readonly defaultValue?: Fraction };
}

/** A condition on what a filter found out about the call. */
export interface MetadataMatcher {
  readonly filter?: string;
  readonly path?: readonly { readonly key: string }[];
  readonly value?: ValueMatcher;
  readonly invert?: boolean;
}

export interface ValueMatcher {
  readonly stringMatch?: StringMatcher;
  readonly presentMatch?: boolean;
  readonly listMatch?: { readonly oneOf?: ValueMatcher };
  readonly orMatch?: { readonly valueMatchers?: readonly ValueMatcher[] };
}

export interface RouteAction {
  readonly cluster?: string;
  readonly weightedClusters?: {
    readonly clusters?: readonly { readonly name: string; readonly weight?: { readonly value?: number } }[];
  };
  readonly prefixRewrite?: string;
  readonly hostRewriteLiteral?: string;
  readonly timeout?: { readonly seconds?: number; readonly nanos?: number };
}

export interface RedirectAction {
  readonly httpsRedirect?: boolean;
  readonly schemeRedirect?: string;
  readonly hostRedirect?: string;
  readonly portRedirect?: number;
  readonly pathRedirect?: string;
  readonly prefixRewrite?: string;
  readonly responseCode?: string;
}

export interface Metadata {
  readonly filterMetadata?: Readonly<
    Record<string, { readonly fields?: Readonly<Record<string, StructValue>> }>
  >;
}

export interface StructValue {
  readonly stringValue?: string;
}

export interface Route {
  readonly name?: string;
  readonly match?: RouteMatch;
  readonly route?: RouteAction;
  readonly redirect?: RedirectAction;
  readonly directResponse?: { readonly status?: number; readonly body?: { readonly inlineString?: string } };
  readonly metadata?: Metadata;
  readonly typedPerFilterConfig?: Readonly<Record<string, unknown>>;
}

export interface VirtualHost {
  readonly name: string;
  readonly domains?: readonly string[];
  readonly routes?: readonly Route[];
  readonly requireTls?: string;
}

export interface RouteConfiguration {
  readonly name?: string;
  readonly virtualHosts?: readonly VirtualHost[];
  readonly ignorePortInHostMatching?: boolean;
}

export interface HttpConnectionManager {
  readonly rds?: { readonly routeConfigName?: string };
  readonly routeConfig?: RouteConfiguration;
  readonly httpFilters?: readonly NamedFilter[];
}

export interface TcpProxy {
  readonly cluster?: string;
  readonly weightedClusters?: {
    readonly clusters?: readonly { readonly name: string; readonly weight?: number }[];
  };
}
