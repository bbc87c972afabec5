// Filters of a route's rule, in the fields that a VirtualService has for them.

import type { Read } from "#engine";
import type {
  CorsPolicy,
  HTTPExternalAuthFilter,
  HeaderFilter,
  HeaderOperations,
  HTTPMirrorPolicy,
  HTTPRedirect,
  HTTPRewrite,
  HTTPRouteFilter,
  StringMatch,
  VirtualServiceHttpRoute,
} from "#objects";
import { findBackend, type BackendUser } from "./backends.ts";
import { findExternalAuth } from "./external-auth.ts";
import type { Mistake } from "./findings.ts";

/** A route while it is put together. */
export type RouteDraft = {
  -readonly [Field in keyof VirtualServiceHttpRoute]: VirtualServiceHttpRoute[Field];
} & {
  mirrors: HTTPMirrorPolicy[];
};

export type Applied =
  | { readonly kind: "applied" }
  /** The rest of the rule holds. */
  | { readonly kind: "left-out"; readonly mistake: Mistake }
  /** The rule answers nobody: Gateway API wants an error where a filter cannot be applied, and never that it is skipped. */
  | { readonly kind: "closed"; readonly mistake: Mistake }
  /** Nothing can be made of the route as a whole. */
  | { readonly kind: "refused"; readonly mistake: Mistake };

const applied: Applied = { kind: "applied" };

export function applyFilter(
  read: Read,
  user: BackendUser,
  draft: RouteDraft,
  filter: HTTPRouteFilter,
): Applied {
  const { requestHeaderModifier, responseHeaderModifier, requestRedirect, requestMirror, urlRewrite, cors } =
    filter;
  switch (filter.type) {
    case "RequestHeaderModifier":
      return applyHeaders(draft, "request", requestHeaderModifier);
    case "ResponseHeaderModifier":
      return applyHeaders(draft, "response", responseHeaderModifier);
    case "RequestRedirect":
      if (requestRedirect !== undefined) draft.redirect = redirectOf(requestRedirect);
      return applied;
    case "URLRewrite":
      if (urlRewrite !== undefined) draft.rewrite = rewriteOf(urlRewrite);
      return applied;
    case "CORS":
      if (cors !== undefined) draft.corsPolicy = corsOf(cors);
      return applied;
    case "RequestMirror":
      return requestMirror === undefined ? applied : applyMirror(read, user, draft, requestMirror);
    case "ExternalAuth":
      return filter.externalAuth === undefined
        ? applied
        : applyExternalAuth(read, user, draft, filter.externalAuth);
    default:
      return { kind: "closed", mistake: unsupportedFilter(filter) };
  }
}

/** No kind that an `extensionRef` might name is known here, as none is to Istio. */
export function unsupportedFilter({ type, extensionRef }: HTTPRouteFilter): Mistake {
  const what = extensionRef === undefined ? type : `${type} (${extensionRef.kind} ${extensionRef.name})`;
  return { reason: "InvalidFilter", message: `a filter of type ${what} cannot be applied here` };
}

function applyExternalAuth(
  read: Read,
  user: BackendUser,
  draft: RouteDraft,
  filter: HTTPExternalAuthFilter,
): Applied {
  const found = findExternalAuth(read, user, filter);
  if (found.kind === "closed") return found;
  draft.externalAuth = found.auth;
  return applied;
}

/** Of several entries for one name the first counts; Envoy refuses control characters in values. */
export function headerOperations({ set, add, remove }: HeaderFilter): HeaderOperations {
  return {
    ...(set === undefined ? {} : { set: byLowerName(set) }),
    ...(add === undefined ? {} : { add: byLowerName(add) }),
    ...(remove === undefined ? {} : { remove }),
  };
}

function byLowerName(list: NonNullable<HeaderFilter["set"]>): Record<string, string> {
  const values: Record<string, string> = {};
  for (const { name, value } of list) values[name.toLowerCase()] ??= value;
  return values;
}

function applyHeaders(
  draft: RouteDraft,
  side: "request" | "response",
  given: HeaderFilter | undefined,
): Applied {
  if (given === undefined) return applied;
  const mistake = headerMistake(given);
  if (mistake !== undefined) return { kind: "refused", mistake };
  draft.headers = { ...draft.headers, [side]: headerOperations(given) };
  return applied;
}

