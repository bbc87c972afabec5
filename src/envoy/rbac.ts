// AuthorizationPolicy as Envoy's RBAC filters. Each rule becomes one RBAC policy: its `to` and what it says about the
// destination are permissions, its `from` and what it says about the caller are principals.
//
// A TCP chain cannot see HTTP fields. There Istio leaves a denying rule wider and drops an allowing one, so that what
// cannot be checked is never the reason to let somebody in; a value that cannot be understood is treated alike.

import type { AuthorizationPolicy, AuthorizationRule } from "#objects";
import { typed, type Message } from "./proto/api.ts";
import { matcherFor, type RbacSide, type ValueMatcher } from "./rbac-matcher.ts";
import { withAliases } from "./trust-domain.ts";
import {
  customPolicyPrefix,
  customShadowPrefix,
  httpExtAuthz,
  tcpExtAuthz,
  type ExtAuthzProvider,
} from "./ext-authz.ts";

export interface RbacInput {
  /** All policies that apply to the workload, in the order of their age. */
  readonly policies: readonly AuthorizationPolicy[];
  /** The trust domain and its aliases: a principal of one of them is read as one of each. */
  readonly trustDomains: readonly string[];
  /** The services that CUSTOM policies may ask, by the name of their provider. */
  readonly providers?: Readonly<Record<string, ExtAuthzProvider>>;
}

type Protocol = "http" | "tcp";
type Action = "ALLOW" | "DENY" | "LOG";

/** One condition of a rule: any of `values`, none of `notValues`. */
interface Condition {
  readonly key: string;
  readonly values: readonly string[];
  readonly notValues: readonly string[];
}

const never: Message = { permissions: [{ notRule: { any: true } }], principals: [{ notId: { any: true } }] };
/** Beside a CUSTOM policy whose provider cannot be asked: it must not become an open door. */
const badCustomSuffix = "-deny-due-to-bad-CUSTOM-action";

/** The HTTP filters of the policies, in the order in which Istio has them decide: CUSTOM, AUDIT, DENY, ALLOW. */
export function httpRbacFilters(input: RbacInput): Message[] {
  const custom = customConfigs(input, "http").flatMap(({ config, provider, name }) => [
    httpRbac(config),
    ...(provider === undefined ? [] : [httpExtAuthz(name, provider)]),
  ]);
  return [...custom, ...rbacConfigs(input, "http").map(httpRbac)];
}

/** The network filters of the policies for a TCP chain. */
export function tcpRbacFilters(input: RbacInput): Message[] {
  const custom = customConfigs(input, "tcp").flatMap(({ config, provider, name }) => {
    if (provider === undefined) return [tcpRbac(config)];
    const asks = tcpExtAuthz(name, provider);
    return asks === undefined ? [] : [tcpRbac(config), asks];
  });
  return [...custom, ...rbacConfigs(input, "tcp").map(tcpRbac)];
}

function httpRbac(config: Message): Message {
  return {
    name: "envoy.filters.http.rbac",
    typedConfig: typed("envoy.extensions.filters.http.rbac.v3.RBAC", config),
  };
}

function tcpRbac(config: Message): Message {
  return {
    name: "envoy.filters.network.rbac",
    typedConfig: typed("envoy.extensions.filters.network.rbac.v3.RBAC", { ...config, statPrefix: "tcp." }),
  };
}

interface CustomConfig {
  readonly config: Message;
  readonly name: string;
  /** Undefined where nobody can be asked: the config denies. */
  readonly provider?: ExtAuthzProvider;
}

/** One provider a workload, as Istio has it by default; with several, or an unknown one, what matches is denied. */
function customConfigs(input: RbacInput, protocol: Protocol): CustomConfig[] {
  const custom = withAction(input, "CUSTOM");
  const names = [...new Set(custom.map(providerOf))].toSorted();
  return names.map((name) => {
    const own = custom.filter((policy) => providerOf(policy) === name);
    const provider = names.length === 1 ? input.providers?.[name] : undefined;
    const rename = (policy: string): string =>
      customPolicyPrefix(name) + policy + (provider === undefined ? badCustomSuffix : "");
    const rules = ruleSet(own, input.trustDomains, protocol, "DENY", rename);
    return provider === undefined
      ? { name, config: { rules } }
      : { name, provider, config: { shadowRules: rules, shadowRulesStatPrefix: customShadowPrefix } };
  });
}

