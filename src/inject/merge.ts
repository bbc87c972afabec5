// Merges a template, or a user's own container, into a pod by the rules of Kubernetes' strategic merge patch, for the types of a pod.
// https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md

import type { Plain, Pod } from "./pod.ts";
import { isPlain } from "./values.ts";

/** Lists that are maps by a key, by the name of their field. Every other list is replaced whole. */
const listKeys: Readonly<Record<string, string>> = {
  containers: "name",
  initContainers: "name",
  ephemeralContainers: "name",
  volumes: "name",
  volumeMounts: "mountPath",
  volumeDevices: "devicePath",
  env: "name",
  imagePullSecrets: "name",
  ports: "containerPort",
  hostAliases: "ip",
  topologySpreadConstraints: "topologyKey",
  resourceClaims: "name",
};

/** Returns a new pod; where both say something, the patch wins. A null in the patch removes the field. */
export function mergePod(pod: Pod, patch: Pod): Pod {
  return mergePlain(pod, patch);
}

function mergePlain(target: Plain, patch: Plain): Plain {
  const merged: Plain = { ...target };
  for (const [field, value] of Object.entries(patch)) {
    if (value === undefined) continue;
    if (value === null) delete merged[field];
    else merged[field] = mergeValue(field, target[field], value);
  }
  return merged;
}

function mergeValue(field: string, target: unknown, patch: unknown): unknown {
  if (isPlain(target) && isPlain(patch)) return mergePlain(target, patch);
  const key = listKeys[field];
  if (key !== undefined && Array.isArray(target) && Array.isArray(patch)) {
    return mergeList(field, key, target as Plain[], patch as Plain[]);
  }
  return structuredClone(patch);
}

function mergeList(field: string, key: string, target: readonly Plain[], patch: readonly Plain[]): Plain[] {
  const position = new Map(target.map((item, index) => [item[key], index]));
  const patched = new Set(patch.map((item) => item[key]));
  const fromPatch = patch.map((item) => {
    const at = position.get(item[key]);
    const present = at === undefined ? undefined : target[at];
    // A volume has one source: the patch's replaces the old one instead of standing beside it.
    return present === undefined || field === "volumes" ? structuredClone(item) : mergePlain(present, item);
  });
  const onlyInTarget = target.filter((item) => !patched.has(item[key]));
  return interleave(onlyInTarget, fromPatch, (item) => position.get(item[key]));
}

/**
 * Kubernetes keeps the patch's order, and puts an item of the target before one of the patch only when both were in the target in that
 * order. So what a patch adds comes first.
 */
function interleave(
  kept: readonly Plain[],
  patched: readonly Plain[],
  positionOf: (item: Plain) => number | undefined,
): Plain[] {
  const merged: Plain[] = [];
  let next = 0;
  for (const item of patched) {
    const at = positionOf(item);
    for (
      let own = kept[next];
      at !== undefined && own !== undefined && (positionOf(own) ?? 0) < at;
      own = kept[next]
    ) {
      merged.push(own);
      next += 1;
    }
    merged.push(item);
  }
  return [...merged, ...kept.slice(next)];
}
