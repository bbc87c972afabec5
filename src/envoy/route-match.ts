// When a route of a VirtualService takes a request: its conditions in Envoy's words.

import { parseRoutingClaim, type HTTPMatchRequest, type StringMatch } from "#objects";
import { wrapped, type Message } from "./proto/api.ts";
import { jwtFilterName, jwtPayloadKey } from "./request-authentication.ts";

/**
 * `match` of a route; undefined conditions match every request.
 * @param bySegments a prefix is whole segments of the path, as Gateway API has it: "/a" is not the beginning of "/ab"
 */
export function routeMatch(match: HTTPMatchRequest | undefined, bySegments = false): Message {
  if (match === undefined) return { prefix: "/" };
  const claims = [...claimMatches(match.headers, false), ...claimMatches(match.withoutHeaders, true)];
  const headers: readonly Message[] = [
    ...headersOf(match.headers).map(([name, value]) => headerMatch(name, value)),
    ...headersOf(match.withoutHeaders).map(([name, value]) => ({
      ...headerMatch(name, value),
      invertMatch: true,
      // A header that is not there is not the one that must not be there.
      ...(isPresence(value) ? {} : { treatMissingHeaderAsEmpty: true }),
    })),
  ].toSorted(byName);
  const pseudo: readonly (readonly [string, StringMatch | undefined])[] = [
    [":method", match.method],
    [":authority", match.authority],
    [":scheme", match.scheme],
  ];
  const all = [
    ...headers,
    ...pseudo.flatMap(([name, value]) => (value === undefined ? [] : [headerMatch(name, value)])),
  ];
  const parameters = Object.entries(match.queryParams ?? {})
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) =>
      isPresence(value) ? { name, presentMatch: true } : { name, stringMatch: stringMatch(value) },
    );
  return {
    ...pathMatch(match.uri, bySegments),
    caseSensitive: wrapped(match.ignoreUriCase !== true),
    ...(all.length === 0 ? {} : { headers: all }),
    ...(parameters.length === 0 ? {} : { queryParameters: parameters }),
    ...(claims.length === 0 ? {} : { dynamicMetadata: claims }),
  };
}

/** A match that takes every request: what follows it can never be reached. */
export function takesEverything(match: Message): boolean {
  return match["runtimeFraction"] === undefined && takesAnything(match);
}

/** A match that takes every request, or a share of them all. */
export function takesAnything(match: Message): boolean {
  const regex = match["safeRegex"] as { readonly regex?: string } | undefined;
  const anyPath = match["prefix"] === "/" || regex?.regex === "*" || regex?.regex === ".*";
  return (
    anyPath &&
    match["headers"] === undefined &&
    match["queryParameters"] === undefined &&
    match["dynamicMetadata"] === undefined
  );
}

type HeaderMatches = Readonly<Record<string, StringMatch>> | undefined;

/** Ordinary headers; names such as `@request.auth.claims.group` stand for claims of the caller's token. */
function headersOf(matches: HeaderMatches): readonly [string, StringMatch][] {
  return Object.entries(matches ?? {}).filter(([name]) => parseRoutingClaim(name) === undefined);
}

/** A claim is a text or a list of texts, one of which must match. */
function claimMatches(matches: HeaderMatches, invert: boolean): Message[] {
  return Object.entries(matches ?? {})
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([name, match]) => {
      const claim = parseRoutingClaim(name);
      if (claim === undefined) return [];
      const path = [jwtPayloadKey, ...claim.claims].map((key) => ({ key }));
      const text = { stringMatch: stringMatch(match) };
      const value = isPresence(match)
        ? { presentMatch: true }
        : { orMatch: { valueMatchers: [text, { listMatch: { oneOf: text } }] } };
      return [{ filter: jwtFilterName, path, value, ...(invert ? { invert } : {}) }];
    });
}

export function stringMatch(match: StringMatch): Message {
  if (match.exact !== undefined) return { exact: match.exact };
  if (match.prefix !== undefined) return { prefix: match.prefix };
  return { safeRegex: { regex: match.regex ?? "" } };
}

function byName(a: Message, b: Message): number {
  return String(a["name"]) < String(b["name"]) ? -1 : 1;
}

function pathMatch(uri: StringMatch | undefined, bySegments: boolean): Message {
  if (uri?.exact !== undefined) return { path: uri.exact };
  if (bySegments && uri?.prefix !== undefined && !uri.prefix.endsWith("/"))
    return { pathSeparatedPrefix: uri.prefix };
  if (uri?.prefix !== undefined) return { prefix: uri.prefix };
  if (uri?.regex !== undefined) return { safeRegex: { regex: uri.regex } };
  return { prefix: "/" };
}

function headerMatch(name: string, match: StringMatch): Message {
  return isPresence(match) ? { name, presentMatch: true } : { name, stringMatch: stringMatch(match) };
}

/** No condition on the value, or the regex "*", which Istio takes for "any": the header must be there. */
function isPresence(match: StringMatch): boolean {
  const { exact, prefix, regex } = match;
  if (exact === undefined && prefix === undefined && regex === undefined) return true;
  return exact === undefined && prefix === undefined && regex === "*";
}
