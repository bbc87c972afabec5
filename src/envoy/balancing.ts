// Which setting balances a service by place: that of a rule, of the Service, or of the mesh.

import type { Read } from "#engine";
import { localityLabels, nodeLabel, readMesh, type MeshService } from "#model";
import type { LocalityLoadBalancerSetting, ZoneAwareLoadBalancerSetting } from "#objects";
import type { PortPolicy } from "./traffic-policy.ts";

/** How a client's place counts for a service. */
export type Balancing =
  | { readonly kind: "zones"; readonly setting: ZoneAwareLoadBalancerSetting }
  | {
      readonly kind: "places";
      readonly setting: LocalityLoadBalancerSetting;
      /** Failover without outlier detection, as a Service's trafficDistribution asks for it. */
      readonly always?: true;
    }
  | { readonly kind: "none" };

const none: Balancing = { kind: "none" };

/** The rule's word goes before the Service's, and that before the mesh's; zones go before places, as in Istio. */
export function balancingOf(
  read: Read,
  { loadBalancer }: PortPolicy,
  service: Pick<MeshService, "prefers"> | undefined,
): Balancing {
  const { zoneAwareLbSetting, localityLbSetting } = loadBalancer ?? {};
  if (zoneAwareLbSetting !== undefined) return { kind: "zones", setting: zoneAwareLbSetting };
  if (localityLbSetting !== undefined) return byPlaces(localityLbSetting);
  const preference = service?.prefers ?? "any";
  if (preference !== "any") return { kind: "places", setting: nearFirst[preference], always: true };
  const zones = readMesh(read, "zoneAwareLbSetting");
  if (zones !== undefined) return { kind: "zones", setting: zones };
  return byPlaces(readMesh(read, "localityLbSetting") ?? {});
}

function byPlaces(setting: LocalityLoadBalancerSetting): Balancing {
  return setting.enabled === false ? none : { kind: "places", setting };
}

const zoneFirst = localityLabels.slice(0, 2);

/** What a Service's trafficDistribution asks for: its own node where it says so, then its zone, then its region. */
const nearFirst: Readonly<Record<"zone" | "node", LocalityLoadBalancerSetting>> = {
  zone: { failoverPriority: zoneFirst },
  node: { failoverPriority: [...zoneFirst, nodeLabel] },
};
