// DestinationRules: which of them apply to a host for a client, and what they say together.

import { defineKeyedQuery, defineQuery, sameData, type Read } from "#engine";
import type { DestinationRule, Subset, TrafficPolicy } from "#objects";
import { namespaceOf } from "./core-kinds.ts";
import { isGenerated } from "./gateway-api/names.ts";
import { tlsRuleOf, tlsRulesOfHost } from "./gateway-api/policies.ts";
import { hostGroups, wildcardsOf } from "./hosts.ts";
import { localityLabels } from "./locality-labels.ts";
import { environmentOf, readMesh } from "./mesh.ts";
import { oldestFirst, selects, type Labels } from "./selectors.ts";
import { isExportedTo } from "./services.ts";
import { everything, tables } from "./tables.ts";

export interface RuleQuestion {
  /** The client's namespace. */
  readonly client: string;
  /** Those of the client's labels that rules ask for. */
  readonly labels: Labels;
  readonly host: string;
  readonly serviceNamespace: string;
}

/**
 * Row keys of the DestinationRules that apply, in the order in which they are merged. Istio looks into the client's
 * namespace, then the service's, then the root namespace, and stops at the first that has a rule for the host; in
 * each, the most specific host wins.
 */
export const rulesFor = defineKeyedQuery<RuleQuestion, readonly string[]>(
  "rulesFor",
  ({ client, labels, host, serviceNamespace }) =>
    `${host} ${serviceNamespace} ${client} ${Object.keys(labels).length === 0 ? "" : JSON.stringify(labels)}`,
  (read, question) => [...writtenRules(read, question), ...read(tlsRulesOfHost, question.host)],
  sameData,
  (read, key) =>
    read(namespacesWithRules, key.host).includes(key.client) ? key : { ...key, client: "", labels: {} },
);

/** Row keys of the rules that users wrote. */
function writtenRules(
  read: Read,
  { client, labels, host, serviceNamespace }: RuleQuestion,
): readonly string[] {
  const { clusterDomain, rootNamespace } = read(environmentOf, "");
  const byDefault = readMesh(read, "defaultDestinationRuleExportTo") ?? ["*"];
  const places =
    client === rootNamespace ? [serviceNamespace, client] : [client, serviceNamespace, rootNamespace];
  const levels = [hostGroups(host, clusterDomain), ...wildcardsOf(host).map((wildcard) => [wildcard])];
  for (const place of new Set(places)) {
    for (const groups of levels) {
      const rows = groups
        .flatMap((group) => read(tables.DestinationRule.by.host.members, group))
        .filter((row) => row.startsWith(`${place}/`))
        .flatMap((row) => read(tables.DestinationRule, row) ?? [])
        .filter((rule) => applies(rule, client, labels, byDefault));
      if (rows.length > 0) return mergeable(rows).map((rule) => `${place}/${rule.metadata.name}`);
    }
  }
  return [];
}

/** A rule by row key: one that a user wrote, or one that a BackendTLSPolicy comes to. */
function ruleRow(read: Read, key: string): DestinationRule | undefined {
  return isGenerated(key) ? read(tlsRuleOf, key) : read(tables.DestinationRule, key);
}

/**
 * The client namespaces for which other rules than everyone's may apply to a host: those that have a rule for it, and
 * those that a rule is exported to by name.
 */
export const namespacesWithRules = defineQuery<readonly string[]>(
  "namespacesWithRules",
  (read, host) => {
    const { clusterDomain } = read(environmentOf, "");
    const byDefault = readMesh(read, "defaultDestinationRuleExportTo") ?? ["*"];
    const groups = [...hostGroups(host, clusterDomain), ...wildcardsOf(host)];
    const rules = groups.flatMap((group) => read(tables.DestinationRule.by.host, group));
    const namespaces = rules.flatMap((rule) => {
      const given = rule.spec?.exportTo ?? [];
      return [namespaceOf(rule), ...(given.length === 0 ? byDefault : given)];
    });
    return [...new Set(namespaces)].toSorted();
  },
  sameData,
);

export interface MergedRule {
  readonly trafficPolicy: TrafficPolicy;
  readonly subsets: readonly Subset[];
}

export const noRule: MergedRule = { trafficPolicy: {}, subsets: [] };

