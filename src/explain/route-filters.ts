// What filters answer before anything is routed: a preflight of CORS, and an abort that hits every request, of a route's own or in the
// place of an extension whose module cannot be fetched.

import { fractionOf, type Fraction } from "./fraction.ts";
import type { Call } from "./call.ts";
import { stringMatches } from "./route.ts";
import type { HttpConnectionManager, NamedFilter, Route, StringMatcher } from "./shapes.ts";

interface CorsPolicy {
  readonly allowOriginStringMatch?: readonly StringMatcher[];
}

interface HttpFault {
  readonly abort?: {
    readonly httpStatus?: number;
    readonly percentage?: Fraction;
  };
}

/** The status that is answered; undefined where the request goes on, as it may under an abort of less than all. */
export function statusOfFilters(route: Route, call: Call): number | undefined {
  const configured = route.typedPerFilterConfig ?? {};
  const cors = configured["envoy.filters.http.cors"] as CorsPolicy | undefined;
  if (cors !== undefined && isPreflight(cors, call)) return 200;
  const abort = (configured["envoy.filters.http.fault"] as HttpFault | undefined)?.abort;
  return fractionOf(abort?.percentage) >= 1 ? abort?.httpStatus : undefined;
}

/** What a filter of the chain answers to every request, before or after the mesh's own checks of the caller. */
export interface Shut {
  readonly status: number;
  readonly isBeforeChecks: boolean;
}

export function shutBy({ httpFilters = [] }: HttpConnectionManager): Shut | undefined {
  const at = httpFilters.findIndex((filter) => abortsAll(filter) !== undefined);
  const status = at === -1 ? undefined : abortsAll(httpFilters[at]!);
  if (status === undefined) return undefined;
  const check = httpFilters.findIndex(({ typedConfig }) =>
    /\.http\.(jwt_authn|rbac)\./.test(typedConfig?.["@type"] ?? ""),
  );
  return { status, isBeforeChecks: check === -1 || at < check };
}

function abortsAll({ typedConfig }: NamedFilter): number | undefined {
  if (typedConfig?.["@type"]?.endsWith(".HTTPFault") !== true) return undefined;
  const { abort } = typedConfig as HttpFault;
  return fractionOf(abort?.percentage) >= 1 ? abort?.httpStatus : undefined;
}

function isPreflight({ allowOriginStringMatch = [] }: CorsPolicy, { method, headers }: Call): boolean {
  const origin = headers["origin"] ?? "";
  if (method !== "OPTIONS" || origin === "" || !headers["access-control-request-method"]) return false;
  return allowOriginStringMatch.some((matcher) => stringMatches(matcher, origin));
}
