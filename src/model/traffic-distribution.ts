// Which endpoints of a service go first, as its `trafficDistribution` or its older annotation says; others follow when these are
// gone.
import type { KubeObject } from "#objects";

/** Endpoints of the client's zone, or of its node and then of its zone. */
export type Preference = "any" | "zone" | "node";

/** PreferClose is Kubernetes' older name. */
const preferences: Readonly<Record<string, Preference>> = {
  PreferClose: "zone",
  PreferSameZone: "zone",
  PreferSameNode: "node",
};

/** The label by which a workload's node is asked for, as Kubernetes names it on nodes; Pods do not carry it. */
export const nodeLabel = "kubernetes.io/hostname";

/** The label by which a workload's network is asked for. */
export const networkLabel = "topology.istio.io/network";

/** Of a Service or a ServiceEntry, which has the annotation alone. */
export function preferenceOf({ metadata, spec }: KubeObject<object>): Preference {
  const { trafficDistribution = "" } = (spec ?? {}) as { readonly trafficDistribution?: string };
  return (
    preferences[metadata.annotations?.["networking.istio.io/traffic-distribution"] ?? trafficDistribution] ??
    "any"
  );
}
