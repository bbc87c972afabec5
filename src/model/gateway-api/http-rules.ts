// Rules of HTTPRoutes and GRPCRoutes as HTTP routes of a VirtualService: one route for each match, so that the routes of
// several objects can be put into Gateway API's order.

import type { Read } from "#engine";
import { regexFault } from "#objects";
import type {
  GRPCRouteRule,
  HTTPBackendRef,
  HTTPMatchRequest,
  HTTPRouteDestination,
  HTTPRouteFilter,
  HTTPRouteMatch,
  HTTPRouteRule,
  StringMatch,
  VirtualServiceHttpRoute,
} from "#objects";
import { findBackend, weightOf, type BackendUser } from "./backends.ts";
import type { Mistake } from "./findings.ts";
import {
  applyFilter,
  headerMistake,
  headerOperations,
  unsupportedFilter,
  type Applied,
  type RouteDraft,
} from "./http-filters.ts";

export interface ConvertedRoutes<Route> {
  readonly routes: readonly Route[];
  readonly mistake?: Mistake;
  /** What is wrong with rules that are left out; the others hold. */
  readonly dropped?: string;
}

/** One rule for one of its matches. */
export interface HttpRule {
  readonly name: string;
  readonly match?: HTTPMatchRequest;
  readonly filters: readonly HTTPRouteFilter[];
  readonly backendRefs: readonly HTTPBackendRef[];
  readonly timeouts?: HTTPRouteRule["timeouts"];
  readonly retry?: HTTPRouteRule["retry"];
  readonly sessionPersistence?: HTTPRouteRule["sessionPersistence"];
}

/** @param name `namespace.name` of the object: rules without a name are called by it and their position */
export function httpRules(rules: readonly HTTPRouteRule[], name: string): HttpRule[] {
  return rules.flatMap((rule, at) =>
    (rule.matches === undefined || rule.matches.length === 0 ? [undefined] : rule.matches).map((match) => ({
      name: rule.name ?? `${name}.${at}`,
      ...(match === undefined ? {} : { match: httpMatch(match) }),
      filters: rule.filters ?? [],
      backendRefs: rule.backendRefs ?? [],
      ...(rule.timeouts === undefined ? {} : { timeouts: rule.timeouts }),
      ...(rule.retry === undefined ? {} : { retry: rule.retry }),
      ...persistence(rule),
    })),
  );
}

export function grpcRules(rules: readonly GRPCRouteRule[], name: string): HttpRule[] {
  return rules.flatMap((rule, at) =>
    (rule.matches === undefined || rule.matches.length === 0 ? [undefined] : rule.matches).map((match) => ({
      name: rule.name ?? `${name}.${at}`,
      ...(match === undefined ? {} : { match: grpcMatch(match) }),
      filters: rule.filters ?? [],
      backendRefs: rule.backendRefs ?? [],
      ...persistence(rule),
    })),
  );
}

function persistence({ sessionPersistence }: Pick<HTTPRouteRule, "sessionPersistence">) {
  return sessionPersistence === undefined ? {} : { sessionPersistence };
}

/** A mistake that leaves routes behind them is reported beside them; one that does not takes them all. */
export function convertHttpRules(
  read: Read,
  user: BackendUser,
  rules: readonly HttpRule[],
): ConvertedRoutes<VirtualServiceHttpRoute> {
  const routes: VirtualServiceHttpRoute[] = [];
  let mistake: Mistake | undefined;
  let dropped: string | undefined;
  for (const rule of rules) {
    const fault = unfitRegex(rule.match);
    if (fault !== undefined) {
      dropped ??= `Dropped Rule ${rule.name}: ${fault}`;
      continue;
    }
    const converted = convertRule(read, user, rule);
    if (converted.mistake !== undefined) mistake = converted.mistake;
    if (converted.routes === undefined) return { routes: [], ...(mistake === undefined ? {} : { mistake }) };
    routes.push(...converted.routes);
  }
  return {
    routes,
    ...(mistake === undefined ? {} : { mistake }),
    ...(dropped === undefined ? {} : { dropped }),
  };
}

/** Envoy would refuse the whole table, and no later change of any route in it would arrive. */
function unfitRegex(match: HTTPMatchRequest | undefined): string | undefined {
  const { uri, headers = {}, queryParams = {} } = match ?? {};
  for (const text of [uri, ...Object.values(headers), ...Object.values(queryParams)]) {
    const fault = text?.regex === undefined ? undefined : regexFault(text.regex);
    if (fault !== undefined) return fault;
  }
  return undefined;
}

interface ConvertedRule {
  readonly routes?: readonly VirtualServiceHttpRoute[];
  readonly mistake?: Mistake;
}

