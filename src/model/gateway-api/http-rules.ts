// Rules of HTTPRoutes and GRPCRoutes as HTTP routes of a VirtualService: one route for each match, so that the routes of
// several objects can be put into Gateway API's order.

import type { Read } from "#engine";
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
  headerOperations,
  unsupportedFilter,
  type Applied,
  type RouteDraft,
} from "./http-filters.ts";

export interface ConvertedRoutes<Route> {
  readonly routes: readonly Route[];
  readonly mistake?: Mistake;
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
  for (const rule of rules) {
    const converted = convertRule(read, user, rule);
    if (converted.mistake !== undefined) mistake = converted.mistake;
    if (converted.route === undefined) return { routes: [], ...(mistake === undefined ? {} : { mistake }) };
    routes.push(converted.route);
  }
  return { routes, ...(mistake === undefined ? {} : { mistake }) };
}

interface ConvertedRule {
  readonly route?: VirtualServiceHttpRoute;
  readonly mistake?: Mistake;
}

function convertRule(read: Read, user: BackendUser, rule: HttpRule): ConvertedRule {
  const draft: RouteDraft = {
    name: rule.name,
    ...(rule.match === undefined ? {} : { match: [rule.match] }),
    mirrors: [],
  };
  let mirrorMistake: Mistake | undefined;
  for (const filter of rule.filters) {
    const applied: Applied =
      user.kind === "GRPCRoute" && !grpcFilters.has(filter.type)
        ? { kind: "closed", mistake: unsupportedFilter(filter) }
        : applyFilter(read, user, draft, filter);
    if (applied.kind === "closed") return closed(draft, applied.mistake);
    if (applied.kind === "refused") return { mistake: applied.mistake };
    if (applied.kind === "left-out") mirrorMistake = applied.mistake;
  }
  // Sidecars have no filter for it: it is for clients from outside.
  if (rule.sessionPersistence !== undefined && !user.mesh) draft.sessionPersistence = rule.sessionPersistence;
  setRetry(draft, rule);
  setTimeouts(draft, rule);
  const { mirrors, ...rest } = draft;
  const route = mirrors.length === 0 ? rest : { ...rest, mirrors };
  if (route.redirect !== undefined) return withMistake(route, mirrorMistake);
  const total = rule.backendRefs.reduce((sum, reference) => sum + weightOf(reference), 0);
  if (total === 0) return withMistake({ ...route, directResponse: { status: 500 } }, mirrorMistake);
  const found = destinationsOf(read, user, rule.backendRefs);
  if (found.kind === "closed") return closed(draft, found.mistake);
  if (found.kind === "refused") return { mistake: found.mistake };
  return withMistake({ ...route, route: found.destinations }, found.mistake ?? mirrorMistake);
}

function withMistake(route: VirtualServiceHttpRoute, mistake: Mistake | undefined): ConvertedRule {
  return mistake === undefined ? { route } : { route, mistake };
}

function closed({ name, match }: RouteDraft, mistake: Mistake): ConvertedRule {
  return {
    route: {
      ...(name === undefined ? {} : { name }),
      ...(match === undefined ? {} : { match }),
      directResponse: { status: 500 },
    },
    mistake,
  };
}

const grpcFilters: ReadonlySet<string> = new Set([
  "RequestHeaderModifier",
  "ResponseHeaderModifier",
  "RequestMirror",
]);

type FoundDestinations =
  | { readonly kind: "found"; readonly destinations: HTTPRouteDestination[]; readonly mistake?: Mistake }
  | { readonly kind: "closed"; readonly mistake: Mistake }
  | { readonly kind: "refused"; readonly mistake: Mistake };

function destinationsOf(
  read: Read,
  user: BackendUser,
  references: readonly HTTPBackendRef[],
): FoundDestinations {
  const weighed = references.filter((reference) => weightOf(reference) > 0);
  const destinations: HTTPRouteDestination[] = [];
  let mistake: Mistake | undefined;
  for (const reference of weighed) {
    const found = findBackend(read, user, reference);
    if (found.kind === "refused") return found;
    mistake = found.mistake ?? mistake;
    const headers: {
      request?: ReturnType<typeof headerOperations>;
      response?: ReturnType<typeof headerOperations>;
    } = {};
    for (const filter of reference.filters ?? []) {
      if (filter.type === "RequestHeaderModifier" && filter.requestHeaderModifier !== undefined)
        headers.request = headerOperations(filter.requestHeaderModifier);
      else if (filter.type === "ResponseHeaderModifier" && filter.responseHeaderModifier !== undefined)
        headers.response = headerOperations(filter.responseHeaderModifier);
      // Nothing else can be done for one backend of several: Istio refuses it as well.
      else return { kind: "closed", mistake: unsupportedFilter(filter) };
    }
    destinations.push({
      destination: found.destination,
      ...(weighed.length === 1 ? {} : { weight: weightOf(reference) }),
      ...(Object.keys(headers).length === 0 ? {} : { headers }),
    });
  }
  return { kind: "found", destinations, ...(mistake === undefined ? {} : { mistake }) };
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
