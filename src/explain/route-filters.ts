// What a route's own filters answer before anything is routed: a preflight of CORS, and an abort that hits every request.

import type { Call } from "./call.ts";
import { stringMatches } from "./route.ts";
import type { Route, StringMatcher } from "./shapes.ts";

interface CorsPolicy {
  readonly allowOriginStringMatch?: readonly StringMatcher[];
}

interface HttpFault {
  readonly abort?: {
    readonly httpStatus?: number;
    readonly percentage?: { readonly numerator?: number; readonly denominator?: string };
  };
}

const parts: Readonly<Record<string, number>> = { HUNDRED: 100, TEN_THOUSAND: 10_000, MILLION: 1_000_000 };

/** The status that is answered; undefined where the request goes on, as it may under an abort of less than all. */
export function statusOfFilters(route: Route, call: Call): number | undefined {
  const configured = route.typedPerFilterConfig ?? {};
  const cors = configured["envoy.filters.http.cors"] as CorsPolicy | undefined;
  if (cors !== undefined && isPreflight(cors, call)) return 200;
  const abort = (configured["envoy.filters.http.fault"] as HttpFault | undefined)?.abort;
  const { numerator = 0, denominator = "HUNDRED" } = abort?.percentage ?? {};
  const hitsAll = numerator >= (parts[denominator] ?? Infinity);
  return hitsAll ? abort?.httpStatus : undefined;
}

function isPreflight({ allowOriginStringMatch = [] }: CorsPolicy, { method, headers }: Call): boolean {
  const origin = headers["origin"] ?? "";
  if (method !== "OPTIONS" || origin === "" || !headers["access-control-request-method"]) return false;
  return allowOriginStringMatch.some((matcher) => stringMatches(matcher, origin));
}
