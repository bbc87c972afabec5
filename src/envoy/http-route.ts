// One route of a VirtualService in Envoy's words: where a request goes and what is done to it on the way. Used by
// sidecars and gateways alike; what differs between them comes in as `RouteContext`.

import { packService, telemetryMetadata } from "#base";
import type {
  ConsistentHash,
  Destination,
  HTTPMatchRequest,
  HTTPRouteDestination,
  VirtualServiceHttpRoute,
} from "#objects";
import { isGenerated, type ProxyTuning } from "#model";
import { corsPolicy, faultFilter, stickySession } from "./route-filters.ts";
import { durationMsOf } from "./duration.ts";
import { externalAuth } from "./external-auth.ts";
import { objectPath } from "./object-path.ts";
import { dynamicLookup } from "./dynamic-forward.ts";
import { durationOf, structOf, wrapped, type Message } from "./proto/api.ts";
import { retryPolicy, type RetrySettings } from "./retry.ts";
import { routeMatch, takesEverything } from "./route-match.ts";
import { forwardedHost } from "./tuning.ts";

/** What a VirtualService's routes are translated for. */
export interface RouteContext {
  /** Row key of the VirtualService: `namespace/name`. */
  readonly virtualService: string;
  /** The port that clients call: the default of destinations that name none. */
  readonly port: number;
  readonly terminatesTls: boolean;
  /** Whether a match's gateways, source labels and source namespace are those of this proxy. */
  readonly isSource: (match: HTTPMatchRequest) => boolean;
  /** The cluster of a destination whose host is full. */
  readonly clusterOf: (destination: Destination) => string;
  readonly hashOf: (destination: Destination) => ConsistentHash | undefined;
  /** Whether the destination's host is looked up as requests name it. */
  readonly isDynamic: (destination: Destination) => boolean;
  /** MeshConfig's defaultHttpRetryPolicy. */
  readonly retries?: RetrySettings;
  /** ProxyConfig's headers. */
  readonly headers?: ProxyTuning["proxyHeaders"];
  /** The service that calls of the virtual host mean, for metrics of answers that no cluster gives. */
  readonly service?: { readonly host: string; readonly name: string; readonly namespace: string };
}

/** The routes of a VirtualService for one proxy and port, up to the first that takes everything. */
export function httpRoutes(
  routes: readonly VirtualServiceHttpRoute[],
  context: RouteContext,
): readonly Message[] {
  const built: Message[] = [];
  for (const route of routes) {
    const conditions = route.match === undefined || route.match.length === 0 ? [undefined] : route.match;
    for (const condition of conditions) {
      const one = httpRoute(route, condition, context);
      if (one === undefined) continue;
      built.push(one);
      if (takesEverything(one["match"] as Message)) return built;
    }
  }
  return built;
}

function httpRoute(
  route: VirtualServiceHttpRoute,
  condition: HTTPMatchRequest | undefined,
  context: RouteContext,
): Message | undefined {
  if (condition !== undefined) {
    const { port } = condition;
    if (port !== undefined && port !== 0 && port !== context.port) return undefined;
    if (!context.isSource(condition)) return undefined;
  }
  const suffix = condition?.name ?? "";
  const name = suffix === "" ? (route.name ?? "") : `${route.name ?? ""}.${suffix}`;
  const action = actionOf(route, condition, context);
  if (action === undefined) return undefined;
  const authority = (action["route"] as Message | undefined)?.["hostRewriteLiteral"] as string | undefined;
  const lookedUp = (route.route ?? []).some(({ destination }) => context.isDynamic(destination));
  const filters = {
    ...(route.fault === undefined ? {} : faultFilter(route.fault)),
    ...(route.corsPolicy === undefined ? {} : corsPolicy(route.corsPolicy)),
    ...(route.sessionPersistence === undefined ? {} : stickySession(route.sessionPersistence, condition)),
    ...(route.externalAuth === undefined
      ? {}
      : externalAuth(route.externalAuth, context.clusterOf(route.externalAuth.destination))),
    ...(authority === undefined || !lookedUp ? {} : dynamicLookup(authority)),
  };
  const statPrefix = condition?.statPrefix ?? "";
  return {
    ...(name === "" ? {} : { name }),
    match: {
      ...routeMatch(condition, isGenerated(context.virtualService)),
      ...(route.upToShare === undefined ? {} : shareOf(route.upToShare)),
    },
    ...action,
    metadata: { filterMetadata: routeMetadata(route, context) },
    ...(statPrefix === "" ? {} : { statPrefix }),
    ...(Object.keys(filters).length === 0 ? {} : { typedPerFilterConfig: filters }),
  };
}

