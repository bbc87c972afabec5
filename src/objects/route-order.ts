// The precedence of routes made from HTTPRoutes, as Gateway API orders them: exact before prefix before regex, longer
// before shorter, with a method, with more headers, with more query parameters. Ties keep their order.

import type { HTTPMatchRequest, StringMatch, VirtualServiceHttpRoute } from "./virtual-service.ts";

/** A sorted copy. Only the first match of a route counts: each rule's match became a route of its own. */
export function sortRoutesByPrecedence<T extends Pick<VirtualServiceHttpRoute, "match">>(
  routes: readonly T[],
): T[] {
  return routes.toSorted((one, other) => compareMatches(one.match?.[0], other.match?.[0]));
}

function compareMatches(one: HTTPMatchRequest | undefined, other: HTTPMatchRequest | undefined): number {
  if (one === undefined || other === undefined)
    return Number(one === undefined) - Number(other === undefined);
  const ranks: readonly ((match: HTTPMatchRequest) => number)[] = [
    (match) => uriRank(match.uri),
    (match) => uriLength(match.uri),
    (match) => Number(match.method !== undefined),
    (match) => Object.keys(match.headers ?? {}).length,
    (match) => Object.keys(match.queryParams ?? {}).length,
  ];
  for (const rank of ranks) {
    const difference = rank(other) - rank(one);
    if (difference !== 0) return difference;
  }
  return 0;
}

function uriRank(uri: StringMatch | undefined): number {
  if (uri?.exact !== undefined) return 3;
  if (uri?.prefix !== undefined) return 2;
  return uri?.regex === undefined ? -1 : 1;
}

function uriLength(uri: StringMatch | undefined): number {
  return (uri?.exact ?? uri?.prefix ?? uri?.regex ?? "").length;
}
