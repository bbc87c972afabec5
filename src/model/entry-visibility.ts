// How widely ServiceEntries of a namespace may be seen, by MeshConfig's serviceEntryVisibility. It narrows what `exportTo` says and
// widens nothing. Sidecars and gateways heed it where `applyToSidecars` says so, as in Istio: without, it is for ambient proxies.

import { defineQuery, type Read } from "#engine";
import { selectorMatches, type LabelSelectorObject, type ServiceEntryVisibilityPolicy } from "#objects";
import { readMesh } from "./mesh.ts";
import { tables } from "./tables.ts";

type Visibility = "none" | "namespace" | "public";

/** The label that Kubernetes puts on every namespace; implied where it is missing. */
const nameLabel = "kubernetes.io/metadata.name";

/** Of ServiceEntries of one namespace: the first policy of which all rules match, and the default otherwise. */
const visibilityOf = defineQuery<Visibility>("serviceEntryVisibility", (read, namespace) => {
  const setting = readMesh(read, "serviceEntryVisibility");
  if (setting?.applyToSidecars !== true) return "public";
  const { policies = [], defaultVisibility } = setting;
  const labels = { ...read(tables.Namespace, namespace)?.metadata.labels, [nameLabel]: namespace };
  const policy = policies.find((one) => matches(one, labels));
  switch (policy === undefined ? defaultVisibility : policy.visibility) {
    case "NONE":
      return "none";
    case "NAMESPACE":
      return "namespace";
    default:
      return "public";
  }
});

/** A policy without rules matches everything; a rule that names no selector nothing, so that what is not understood hides nothing. */
function matches(
  { matchingRules = [] }: ServiceEntryVisibilityPolicy,
  labels: Readonly<Record<string, string>>,
): boolean {
  return matchingRules.every(
    ({ namespaceSelector }) =>
      namespaceSelector !== undefined && selectorMatches(namespaceSelector as LabelSelectorObject, labels),
  );
}

/** The namespaces that a ServiceEntry is seen in, of those that it is exported to. */
export function narrowedExport(
  read: Read,
  namespace: string,
  exportTo: readonly string[],
): readonly string[] {
  switch (read(visibilityOf, namespace)) {
    case "public":
      return exportTo;
    case "none":
      return ["~"];
    case "namespace":
      return exportTo.includes("*") || exportTo.includes(namespace) ? [namespace] : ["~"];
  }
}