function providerOf({ spec }: AuthorizationPolicy): string {
  return spec?.provider?.name ?? "";
}

function rbacConfigs(input: RbacInput, protocol: Protocol): Message[] {
  const configs: (Message | undefined)[] = [
    rbacConfig(withAction(input, "AUDIT"), input.trustDomains, protocol, "LOG"),
    rbacConfig(withAction(input, "DENY"), input.trustDomains, protocol, "DENY"),
    rbacConfig(withAction(input, "ALLOW"), input.trustDomains, protocol, "ALLOW"),
  ];
  return configs.filter((config) => config !== undefined);
}

function withAction(input: RbacInput, action: string): AuthorizationPolicy[] {
  return input.policies.filter((policy) => (policy.spec?.action ?? "ALLOW") === action);
}

/** Policies annotated as dry runs only count what they would have done. */
function rbacConfig(
  policies: readonly AuthorizationPolicy[],
  trustDomains: readonly string[],
  protocol: Protocol,
  action: Action,
): Message | undefined {
  if (policies.length === 0) return undefined;
  const enforced = policies.filter((policy) => !isDryRun(policy));
  const shadow = policies.filter(isDryRun);
  return {
    ...(enforced.length > 0 ? { rules: ruleSet(enforced, trustDomains, protocol, action) } : {}),
    ...(shadow.length > 0
      ? {
          shadowRules: ruleSet(shadow, trustDomains, protocol, action),
          shadowRulesStatPrefix: action === "ALLOW" ? "istio_dry_run_allow_" : "istio_dry_run_deny_",
        }
      : {}),
  };
}

function ruleSet(
  policies: readonly AuthorizationPolicy[],
  trustDomains: readonly string[],
  protocol: Protocol,
  action: Action,
  rename: (policy: string) => string = (policy) => policy,
): Message {
  const built: [string, Message][] = [];
  for (const policy of policies) {
    const { namespace = "", name } = policy.metadata;
    const nameOf = (at: number): string => rename(`ns[${namespace}]-policy[${name}]-rule[${at}]`);
    const rules = policy.spec?.rules ?? [];
    // No rule matches nothing: an ALLOW policy without rules denies everything, a DENY policy nothing.
    if (rules.length === 0) built.push([nameOf(0), never]);
    rules.forEach((rule, at) => {
      const message = rbacPolicy(rule ?? {}, namespace, trustDomains, protocol, action);
      if (message !== undefined && rule !== null) built.push([nameOf(at), message]);
    });
  }
  return { action, policies: Object.fromEntries(built) };
}

/** One rule, or undefined when an allowing rule says something that cannot be checked here. */
function rbacPolicy(
  rule: AuthorizationRule,
  policyNamespace: string,
  trustDomains: readonly string[],
  protocol: Protocol,
  action: Action,
): Message | undefined {
  const whens = (rule.when ?? []).map(({ key, values = [], notValues = [] }) =>
    translated({ key, values, notValues }, trustDomains),
  );
  if (whens.some(({ key }) => matcherFor(key, policyNamespace) === undefined)) return undefined;
  const whenOf = (side: RbacSide): Condition[] =>
    whens.filter(({ key }) => matcherFor(key, policyNamespace)?.side === side);
  const sources = rule.from === undefined || rule.from.length === 0 ? [undefined] : rule.from;
  const operations = rule.to === undefined || rule.to.length === 0 ? [undefined] : rule.to;
  const build = (list: readonly Condition[]): Message[] | undefined =>
    conditionMessages(list, policyNamespace, protocol, action);
  const principals = sources.map((from) =>
    allOf("principal", build([...sourceConditions(from, trustDomains), ...whenOf("principal")])),
  );
  const permissions = operations.map((to) =>
    allOf("permission", build([...operationConditions(to), ...whenOf("permission")])),
  );
  if (principals.includes(undefined) || permissions.includes(undefined)) return undefined;
  return { permissions, principals };
}