/** Envoy would refuse the whole table for one. */
export function headerMistake({ set = [], add = [] }: HeaderFilter): Mistake | undefined {
  const wrong = [...set, ...add].find(({ value }) => !isHeaderValue(value));
  if (wrong === undefined) return undefined;
  const message = `the value of header ${wrong.name} has characters that no header may have`;
  return { reason: "InvalidFilter", message };
}

function isHeaderValue(value: string): boolean {
  return [...Buffer.from(value, "utf8")].every((byte) => byte === 0x09 || (byte >= 0x20 && byte !== 0x7f));
}

function applyMirror(
  read: Read,
  user: BackendUser,
  draft: RouteDraft,
  { backendRef, percent, fraction }: NonNullable<HTTPRouteFilter["requestMirror"]>,
): Applied {
  const found = findBackend(read, user, backendRef);
  if (found.mistake !== undefined)
    return { kind: user.kind === "GRPCRoute" ? "refused" : "left-out", mistake: found.mistake };
  if (found.kind === "refused") return found;
  const share = fraction === undefined ? percent : (100 * fraction.numerator) / (fraction.denominator ?? 100);
  const percentage = share === undefined ? {} : { percentage: { value: share } };
  draft.mirrors.push({ destination: found.destination, ...percentage });
  return applied;
}

function redirectOf({
  scheme,
  hostname,
  path,
  port,
  statusCode,
}: NonNullable<HTTPRouteFilter["requestRedirect"]>): HTTPRedirect {
  // Without a port it is that of the scheme, or else the listener's: Istio's own API would leave the request's.
  const derived = scheme === undefined ? "FROM_REQUEST_PORT" : "FROM_PROTOCOL_DEFAULT";
  return {
    redirectCode: statusCode ?? 302,
    ...(hostname === undefined ? {} : { authority: hostname }),
    ...(scheme === undefined ? {} : { scheme }),
    ...(port === undefined ? { derivePort: derived } : { port }),
    ...(path?.type === "ReplaceFullPath" ? { uri: path.replaceFullPath ?? "" } : {}),
    ...(path?.type === "ReplacePrefixMatch" ? { prefixRewrite: path.replacePrefixMatch || "/" } : {}),
  };
}

function rewriteOf({ hostname, path }: NonNullable<HTTPRouteFilter["urlRewrite"]>): HTTPRewrite {
  // An empty replacement takes the prefix away; what is left begins with a slash.
  const prefix = (path?.replacePrefixMatch ?? "").replace(/\/$/, "");
  return {
    ...(hostname === undefined ? {} : { authority: hostname }),
    ...(path?.type === "ReplacePrefixMatch" ? { uri: prefix === "" ? "/" : prefix } : {}),
    ...(path?.type === "ReplaceFullPath"
      ? { uriRegexRewrite: { match: "/.*", rewrite: path.replaceFullPath ?? "" } }
      : {}),
  };
}

function corsOf(cors: NonNullable<HTTPRouteFilter["cors"]>): CorsPolicy {
  return {
    allowOrigins: (cors.allowOrigins ?? []).map(originMatch),
    ...(cors.allowMethods === undefined ? {} : { allowMethods: cors.allowMethods }),
    ...(cors.allowHeaders === undefined ? {} : { allowHeaders: cors.allowHeaders }),
    ...(cors.exposeHeaders === undefined ? {} : { exposeHeaders: cors.exposeHeaders }),
    ...(cors.maxAge === undefined || cors.maxAge === 0 ? {} : { maxAge: `${cors.maxAge}s` }),
    ...(cors.allowCredentials === true ? { allowCredentials: true } : {}),
    unmatchedPreflights: "IGNORE",
  };
}

/** An origin is a scheme, a host and perhaps a port; a wildcard stands for any text within one. */
function originMatch(origin: string): StringMatch {
  if (origin === "*") return { regex: "[a-zA-Z][a-zA-Z0-9+.-]*://[^/\\s?#]+" };
  if (!origin.includes("*")) return { exact: origin };
  const parts = origin.split("*").map((part) => part.replaceAll(/[.+?^${}()|[\]\\]/g, "\\$&"));
  return { regex: parts.join("[^/\\s?#]*") };
}
