// StatefulSet: Pods with lasting names, made and removed in order. Volume claims are not offered: a set that has templates for them
// says so in its events, and its Pods wait.

import type { Logger } from "#base";
import type { ApiObject, ClusterStore } from "../api/index.ts";
import type { EventRecorder } from "../node/events.ts";
import type { LabelSelector, Pod, PodTemplate } from "../types.ts";
import { templateHash } from "./deployment.ts";
import { keyOf, ownedBy, ownerKeys, splitKey, startController, writeStatus } from "./loop.ts";
import { createPod, deletePod, isOver, isPodReady, podFrom } from "./pods.ts";

interface StatefulSet extends ApiObject {
  spec: {
    readonly replicas?: number;
    readonly serviceName?: string;
    readonly selector: LabelSelector;
    readonly template: PodTemplate;
    readonly podManagementPolicy?: string;
    readonly updateStrategy?: {
      readonly type?: string;
      readonly rollingUpdate?: { readonly partition?: number };
    };
  };
}

const resource = "statefulsets.apps";
const revisionLabel = "controller-revision-hash";

export function startStatefulSetController(
  store: ClusterStore,
  events: EventRecorder,
  log: Logger,
): () => void {
  return startController(store, log, {
    name: "statefulset",
    watches: [
      { resource, keysOf: (object) => [keyOf(object)] },
      { resource: "pods", keysOf: ownerKeys("StatefulSet") },
    ],
    reconcile: (key) => reconcile(store, events, key),
  });
}

async function reconcile(store: ClusterStore, events: EventRecorder, key: string): Promise<undefined> {
  const [namespace, name] = splitKey(key);
  const set = store.get(resource, namespace, name) as StatefulSet | undefined;
  if (set === undefined || set.metadata.deletionTimestamp !== undefined) return;
  const revision = `${name}-${templateHash(set.spec.template)}`;
  const pods = (store.list("pods", { namespace }).items as Pod[]).filter(ownedBy(set));
  const byOrdinal = new Map(pods.map((pod) => [Number(/-(\d+)$/.exec(pod.metadata.name)?.[1]), pod]));
  await moveOneStep(store, events, set, byOrdinal, revision);
  const current = (store.list("pods", { namespace }).items as Pod[]).filter(ownedBy(set));
  const updated = current.filter((pod) => pod.metadata.labels?.[revisionLabel] === revision);
  const ready = current.filter(isPodReady).length;
  const fresh = store.get(resource, namespace, name);
  if (fresh === undefined) return;
  await writeStatus(store, resource, fresh, {
    observedGeneration: set.metadata.generation ?? 1,
    replicas: current.length,
    readyReplicas: ready,
    availableReplicas: ready,
    updatedReplicas: updated.length,
    currentReplicas: updated.length === current.length ? updated.length : current.length - updated.length,
    currentRevision: updated.length === current.length ? revision : oldRevision(current, revision),
    updateRevision: revision,
    collisionCount: 0,
  });
}

function oldRevision(pods: readonly Pod[], revision: string): string {
  const other = pods
    .map((pod) => pod.metadata.labels?.[revisionLabel])
    .find((label) => label !== undefined && label !== revision);
  return other ?? revision;
}

/** Makes what is missing from the lowest ordinal up, then removes from the highest down, then replaces old Pods from the highest down. */
async function moveOneStep(
  store: ClusterStore,
  events: EventRecorder,
  set: StatefulSet,
  pods: ReadonlyMap<number, Pod>,
  revision: string,
): Promise<void> {
  const replicas = set.spec.replicas ?? 1;
  const ordered = set.spec.podManagementPolicy !== "Parallel";
  for (let ordinal = 0; ordinal < replicas; ordinal++) {
    const pod = pods.get(ordinal);
    if (pod === undefined) await createPod(store, events, set, podOf(set, ordinal, revision));
    else if (isOver(pod) && pod.metadata.deletionTimestamp === undefined)
      await deletePod(store, events, set, pod);
    if (ordered && (pod === undefined || !isPodReady(pod) || pod.metadata.deletionTimestamp !== undefined)) {
      // An old Pod that will never be ready must not hold back the template that mends it.
      if (pod !== undefined && isOld(pod, revision) && !isPodReady(pod))
        await replace(store, events, set, pod);
      return;
    }
  }
  const surplus = [...pods]
    .filter(([ordinal]) => ordinal >= replicas)
    .toSorted(([left], [right]) => right - left);
  for (const [, pod] of surplus) {
    if (pod.metadata.deletionTimestamp === undefined) await deletePod(store, events, set, pod);
    if (ordered) return;
  }
  if (set.spec.updateStrategy?.type === "OnDelete") return;
  const partition = set.spec.updateStrategy?.rollingUpdate?.partition ?? 0;
  for (let ordinal = replicas - 1; ordinal >= partition; ordinal--) {
    const pod = pods.get(ordinal);
    if (pod === undefined || pod.metadata.deletionTimestamp !== undefined || !isPodReady(pod)) return;
    if (isOld(pod, revision)) return replace(store, events, set, pod);
  }
}

function isOld(pod: Pod, revision: string): boolean {
  return pod.metadata.labels?.[revisionLabel] !== revision;
}

async function replace(
  store: ClusterStore,
  events: EventRecorder,
  set: StatefulSet,
  pod: Pod,
): Promise<void> {
  if (pod.metadata.deletionTimestamp === undefined) await deletePod(store, events, set, pod);
}

function podOf(set: StatefulSet, ordinal: number, revision: string) {
  const name = `${set.metadata.name}-${ordinal}`;
  const pod = podFrom(set, set.spec.template, { name });
  const labels = {
    ...pod.metadata.labels,
    [revisionLabel]: revision,
    "statefulset.kubernetes.io/pod-name": name,
    "apps.kubernetes.io/pod-index": String(ordinal),
  };
  const spec = { ...set.spec.template.spec, hostname: name, subdomain: set.spec.serviceName };
  return { ...pod, metadata: { ...pod.metadata, labels }, spec };
}
