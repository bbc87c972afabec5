// Zone-aware balancing: Envoy itself sends to endpoints of its own zone as many requests as they have capacity for, for which it has
// to know how its own service is spread (`local_cluster`). The control plane orders regions, and no zones.

import type { Read } from "#engine";
import { endpointsOf } from "#model";
import type { LocalClusterKey } from "#plan";
import type { ZoneAwareLoadBalancerSetting } from "#objects";
import { wrapped, type Message } from "./proto/api.ts";
import { resource, type EnvoyResource } from "./resource.ts";

/** Of `common_lb_config`. Left out, Envoy would balance by zone wherever it knows its own cluster. */
export function zoneAwareConfig({ enabled, minClusterSize }: ZoneAwareLoadBalancerSetting): Message {
  return {
    zoneAwareLbConfig: {
      routingEnabled: { value: enabled === false ? 0 : 100 },
      ...(minClusterSize === undefined ? {} : { minClusterSize: wrapped(minClusterSize) }),
    },
  };
}

/** How the proxy's own service is spread over the zones of the proxy's region. */
export function localCluster(read: Read, { service, port, region }: LocalClusterKey): EnvoyResource {
  const found = read(endpointsOf, service).filter(
    (endpoint) =>
      endpoint.servicePort === port && endpoint.healthy && endpoint.locality.split("/")[0] === region,
  );
  const zones = Map.groupBy(found, ({ locality }) => locality);
  const name = "local_cluster";
  return resource("endpoint", name, {
    clusterName: name,
    endpoints: [...zones]
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([locality, members]) => {
        const [, zone = "", subZone = ""] = locality.split("/");
        return {
          locality: { region, zone, subZone },
          lbEndpoints: members.map(({ address, port: portValue }) => ({
            endpoint: { address: { socketAddress: { address, portValue } } },
            healthStatus: "HEALTHY",
          })),
        };
      }),
  });
}
