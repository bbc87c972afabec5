// Which workload a pod belongs to: the Deployment behind its ReplicaSet, the CronJob behind its Job, or whoever owns it.

import type { Pod } from "./pod.ts";

export interface Workload {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly namespace: string;
}

/** A CronJob names its Jobs by the minute: eight digits or more. */
const cronJobRun = /^(.+)-\d{8,}$/;

/** A pod without an owner is its own workload. The name is "" when even the pod's is not known yet. */
export function workloadOf(pod: Pod, namespace: string): Workload {
  const meta = pod.metadata ?? {};
  const owner = meta.ownerReferences?.find((reference) => reference.controller === true);
  if (owner === undefined) {
    return {
      apiVersion: "v1",
      kind: "Pod",
      name: meta.name ?? meta.generateName?.replace(/-$/, "") ?? "",
      namespace,
    };
  }
  const { apiVersion, kind, name } = owner;
  const hash = meta.labels?.["pod-template-hash"];
  if (kind === "ReplicaSet" && hash !== undefined && name.endsWith(`-${hash}`)) {
    return { apiVersion, kind: "Deployment", name: name.slice(0, -hash.length - 1), namespace };
  }
  const deploymentConfig = meta.labels?.deploymentconfig;
  if (kind === "ReplicationController" && deploymentConfig !== undefined) {
    return {
      apiVersion: "apps.openshift.io/v1",
      kind: "DeploymentConfig",
      name: deploymentConfig,
      namespace,
    };
  }
  const cronJob = kind === "Job" ? cronJobRun.exec(name)?.[1] : undefined;
  if (cronJob !== undefined) return { apiVersion, kind: "CronJob", name: cronJob, namespace };
  return { apiVersion, kind, name, namespace };
}
