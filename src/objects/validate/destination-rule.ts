// What Istio's webhook checks of a DestinationRule beyond its schema.

import type { DestinationRuleSpec } from "../destination-rule.ts";
import { isDnsLabel, labelProblems } from "../label-match.ts";
import { eachOf, pathOf, type Report } from "../report.ts";
import { show, wildcardHostFault } from "../values.ts";
import { checkExportTo, checkSelectorLabels } from "./selectors.ts";
import { checkTrafficPolicy } from "./traffic-policy.ts";

export function checkDestinationRule(spec: DestinationRuleSpec, namespace: string, report: Report): void {
  report.value("spec.host", wildcardHostFault(spec.host ?? ""));
  checkTrafficPolicy(spec.trafficPolicy, namespace, "spec.trafficPolicy", report);
  const seen = new Set<string>();
  eachOf(spec.subsets, "spec.subsets", (subset, path) => {
    const name = subset.name ?? "";
    if (seen.has(name)) report.add("MZ0204", pathOf(path, "name"), `the subset ${show(name)} stands twice`);
    seen.add(name);
    if (!isDnsLabel(name))
      report.add(
        "MZ0201",
        pathOf(path, "name"),
        `${show(name)} is no name of a subset: expected at most 63 letters, digits and inner hyphens`,
      );
    for (const text of labelProblems(subset.labels)) report.add("MZ0201", pathOf(path, "labels"), text);
    checkTrafficPolicy(subset.trafficPolicy, namespace, pathOf(path, "trafficPolicy"), report);
  });
  const selects = spec.workloadSelector !== undefined;
  checkExportTo(spec.exportTo, "spec.exportTo", { namespace, ownNamespaceOnly: selects }, report);
  checkSelectorLabels(spec.workloadSelector?.matchLabels, selects, "spec.workloadSelector", report);
}
