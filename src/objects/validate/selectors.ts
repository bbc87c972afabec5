// Whom a policy is for: workload selectors and references to targets; and to whom an object is exported.

import { isDnsLabel } from "../label-match.ts";
import { eachOf, pathOf, type Report } from "../report.ts";
import type { PolicyTargetReference, WorkloadSelector } from "../selector.ts";
import { show } from "../values.ts";

interface Targeted {
  readonly selector?: WorkloadSelector;
  readonly targetRef?: PolicyTargetReference;
  readonly targetRefs?: readonly PolicyTargetReference[];
}

/** Selector and references of a policy: at most one of them, each well-formed. */
export function checkTargets(spec: Targeted, path: string, report: Report): void {
  const set = [spec.selector, spec.targetRef, spec.targetRefs?.length ? spec.targetRefs : undefined];
  if (set.filter((value) => value !== undefined).length > 1)
    report.add(
      "MZ0203",
      path,
      "several of selector, targetRef and targetRefs are set: a policy has one kind of target",
    );
  checkSelectorLabels(
    spec.selector?.matchLabels,
    spec.selector !== undefined,
    pathOf(path, "selector"),
    report,
  );
  if (spec.targetRef !== undefined) checkTargetRef(spec.targetRef, pathOf(path, "targetRef"), report);
  eachOf(spec.targetRefs, pathOf(path, "targetRefs"), (reference, at) =>
    checkTargetRef(reference, at, report),
  );
}

/** An empty selector selects all workloads of the namespace, which is seldom meant. */
export function checkSelectorLabels(
  labels: Readonly<Record<string, string>> | undefined,
  present: boolean,
  path: string,
  report: Report,
): void {
  for (const [key, value] of Object.entries(labels ?? {})) {
    if (key === "") report.add("MZ0201", path, "a label key is empty");
    if (key.includes("*") || String(value).includes("*"))
      report.add(
        "MZ0205",
        path,
        `${show(`${key}=${value}`)} holds a wildcard: labels are compared as they are`,
      );
  }
  if (present && Object.keys(labels ?? {}).length === 0)
    report.add("MZ0254", path, "the selector has no labels, so it selects every workload of the namespace");
}

const targetKinds = [
  ["", "Service"],
  ["core", "Service"],
  ["networking.istio.io", "ServiceEntry"],
  ["gateway.networking.k8s.io", "Gateway"],
  ["gateway.networking.k8s.io", "GatewayClass"],
] as const;

function checkTargetRef(reference: PolicyTargetReference, path: string, report: Report): void {
  if (!reference.name) report.add("MZ0202", pathOf(path, "name"), "the target has no name");
  if (reference.namespace)
    report.add("MZ0205", pathOf(path, "namespace"), "a policy can only name targets of its own namespace");
  if (!targetKinds.some(([group, kind]) => group === (reference.group ?? "") && kind === reference.kind))
    report.add(
      "MZ0205",
      path,
      `${reference.group ? `${reference.group}/` : ""}${reference.kind} cannot be a target: expected Service, ServiceEntry, Gateway or GatewayClass`,
    );
}

interface ExportRules {
  readonly namespace: string;
  /** A ServiceEntry may be hidden from everyone by `~`. */
  readonly mayHide?: boolean;
  /** A DestinationRule with a workload selector stays in its namespace. */
  readonly ownNamespaceOnly?: boolean;
}

/** `.` is the own namespace, `*` everyone, `~` no one. */
export function checkExportTo(
  exportTo: readonly string[] | undefined,
  path: string,
  rules: ExportRules,
  report: Report,
): void {
  if (exportTo === undefined || exportTo.length === 0) return;
  const seen = new Set<string>();
  eachOf(exportTo, path, (entry, at) => {
    const target = entry === "." ? rules.namespace : entry;
    if (seen.has(target))
      report.add("MZ0204", at, `${show(entry)} stands twice, as such or as the own namespace`);
    const good = target === "*" || isDnsLabel(target) || (target === "~" && rules.mayHide === true);
    if (!good) report.add("MZ0201", at, `${show(entry)} is no namespace: expected ., * or a name`);
    seen.add(target);
  });
  if (exportTo.length > 1 && seen.has("*"))
    report.add("MZ0203", path, "* exports to everyone: other entries beside it contradict it");
  if (exportTo.length > 1 && seen.has("~"))
    report.add("MZ0203", path, "~ exports to no one: other entries beside it contradict it");
  if (rules.ownNamespaceOnly === true && (seen.size !== 1 || !seen.has(rules.namespace)))
    report.add("MZ0203", path, "a rule with a workload selector is for its own namespace alone: expected .");
}