function sourceConditions(
  from: NonNullable<AuthorizationRule["from"]>[number] | undefined,
  trustDomains: readonly string[],
): Condition[] {
  const source = from?.source ?? {};
  return conditions([
    ["source.principal", source.principals, source.notPrincipals],
    ["request.auth.principal", source.requestPrincipals, source.notRequestPrincipals],
    ["source.serviceAccount", source.serviceAccounts, source.notServiceAccounts],
    ["source.trustDomain", source.trustDomains, source.notTrustDomains],
    ["source.namespace", source.namespaces, source.notNamespaces],
    ["remote.ip", source.remoteIpBlocks, source.notRemoteIpBlocks],
    ["source.ip", source.ipBlocks, source.notIpBlocks],
  ]).map((condition) => translated(condition, trustDomains));
}

function operationConditions(to: NonNullable<AuthorizationRule["to"]>[number] | undefined): Condition[] {
  const operation = to?.operation ?? {};
  return conditions([
    ["request.host", operation.hosts, operation.notHosts],
    ["request.method", operation.methods, operation.notMethods],
    ["request.path", operation.paths, operation.notPaths],
    ["destination.port", operation.ports, operation.notPorts],
  ]);
}

function conditions(
  list: readonly (readonly [string, readonly string[] | undefined, readonly string[] | undefined])[],
): Condition[] {
  return list
    .map(([key, values = [], notValues = []]) => ({ key, values, notValues }))
    .filter(({ values, notValues }) => values.length > 0 || notValues.length > 0);
}

function translated(condition: Condition, trustDomains: readonly string[]): Condition {
  const { key, values, notValues } = condition;
  return {
    key,
    values: withAliases(key, values, trustDomains),
    notValues: withAliases(key, notValues, trustDomains),
  };
}

/** What all conditions demand together; undefined when an allowing rule must be dropped. */
function conditionMessages(
  list: readonly Condition[],
  policyNamespace: string,
  protocol: Protocol,
  action: Action,
): Message[] | undefined {
  const messages: Message[] = [];
  for (const { key, values, notValues } of list) {
    const matcher = matcherFor(key, policyNamespace);
    if (matcher === undefined) return undefined;
    for (const [given, negated] of [
      [values, false],
      [notValues, true],
    ] as const) {
      if (given.length === 0) continue;
      const matched = anyOf(matcher, given, protocol);
      if (!matched.complete && action === "ALLOW") return undefined;
      if (matched.message === undefined) continue;
      messages.push(negated ? negation(matcher.side, matched.message) : matched.message);
    }
  }
  return messages;
}

function anyOf(
  matcher: ValueMatcher,
  values: readonly string[],
  protocol: Protocol,
): { readonly message: Message | undefined; readonly complete: boolean } {
  if (matcher.httpOnly && protocol === "tcp") return { message: undefined, complete: false };
  if (matcher.kind === "together") return { message: matcher.match(values), complete: true };
  const messages = values.map((value) => matcher.match(value));
  const known = messages.filter((message) => message !== undefined);
  const message =
    known.length === 0
      ? undefined
      : matcher.side === "principal"
        ? { orIds: { ids: known } }
        : { orRules: { rules: known } };
  return { message, complete: known.length === messages.length };
}

function negation(side: RbacSide, message: Message): Message {
  return side === "principal" ? { notId: message } : { notRule: message };
}

function allOf(side: RbacSide, messages: readonly Message[] | undefined): Message | undefined {
  if (messages === undefined) return undefined;
  const parts = messages.length === 0 ? [{ any: true }] : messages;
  return side === "principal" ? { andIds: { ids: parts } } : { andRules: { rules: parts } };
}

function isDryRun(policy: AuthorizationPolicy): boolean {
  const value = policy.metadata.annotations?.["istio.io/dry-run"];
  return value !== undefined && ["1", "t", "T", "true", "TRUE", "True"].includes(value);
}
