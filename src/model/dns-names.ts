// The names that a sidecar answers its workload for. For a Pod these are the hosts of ServiceEntries alone: the cluster's
// DNS knows the Services, and a table without them need not be sent again when one comes or goes.

import { defineKeyedQuery, sameData } from "#engine";
import { addressesOf } from "./endpoints.ts";
import {
  anyOutlet,
  outletText,
  scopeText,
  visibleNamespaces,
  visibleServices,
  type OutboundScope,
  type Outlet,
} from "./scope.ts";
import { serviceOf, type MeshService } from "./services.ts";

export interface DnsName {
  /** A host; `*.` before it stands for every name below. */
  readonly name: string;
  readonly addresses: readonly string[];
}

/** Stands for "the host's own DNS says it": the agent takes such a question to the pod's servers, whatever it refuses. */
const addressElsewhere = "0.0.0.0";

/** Names of all that a scope sees and that has addresses, in order. */
export const dnsNamesOf = defineKeyedQuery<OutboundScope, readonly DnsName[]>(
  "dnsNames",
  scopeText,
  (read, scope) => {
    const outlet = { scope, port: anyOutlet };
    const byName = new Map<string, DnsName>();
    for (const namespace of read(visibleNamespaces, outlet)) {
      for (const found of read(namesOfNamespace, { outlet, namespace })) byName.set(found.name, found);
    }
    return [...byName.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1));
  },
  sameData,
);

const namesOfNamespace = defineKeyedQuery<
  { readonly outlet: Outlet; readonly namespace: string },
  readonly DnsName[]
>(
  "dnsNamesOfNamespace",
  ({ outlet, namespace }) => `${namespace} ${outletText(outlet)}`,
  (read, { outlet, namespace }) =>
    read(visibleServices, { outlet, namespace }).flatMap((key) => {
      const service = read(serviceOf, key);
      if (service === undefined || service.resolution === "alias") return [];
      if (service.registry === "Kubernetes" && outlet.scope.dns !== "all") return [];
      const addresses = isHeadless(service)
        ? service.ports.flatMap(({ port }) => read(addressesOf, `${key} ${port}`))
        : [...singles(service.addresses), ...(service.addresses.length === 0 ? service.autoAddresses : [])];
      const known = addresses.length > 0 || isHeadless(service) ? addresses : [addressElsewhere];
      return known.length === 0 ? [] : [{ name: service.host, addresses: [...new Set(known)].toSorted() }];
    }),
  sameData,
);

function isHeadless({ registry, resolution }: MeshService): boolean {
  return registry === "Kubernetes" && resolution === "original-destination";
}

/** A range is no address that a client could go to. */
function singles(addresses: readonly string[]): readonly string[] {
  return addresses.filter((address) => !address.includes("/"));
}
