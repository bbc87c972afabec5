// A root VirtualService hands a route to a delegate: the delegate's routes, narrowed by the root's matches and filled up
// from the root. A delegate's route that asks for more than the root grants is left out, as Istio does.

import type { HTTPMatchRequest, StringMatch, VirtualServiceHttpRoute } from "./virtual-service.ts";

type Route = VirtualServiceHttpRoute;

/** The delegate's routes that fit under the root, in their order. */
export function mergeDelegateRoutes(root: Route, delegate: readonly Route[]): Route[] {
  return delegate.flatMap((route) => {
    const match = mergeMatches(root.match ?? [], route.match ?? []);
    return match === undefined ? [] : [mergeRoute(root, route, match)];
  });
}

function mergeRoute(root: Route, route: Route, match: readonly HTTPMatchRequest[]): Route {
  const { delegate: _delegate, match: _match, route: _route, redirect: _redirect, ...inherited } = root;
  const { match: _own, ...own } = route;
  const name = joinNames(root.name, route.name);
  return {
    ...inherited,
    ...definedOf(own),
    ...(match.length > 0 ? { match } : {}),
    ...(name === undefined ? {} : { name }),
  };
}

function definedOf<T extends object>(object: T): Partial<T> {
  return Object.fromEntries(
    Object.entries(object).filter(([, value]) => value !== undefined && value !== null),
  ) as Partial<T>;
}

function joinNames(root: string | undefined, own: string | undefined): string | undefined {
  if (!own) return root === "" ? undefined : root;
  return root ? `${root}-${own}` : own;
}

/** Every pair of a root's and a delegate's match that can both hold; undefined when a delegate's match fits under none. */
export function mergeMatches(
  root: readonly HTTPMatchRequest[],
  delegate: readonly HTTPMatchRequest[],
): readonly HTTPMatchRequest[] | undefined {
  if (root.length === 0) return delegate;
  if (delegate.length === 0) return root;
  const merged: HTTPMatchRequest[] = [];
  for (const leaf of delegate) {
    const fitting = root.filter((candidate) => !matchesConflict(candidate, leaf));
    if (fitting.length === 0) return undefined;
    merged.push(...fitting.map((candidate) => mergeMatch(candidate, leaf)));
  }
  return merged;
}

function mergeMatch(root: HTTPMatchRequest, leaf: HTTPMatchRequest): HTTPMatchRequest {
  const name = joinNames(root.name, leaf.name);
  const maps = ["headers", "withoutHeaders", "queryParams", "sourceLabels"] as const;
  const joined = Object.fromEntries(
    maps
      .filter((key) => root[key] !== undefined || leaf[key] !== undefined)
      .map((key) => [key, { ...root[key], ...leaf[key] }]),
  );
  return {
    ...root,
    ...definedOf(leaf),
    ...joined,
    ...(leaf.gateways?.length ? {} : root.gateways ? { gateways: root.gateways } : {}),
    ...(leaf.port ? {} : root.port ? { port: root.port } : {}),
    ...(name === undefined ? {} : { name }),
  };
}

/** Whether the leaf asks for requests that the root does not grant. */
export function matchesConflict(root: HTTPMatchRequest, leaf: HTTPMatchRequest): boolean {
  for (const field of ["uri", "scheme", "method", "authority"] as const)
    if (textsConflict(root[field], leaf[field])) return true;
  for (const field of ["headers", "withoutHeaders", "queryParams"] as const)
    for (const [key, match] of Object.entries(leaf[field] ?? {}))
      if (textsConflict(root[field]?.[key], match)) return true;

  if ((root.ignoreUriCase ?? false) !== (leaf.ignoreUriCase ?? false)) return true;
  if (root.port && leaf.port && root.port !== leaf.port) return true;
  if (root.sourceNamespace && leaf.sourceNamespace !== root.sourceNamespace) return true;
  for (const [key, value] of Object.entries(leaf.sourceLabels ?? {})) {
    const granted = root.sourceLabels?.[key];
    if (granted !== undefined && granted !== value) return true;
  }
  const granted = root.gateways ?? [];
  const asked = leaf.gateways ?? [];
  if (granted.length === 0 || asked.length === 0) return false;
  return asked.length > granted.length || asked.some((gateway) => !granted.includes(gateway));
}

/** A regex on either side conflicts with anything on the other: nobody can tell whether one holds within the other. */
function textsConflict(root: StringMatch | null | undefined, leaf: StringMatch | null | undefined): boolean {
  if (!root || !leaf) return false;
  const says = (match: StringMatch) => Boolean(match.regex || match.prefix || match.exact);
  if ((root.regex && says(leaf)) || (leaf.regex && says(root))) return true;
  if (root.exact) return Boolean(leaf.prefix) || leaf.exact !== root.exact;
  if (root.prefix) {
    const asked = leaf.prefix || leaf.exact;
    if (asked) return !asked.startsWith(root.prefix);
  }
  return true;
}