function convertRule(read: Read, user: BackendUser, rule: HttpRule): ConvertedRule {
  const draft: RouteDraft = {
    name: rule.name,
    ...(rule.match === undefined ? {} : { match: [rule.match] }),
    mirrors: [],
  };
  const applied = applyFilters(read, user, draft, rule.filters);
  if (applied.kind === "closed") return withMistake([closed(draft)], applied.mistake);
  if (applied.kind === "refused") return { mistake: applied.mistake };
  const mirrorMistake = applied.kind === "left-out" ? applied.mistake : undefined;
  if (rule.sessionPersistence !== undefined) draft.sessionPersistence = rule.sessionPersistence;
  setRetry(draft, rule);
  setTimeouts(draft, rule);
  const route = finished(draft);
  if (route.redirect !== undefined) return withMistake([route], mirrorMistake);
  const weighed = rule.backendRefs.filter((reference) => weightOf(reference) > 0);
  if (weighed.length === 0)
    return withMistake([{ ...route, directResponse: { status: 500 } }], mirrorMistake);
  const unfit = unfitHeader(weighed);
  if (unfit !== undefined) return { mistake: unfit };
  const found = weighed.some(({ filters = [] }) => filters.some(isOfRoutes))
    ? splitByBackends(read, user, draft, weighed)
    : destinationsOf(read, user, weighed);
  switch (found.kind) {
    case "refused":
      return { mistake: found.mistake };
    case "split":
      return withMistake(found.routes, found.mistake ?? mirrorMistake);
    case "found":
      return withMistake([{ ...route, route: found.destinations }], found.mistake ?? mirrorMistake);
  }
}

/** Applies filters to a draft, the last mistake of those that leave the rest as it is. */
function applyFilters(
  read: Read,
  user: BackendUser,
  draft: RouteDraft,
  filters: readonly HTTPRouteFilter[],
): Applied {
  let left: Applied = { kind: "applied" };
  for (const filter of filters) {
    const applied: Applied =
      user.kind === "GRPCRoute" && !grpcFilters.has(filter.type)
        ? { kind: "closed", mistake: unsupportedFilter(filter) }
        : applyFilter(read, user, draft, filter);
    if (applied.kind === "closed" || applied.kind === "refused") return applied;
    if (applied.kind === "left-out") left = applied;
  }
  return left;
}

function finished({ mirrors, ...rest }: RouteDraft): VirtualServiceHttpRoute {
  return mirrors.length === 0 ? rest : { ...rest, mirrors };
}

function withMistake(
  routes: readonly VirtualServiceHttpRoute[],
  mistake: Mistake | undefined,
): ConvertedRule {
  return mistake === undefined ? { routes } : { routes, mistake };
}

function closed({ name, match }: RouteDraft): VirtualServiceHttpRoute {
  return {
    ...(name === undefined ? {} : { name }),
    ...(match === undefined ? {} : { match }),
    directResponse: { status: 500 },
  };
}

const grpcFilters: ReadonlySet<string> = new Set([
  "RequestHeaderModifier",
  "ResponseHeaderModifier",
  "RequestMirror",
]);

type FoundDestinations =
  | { readonly kind: "found"; readonly destinations: HTTPRouteDestination[]; readonly mistake?: Mistake }
  | { readonly kind: "refused"; readonly mistake: Mistake };

/** @param weighed those that have a weight */
function destinationsOf(
  read: Read,
  user: BackendUser,
  weighed: readonly HTTPBackendRef[],
): FoundDestinations {
  const destinations: HTTPRouteDestination[] = [];
  let mistake: Mistake | undefined;
  for (const reference of weighed) {
    const found = findBackend(read, user, reference);
    if (found.kind === "refused") return found;
    mistake = found.mistake ?? mistake;
    destinations.push({
      destination: found.destination,
      ...(weighed.length === 1 ? {} : { weight: weightOf(reference) }),
      ...headersOf(reference),
    });
  }
  return { kind: "found", destinations, ...(mistake === undefined ? {} : { mistake }) };
}

/** Filters that Envoy has for one weighted cluster of several; all others are a route's. */
function isOfRoutes({ type }: HTTPRouteFilter): boolean {
  return type !== "RequestHeaderModifier" && type !== "ResponseHeaderModifier";
}

function headersOf({ filters = [] }: HTTPBackendRef): Pick<HTTPRouteDestination, "headers"> {
  const headers: {
    request?: ReturnType<typeof headerOperations>;
    response?: ReturnType<typeof headerOperations>;
  } = {};
  for (const { type, requestHeaderModifier, responseHeaderModifier } of filters) {
    if (type === "RequestHeaderModifier" && requestHeaderModifier !== undefined)
      headers.request = headerOperations(requestHeaderModifier);
    if (type === "ResponseHeaderModifier" && responseHeaderModifier !== undefined)
      headers.response = headerOperations(responseHeaderModifier);
  }
  return Object.keys(headers).length === 0 ? {} : { headers };
}

function unfitHeader(weighed: readonly HTTPBackendRef[]): Mistake | undefined {
  for (const { requestHeaderModifier, responseHeaderModifier } of weighed.flatMap(
    ({ filters = [] }) => filters,
  )) {
    const mistake = headerMistake(requestHeaderModifier ?? {}) ?? headerMistake(responseHeaderModifier ?? {});
    if (mistake !== undefined) return mistake;
  }
  return undefined;
}

