// What every object of Istio's API owes its metadata.

import { labelProblems } from "../label-match.ts";
import { annotations } from "../labels.ts";
import type { KubeObject } from "../object.ts";
import type { Report } from "../report.ts";
import { show } from "../values.ts";

// Istio marks with these what it makes itself; set by a user they would lend rights.
const reservedAnnotations = ["internal.istio.io/parent-namespace", "internal.istio.io/parents"];
// Istio's own way to test a refusing webhook.
const alwaysReject = "internal.istio.io/webhook-always-reject";

export function checkMetadata(object: KubeObject, report: Report): void {
  const given = object.metadata.annotations ?? {};
  for (const text of labelProblems(object.metadata.labels)) report.add("MZ0201", "metadata.labels", text);
  for (const name of [...reservedAnnotations, alwaysReject])
    if (given[name] !== undefined)
      report.add(
        "MZ0205",
        `metadata.annotations[${show(name)}]`,
        `${name} is reserved for the control plane`,
      );
  checkDryRun(object, given[annotations.dryRun], report);
}

const booleans = new Set(["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"]);

function checkDryRun(object: KubeObject, value: string | undefined, report: Report): void {
  if (value === undefined) return;
  const path = `metadata.annotations[${show(annotations.dryRun)}]`;
  if (object.kind !== "AuthorizationPolicy") {
    report.add("MZ0205", path, `${annotations.dryRun} is for AuthorizationPolicy only`);
    return;
  }
  const action = (object.spec as { readonly action?: string } | undefined)?.action ?? "ALLOW";
  if (action !== "ALLOW" && action !== "DENY")
    report.add("MZ0205", path, `dry run is for the actions ALLOW and DENY, not ${action}`);
  else if (!booleans.has(value)) report.add("MZ0201", path, `${show(value)} is neither true nor false`);
}
