// The Pods that are gateways, as far as a Pod says it: what chooses them, and as whom they run.

import { defineQuery, sameData, type Read } from "#engine";
import { namespaceOf } from "./core-kinds.ts";
import { environmentOf } from "./mesh.ts";
import type { Labels } from "./selectors.ts";
import { everything, isRouter, tables } from "./tables.ts";
import { workloadText, type WorkloadKey } from "./workload.ts";

export interface Router extends WorkloadKey {
  /** `namespace/name` of its service account. */
  readonly account: string;
}

/** The gateways; replicas are one. */
export const routers = defineQuery<readonly Router[]>(
  "routers",
  (read) => {
    const found = read(tables.Pod.by.router.members, everything).flatMap(
      (row) => read(routerOfPod, row) ?? [],
    );
    return [...new Map(found.map((one) => [`${one.account} ${workloadText(one)}`, one])).values()];
  },
  sameData,
);

/** By itself: Pods change more often than their labels, and nothing else counts here. */
const routerOfPod = defineQuery<Router | undefined>(
  "routerOfPod",
  (read, row) => {
    const pod = read(tables.Pod, row);
    if (pod === undefined) return undefined;
    const { "pod-template-hash": _hash, ...labels } = pod.metadata.labels ?? {};
    const namespace = namespaceOf(pod);
    return {
      namespace,
      labels: labels as Labels,
      account: `${namespace}/${pod.spec?.serviceAccountName ?? "default"}`,
    };
  },
  sameData,
);

/** Whether a Gateway of Istio's API, by its namespace, may choose proxies of another one by their labels. */
export function mayChoose(read: Read, gateway: string, proxies: string): boolean {
  return gateway === proxies || read(environmentOf, "").gatewaySelectors === "everywhere";
}

/** Whether any Pod of a namespace has a sidecar. */
export const hasSidecars = defineQuery<boolean>("hasSidecars", (read, namespace) =>
  read(tables.Pod.by.namespace.members, namespace).some((row) => read(hasSidecar, row)),
);

const hasSidecar = defineQuery<boolean>("hasSidecar", (read, row) => {
  const pod = read(tables.Pod, row);
  const { containers = [], initContainers = [] } = pod?.spec ?? {};
  const isProxied = [...containers, ...initContainers].some(({ name }) => name === "istio-proxy");
  return pod !== undefined && isProxied && !isRouter(pod);
});
