// What a router's ports of UDP lead to: a cluster for each port of a service that the routes there name.

import { defineKeyedQuery, sameData } from "#engine";
import {
  anyOutlet,
  datagramRouteOf,
  destinationKey,
  gatewayScopeText,
  mergedGatewayOf,
  rulesFor,
  serviceOf,
  type GatewayScope,
} from "#model";
import type { DatagramClusterKey } from "./gateway-keys.ts";
import type { Chunk, Planned } from "./plan.ts";

/** `outbound-udp|53||dns.default.svc.cluster.local`: a port of TCP may have the same number. */
export function datagramClusterName(port: number, host: string): string {
  return `outbound-udp|${port}||${host}`;
}

export interface DatagramChunks {
  readonly cluster: Chunk<DatagramClusterKey>;
  readonly endpoint: Chunk<DatagramClusterKey>;
}

export const datagramClusters = defineKeyedQuery<GatewayScope, DatagramChunks>(
  "datagramClusters",
  gatewayScopeText,
  (read, scope) => {
    const servers = read(mergedGatewayOf, scope).datagramListeners.flatMap((listener) => listener.servers);
    const found = new Map<string, Planned<DatagramClusterKey>>();
    const served = new Set<string>();
    for (const { gateway } of servers) {
      const route = read(datagramRouteOf, { gateway, namespace: scope.namespace });
      for (const { destination } of route?.destinations ?? []) {
        const outlet = { scope: scope.outbound, port: anyOutlet };
        const key = read(destinationKey, { outlet, host: destination.host });
        const service = key === undefined ? undefined : read(serviceOf, key);
        const port = destination.port?.number ?? 0;
        if (service?.ports.some((one) => one.port === port && one.protocol === "udp") !== true) continue;
        const rules = read(rulesFor, {
          client: scope.namespace,
          labels: scope.outbound.labels,
          host: service.host,
          serviceNamespace: service.namespace,
        });
        const name = datagramClusterName(port, service.host);
        found.set(name, { name, key: { kind: "datagram", service: service.key, port, rules } });
        const { resolution } = service;
        if (resolution === "endpoints" || resolution === "original-destination") served.add(name);
      }
    }
    const entries = [...found.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1));
    return {
      cluster: { id: "datagrams", entries },
      endpoint: { id: "datagrams", entries: entries.filter(({ name }) => served.has(name)) },
    };
  },
  sameData,
);
