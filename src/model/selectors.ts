// Which workloads an object's selector chooses, and which of several objects goes first.

import type { KubeObject, PolicyTargetReference } from "#objects";

export type Labels = Readonly<Record<string, string>>;

/** Whether every label of the selector is on the workload; an absent or empty selector chooses all. */
export function selects(selector: Labels | undefined, labels: Labels): boolean {
  return Object.entries(selector ?? {}).every(([name, value]) => labels[name] === value);
}

/** Oldest first, then by name and namespace: Istio's order wherever one object must win over another. */
export function oldestFirst(a: KubeObject, b: KubeObject): number {
  return (
    compareTexts(a.metadata.creationTimestamp ?? "", b.metadata.creationTimestamp ?? "") ||
    compareTexts(a.metadata.name, b.metadata.name) ||
    compareTexts(a.metadata.namespace ?? "", b.metadata.namespace ?? "")
  );
}

/** What the policy kinds have in common to say which workloads they are for. */
export interface PolicyTarget {
  readonly selector?: { readonly matchLabels?: Labels };
  readonly targetRef?: PolicyTargetReference;
  readonly targetRefs?: readonly PolicyTargetReference[];
}

const gatewayNameLabel = "gateway.networking.k8s.io/gateway-name";

/**
 * Whether a policy is for a workload of its namespace (or, from the root namespace, for any). A reference to a Gateway
 * chooses that Gateway's own workload; references to anything else are not for workloads.
 */
export function targets(
  policy: KubeObject<PolicyTarget>,
  workload: { readonly namespace: string; readonly labels: Labels },
): boolean {
  const spec = policy.spec ?? {};
  const references = [...(spec.targetRefs ?? []), ...(spec.targetRef === undefined ? [] : [spec.targetRef])];
  if (references.length === 0) return selects(spec.selector?.matchLabels, workload.labels);
  return (
    policy.metadata.namespace === workload.namespace &&
    references.some(({ kind, name }) => kind === "Gateway" && name === workload.labels[gatewayNameLabel])
  );
}

function compareTexts(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
