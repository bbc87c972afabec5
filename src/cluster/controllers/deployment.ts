// Deployment: one ReplicaSet for each template it ever had, the newest grown and the others shrunk by the rollout's rules. Revisions,
// conditions and annotations are those that `kubectl rollout` reads.

import { createHash } from "node:crypto";
import type { Logger } from "#base";
import type { ApiObject, ClusterStore } from "../api/index.ts";
import type { EventRecorder } from "../node/events.ts";
import { isoSeconds } from "../node/context.ts";
import type { Condition, LabelSelector, PodTemplate } from "../types.ts";
import {
  keyOf,
  ownedBy,
  ownerKeys,
  ownerReferenceTo,
  reasonOf,
  splitKey,
  stableText,
  startController,
  writeStatus,
} from "./loop.ts";
import type { ReplicaSet } from "./replica-set.ts";
import { planRollout, resolveLimits, type SetSize } from "./rollout.ts";

export interface Deployment extends ApiObject {
  spec: {
    readonly replicas?: number;
    readonly minReadySeconds?: number;
    readonly paused?: boolean;
    readonly revisionHistoryLimit?: number;
    readonly progressDeadlineSeconds?: number;
    readonly selector: LabelSelector;
    readonly template: PodTemplate;
    readonly strategy?: {
      readonly type?: string;
      readonly rollingUpdate?: {
        readonly maxSurge?: number | string;
        readonly maxUnavailable?: number | string;
      };
    };
  };
  status?: { readonly conditions?: readonly Condition[]; readonly [field: string]: unknown };
}

const revisionKey = "deployment.kubernetes.io/revision";
const hashLabel = "pod-template-hash";
const resource = "deployments.apps";
const setResource = "replicasets.apps";

export function startDeploymentController(
  store: ClusterStore,
  events: EventRecorder,
  log: Logger,
): () => void {
  return startController(store, log, {
    name: "deployment",
    watches: [
      { resource, keysOf: (object) => [keyOf(object)] },
      { resource: setResource, keysOf: ownerKeys("Deployment") },
    ],
    reconcile: (key) => reconcile(store, events, key),
  });
}

/** Equal templates have equal names, so that a rollback finds its ReplicaSet again. */
export function templateHash(template: PodTemplate): string {
  const labels = { ...template.metadata?.labels };
  delete labels[hashLabel];
  return createHash("sha256")
    .update(stableText({ ...template, metadata: { ...template.metadata, labels } }))
    .digest("hex")
    .slice(0, 10);
}

async function reconcile(
  store: ClusterStore,
  events: EventRecorder,
  key: string,
): Promise<number | undefined> {
  const [namespace, name] = splitKey(key);
  const deployment = store.get(resource, namespace, name) as Deployment | undefined;
  if (deployment === undefined || deployment.metadata.deletionTimestamp !== undefined) return undefined;
  const sets = setsOf(store, deployment);
  const hash = templateHash(deployment.spec.template);
  const next = sets.find((set) => set.metadata.labels?.[hashLabel] === hash);
  if (deployment.spec.paused === true) return writeDeploymentStatus(store, deployment, sets, next);
  if (next === undefined) {
    await createSet(store, events, deployment, sets, hash);
    return undefined; // the new ReplicaSet's own event leads back here
  }
  await keepRevision(store, deployment, sets, next);
  await scaleAll(store, events, deployment, sets, next);
  await dropHistory(store, deployment, sets, next);
  return writeDeploymentStatus(store, deployment, setsOf(store, deployment), next);
}

/** Oldest first. */
function setsOf(store: ClusterStore, deployment: Deployment): ReplicaSet[] {
  return (store.list(setResource, { namespace: deployment.metadata.namespace }).items as ReplicaSet[])
    .filter(ownedBy(deployment))
    .toSorted(
      (left, right) =>
        revisionOf(left) - revisionOf(right) || (left.metadata.name < right.metadata.name ? -1 : 1),
    );
}

function revisionOf(object: ApiObject): number {
  return Number(object.metadata.annotations?.[revisionKey] ?? 0);
}

