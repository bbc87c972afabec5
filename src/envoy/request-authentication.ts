// RequestAuthentication as Envoy's JWT filter: one provider a rule. A request without a token passes, one with a token that
// is not valid is refused; what the token says is left for AuthorizationPolicies and for routes.

import type { Read } from "#engine";
import type { JWTRule } from "#objects";
import { jwtRulesOf, nobodysKeys, uriOf, type JwtRules, type KeySource, type WorkloadKey } from "#model";
import { outboundClusterName } from "#plan";
import { durationMsOf } from "./duration.ts";
import { durationOf, typed, type Message } from "./proto/api.ts";

export const jwtFilterName = "envoy.filters.http.jwt_authn";
/** Where in the filter's metadata the claims lie. */
export const jwtPayloadKey = "payload";

/** Claims that are lists written as one text, by RFC 8693 and by custom. */
const spaceDelimitedByDefault = ["scope", "permission"];
/** How long a proxy waits for keys, and for how long it uses them. Istio's values. */
const fetchTimeoutMs = 5_000;
const keysFreshMs = 5 * 60_000;

/** Parts of a listener that depend on JWT rules, for its origins as well. */
export function readJwt(read: Read, workload: WorkloadKey): JwtRules {
  return read(jwtRulesOf, workload);
}

/**
 * The filter, or none without rules.
 * @param atGateway routes may match on claims there: they are looked for again once the claims are known
 */
export function jwtFilters({ rules }: JwtRules, atGateway: boolean): Message[] {
  if (rules.length === 0) return [];
  const names = rules.map((_, at) => `origins-${at}`);
  const providers = rules.map(({ rule, keys }, at) => [names[at], provider(rule, keys, atGateway)] as const);
  const config = {
    providers: Object.fromEntries(providers),
    rules: [
      {
        match: { prefix: "/" },
        requires: requirement(
          rules.map(({ rule }) => rule),
          names,
        ),
      },
    ],
    // A preflight carries no token, and what it asks for is no secret.
    bypassCorsPreflight: true,
  };
  return [
    {
      name: jwtFilterName,
      typedConfig: typed("envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication", config),
    },
  ];
}

/**
 * With one rule: its token or none. With several: a token of one of them; or no token that any of them finds invalid, which
 * the first part spares tokens that several rules would look for in the same place.
 */
function requirement(rules: readonly JWTRule[], names: readonly string[]): Message {
  const each = names.map((providerName, at) => orMissing(rules[at], providerName));
  const [only] = each;
  if (each.length === 1 && only !== undefined) return only;
  const anyToken = names.map((providerName) => ({ providerName }));
  return { requiresAny: { requirements: [...anyToken, { requiresAll: { requirements: each } }] } };
}

function orMissing(rule: JWTRule | undefined, providerName: string): Message {
  if (rule?.presence === "REQUIRED") return { providerName };
  return { requiresAny: { requirements: [{ providerName }, { allowMissing: {} }] } };
}

function provider(rule: JWTRule, keys: KeySource, atGateway: boolean): Message {
  return {
    ...(rule.issuer === undefined ? {} : { issuer: rule.issuer }),
    audiences: rule.audiences ?? [],
    ...keySource(rule, keys),
    forward: rule.forwardOriginalToken === true,
    ...locations(rule),
    ...(rule.outputPayloadToHeader === undefined ? {} : { forwardPayloadHeader: rule.outputPayloadToHeader }),
    payloadInMetadata: jwtPayloadKey,
    normalizePayloadInMetadata: {
      spaceDelimitedClaims: rule.spaceDelimitedClaims ?? spaceDelimitedByDefault,
    },
    claimToHeaders: (rule.outputClaimToHeaders ?? []).map(({ header, claim }) => ({
      headerName: header,
      claimName: claim,
    })),
    ...(atGateway ? { clearRouteCache: true } : {}),
  };
}

/** Without any, Envoy looks where Istio does: the bearer token of Authorization, and the parameter `access_token`. */
function locations({ fromHeaders = [], fromParams = [], fromCookies = [] }: JWTRule): Message {
  return {
    fromHeaders: fromHeaders.map(({ name, prefix = "" }) => ({ name, valuePrefix: prefix })),
    fromParams,
    fromCookies,
  };
}

function keySource(rule: JWTRule, keys: KeySource): Message {
  if (keys.kind !== "service")
    return { localJwks: { inlineString: keys.kind === "inline" ? keys.jwks : nobodysKeys } };
  const timeout = durationOf(rule.timeout === undefined ? fetchTimeoutMs : durationMsOf(rule.timeout));
  return {
    remoteJwks: {
      httpUri: { uri: uriOf(rule), cluster: outboundClusterName(keys.port, "", keys.host), timeout },
      cacheDuration: durationOf(keysFreshMs),
    },
  };
}
