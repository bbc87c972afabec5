// Labels that say where a workload is. They are known of every endpoint, whether or not its workload bears them: subsets of
// DestinationRules may ask for them, as in Istio.

import type { Read } from "#engine";
import type { Endpoint } from "./endpoints.ts";
import { environmentOf } from "./mesh.ts";
import { selects, type Labels } from "./selectors.ts";
import { localityLabels, networkLabel, nodeLabel, partOfLocality } from "./locality-labels.ts";

/** Of each label, what is known of an endpoint; "" for nothing. */
const known: Readonly<Record<string, (endpoint: Endpoint, clusterId: string) => string>> = {
  ...Object.fromEntries(
    localityLabels.map((name) => [name, ({ locality }: Endpoint) => partOfLocality(name, locality) ?? ""]),
  ),
  "topology.istio.io/cluster": (_endpoint, clusterId) => clusterId,
  [nodeLabel]: ({ node }) => node,
  [networkLabel]: ({ network }) => network,
};

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