async function createSet(
  store: ClusterStore,
  events: EventRecorder,
  deployment: Deployment,
  sets: readonly ReplicaSet[],
  hash: string,
): Promise<void> {
  const { replicas = 1, template, selector, strategy, minReadySeconds } = deployment.spec;
  const { maxSurge, maxUnavailable } = resolveLimits(replicas, strategy?.rollingUpdate);
  const name = `${deployment.metadata.name}-${hash}`;
  const sizes = planRollout({
    replicas,
    strategy: strategy?.type === "Recreate" ? "Recreate" : "RollingUpdate",
    maxSurge,
    maxUnavailable,
    next: { name, replicas: 0, current: 0, available: 0 },
    old: sets.map(sizeOf),
  });
  const size = sizes.get(name) ?? 0;
  const labels = { ...template.metadata?.labels, [hashLabel]: hash };
  const revision = String(Math.max(0, ...sets.map(revisionOf)) + 1);
  await store.create(setResource, {
    apiVersion: "apps/v1",
    kind: "ReplicaSet",
    metadata: {
      name,
      namespace: deployment.metadata.namespace,
      labels,
      annotations: {
        ...copiedAnnotations(deployment),
        ...sizeNotes(replicas, maxSurge),
        [revisionKey]: revision,
      },
      ownerReferences: [ownerReferenceTo(deployment)],
    },
    spec: {
      replicas: size,
      ...(minReadySeconds === undefined ? {} : { minReadySeconds }),
      selector: { ...selector, matchLabels: { ...selector.matchLabels, [hashLabel]: hash } },
      template: { ...template, metadata: { ...template.metadata, labels } },
    },
  });
  await setRevision(store, deployment, revision);
  events.record(deployment, "Normal", "ScalingReplicaSet", `Scaled up replica set ${name} from 0 to ${size}`);
}

function copiedAnnotations(deployment: Deployment): Record<string, string> {
  const {
    [revisionKey]: _revision,
    "kubectl.kubernetes.io/last-applied-configuration": _applied,
    ...rest
  } = deployment.metadata.annotations ?? {};
  return rest;
}

function sizeNotes(replicas: number, maxSurge: number): Record<string, string> {
  return {
    "deployment.kubernetes.io/desired-replicas": String(replicas),
    "deployment.kubernetes.io/max-replicas": String(replicas + maxSurge),
  };
}

async function setRevision(store: ClusterStore, deployment: Deployment, revision: string): Promise<void> {
  if (deployment.metadata.annotations?.[revisionKey] === revision) return;
  const { namespace = "", name } = deployment.metadata;
  await store.patch(
    resource,
    namespace,
    name,
    { metadata: { annotations: { [revisionKey]: revision } } },
    { type: "merge" },
  );
}

/** A template that comes back becomes the newest revision. */
async function keepRevision(
  store: ClusterStore,
  deployment: Deployment,
  sets: readonly ReplicaSet[],
  next: ReplicaSet,
): Promise<void> {
  const newestOther = Math.max(0, ...sets.filter((set) => set !== next).map(revisionOf));
  let revision = revisionOf(next);
  if (revision <= newestOther) {
    revision = newestOther + 1;
    const patch = { metadata: { annotations: { [revisionKey]: String(revision) } } };
    await store.patch(setResource, next.metadata.namespace ?? "", next.metadata.name, patch, {
      type: "merge",
    });
  }
  await setRevision(store, deployment, String(revision));
}

function sizeOf(set: ReplicaSet): SetSize {
  return {
    name: set.metadata.name,
    replicas: set.spec.replicas ?? 1,
    current: set.status?.replicas ?? 0,
    available: set.status?.availableReplicas ?? 0,
  };
}

async function scaleAll(
  store: ClusterStore,
  events: EventRecorder,
  deployment: Deployment,
  sets: readonly ReplicaSet[],
  next: ReplicaSet,
): Promise<void> {
  const { replicas = 1, strategy } = deployment.spec;
  const sizes = planRollout({
    replicas,
    strategy: strategy?.type === "Recreate" ? "Recreate" : "RollingUpdate",
    ...resolveLimits(replicas, strategy?.rollingUpdate),
    next: sizeOf(next),
    old: sets.filter((set) => set !== next).map(sizeOf),
  });
  for (const set of sets) {
    const before = set.spec.replicas ?? 1;
    const after = sizes.get(set.metadata.name) ?? before;
    if (before === after) continue;
    const { namespace = "", name } = set.metadata;
    await store.patch(setResource, namespace, name, { spec: { replicas: after } }, { type: "merge" });
    const way = after > before ? "up" : "down";
    events.record(
      deployment,
      "Normal",
      "ScalingReplicaSet",
      `Scaled ${way} replica set ${name} from ${before} to ${after}`,
    );
  }
}

async function dropHistory(
  store: ClusterStore,
  deployment: Deployment,
  sets: readonly ReplicaSet[],
  next: ReplicaSet,
): Promise<void> {
  const empty = sets.filter(
    (set) => set !== next && (set.spec.replicas ?? 1) === 0 && (set.status?.replicas ?? 0) === 0,
  );
  const surplus = empty.length - (deployment.spec.revisionHistoryLimit ?? 10);
  for (const set of empty.slice(0, Math.max(0, surplus))) {
    await store
      .delete(setResource, set.metadata.namespace ?? "", set.metadata.name)
      .catch((error: unknown) => {
        if (reasonOf(error) !== "NotFound") throw error;
      });
  }
}

