// What Istio's webhook checks of an AuthorizationPolicy beyond its schema.

import type {
  AuthorizationCondition,
  AuthorizationOperation,
  AuthorizationPolicySpec,
  AuthorizationRule,
  AuthorizationSource,
} from "../authorization-policy.ts";
import {
  conditionFault,
  emptyFault,
  firstFault,
  pathTemplateFault,
  portTextFault,
  serviceAccountsFault,
  trustDomainValueFault,
} from "../policy-values.ts";
import { eachOf, pathOf, type Report } from "../report.ts";
import { cidrFault } from "../values.ts";
import { checkTargets } from "./selectors.ts";

export function checkAuthorizationPolicy(spec: AuthorizationPolicySpec, report: Report): void {
  checkTargets(spec, "spec", report);
  const action = spec.action ?? "ALLOW";
  if ((action === "CUSTOM" || action === "DENY") && spec.rules === undefined)
    report.add(
      "MZ0202",
      "spec.rules",
      `action ${action} without rules never applies: add an empty rule {} to apply it to every request`,
    );
  if (action === "CUSTOM" && spec.rules !== undefined && !spec.provider?.name)
    report.add("MZ0202", "spec.provider.name", "action CUSTOM needs the name of a provider");
  if (spec.provider !== undefined && action !== "CUSTOM")
    report.add("MZ0203", "spec.provider", `a provider is for action CUSTOM, not ${action}`);
  eachOf(spec.rules, "spec.rules", (rule, path) => {
    if (action === "CUSTOM") checkCustom(rule, path, report);
    checkRule(rule, path, report);
    if (action === "DENY" && deniesAllTcp(rule))
      report.add(
        "MZ0254",
        path,
        "the rule has HTTP attributes alone, which TCP traffic cannot show: it denies all TCP traffic; name the port too",
      );
  });
}

const identityFields = [
  "namespaces",
  "notNamespaces",
  "serviceAccounts",
  "notServiceAccounts",
  "trustDomains",
  "notTrustDomains",
  "principals",
  "notPrincipals",
  "requestPrincipals",
  "notRequestPrincipals",
] as const;
const identityKeys = new Set([
  "source.namespace",
  "source.serviceAccount",
  "source.trustDomain",
  "source.principal",
]);

/** The provider is asked before identities are known. */
function checkCustom(rule: AuthorizationRule, path: string, report: Report): void {
  eachOf(rule.from, pathOf(path, "from"), ({ source }, at) => {
    for (const field of identityFields)
      if (valuesOf(source, field)?.length)
        report.add("MZ0205", pathOf(at, "source", field), `${field} is not for action CUSTOM`);
  });
  eachOf(rule.when, pathOf(path, "when"), ({ key }, at) => {
    if (identityKeys.has(key) || key?.startsWith("request.auth."))
      report.add("MZ0205", pathOf(at, "key"), `${key} is not for action CUSTOM`);
  });
}

function valuesOf(object: object | undefined, field: string): readonly string[] | undefined {
  return (object as Readonly<Record<string, readonly string[]>> | undefined)?.[field];
}

function checkRule(rule: AuthorizationRule, path: string, report: Report): void {
  for (const field of ["from", "to"] as const)
    if (rule[field]?.length === 0)
      report.add("MZ0202", pathOf(path, field), `${field} is empty: remove it, or say what it is for`);
  eachOf(rule.from, pathOf(path, "from"), ({ source }, at) => {
    if (source === undefined) report.add("MZ0202", pathOf(at, "source"), "the source is missing");
    else checkSource(source, pathOf(at, "source"), report);
  });
  eachOf(rule.to, pathOf(path, "to"), ({ operation }, at) => {
    if (operation === undefined) report.add("MZ0202", pathOf(at, "operation"), "the operation is missing");
    else checkOperation(operation, pathOf(at, "operation"), report);
  });
  eachOf(rule.when, pathOf(path, "when"), (condition, at) => checkCondition(condition, at, report));
}

const sourceFields = [
  "principals",
  "requestPrincipals",
  "namespaces",
  "serviceAccounts",
  "trustDomains",
  "ipBlocks",
  "remoteIpBlocks",
];
const operationFields = ["hosts", "ports", "methods", "paths"];
const negated = (field: string) => `not${field[0]?.toUpperCase()}${field.slice(1)}`;
const withNegated = (fields: readonly string[]) => fields.flatMap((field) => [field, negated(field)]);

function checkSource(source: AuthorizationSource, path: string, report: Report): void {
  const fields = withNegated(sourceFields);
  if (!fields.some((field) => valuesOf(source, field)?.length))
    report.add("MZ0202", path, "the source is empty: remove it, or say who is meant");
  const accounts = withNegated(["serviceAccounts"]).some((field) => valuesOf(source, field)?.length);
  if (accounts && withNegated(["principals", "namespaces"]).some((field) => valuesOf(source, field)?.length))
    report.add("MZ0203", path, "serviceAccounts stand beside principals or namespaces: keep one kind");
  for (const field of fields) {
    const values = valuesOf(source, field);
    const at = pathOf(path, field);
    if (/serviceAccounts$/i.test(field)) report.value(at, serviceAccountsFault(values));
    else if (/trustDomains$/i.test(field)) report.value(at, firstFault(values, trustDomainValueFault));
    else
      report.value(
        at,
        firstFault(
          values,
          (value) => emptyFault(value) ?? (/ipBlocks$/i.test(field) ? cidrFault(value) : undefined),
        ),
      );
  }
}

function checkOperation(operation: AuthorizationOperation, path: string, report: Report): void {
  const fields = withNegated(operationFields);
  if (!fields.some((field) => valuesOf(operation, field)?.length))
    report.add("MZ0202", path, "the operation is empty: remove it, or say what is meant");
  for (const field of fields) {
    const check = /ports$/i.test(field)
      ? portTextFault
      : /paths$/i.test(field)
        ? pathTemplateFault
        : () => undefined;
    report.value(
      pathOf(path, field),
      firstFault(valuesOf(operation, field), (value) => emptyFault(value) ?? check(value)),
    );
  }
}

function checkCondition(
  { key, values, notValues }: AuthorizationCondition,
  path: string,
  report: Report,
): void {
  if (!key) report.add("MZ0202", pathOf(path, "key"), "the key is missing");
  else if (!values?.length && !notValues?.length)
    report.add("MZ0202", path, `${key} is compared with nothing: set values or notValues`);
  else {
    report.value(pathOf(path, "values"), conditionFault(key, values));
    if (notValues !== undefined) report.value(pathOf(path, "notValues"), conditionFault(key, notValues));
  }
}

const tcpSourceFields = withNegated([
  "principals",
  "namespaces",
  "ipBlocks",
  "remoteIpBlocks",
  "serviceAccounts",
]);

/** A DENY rule whose HTTP attributes cannot be seen applies, to be on the safe side. */
function deniesAllTcp(rule: AuthorizationRule): boolean {
  const sources = (rule.from ?? []).flatMap(({ source }) => (source === undefined ? [] : [source]));
  const operations = (rule.to ?? []).flatMap(({ operation }) => (operation === undefined ? [] : [operation]));
  const tcpSource = sources.some((source) =>
    tcpSourceFields.some((field) => valuesOf(source, field) !== undefined),
  );
  const tcpOperation = operations.some(
    (operation) => operation.ports !== undefined || operation.notPorts !== undefined,
  );
  if (operations.length > 0) return !tcpOperation;
  return sources.length > 0 && !tcpSource;
}
