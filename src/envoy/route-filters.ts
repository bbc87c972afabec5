// What a route tells the HTTP filters before the router: faults to inject, CORS, and how a client keeps its endpoint.

import type { CorsPolicy, HTTPFaultInjection, HTTPMatchRequest, Percent, SessionPersistence } from "#objects";
import { durationMsOf } from "./duration.ts";
import { durationOf, typed, wrapped, type Message } from "./proto/api.ts";
import { stringMatch } from "./route-match.ts";

/** gRPC's status codes by name. */
const grpcStatus: Readonly<Record<string, number>> = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
};

/** `typed_per_filter_config` of the fault filter; empty when there is nothing to inject. */
export function faultFilter({ delay, abort }: HTTPFaultInjection): Message {
  const delayed = delay?.fixedDelay;
  const aborted =
    abort?.httpStatus !== undefined && abort.httpStatus !== 0
      ? { httpStatus: abort.httpStatus }
      : abort?.grpcStatus !== undefined && abort.grpcStatus !== ""
        ? { grpcStatus: grpcStatus[abort.grpcStatus] ?? 2 }
        : undefined;
  if (delayed === undefined && aborted === undefined) return {};
  return {
    "envoy.filters.http.fault": typed("envoy.extensions.filters.http.fault.v3.HTTPFault", {
      ...(delayed === undefined
        ? {}
        : {
            delay: {
              fixedDelay: durationOf(durationMsOf(delayed)),
              percentage: fraction(delay?.percentage, delay?.percent ?? 0),
            },
          }),
      ...(aborted === undefined ? {} : { abort: { ...aborted, percentage: fraction(abort?.percentage, 0) } }),
    }),
  };
}

/** `typed_per_filter_config` of the CORS filter. */
export function corsPolicy(cors: CorsPolicy): Message {
  const origins =
    cors.allowOrigins?.map(stringMatch) ?? (cors.allowOrigin ?? []).map((exact) => originOf(exact));
  return {
    "envoy.filters.http.cors": typed("envoy.extensions.filters.http.cors.v3.CorsPolicy", {
      allowOriginStringMatch: origins,
      allowMethods: (cors.allowMethods ?? []).join(","),
      allowHeaders: (cors.allowHeaders ?? []).join(","),
      exposeHeaders: (cors.exposeHeaders ?? []).join(","),
      ...(cors.maxAge === undefined ? {} : { maxAge: String(Math.trunc(durationMsOf(cors.maxAge) / 1000)) }),
      ...(cors.allowCredentials === undefined ? {} : { allowCredentials: wrapped(cors.allowCredentials) }),
      filterEnabled: { defaultValue: { numerator: 100, denominator: "HUNDRED" } },
      // A preflight that no origin matches goes to the application, as before Envoy could answer it.
      forwardNotMatchingPreflights: wrapped(cors.unmatchedPreflights !== "IGNORE"),
    }),
  };
}

/** The old field takes "*" for any origin. */
function originOf(origin: string): Message {
  return origin === "*" ? { safeRegex: { regex: ".*" } } : { exact: origin };
}

function fraction(percentage: Percent | undefined, percent: number): Message {
  const value = percentage === undefined ? percent : (percentage.value ?? 0);
  return { numerator: Math.round(value * 10_000), denominator: "MILLION" };
}

const sessionFilter = "envoy.filters.http.stateful_session";
/** The cookie's or header's name where a route gives none. */
const sessionNameDefault = "mesh-session";

/** Does nothing by itself: routes say which of them have sessions. */
export const statefulSession: Message = {
  name: sessionFilter,
  typedConfig: typed("envoy.extensions.filters.http.stateful_session.v3.StatefulSession"),
};

/**
 * `typed_per_filter_config` of the session filter. A session of a weighted route holds within the service that the weights chose. A
 * cookie without lifetime ends with the browser's session; an endpoint that is gone is replaced by another one.
 */
export function stickySession(
  { sessionName = sessionNameDefault, type = "Cookie", absoluteTimeout, cookieConfig }: SessionPersistence,
  condition: HTTPMatchRequest | undefined,
): Message {
  const lasting = cookieConfig?.lifetimeType === "Permanent" && absoluteTimeout !== undefined;
  const sessionState =
    type === "Header"
      ? {
          name: "envoy.http.stateful_session.header",
          typedConfig: typed("envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState", {
            name: sessionName,
          }),
        }
      : {
          name: "envoy.http.stateful_session.cookie",
          typedConfig: typed("envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState", {
            cookie: {
              name: sessionName,
              path: condition?.uri?.prefix ?? condition?.uri?.exact ?? "/",
              ttl: durationOf(lasting ? durationMsOf(absoluteTimeout) : 0),
            },
          }),
        };
  return {
    [sessionFilter]: typed("envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute", {
      statefulSession: { sessionState },
    }),
  };
}