async function writeDeploymentStatus(
  store: ClusterStore,
  seen: Deployment,
  sets: readonly ReplicaSet[],
  nextSeen: ReplicaSet | undefined,
): Promise<number | undefined> {
  const { namespace = "", name } = seen.metadata;
  const deployment = store.get(resource, namespace, name) as Deployment | undefined;
  if (deployment === undefined) return undefined;
  const next = sets.find((set) => set.metadata.uid === nextSeen?.metadata.uid);
  const sum = (count: (set: ReplicaSet) => number | undefined) =>
    sets.reduce((total, set) => total + (count(set) ?? 0), 0);
  const replicas = sum((set) => set.status?.replicas);
  const available = sum((set) => set.status?.availableReplicas);
  const wanted = deployment.spec.replicas ?? 1;
  const counts = {
    replicas,
    updatedReplicas: next?.status?.replicas ?? 0,
    readyReplicas: sum((set) => set.status?.readyReplicas),
    availableReplicas: available,
    unavailableReplicas: Math.max(
      0,
      Math.max(
        wanted,
        sum((set) => set.spec.replicas),
      ) - available,
    ),
  };
  const { maxUnavailable } = resolveLimits(wanted, deployment.spec.strategy?.rollingUpdate);
  const done =
    next !== undefined && counts.updatedReplicas === wanted && replicas === wanted && available >= wanted;
  const { condition, againMs } = progressing(deployment, next, counts, done);
  const availability: Condition =
    available >= wanted - maxUnavailable
      ? {
          type: "Available",
          status: "True",
          reason: "MinimumReplicasAvailable",
          message: "Deployment has minimum availability.",
        }
      : {
          type: "Available",
          status: "False",
          reason: "MinimumReplicasUnavailable",
          message: "Deployment does not have minimum availability.",
        };
  await writeStatus(store, resource, deployment, {
    observedGeneration: seen.metadata.generation ?? 1, // what was acted on, not what may have come meanwhile
    ...counts,
    conditions: [withTimes(deployment, availability), withTimes(deployment, condition)],
  });
  return againMs;
}

/** Says how the rollout goes; a rollout without any change for the deadline has failed. */
function progressing(
  deployment: Deployment,
  next: ReplicaSet | undefined,
  counts: Readonly<Record<string, number>>,
  done: boolean,
): { condition: Condition; againMs?: number } {
  const name = next?.metadata.name ?? "";
  const type = "Progressing";
  if (deployment.spec.paused === true) {
    return {
      condition: { type, status: "Unknown", reason: "DeploymentPaused", message: "Deployment is paused" },
    };
  }
  if (done) {
    const message = `ReplicaSet "${name}" has successfully progressed.`;
    return { condition: { type, status: "True", reason: "NewReplicaSetAvailable", message } };
  }
  const before = deployment.status?.conditions?.find((one) => one.type === type);
  const deadlineMs = (deployment.spec.progressDeadlineSeconds ?? 600) * 1_000;
  const status = deployment.status ?? {};
  const moved =
    before === undefined ||
    deployment.metadata.generation !== status["observedGeneration"] ||
    ["updatedReplicas", "readyReplicas", "availableReplicas", "replicas"].some(
      (field) => (status[field] ?? 0) !== counts[field],
    );
  const sinceMs = moved
    ? 0
    : Date.now() - Date.parse(String(before["lastUpdateTime"] ?? before.lastTransitionTime ?? ""));
  if (before?.reason === "ProgressDeadlineExceeded" && !moved) return { condition: before };
  if (sinceMs >= deadlineMs) {
    const message = `ReplicaSet "${name}" has timed out progressing.`;
    return { condition: { type, status: "False", reason: "ProgressDeadlineExceeded", message } };
  }
  const message = `ReplicaSet "${name}" is progressing.`;
  const condition: Condition = { type, status: "True", reason: "ReplicaSetUpdated", message };
  return {
    condition: moved ? { ...condition, lastUpdateTime: isoSeconds(Date.now()) } : condition,
    againMs: deadlineMs - sinceMs + 50,
  };
}

function withTimes(deployment: Deployment, condition: Condition): Condition {
  const now = isoSeconds(Date.now());
  const before = deployment.status?.conditions?.find((one) => one.type === condition.type);
  const same =
    before?.status === condition.status &&
    before.reason === condition.reason &&
    before.message === condition.message;
  return {
    ...condition,
    lastUpdateTime: condition["lastUpdateTime"] ?? (same ? before["lastUpdateTime"] : now),
    lastTransitionTime: before?.status === condition.status ? before.lastTransitionTime : now,
  };
}
