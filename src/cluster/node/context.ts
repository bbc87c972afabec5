// What every part of the node is handed.

import type { Logger } from "#base";
import type { ClusterStore } from "../api/index.ts";
import type { ImageEntry } from "../images/image.ts";
import type { DataObject } from "../types.ts";
import type { DataReader, PodFacts } from "./env.ts";
import type { EventRecorder } from "./events.ts";
import type { ClusterLayout } from "./names.ts";
import type { AddressPool, NetworkPlan } from "./network.ts";

export interface NodeContext {
  readonly layout: ClusterLayout;
  readonly plan: NetworkPlan;
  readonly nodeName: string;
  readonly store: ClusterStore;
  readonly images: readonly ImageEntry[];
  readonly addresses: AddressPool;
  readonly events: EventRecorder;
  readonly log: Logger;
  readonly cpus: number;
  readonly memoryBytes: number;
  /** Host paths that a hostPath volume may name; empty: none. */
  readonly hostPathsAllowed: readonly string[];
}

export const clusterDomain = "cluster.local";

export function dataReader(store: ClusterStore): DataReader {
  return {
    configMap: (namespace, name) => store.get("configmaps", namespace, name) as DataObject | undefined,
    secret: (namespace, name) => store.get("secrets", namespace, name) as DataObject | undefined,
  };
}

export function factsOf(context: NodeContext, podIp: string): PodFacts {
  return {
    podIp,
    hostIp: context.plan.nodeIp,
    nodeName: context.nodeName,
    nodeCpus: context.cpus,
    nodeMemoryBytes: context.memoryBytes,
  };
}

/** Kubernetes writes times in whole seconds. */
export function isoSeconds(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
}
