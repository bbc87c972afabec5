// Where a Service is reached without going through its cluster address: one of its ready endpoints.

import type { ResolveService } from "./admission/webhooks.ts";
import type { Database } from "./database.ts";
import { arrayOf, recordsOf, stringOf, valueAt } from "./json.ts";
import type { JsonRecord } from "./json.ts";

/** Resolves to a random ready endpoint, so that a webhook's replicas share the load; undefined when there is none. */
export function serviceEndpoint(database: Database): ResolveService {
  return (namespace, name, port) => {
    const service = database.get("services", namespace, name);
    const servicePort = recordsOf(valueAt(service, "spec", "ports")).find((one) => one["port"] === port);
    if (!servicePort) return undefined;
    const portName = stringOf(servicePort["name"]);
    const found = database
      .list("endpointslices.discovery.k8s.io", namespace)
      .filter((slice) => slice.metadata.labels?.["kubernetes.io/service-name"] === name)
      .flatMap((slice) => {
        const target = recordsOf(slice["ports"]).find((one) => stringOf(one["name"]) === portName)?.["port"];
        if (typeof target !== "number") return [];
        return recordsOf(slice["endpoints"])
          .filter(isReady)
          .flatMap((endpoint) =>
            arrayOf(endpoint["addresses"]).map((address) => ({ host: stringOf(address), port: target })),
          );
      });
    return found[Math.floor(Math.random() * found.length)];
  };
}

function isReady(endpoint: JsonRecord): boolean {
  return valueAt(endpoint, "conditions", "ready") !== false;
}
