// A workload as policies see it: a namespace and labels. Replicas of one Deployment are one workload.

import type { ProxyClass } from "./proxy.ts";
import type { Labels } from "./selectors.ts";

export interface WorkloadKey {
  readonly namespace: string;
  readonly labels: Labels;
}

/** A stable text: the order of labels does not matter. */
export function workloadText({ namespace, labels }: WorkloadKey): string {
  const pairs = Object.entries(labels).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return `${namespace} ${JSON.stringify(pairs)}`;
}

export function workloadOf(proxy: ProxyClass): WorkloadKey {
  return { namespace: proxy.namespace, labels: proxy.labels };
}
