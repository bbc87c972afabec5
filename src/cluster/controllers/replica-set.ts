// ReplicaSet: as many Pods of one template as asked for.

import type { Logger } from "#base";
import type { ApiObject, ClusterStore } from "../api/index.ts";
import type { EventRecorder } from "../node/events.ts";
import type { LabelSelector, Pod, PodTemplate } from "../types.ts";
import { keyOf, ownedBy, ownerKeys, splitKey, startController, writeStatus } from "./loop.ts";
import { availability, createPod, deletePod, isActive, isPodReady, podFrom } from "./pods.ts";
import { selectorFits } from "./selector.ts";

export interface ReplicaSet extends ApiObject {
  spec: {
    readonly replicas?: number;
    readonly minReadySeconds?: number;
    readonly selector: LabelSelector;
    readonly template: PodTemplate;
  };
  status?: {
    readonly replicas?: number;
    readonly readyReplicas?: number;
    readonly availableReplicas?: number;
    readonly observedGeneration?: number;
  };
}

const burstMax = 50; // Pods made or removed in one turn; the rest follows in the next

export function startReplicaSetController(
  store: ClusterStore,
  events: EventRecorder,
  log: Logger,
): () => void {
  return startController(store, log, {
    name: "replicaset",
    watches: [
      { resource: "replicasets.apps", keysOf: (object) => [keyOf(object)] },
      { resource: "pods", keysOf: ownerKeys("ReplicaSet") },
    ],
    reconcile: (key) => reconcile(store, events, key),
  });
}

async function reconcile(
  store: ClusterStore,
  events: EventRecorder,
  key: string,
): Promise<number | undefined> {
  const [namespace, name] = splitKey(key);
  const set = store.get("replicasets.apps", namespace, name) as ReplicaSet | undefined;
  if (set === undefined || set.metadata.deletionTimestamp !== undefined) return undefined;
  const pods = (store.list("pods", { namespace }).items as Pod[]).filter(
    (pod) => ownedBy(set)(pod) && selectorFits(set.spec.selector, pod.metadata.labels),
  );
  const active = pods.filter(isActive);
  const missing = (set.spec.replicas ?? 1) - active.length;
  let failure: unknown;
  if (missing > 0) {
    const made = Array.from({ length: Math.min(missing, burstMax) }, () =>
      createPod(store, events, set, podFrom(set, set.spec.template, { generateName: `${name}-` })),
    );
    for (const result of await Promise.allSettled(made))
      if (result.status === "rejected") failure = result.reason;
  } else if (missing < 0) {
    const victims = active.toSorted(leastUseful).slice(0, Math.min(-missing, burstMax));
    await Promise.all(victims.map((pod) => deletePod(store, events, set, pod)));
  }
  const againMs = await writeCounts(store, namespace, name);
  if (failure !== undefined) throw failure;
  return againMs;
}

/** Those that serve least go first: not running, not ready, youngest. */
function leastUseful(left: Pod, right: Pod): number {
  const rank = (pod: Pod) => (isPodReady(pod) ? 2 : pod.status?.phase === "Running" ? 1 : 0);
  const age = (pod: Pod) => Date.parse(pod.metadata.creationTimestamp ?? "") || 0;
  return (
    rank(left) - rank(right) || age(right) - age(left) || (left.metadata.name < right.metadata.name ? 1 : -1)
  );
}

async function writeCounts(
  store: ClusterStore,
  namespace: string,
  name: string,
): Promise<number | undefined> {
  const set = store.get("replicasets.apps", namespace, name) as ReplicaSet | undefined;
  if (set === undefined) return undefined;
  const pods = (store.list("pods", { namespace }).items as Pod[]).filter(
    (pod) => ownedBy(set)(pod) && isActive(pod),
  );
  const states = pods.map((pod) => availability(pod, set.spec.minReadySeconds ?? 0, Date.now()));
  const waits = states.flatMap((state) => (state.waitMs === undefined ? [] : [state.waitMs]));
  await writeStatus(store, "replicasets.apps", set, {
    replicas: pods.length,
    fullyLabeledReplicas: pods.length,
    readyReplicas: pods.filter(isPodReady).length,
    availableReplicas: states.filter((state) => state.available).length,
    observedGeneration: set.metadata.generation ?? 1,
  });
  return waits.length === 0 ? undefined : Math.min(...waits) + 1;
}