/** Envoy draws one number for a request and asks all routes with it, so that their shares add up. */
function shareOf(upToShare: number): Message {
  return { runtimeFraction: { defaultValue: { numerator: upToShare, denominator: "MILLION" } } };
}

/** The action and the headers of a route; headers of its only destination are the route's as well. */
function actionOf(
  route: VirtualServiceHttpRoute,
  condition: HTTPMatchRequest | undefined,
  context: RouteContext,
): Message | undefined {
  const headers = headerOperations(route.headers);
  if (route.redirect !== undefined) {
    const redirect = redirectAction(route.redirect, condition, context);
    return redirect === undefined ? undefined : { redirect, ...headers.message };
  }
  if (route.directResponse !== undefined) {
    const { status, body } = route.directResponse;
    return {
      directResponse: {
        status,
        ...(body?.string === undefined ? {} : { body: { inlineString: body.string } }),
        ...(body?.bytes === undefined ? {} : { body: { inlineBytes: Buffer.from(body.bytes, "base64") } }),
      },
      ...headers.message,
    };
  }
  return forwardAction(route, condition, context, headers);
}

function forwardAction(
  route: VirtualServiceHttpRoute,
  condition: HTTPMatchRequest | undefined,
  context: RouteContext,
  headers: HeaderOperations,
): Message | undefined {
  const all = route.route ?? [];
  const weighted = all.filter(({ weight }) => weight !== undefined && weight > 0);
  // Envoy refuses weights that are all zero; admission has told the user, and the first destination gets it all.
  const targets = all.length > 1 && weighted.length > 0 ? weighted : all.slice(0, 1);
  const [only] = targets;
  if (only === undefined) return undefined;
  const own = targets.length === 1 ? headerOperations(only.headers) : undefined;
  const authority = route.rewrite?.authority || headers.authority || own?.authority || "";
  const hashed = targets.flatMap(({ destination }) => context.hashOf(destination) ?? []);
  const timeoutMs = durationMsOf(route.timeout ?? "0s");
  return {
    route: {
      ...(targets.length === 1
        ? { cluster: context.clusterOf(only.destination) }
        : { weightedClusters: { clusters: weightedClusters(targets, context) } }),
      timeout: durationOf(timeoutMs),
      // Without it the caller's grpc-timeout header would count beside the route's own limit.
      maxGrpcTimeout: durationOf(timeoutMs),
      ...rewriteFields(route, condition, context),
      // Gateway API wants 500 where a backend does not exist; Envoy's own answer is 503.
      ...(isGenerated(context.virtualService)
        ? { clusterNotFoundResponseCode: "INTERNAL_SERVER_ERROR" }
        : {}),
      ...(authority === "" ? {} : { hostRewriteLiteral: authority }),
      ...mirrors(route, context),
      ...retryPolicy(route.retries ?? context.retries, targets.length === 1 && hashed.length > 0),
      ...(hashed.length === 0 ? {} : { hashPolicy: hashed.flatMap(hashPolicy) }),
    },
    ...(own === undefined ? headers.message : joinHeaders(headers.message, own.message)),
  };
}

function weightedClusters(targets: readonly HTTPRouteDestination[], context: RouteContext): Message[] {
  return targets.map(({ destination, weight, headers }) => {
    const own = headerOperations(headers);
    return {
      name: context.clusterOf(destination),
      weight: wrapped(weight ?? 0),
      ...own.message,
      ...(own.authority === "" ? {} : { hostRewriteLiteral: own.authority }),
    };
  });
}

