// How MeshConfig has the mesh balance by place, where no rule and no Service says otherwise.

import { defineQuery, sameData } from "#engine";
import { labelsOfFailover } from "./destination-rule.ts";
import { readMesh } from "./mesh.ts";

export interface MeshBalancing {
  /** Whether a client's place counts for every service, whatever rules say of it; otherwise outlier detection decides. */
  readonly always: boolean;
  /** Labels of a client that the mesh orders failover by; those of its place come with its locality. */
  readonly labels: readonly string[];
}

/** Zones go before places, as in a rule. Failover needs outlier detection, which `defaultTrafficPolicy` may give to all. */
export const meshBalancing = defineQuery<MeshBalancing>(
  "meshBalancing",
  (read) => {
    const zones = readMesh(read, "zoneAwareLbSetting");
    const places = readMesh(read, "localityLbSetting");
    const ejects = readMesh(read, "defaultTrafficPolicy")?.outlierDetection !== undefined;
    if (zones !== undefined) {
      const labels = labelsOfFailover([{ loadBalancer: { zoneAwareLbSetting: zones } }]);
      return { always: true, labels: zones.enabled === false ? [] : labels };
    }
    if (places?.enabled === false) return { always: false, labels: [] };
    if ((places?.distribute ?? []).length > 0) return { always: true, labels: [] };
    const labels = labelsOfFailover(
      places === undefined ? [] : [{ loadBalancer: { localityLbSetting: places } }],
    );
    return { always: ejects, labels };
  },
  sameData,
);
