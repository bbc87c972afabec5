// Which virtual host and which route a request meets, as Envoy's router decides it.

import { RE2JS } from "re2js";
import { fractionOf } from "./fraction.ts";
import type { Call } from "./call.ts";
import { claimsMatch } from "./jwt.ts";
import type {
  HeaderMatcher,
  QueryParameterMatcher,
  Route,
  RouteConfiguration,
  RouteMatch,
  StringMatcher,
  VirtualHost,
} from "./shapes.ts";

/** Exact domain, then the longest suffix wildcard, then the longest prefix wildcard, then "*". Case does not count. */
export function findVirtualHost(table: RouteConfiguration, host: string): VirtualHost | undefined {
  const name = (table.ignorePortInHostMatching === true ? withoutPort(host) : host).toLowerCase();
  let best: { rank: number; virtualHost: VirtualHost } | undefined;
  for (const virtualHost of table.virtualHosts ?? []) {
    for (const domain of virtualHost.domains ?? []) {
      const rank = domainRank(domain.toLowerCase(), name);
      if (rank > (best?.rank ?? 0)) best = { rank, virtualHost };
    }
  }
  return best?.virtualHost;
}

const exactRank = 1_000_000;
const suffixRank = 10_000;

function domainRank(domain: string, host: string): number {
  if (domain === host) return exactRank;
  if (domain === "*") return 1;
  if (domain.startsWith("*") && host.length >= domain.length && host.endsWith(domain.slice(1))) {
    return suffixRank + domain.length;
  }
  if (domain.endsWith("*") && host.length >= domain.length && host.startsWith(domain.slice(0, -1))) {
    return 1 + domain.length;
  }
  return 0;
}

function withoutPort(host: string): string {
  const port = /:\d+$/.exec(host);
  return port === null ? host : host.slice(0, port.index);
}

/** A route, and what share of the requests that are alike it takes: of 1. */
export interface RouteShare {
  readonly route: Route;
  readonly share: number;
}

/** The first route whose match holds in full; several where routes take shares. Their fractions are of one number, drawn for each request. */
export function findRoutes(virtualHost: VirtualHost, call: Call): readonly RouteShare[] {
  const found: RouteShare[] = [];
  let taken = 0;
  for (const route of virtualHost.routes ?? []) {
    const match = route.match ?? {};
    if (taken >= 1 || !routeMatches(match, call)) continue;
    const upTo = match.runtimeFraction === undefined ? 1 : fractionOf(match.runtimeFraction.defaultValue);
    if (upTo <= taken) continue;
    found.push({ route, share: upTo - taken });
    taken = upTo;
  }
  return found;
}

export function routeMatches(match: RouteMatch, call: Call): boolean {
  const [path = "", query = ""] = splitOnce(call.path, "?");
  return (
    pathMatches(match, path) &&
    (match.headers ?? []).every((header) => headerMatches(header, call)) &&
    (match.queryParameters ?? []).every((parameter) => queryMatches(parameter, new URLSearchParams(query))) &&
    (match.dynamicMetadata ?? []).every((matcher) => claimsMatch(matcher, call.claims ?? {}))
  );
}

function pathMatches(match: RouteMatch, path: string): boolean {
  // A wrapper that says false is decoded as an empty one; without any, Envoy minds the case.
  const ignoresCase = match.caseSensitive !== undefined && match.caseSensitive.value !== true;
  const fold = (text: string): string => (ignoresCase ? text.toLowerCase() : text);
  if (match.path !== undefined) return fold(path) === fold(match.path);
  if (match.safeRegex !== undefined) return fullMatch(match.safeRegex.regex ?? "", path);
  if (match.pathSeparatedPrefix !== undefined) {
    const prefix = fold(match.pathSeparatedPrefix);
    return fold(path) === prefix || fold(path).startsWith(`${prefix}/`);
  }
  return fold(path).startsWith(fold(match.prefix ?? ""));
}

function headerMatches(matcher: HeaderMatcher, call: Call): boolean {
  const value = headerValue(matcher.name, call);
  return headerHolds(matcher, value) !== (matcher.invertMatch === true);
}

function headerHolds(matcher: HeaderMatcher, value: string | undefined): boolean {
  if (matcher.stringMatch !== undefined) {
    if (value === undefined && matcher.treatMissingHeaderAsEmpty !== true) return false;
    return stringMatches(matcher.stringMatch, value ?? "");
  }
  // A matcher without a value asks for presence; presentMatch false asks for absence.
  return (value !== undefined) === (matcher.presentMatch ?? true);
}

/** Pseudo-headers come from the call itself; names are compared in lower case. */
export function headerValue(name: string, call: Call): string | undefined {
  switch (name.toLowerCase()) {
    case ":method":
      return call.method;
    case ":authority":
    case "host":
      return call.host;
    case ":scheme":
      return call.scheme;
    case ":path":
      return call.path;
    default:
      return call.headers[name.toLowerCase()];
  }
}

function queryMatches(matcher: QueryParameterMatcher, query: URLSearchParams): boolean {
  const value = query.get(matcher.name);
  if (matcher.stringMatch !== undefined) return value !== null && stringMatches(matcher.stringMatch, value);
  return (value !== null) === (matcher.presentMatch ?? true);
}

export function stringMatches(matcher: StringMatcher, value: string): boolean {
  if (matcher.safeRegex !== undefined) return fullMatch(matcher.safeRegex.regex ?? "", value);
  const fold = matcher.ignoreCase === true ? (text: string) => text.toLowerCase() : (text: string) => text;
  const text = fold(value);
  if (matcher.prefix !== undefined) return text.startsWith(fold(matcher.prefix));
  if (matcher.suffix !== undefined) return text.endsWith(fold(matcher.suffix));
  if (matcher.contains !== undefined) return text.includes(fold(matcher.contains));
  return text === fold(matcher.exact ?? "");
}

const compiled = new Map<string, RE2JS>();
/** Compiled expressions kept; beyond it the cache starts anew. */
const compiledMax = 1_000;

function fullMatch(regex: string, text: string): boolean {
  let pattern = compiled.get(regex);
  if (pattern === undefined) {
    if (compiled.size >= compiledMax) compiled.clear();
    compiled.set(regex, (pattern = RE2JS.compile(regex)));
  }
  return pattern.matches(text);
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at === -1 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}
