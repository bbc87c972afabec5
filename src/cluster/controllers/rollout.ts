// The arithmetic of a Deployment's rollout. Pure, by the rules that Kubernetes documents for maxSurge and maxUnavailable.

export interface SetSize {
  readonly name: string;
  /** What the ReplicaSet is asked for. */
  readonly replicas: number;
  /** Pods that exist. */
  readonly current: number;
  readonly available: number;
}

export interface RolloutInput {
  readonly replicas: number;
  readonly strategy: "RollingUpdate" | "Recreate";
  readonly maxSurge: number;
  readonly maxUnavailable: number;
  readonly next: SetSize;
  /** Oldest first. */
  readonly old: readonly SetSize[];
}

/** A number or a percentage of `replicas`. */
export function resolveShare(
  value: number | string | undefined,
  replicas: number,
  round: "up" | "down",
): number {
  if (value === undefined) return resolveShare("25%", replicas, round);
  if (typeof value === "number") return value;
  const exact = (Number(value.replace(/%$/, "")) / 100) * replicas;
  return round === "up" ? Math.ceil(exact) : Math.floor(exact);
}

/** Surge rounds up and unavailability down; when both come to nothing, one Pod may be missing: else nothing could ever move. */
export function resolveLimits(
  replicas: number,
  rolling: { readonly maxSurge?: number | string; readonly maxUnavailable?: number | string } | undefined,
): { maxSurge: number; maxUnavailable: number } {
  const maxSurge = resolveShare(rolling?.maxSurge, replicas, "up");
  const maxUnavailable = resolveShare(rolling?.maxUnavailable, replicas, "down");
  return maxSurge === 0 && maxUnavailable === 0
    ? { maxSurge: 0, maxUnavailable: 1 }
    : { maxSurge, maxUnavailable };
}

/** The size that each ReplicaSet should be asked for now, by name. */
export function planRollout(input: RolloutInput): Map<string, number> {
  const sizes = new Map<string, number>([...input.old, input.next].map((set) => [set.name, set.replicas]));
  if (input.strategy === "Recreate") {
    for (const set of input.old) sizes.set(set.name, 0);
    const gone = input.old.every((set) => set.current === 0 && set.replicas === 0);
    sizes.set(input.next.name, gone ? input.replicas : Math.min(input.next.replicas, input.replicas));
    return sizes;
  }
  const total = input.old.reduce((sum, set) => sum + set.replicas, input.next.replicas);
  const room = Math.max(0, input.replicas + input.maxSurge - total);
  const grown =
    input.next.replicas > input.replicas
      ? input.replicas
      : Math.min(input.replicas, input.next.replicas + room);
  sizes.set(input.next.name, grown);
  shrinkOld(input, grown, sizes);
  return sizes;
}

function shrinkOld(input: RolloutInput, nextReplicas: number, sizes: Map<string, number>): void {
  const minAvailable = input.replicas - input.maxUnavailable;
  const total = input.old.reduce((sum, set) => sum + set.replicas, nextReplicas);
  const nextUnavailable = Math.max(0, nextReplicas - input.next.available);
  // Pods that do not serve can go first, as long as the new ones that do not serve yet are counted as missing.
  let removable = Math.max(0, total - minAvailable - nextUnavailable);
  for (const set of input.old) {
    const useless = Math.min(removable, Math.max(0, set.replicas - set.available));
    sizes.set(set.name, set.replicas - useless);
    removable -= useless;
  }
  const oldAvailable = input.old.reduce(
    (sum, set) => sum + Math.min(set.available, sizes.get(set.name) ?? 0),
    0,
  );
  let spare = Math.max(0, oldAvailable + Math.min(input.next.available, nextReplicas) - minAvailable);
  for (const set of input.old) {
    const size = sizes.get(set.name) ?? 0;
    const down = Math.min(spare, size, removable);
    sizes.set(set.name, size - down);
    spare -= down;
    removable -= down;
  }
}