function rewriteFields(
  { rewrite }: VirtualServiceHttpRoute,
  condition: HTTPMatchRequest | undefined,
  { virtualService, headers }: RouteContext,
): Message {
  if (rewrite === undefined) return {};
  const forwarded = forwardedHost(headers);
  const regex = rewrite.uriRegexRewrite;
  if (regex !== undefined) {
    return {
      ...forwarded,
      regexRewrite: { pattern: { regex: regex.match ?? "" }, substitution: regex.rewrite ?? "" },
    };
  }
  return rewrite.uri === undefined || rewrite.uri === ""
    ? forwarded
    : { ...forwarded, ...prefixRewrite(rewrite.uri, condition, virtualService) };
}

/**
 * Envoy puts the replacement where the prefix was, letter by letter. Gateway API means segments: "/a" to "/" makes "/b" of
 * "/a/b", not "//b"; and "/" to "/a" makes "/a/b" of "/b".
 */
function prefixRewrite(
  replacement: string,
  condition: HTTPMatchRequest | undefined,
  virtualService: string,
): Message {
  const prefix = condition?.uri?.prefix ?? "/";
  if (!isGenerated(virtualService)) return { prefixRewrite: replacement };
  if (prefix === "/") return { prefixRewrite: replacement.endsWith("/") ? replacement : `${replacement}/` };
  if (!replacement.endsWith("/")) return { prefixRewrite: replacement };
  const quoted = prefix.replaceAll(/[.+*?^${}()|[\]\\]/g, "\\$&");
  return {
    regexRewrite: {
      pattern: { regex: `^${quoted}/?` },
      // In a substitution a backslash begins the number of a group.
      substitution: replacement.replaceAll("\\", "\\\\"),
    },
  };
}

function mirrors(route: VirtualServiceHttpRoute, { clusterOf }: RouteContext): Message {
  const single =
    route.mirror === undefined
      ? []
      : [
          {
            destination: route.mirror,
            percent: route.mirrorPercentage?.value ?? route.mirrorPercent ?? 100,
          },
        ];
  const several = (route.mirrors ?? []).map(({ destination, percentage }) => ({
    destination,
    percent: percentage === undefined ? 100 : (percentage.value ?? 0),
  }));
  const policies = [...single, ...several]
    .filter(({ percent }) => percent > 0)
    .map(({ destination, percent }) => ({
      cluster: clusterOf(destination),
      runtimeFraction: { defaultValue: { numerator: Math.round(percent * 10_000), denominator: "MILLION" } },
      traceSampled: wrapped(false),
    }));
  return policies.length === 0 ? {} : { requestMirrorPolicies: policies };
}

const redirectCodes: Readonly<Record<number, string>> = {
  301: "MOVED_PERMANENTLY",
  302: "FOUND",
  303: "SEE_OTHER",
  307: "TEMPORARY_REDIRECT",
  308: "PERMANENT_REDIRECT",
};

function redirectAction(
  redirect: NonNullable<VirtualServiceHttpRoute["redirect"]>,
  condition: HTTPMatchRequest | undefined,
  context: RouteContext,
): Message | undefined {
  const code = redirect.redirectCode ?? 0;
  const responseCode = redirectCodes[code === 0 ? 301 : code];
  if (responseCode === undefined) return undefined;
  const asked = redirect.port ?? (redirect.derivePort === "FROM_REQUEST_PORT" ? context.port : 0);
  const scheme = redirect.scheme ?? (context.terminatesTls ? "https" : "http");
  // A browser shows a port that is the scheme's own, so Istio leaves it out.
  const implied = (asked === 80 && scheme === "http") || (asked === 443 && scheme === "https");
  return {
    ...(redirect.authority === undefined ? {} : { hostRedirect: redirect.authority }),
    ...(redirect.prefixRewrite === undefined || redirect.prefixRewrite === ""
      ? { pathRedirect: redirect.uri ?? "" }
      : prefixRewrite(redirect.prefixRewrite, condition, context.virtualService)),
    ...(redirect.scheme === undefined || redirect.scheme === "" ? {} : { schemeRedirect: redirect.scheme }),
    ...(asked === 0 || implied ? {} : { portRedirect: asked }),
    responseCode,
  };
}

