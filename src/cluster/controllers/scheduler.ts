// The scheduler of a cluster with one node: a Pod is bound to it, or waits with the reason.

import type { Logger } from "#base";
import type { ClusterStore } from "../api/index.ts";
import type { EventRecorder } from "../node/events.ts";
import { isoSeconds } from "../node/context.ts";
import { mergeConditions } from "../node/status.ts";
import type { Pod } from "../types.ts";
import { keyOf, splitKey, startController } from "./loop.ts";

const unschedulableRetryMs = 10_000;

export function startScheduler(
  store: ClusterStore,
  nodeName: string,
  events: EventRecorder,
  log: Logger,
): () => void {
  return startController(store, log, {
    name: "scheduler",
    watches: [{ resource: "pods", keysOf: (object) => (isUnbound(object as Pod) ? [keyOf(object)] : []) }],
    reconcile: (key) => reconcile(store, nodeName, events, key),
  });
}

function isUnbound(pod: Pod): boolean {
  const name = pod.spec.schedulerName ?? "default-scheduler";
  return (
    (pod.spec.nodeName ?? "") === "" &&
    name === "default-scheduler" &&
    pod.metadata.deletionTimestamp === undefined
  );
}

async function reconcile(
  store: ClusterStore,
  nodeName: string,
  events: EventRecorder,
  key: string,
): Promise<number | undefined> {
  const [namespace, name] = splitKey(key);
  const pod = store.get("pods", namespace, name) as Pod | undefined;
  if (pod === undefined || !isUnbound(pod) || (pod.spec.schedulingGates ?? []).length > 0) return undefined;
  const node = store.get("nodes", "", nodeName);
  const labels = node?.metadata.labels ?? {};
  const misfit = Object.entries(pod.spec.nodeSelector ?? {}).find(
    ([label, value]) => labels[label] !== value,
  );
  if (misfit === undefined) {
    await store.patch("pods", namespace, name, { spec: { nodeName } }, { type: "merge" });
    events.record(pod, "Normal", "Scheduled", `Successfully assigned ${key} to ${nodeName}`);
    return undefined;
  }
  const message = `0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector (${misfit[0]}=${misfit[1]}).`;
  const waiting = { type: "PodScheduled", status: "False", reason: "Unschedulable", message };
  const conditions = mergeConditions(pod.status?.conditions ?? [], [waiting], isoSeconds(Date.now()));
  await store.updateStatus("pods", { ...pod, status: { ...pod.status, phase: "Pending", conditions } });
  events.record(pod, "Warning", "FailedScheduling", message);
  return unschedulableRetryMs;
}
