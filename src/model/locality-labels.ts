// The labels by which places are asked for, as Kubernetes and Istio name them; Pods need not carry them.

import { labels } from "#objects";

/** In the order of a locality's parts: region, zone, subzone. */
export const localityLabels: readonly string[] = [labels.region, labels.zone, labels.subzone];

/** A workload's node, as Kubernetes names it on nodes. */
export const nodeLabel = "kubernetes.io/hostname";

export const networkLabel = labels.network;

/** What such a label says of a locality, "" where that does not say so much; undefined for other labels. */
export function partOfLocality(label: string, locality: string): string | undefined {
  const at = localityLabels.indexOf(label);
  return at === -1 ? undefined : (locality.split("/")[at] ?? "");
}
