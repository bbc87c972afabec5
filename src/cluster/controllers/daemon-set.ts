// DaemonSet: one Pod on the one node. A changed template replaces it.

import type { Logger } from "#base";
import type { ApiObject, ClusterStore } from "../api/index.ts";
import type { EventRecorder } from "../node/events.ts";
import type { Pod, PodTemplate } from "../types.ts";
import { templateHash } from "./deployment.ts";
import { keyOf, ownedBy, ownerKeys, splitKey, startController, writeStatus } from "./loop.ts";
import { createPod, deletePod, isOver, isPodReady, podFrom } from "./pods.ts";

interface DaemonSet extends ApiObject {
  spec: { readonly template: PodTemplate; readonly updateStrategy?: { readonly type?: string } };
}

const resource = "daemonsets.apps";
const revisionLabel = "controller-revision-hash";

export function startDaemonSetController(
  store: ClusterStore,
  events: EventRecorder,
  log: Logger,
): () => void {
  return startController(store, log, {
    name: "daemonset",
    watches: [
      { resource, keysOf: (object) => [keyOf(object)] },
      { resource: "pods", keysOf: ownerKeys("DaemonSet") },
    ],
    reconcile: (key) => reconcile(store, events, key),
  });
}

async function reconcile(store: ClusterStore, events: EventRecorder, key: string): Promise<undefined> {
  const [namespace, name] = splitKey(key);
  const set = store.get(resource, namespace, name) as DaemonSet | undefined;
  if (set === undefined || set.metadata.deletionTimestamp !== undefined) return;
  const hash = templateHash(set.spec.template);
  const pods = (store.list("pods", { namespace }).items as Pod[]).filter(ownedBy(set));
  const replaces = set.spec.updateStrategy?.type !== "OnDelete";
  for (const pod of pods.filter((one) => one.metadata.deletionTimestamp === undefined)) {
    const old = replaces && pod.metadata.labels?.[revisionLabel] !== hash;
    if (old || isOver(pod)) await deletePod(store, events, set, pod);
  }
  if (pods.length === 0) {
    const pod = podFrom(set, set.spec.template, { generateName: `${name}-` });
    const labels = { ...pod.metadata.labels, [revisionLabel]: hash };
    await createPod(store, events, set, { ...pod, metadata: { ...pod.metadata, labels } });
  }
  const current = (store.list("pods", { namespace }).items as Pod[]).filter(ownedBy(set));
  const ready = current.some(isPodReady) ? 1 : 0;
  const fresh = store.get(resource, namespace, name);
  if (fresh === undefined) return;
  await writeStatus(store, resource, fresh, {
    observedGeneration: set.metadata.generation ?? 1,
    currentNumberScheduled: current.length > 0 ? 1 : 0,
    desiredNumberScheduled: 1,
    numberMisscheduled: 0,
    numberReady: ready,
    numberAvailable: ready,
    numberUnavailable: 1 - ready,
    updatedNumberScheduled: current.some((pod) => pod.metadata.labels?.[revisionLabel] === hash) ? 1 : 0,
  });
}
