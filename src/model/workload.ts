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

/**
 * The addresses of a proxy that no Pod stands behind (a machine outside of the cluster): only by them can endpoints of
 * ServiceEntries name it. Proxies of Pods leave this empty, so that replicas stay one class.
 */
export function instanceAddresses(proxy: ProxyClass): readonly string[] {
  return (proxy.metadata[instanceAddressesField] ?? "").split(",").filter((address) => address !== "");
}

/** The name of the field of `ProxyClass.metadata` that carries those addresses, divided by commas. */
export const instanceAddressesField = "INSTANCE_IPS";
