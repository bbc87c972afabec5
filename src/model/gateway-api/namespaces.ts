// Which namespaces a listener or a Gateway lets in.

import { defineQuery, sameData, type Read } from "#engine";
import { selectorMatches, type LabelSelectorObject, type NamespaceChoice } from "#objects";
import { readMesh } from "../mesh.ts";
import { everything, tables } from "../tables.ts";

interface LabelledNamespace {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** The label that Kubernetes puts on every namespace; implied where it is missing. */
const nameLabel = "kubernetes.io/metadata.name";

const labelledNamespaces = defineQuery<readonly LabelledNamespace[]>(
  "labelledNamespaces",
  (read) =>
    read(tables.Namespace.by.all, everything).map(({ metadata }) => ({
      name: metadata.name,
      labels: { ...metadata.labels, [nameLabel]: metadata.name },
    })),
  sameData,
);

/** Whether MeshConfig's discoverySelectors take a namespace in; without any, all are. */
export const isDiscovered = defineQuery<boolean>("isDiscoveredNamespace", (read, namespace) => {
  const selectors = readMesh(read, "discoverySelectors") ?? [];
  if (selectors.length === 0) return true;
  const labels = { ...read(tables.Namespace, namespace)?.metadata.labels, [nameLabel]: namespace };
  return selectors.some((selector) => selectorMatches(selector as LabelSelectorObject, labels));
});

/** Names of the namespaces, "*" for all; the own one by default. */
export function chosenNamespaces(read: Read, choice: NamespaceChoice | undefined, own: string): string[] {
  switch (choice?.from) {
    case undefined:
    case "Same":
      return [own];
    case "All":
      return ["*"];
    case "None":
      return [];
    case "Selector":
      return choice.selector === undefined
        ? []
        : read(labelledNamespaces, "")
            .filter(({ labels }) => selectorMatches(choice.selector, labels))
            .map(({ name }) => name)
            .toSorted();
  }
}

/** Whether a Gateway takes listeners of a namespace's ListenerSets: of none by default. */
export function takesListenersOf(
  read: Read,
  choice: NamespaceChoice | undefined,
  own: string,
  namespace: string,
): boolean {
  if (choice === undefined) return false;
  const chosen = chosenNamespaces(read, choice, own);
  return chosen.includes("*") || chosen.includes(namespace);
}
