// Labels: whether they select, and whether they are well-formed.

import type { LabelSelectorObject } from "./gateway-api.ts";

type Labels = Readonly<Record<string, string>>;

/** Whether every label of `part` stands in `of` with the same value. No labels are a subset of any. */
export function labelsSubsetOf(part: Labels | undefined, of: Labels | undefined): boolean {
  const entries = Object.entries(part ?? {});
  if (entries.length === 0) return true;
  return of !== undefined && entries.every(([key, value]) => Object.hasOwn(of, key) && of[key] === value);
}

/** Whether a selector of a Service selects a workload: an empty one selects nothing, unlike a policy's. */
export function serviceSelects(selector: Labels | undefined, workload: Labels | undefined): boolean {
  if (Object.keys(selector ?? {}).length === 0) return false;
  return Object.keys(workload ?? {}).length > 0 && labelsSubsetOf(selector, workload);
}

/** Kubernetes' label selector with expressions. An empty or absent one selects everything. */
export function selectorMatches(
  selector: LabelSelectorObject | undefined,
  labels: Labels | undefined,
): boolean {
  if (!labelsSubsetOf(selector?.matchLabels, labels)) return false;
  return (selector?.matchExpressions ?? []).every(({ key, operator, values }) => {
    const value = labels !== undefined && Object.hasOwn(labels, key) ? labels[key] : undefined;
    switch (operator) {
      case "In":
        return value !== undefined && (values ?? []).includes(value);
      case "NotIn":
        return value === undefined || !(values ?? []).includes(value);
      case "Exists":
        return value !== undefined;
      case "DoesNotExist":
        return value === undefined;
      default:
        return false;
    }
  });
}

/** `app=a,version`, sorted by key; a label without a value is its key. */
export function renderLabels(labels: Labels | undefined): string {
  return Object.entries(labels ?? {})
    .toSorted(([one], [other]) => (one < other ? -1 : one > other ? 1 : 0))
    .map(([key, value]) => (value === "" ? key : `${key}=${value}`))
    .join(",");
}

const namePattern = /^[A-Za-z0-9](?:[-_.A-Za-z0-9]*[A-Za-z0-9])?$/;
const dnsLabelPattern = /^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?$/;
const anyCaseLabelPattern = /^[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?$/;

/** A label of a DNS name by RFC 1123; Istio admits capitals here. At most 63 characters. */
export function isDnsLabel(text: string): boolean {
  return text.length <= 63 && anyCaseLabelPattern.test(text);
}

/** The same in lower case alone, as Kubernetes names namespaces. */
export function isLowerDnsLabel(text: string): boolean {
  return text.length <= 63 && dnsLabelPattern.test(text);
}

/** What is wrong with labels, one sentence each; none when they are well-formed. */
export function labelProblems(labels: Labels | undefined): string[] {
  return Object.entries(labels ?? {}).flatMap(([key, value]) => {
    const problems: string[] = [];
    if (!isLabelKey(key)) problems.push(`the label key ${JSON.stringify(key)} is not [dns prefix/]name`);
    if (typeof value !== "string" || value.length > 63 || (value !== "" && !namePattern.test(value)))
      problems.push(
        `the label value ${JSON.stringify(value)} must be at most 63 letters, digits and inner - _ .`,
      );
    return problems;
  });
}

function isLabelKey(key: string): boolean {
  const parts = key.split("/");
  if (parts.length > 2) return false;
  const name = parts.at(-1) ?? "";
  if (name.length > 63 || !namePattern.test(name)) return false;
  if (parts.length === 1) return true;
  const prefix = parts[0] ?? "";
  return prefix !== "" && prefix.length <= 253 && prefix.split(".").every((label) => isLowerDnsLabel(label));
}
