// Labels that say where a workload is. They are known of every endpoint, whether or not its workload bears them: subsets of
// DestinationRules may ask for them, as in Istio.

import type { Read } from "#engine";
import type { Endpoint } from "./endpoints.ts";
import { environmentOf } from "./mesh.ts";
import { selects, type Labels } from "./selectors.ts";
import { networkLabel, nodeLabel } from "./traffic-distribution.ts";

/** Of each label, what is known of an endpoint; "" for nothing. */
const known: Readonly<Record<string, (endpoint: Endpoint, clusterId: string) => string>> = {
  "topology.kubernetes.io/region": ({ locality }) => partOf(locality, 0),
  "topology.kubernetes.io/zone": ({ locality }) => partOf(locality, 1),
  "topology.istio.io/subzone": ({ locality }) => partOf(locality, 2),
  "topology.istio.io/cluster": (_endpoint, clusterId) => clusterId,
  [nodeLabel]: ({ node }) => node,
  [networkLabel]: ({ network }) => network,
};

function partOf(locality: string, at: number): string {
  return locality.split("/")[at] ?? "";
}

/** Which endpoints the labels of a subset select. */
export function endpointSelector(read: Read, wanted: Labels): (endpoint: Endpoint) => boolean {
  const names = Object.keys(wanted).filter((name) => Object.hasOwn(known, name));
  if (names.length === 0) return ({ labels }) => selects(wanted, labels);
  const { clusterId } = read(environmentOf, "");
  return (endpoint) => {
    const places = names.map((name) => [name, known[name]?.(endpoint, clusterId) ?? ""]);
    const said = Object.fromEntries(places.filter(([, value]) => value !== ""));
    return selects(wanted, { ...endpoint.labels, ...said });
  };
}
