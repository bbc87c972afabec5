// Which endpoints of a service go first, as its `trafficDistribution` or its older annotation says; others follow when these are
// gone.

import { annotations, type KubeObject } from "#objects";

/** Endpoints of the client's zone, or of its node and then of its zone. */
export type Preference = "any" | "zone" | "node";

/** PreferClose is Kubernetes' older name. */
const preferences: Readonly<Record<string, Preference>> = {
  PreferClose: "zone",
  PreferSameZone: "zone",
  PreferSameNode: "node",
};

/** Of a Service or a ServiceEntry, which has the annotation alone. */
export function preferenceOf({ metadata, spec }: KubeObject<object>): Preference {
  const { trafficDistribution = "" } = (spec ?? {}) as { readonly trafficDistribution?: string };
  const asked = metadata.annotations?.[annotations.trafficDistribution] ?? trafficDistribution;
  return preferences[asked] ?? "any";
}
