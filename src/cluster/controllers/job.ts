// Job: Pods until enough of them have succeeded, or too many have failed.

import type { Logger } from "#base";
import type { ApiObject, ClusterStore } from "../api/index.ts";
import { isoSeconds } from "../node/context.ts";
import type { EventRecorder } from "../node/events.ts";
import type { Condition, Pod, PodTemplate } from "../types.ts";
import { keyOf, ownedBy, ownerKeys, splitKey, startController, writeStatus } from "./loop.ts";
import { createPod, deletePod, isActive, isPodReady, podFrom } from "./pods.ts";

interface Job extends ApiObject {
  spec: {
    readonly template: PodTemplate;
    readonly completions?: number;
    readonly parallelism?: number;
    readonly backoffLimit?: number;
    readonly suspend?: boolean;
  };
  status?: { readonly startTime?: string; readonly conditions?: readonly Condition[] };
}

const resource = "jobs.batch";

export function startJobController(store: ClusterStore, events: EventRecorder, log: Logger): () => void {
  return startController(store, log, {
    name: "job",
    watches: [
      { resource, keysOf: (object) => [keyOf(object)] },
      { resource: "pods", keysOf: ownerKeys("Job") },
    ],
    reconcile: (key) => reconcile(store, events, key),
  });
}

async function reconcile(store: ClusterStore, events: EventRecorder, key: string): Promise<undefined> {
  const [namespace, name] = splitKey(key);
  const job = store.get(resource, namespace, name) as Job | undefined;
  if (job === undefined || job.metadata.deletionTimestamp !== undefined || job.spec.suspend === true) return;
  if (
    (job.status?.conditions ?? []).some(
      ({ type, status }) => (type === "Complete" || type === "Failed") && status === "True",
    )
  )
    return;
  const pods = (store.list("pods", { namespace }).items as Pod[]).filter(ownedBy(job));
  const succeeded = pods.filter((pod) => pod.status?.phase === "Succeeded").length;
  const failed = pods.filter((pod) => pod.status?.phase === "Failed").length;
  const active = pods.filter(isActive);
  const completions = job.spec.completions ?? 1;
  const over = failed > (job.spec.backoffLimit ?? 6);
  const done = succeeded >= completions;
  if (over || done) await Promise.all(active.map((pod) => deletePod(store, events, job, pod)));
  else {
    const wanted = Math.min(job.spec.parallelism ?? 1, completions - succeeded) - active.length;
    const made = Array.from({ length: Math.max(0, wanted) }, () => {
      const pod = podFrom(job, job.spec.template, { generateName: `${name}-` });
      const labels = { ...pod.metadata.labels, "job-name": name, "batch.kubernetes.io/job-name": name };
      return createPod(store, events, job, { ...pod, metadata: { ...pod.metadata, labels } });
    });
    await Promise.all(made);
  }
  const fresh = store.get(resource, namespace, name) as Job | undefined;
  if (fresh === undefined) return;
  const now = isoSeconds(Date.now());
  const end = (type: string, reason: string) => ({
    type,
    status: "True",
    reason,
    lastProbeTime: now,
    lastTransitionTime: now,
  });
  const remaining = (store.list("pods", { namespace }).items as Pod[]).filter(
    (pod) => ownedBy(job)(pod) && isActive(pod),
  );
  await writeStatus(store, resource, fresh, {
    startTime: fresh.status?.startTime ?? now,
    active: remaining.length,
    ready: remaining.filter(isPodReady).length,
    succeeded,
    failed,
    ...(done ? { completionTime: now, conditions: [end("Complete", "CompletionsReached")] } : {}),
    ...(over && !done ? { conditions: [end("Failed", "BackoffLimitExceeded")] } : {}),
  });
}