/** What rules say together: row keys joined by ",". */
export const mergedRule = defineQuery<MergedRule>(
  "mergedRule",
  (read, rules) =>
    mergeRules(rules === "" ? [] : rules.split(",").flatMap((row) => ruleRow(read, row) ?? [])),
  sameData,
);

/** Only the subsets' names: a plan needs no more. */
export const subsetNames = defineQuery<readonly string[]>(
  "subsetNames",
  (read, rules) => read(mergedRule, rules).subsets.map(({ name }) => name),
  sameData,
);

/** Labels of the client that an order of failover names: of merged rules, row keys joined by ",". */
export const failoverLabelsOf = defineQuery<readonly string[]>(
  "failoverLabelsOf",
  (read, rules) => {
    const { trafficPolicy, subsets } = read(mergedRule, rules);
    return labelsOfFailover([trafficPolicy, ...subsets.flatMap((subset) => subset.trafficPolicy ?? [])]);
  },
  sameData,
);

/** The same of all rules that there are for a host, whoever they are for. */
export const failoverLabelsOfHost = defineQuery<readonly string[]>(
  "failoverLabelsOfHost",
  (read, host) => {
    const { clusterDomain } = read(environmentOf, "");
    const groups = [...hostGroups(host, clusterDomain), ...wildcardsOf(host)];
    return labelsOfFailover(
      groups.flatMap((group) => read(tables.DestinationRule.by.host, group)).flatMap(policiesOf),
    );
  },
  sameData,
);

export function policiesOf({ spec }: DestinationRule): readonly TrafficPolicy[] {
  return [
    spec?.trafficPolicy ?? {},
    ...(spec?.subsets ?? []).flatMap(({ trafficPolicy }) => trafficPolicy ?? []),
  ];
}

/** Labels of a client that any of the policies orders failover by; those of its place come with its locality. */
export function labelsOfFailover(policies: readonly TrafficPolicy[]): readonly string[] {
  const parts = policies.flatMap((policy) => [policy, ...(policy.portLevelSettings ?? [])]);
  const names = parts
    .flatMap(({ loadBalancer }) => [
      ...(loadBalancer?.localityLbSetting?.failoverPriority ?? []),
      ...(loadBalancer?.zoneAwareLbSetting?.failoverPriority ?? []),
    ])
    .filter((text) => !text.includes("=") && !localityLabels.includes(text));
  return [...new Set(names)].toSorted();
}

/** Labels that any rule of the mesh orders failover by. */
export const failoverLabels = defineQuery<readonly string[]>(
  "failoverLabels",
  (read) => labelsOfFailover(read(tables.DestinationRule.by.ordering, everything).flatMap(policiesOf)),
  sameData,
);

/** A credential of the cluster that TLS is originated with. */
export interface OriginatedCredential {
  readonly mode: "SIMPLE" | "MUTUAL";
  readonly credentialName: string;
}

/** The credentials that clients originate TLS with, under merged rules: row keys joined by ",". */
export const clientTlsOf = defineQuery<readonly OriginatedCredential[]>(
  "clientTlsOf",
  (read, rules) => {
    const { trafficPolicy, subsets } = read(mergedRule, rules);
    return credentialsIn([trafficPolicy, ...subsets.flatMap((subset) => subset.trafficPolicy ?? [])]);
  },
  sameData,
);

/** Whether any rule of a namespace names credentials for workloads that it selects: most have none. */
export const namespaceNamesCredentials = defineQuery<boolean>(
  "namespaceNamesCredentials",
  (read, namespace) => read(tables.DestinationRule.by.credential, namespace).length > 0,
);

/** The credentials that rules of a namespace name for the workloads that they select. */
export const selectedCredentials = defineKeyedQuery<
  { readonly namespace: string; readonly labels: Labels },
  readonly OriginatedCredential[]
>(
  "selectedCredentials",
  ({ namespace, labels }) => `${namespace} ${JSON.stringify(labels)}`,
  (read, { namespace, labels }) =>
    read(tables.DestinationRule.by.credential, namespace)
      .filter(({ spec }) => selects(spec?.workloadSelector?.matchLabels, labels))
      .flatMap((rule) => credentialsIn(policiesOf(rule))),
  sameData,
);

