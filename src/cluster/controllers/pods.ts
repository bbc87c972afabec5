// What the controllers ask about Pods.

import type { ApiObject, ClusterStore, NewObject } from "../api/index.ts";
import type { EventRecorder } from "../node/events.ts";
import type { Condition, Pod, PodTemplate } from "../types.ts";
import { ownerReferenceTo } from "./loop.ts";

export function isActive(pod: Pod): boolean {
  return pod.metadata.deletionTimestamp === undefined && !isOver(pod);
}

export function isOver(pod: Pod): boolean {
  return pod.status?.phase === "Succeeded" || pod.status?.phase === "Failed";
}

export function readyCondition(pod: Pod): Condition | undefined {
  return pod.status?.conditions?.find((condition) => condition.type === "Ready");
}

export function isPodReady(pod: Pod): boolean {
  return readyCondition(pod)?.status === "True";
}

/** Ready for at least `minReadySeconds`; otherwise how long to wait, undefined while it is not ready at all. */
export function availability(
  pod: Pod,
  minReadySeconds: number,
  nowMs: number,
): { available: boolean; waitMs?: number } {
  const ready = readyCondition(pod);
  if (ready?.status !== "True") return { available: false };
  if (minReadySeconds === 0) return { available: true };
  const waitMs = Date.parse(ready.lastTransitionTime ?? "") + minReadySeconds * 1_000 - nowMs;
  return waitMs <= 0 ? { available: true } : { available: false, waitMs };
}

/** A Pod of the owner's template. */
export function podFrom(
  owner: ApiObject,
  template: PodTemplate,
  name: { name: string } | { generateName: string },
): NewObject {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      ...name,
      namespace: owner.metadata.namespace,
      labels: { ...template.metadata?.labels },
      annotations: { ...template.metadata?.annotations },
      ownerReferences: [ownerReferenceTo(owner)],
    },
    spec: template.spec,
  };
}

/** Creates a Pod and tells the owner's events how it went. Throws what the store throws. */
export async function createPod(
  store: ClusterStore,
  events: EventRecorder,
  owner: ApiObject,
  pod: NewObject,
): Promise<void> {
  try {
    const created = await store.create("pods", pod);
    events.record(owner, "Normal", "SuccessfulCreate", `Created pod: ${created.metadata.name}`);
  } catch (error) {
    events.record(
      owner,
      "Warning",
      "FailedCreate",
      `Error creating: ${error instanceof Error ? error.message : String(error)}`,
    );
    throw error;
  }
}

export async function deletePod(
  store: ClusterStore,
  events: EventRecorder,
  owner: ApiObject,
  pod: Pod,
): Promise<void> {
  await store.delete("pods", pod.metadata.namespace ?? "", pod.metadata.name, {
    preconditions: { uid: pod.metadata.uid },
  });
  events.record(owner, "Normal", "SuccessfulDelete", `Deleted pod: ${pod.metadata.name}`);
}
