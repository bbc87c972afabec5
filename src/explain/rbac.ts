// What an Envoy RBAC policy says of a call.

import type { Call } from "./call.ts";
import { inRange } from "./cidr.ts";
import { claimsMatch } from "./jwt.ts";
import { headerValue, stringMatches } from "./route.ts";
import type { CidrRange, HeaderMatcher, MetadataMatcher, StringMatcher } from "./shapes.ts";

export type Verdict = { readonly kind: "allow" } | { readonly kind: "deny"; readonly by: string };

interface Rules {
  readonly action?: string;
  readonly policies?: Readonly<Record<string, Policy>>;
}

interface Policy {
  readonly permissions?: readonly Permission[];
  readonly principals?: readonly Principal[];
}

interface Permission {
  readonly any?: boolean;
  readonly andRules?: { readonly rules?: readonly Permission[] };
  readonly orRules?: { readonly rules?: readonly Permission[] };
  readonly notRule?: Permission;
  readonly header?: HeaderMatcher;
  readonly urlPath?: { readonly path?: StringMatcher };
  readonly destinationIp?: CidrRange;
  readonly destinationPort?: number;
  readonly requestedServerName?: StringMatcher;
}

interface Principal {
  readonly any?: boolean;
  readonly andIds?: { readonly ids?: readonly Principal[] };
  readonly orIds?: { readonly ids?: readonly Principal[] };
  readonly notId?: Principal;
  readonly metadata?: MetadataMatcher;
  readonly authenticated?: { readonly principalName?: StringMatcher };
  readonly directRemoteIp?: CidrRange;
  readonly remoteIp?: CidrRange;
  readonly sourceIp?: CidrRange;
  readonly header?: HeaderMatcher;
}

/** Absent rules let everything pass; ALLOW needs one policy that matches, DENY none. LOG never denies. */
export function rbacVerdict(rules: unknown, call: Call): Verdict {
  if (rules === undefined) return { kind: "allow" };
  const { action = "ALLOW", policies = {} } = rules as Rules;
  const matched = Object.entries(policies).find(([, policy]) => policyMatches(policy, call))?.[0];
  if (action === "DENY" && matched !== undefined) return { kind: "deny", by: matched };
  if (action === "ALLOW" && matched === undefined) return { kind: "deny", by: "no ALLOW policy matching" };
  return { kind: "allow" };
}

function policyMatches(policy: Policy, call: Call): boolean {
  return (
    (policy.permissions ?? []).some((permission) => permissionHolds(permission, call)) &&
    (policy.principals ?? []).some((principal) => principalHolds(principal, call))
  );
}

function permissionHolds(permission: Permission, call: Call): boolean {
  if (permission.any === true) return true;
  if (permission.andRules)
    return (permission.andRules.rules ?? []).every((rule) => permissionHolds(rule, call));
  if (permission.orRules) return (permission.orRules.rules ?? []).some((rule) => permissionHolds(rule, call));
  if (permission.notRule) return !permissionHolds(permission.notRule, call);
  if (permission.header) return headerHolds(permission.header, call);
  if (permission.urlPath) return stringMatches(permission.urlPath.path ?? {}, call.path.split("?")[0] ?? "");
  if (permission.destinationIp) return inRange(call.address, permission.destinationIp);
  if (permission.requestedServerName) return stringMatches(permission.requestedServerName, call.sni);
  return permission.destinationPort === call.port;
}

function principalHolds(principal: Principal, call: Call): boolean {
  if (principal.any === true) return true;
  if (principal.andIds) return (principal.andIds.ids ?? []).every((id) => principalHolds(id, call));
  if (principal.orIds) return (principal.orIds.ids ?? []).some((id) => principalHolds(id, call));
  if (principal.notId) return !principalHolds(principal.notId, call);
  if (principal.header) return headerHolds(principal.header, call);
  if (principal.authenticated) {
    if (call.principal === "") return false;
    const name = principal.authenticated.principalName;
    return name === undefined || stringMatches(name, call.principal);
  }
  if (principal.metadata) return claimsMatch(principal.metadata, call.claims ?? {});
  const range = principal.directRemoteIp ?? principal.remoteIp ?? principal.sourceIp;
  return range !== undefined && inRange(call.sourceAddress, range);
}

function headerHolds(matcher: HeaderMatcher, call: Call): boolean {
  const value = headerValue(matcher.name, call);
  const holds =
    matcher.stringMatch === undefined
      ? (value !== undefined) === (matcher.presentMatch ?? true)
      : value !== undefined && stringMatches(matcher.stringMatch, value);
  return holds !== (matcher.invertMatch === true);
}