/** The credentials of traffic policies, in their order. */
export function credentialsIn(policies: readonly TrafficPolicy[]): readonly OriginatedCredential[] {
  return policies
    .flatMap((policy) => [policy, ...(policy.portLevelSettings ?? [])])
    .flatMap(({ tls }): readonly OriginatedCredential[] => {
      const { mode, credentialName = "" } = tls ?? {};
      return credentialName !== "" && (mode === "SIMPLE" || mode === "MUTUAL")
        ? [{ mode, credentialName }]
        : [];
    });
}

/** Whether the client's locality makes a difference under these rules. */
export const asksForLocality = defineQuery<boolean>("asksForLocality", (read, rules) => {
  const rule = read(mergedRule, rules);
  const policies = [rule.trafficPolicy, ...rule.subsets.map(({ trafficPolicy }) => trafficPolicy ?? {})];
  const parts = policies.flatMap((policy) => [policy, ...(policy.portLevelSettings ?? [])]);
  // Istio balances by locality where a rule says so, or where outlier detection makes failover possible.
  return parts.some(
    ({ outlierDetection, loadBalancer }) =>
      outlierDetection !== undefined ||
      loadBalancer?.localityLbSetting !== undefined ||
      loadBalancer?.zoneAwareLbSetting !== undefined,
  );
});

/** Later rules for the same host add subsets, and a traffic policy only when the earlier ones have none. */
function mergeRules(rules: readonly DestinationRule[]): MergedRule {
  const subsets = new Map<string, Subset>();
  for (const { spec } of rules) {
    for (const subset of spec?.subsets ?? []) if (!subsets.has(subset.name)) subsets.set(subset.name, subset);
  }
  const written = rules.filter(({ metadata }) => !isGenerated(metadata.name));
  const trafficPolicy = written.find(({ spec }) => spec?.trafficPolicy !== undefined)?.spec?.trafficPolicy;
  const policies = rules.flatMap((rule) => (written.includes(rule) ? [] : (rule.spec?.trafficPolicy ?? [])));
  return {
    trafficPolicy: policies.reduce(withTls, trafficPolicy ?? {}),
    subsets: [...subsets.values()],
  };
}

/** A BackendTLSPolicy says how a backend is spoken to, where the written rule leaves it open. */
function withTls(policy: TrafficPolicy, { tls, portLevelSettings = [] }: TrafficPolicy): TrafficPolicy {
  const own = policy.portLevelSettings ?? [];
  const named = new Set(own.flatMap((one) => (one.tls === undefined ? [] : [one.port?.number])));
  const added = portLevelSettings.filter(({ port }) => !named.has(port?.number));
  const merged = own.map((one) => {
    const more = added.find(({ port }) => port?.number === one.port?.number);
    return more === undefined ? one : { ...one, tls: more.tls };
  });
  const numbers = new Set(own.map(({ port }) => port?.number));
  const ports = [...merged, ...added.filter(({ port }) => !numbers.has(port?.number))];
  return {
    ...policy,
    ...(tls === undefined || policy.tls !== undefined ? {} : { tls }),
    ...(ports.length === 0 ? {} : { portLevelSettings: ports }),
  };
}

function applies(
  rule: DestinationRule,
  client: string,
  labels: Labels,
  byDefault: readonly string[],
): boolean {
  const own = namespaceOf(rule);
  const given = rule.spec?.exportTo;
  const exportTo = given === undefined || given.length === 0 ? byDefault : given;
  if (own !== client && !isExportedTo(exportTo, own, client)) return false;
  const selector = rule.spec?.workloadSelector;
  // A rule with a selector is for clients of its own namespace only.
  return selector === undefined || (own === client && selects(selector.matchLabels, labels));
}

/** Rules with a workload selector go first and alone; the others of equal `exportTo` are merged, oldest first. */
function mergeable(rows: readonly DestinationRule[]): DestinationRule[] {
  const ordered = rows.toSorted(oldestFirst);
  const selecting = ordered.find(({ spec }) => spec?.workloadSelector !== undefined);
  if (selecting !== undefined) return [selecting];
  const first = JSON.stringify(ordered[0]?.spec?.exportTo ?? []);
  return ordered.filter(({ spec }) => JSON.stringify(spec?.exportTo ?? []) === first);
}
