// Services of type LoadBalancer: those whose ports are published on the machine's loopback have that as their address,
// the others their own cluster address, which the node and its pods reach.

import type { Logger } from "#base";
import type { ClusterStore } from "../api/index.ts";
import type { Service } from "../types.ts";
import { keyOf, splitKey, startController, writeStatus } from "./loop.ts";

/** @param published `namespace/name` of Services */
export function startLoadBalancers(
  store: ClusterStore,
  published: ReadonlySet<string>,
  log: Logger,
): () => void {
  return startController(store, log, {
    name: "loadbalancer",
    watches: [{ resource: "services", keysOf: (object) => [keyOf(object)] }],
    reconcile: async (key) => {
      const [namespace, name] = splitKey(key);
      const service = store.get("services", namespace, name) as Service | undefined;
      if (service?.spec.type !== "LoadBalancer" || service.spec.loadBalancerClass !== undefined)
        return undefined;
      const ip = published.has(key) ? "127.0.0.1" : (service.spec.clusterIP ?? "");
      if (ip === "" || ip === "None") return undefined;
      await writeStatus(store, "services", service, {
        ...service.status,
        loadBalancer: { ingress: [{ ip }] },
      });
      return undefined;
    },
  });
}