type Split =
  | { readonly kind: "split"; readonly routes: VirtualServiceHttpRoute[]; readonly mistake?: Mistake }
  | { readonly kind: "refused"; readonly mistake: Mistake };

/** Of a million requests: in these parts shares are counted. */
const allShares = 1_000_000;

/**
 * A route for each backend, with the filters of the rule and its own, which prevail. Where one of its own cannot be applied, the
 * backend's share alone is answered with 500.
 */
function splitByBackends(
  read: Read,
  user: BackendUser,
  draft: RouteDraft,
  weighed: readonly HTTPBackendRef[],
): Split {
  const total = weighed.reduce((sum, reference) => sum + weightOf(reference), 0);
  const routes: VirtualServiceHttpRoute[] = [];
  let mistake: Mistake | undefined;
  let sum = 0;
  for (const reference of weighed) {
    sum += weightOf(reference);
    const share = sum === total ? {} : { upToShare: Math.round((sum / total) * allShares) };
    const own: RouteDraft = { ...draft, ...share, mirrors: [...draft.mirrors] };
    const applied = applyFilters(read, user, own, (reference.filters ?? []).filter(isOfRoutes));
    if (applied.kind === "refused") return applied;
    if (applied.kind !== "applied") mistake = applied.mistake;
    if (applied.kind === "closed") {
      routes.push({ ...closed(own), ...share });
      continue;
    }
    const found = findBackend(read, user, reference);
    if (found.kind === "refused") return found;
    mistake = found.mistake ?? mistake;
    const destination = { destination: found.destination, ...headersOf(reference) };
    routes.push(own.redirect === undefined ? { ...finished(own), route: [destination] } : finished(own));
  }
  return { kind: "split", routes, ...(mistake === undefined ? {} : { mistake }) };
}

/** What is tried again whatever the codes that a rule names. */
const retryConditions = ["connect-failure", "refused-stream", "unavailable", "cancelled"];
/** As many as without a rule's own word. */
const attemptsByDefault = 2;

function setRetry(draft: RouteDraft, { retry }: HttpRule): void {
  if (retry === undefined) return;
  const attempts = retry.attempts ?? attemptsByDefault;
  const retryOn = [...retryConditions, ...(retry.codes ?? []).map(String)].join(",");
  draft.retries = {
    attempts,
    ...(attempts === 0 ? {} : { retryOn }),
    ...(retry.backoff === undefined ? {} : { backoff: retry.backoff }),
  };
}

/** A time of zero is none. The time of one try is the whole time where nothing is tried again by the rule's word. */
function setTimeouts(draft: RouteDraft, { timeouts }: HttpRule): void {
  const isSome = (time: string | undefined): time is string => time !== undefined && /[1-9]/.test(time);
  if (isSome(timeouts?.request)) draft.timeout = timeouts.request;
  if (!isSome(timeouts?.backendRequest)) return;
  if (draft.retries !== undefined)
    draft.retries = { ...draft.retries, perTryTimeout: timeouts.backendRequest };
  else draft.timeout = timeouts.backendRequest;
}

function httpMatch({ path, headers, queryParams, method }: HTTPRouteMatch): HTTPMatchRequest {
  return {
    uri: pathMatch(path),
    ...conditions("headers", headers),
    ...conditions("queryParams", queryParams),
    ...(method === undefined ? {} : { method: { exact: method } }),
  };
}

function pathMatch(path: HTTPRouteMatch["path"]): StringMatch {
  const value = path?.value ?? "/";
  switch (path?.type) {
    case "Exact":
      return { exact: value };
    case "RegularExpression":
      return { regex: value };
    default:
      // A slash at the end of a prefix means nothing in Gateway API.
      return { prefix: value === "/" ? value : value.replace(/\/$/, "") };
  }
}

/** Of several conditions on one name the first counts. */
function conditions(
  field: "headers" | "queryParams",
  list: HTTPRouteMatch["headers"],
): Pick<HTTPMatchRequest, "headers" | "queryParams"> {
  if (list === undefined || list.length === 0) return {};
  const byName: Record<string, StringMatch> = {};
  for (const { name, type, value } of list) {
    const key = field === "headers" ? name.toLowerCase() : name;
    byName[key] ??= type === "RegularExpression" ? { regex: value } : { exact: value };
  }
  return { [field]: byName };
}

/** `/service/method` is what gRPC makes of a call. */
function grpcMatch({ method, headers }: NonNullable<GRPCRouteRule["matches"]>[number]): HTTPMatchRequest {
  const uri = method === undefined ? undefined : grpcPath(method);
  return { ...(uri === undefined ? {} : { uri }), ...conditions("headers", headers) };
}

function grpcPath({
  type,
  service,
  method,
}: NonNullable<NonNullable<GRPCRouteRule["matches"]>[number]["method"]>): StringMatch | undefined {
  if (service === undefined && method === undefined) return undefined;
  if (type === "RegularExpression") return { regex: `/${service ?? "[^/]+"}/${method ?? ".+"}` };
  if (method === undefined) return { prefix: `/${service}/` };
  return service === undefined ? { regex: `/[^/]+/${method}` } : { exact: `/${service}/${method}` };
}