/** Header changes, and the authority among them, which Envoy sets by other means. */
export interface HeaderOperations {
  readonly message: Message;
  readonly authority: string;
}

export function headerOperations(headers: VirtualServiceHttpRoute["headers"]): HeaderOperations {
  const { request, response } = headers ?? {};
  const isAuthority = (name: string): boolean => ["host", ":authority"].includes(name.toLowerCase());
  const find = (pairs: Readonly<Record<string, string>> | undefined): string | undefined =>
    Object.entries(pairs ?? {}).find(([name]) => isAuthority(name))?.[1];
  const fields = {
    requestHeadersToAdd: [
      ...valueOptions(request?.set, "OVERWRITE_IF_EXISTS_OR_ADD"),
      ...valueOptions(request?.add, "APPEND_IF_EXISTS_OR_ADD"),
    ],
    requestHeadersToRemove: (request?.remove ?? []).filter(isChangeable),
    responseHeadersToAdd: [
      ...valueOptions(response?.set, "OVERWRITE_IF_EXISTS_OR_ADD"),
      ...valueOptions(response?.add, "APPEND_IF_EXISTS_OR_ADD"),
    ],
    responseHeadersToRemove: (response?.remove ?? []).filter(isChangeable),
  };
  return {
    message: Object.fromEntries(Object.entries(fields).filter(([, list]) => list.length > 0)),
    authority: find(request?.set) ?? find(request?.add) ?? "",
  };
}

function valueOptions(pairs: Readonly<Record<string, string>> | undefined, appendAction: string): Message[] {
  return Object.entries(pairs ?? {})
    .filter(([name]) => isChangeable(name))
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => ({ header: { key, value }, appendAction, keepEmptyValue: value === "" }));
}

/** Envoy refuses changes of pseudo headers and of Host. */
function isChangeable(name: string): boolean {
  return !name.startsWith(":") && name.toLowerCase() !== "host";
}

function joinHeaders(first: Message, second: Message): Message {
  const names = new Set([...Object.keys(first), ...Object.keys(second)]);
  return Object.fromEntries(
    [...names].map((name) => [
      name,
      [...((first[name] as unknown[]) ?? []), ...((second[name] as unknown[]) ?? [])],
    ]),
  );
}

export function hashPolicy(hash: ConsistentHash): Message[] {
  if (hash.httpHeaderName !== undefined && hash.httpHeaderName !== "")
    return [{ header: { headerName: hash.httpHeaderName } }];
  if (hash.httpCookie !== undefined) {
    const { name, path, ttl, attributes } = hash.httpCookie;
    return [
      {
        cookie: {
          name,
          path: path ?? "",
          ...(ttl === undefined ? {} : { ttl: durationOf(durationMsOf(ttl)) }),
          ...(attributes === undefined || attributes.length === 0
            ? {}
            : { attributes: attributes.map((one) => ({ name: one.name, value: one.value ?? "" })) }),
        },
      },
    ];
  }
  if (hash.useSourceIp === true) return [{ connectionProperties: { sourceIp: true } }];
  return hash.httpQueryParameterName === undefined || hash.httpQueryParameterName === ""
    ? []
    : [{ queryParameter: { name: hash.httpQueryParameterName } }];
}

function routeMetadata(route: VirtualServiceHttpRoute, context: RouteContext): Message {
  const istio = structOf({ config: objectPath("virtual-service", context.virtualService) });
  const answers = route.redirect !== undefined || route.directResponse !== undefined;
  if (!answers || context.service === undefined) return { istio };
  const { host, name, namespace } = context.service;
  return {
    istio,
    [telemetryMetadata.key]: structOf({ [telemetryMetadata.service]: packService(host, name, namespace) }),
  };
}
