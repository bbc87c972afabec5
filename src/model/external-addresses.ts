// Where a Service is reached from outside of its cluster.

import { defineQuery, sameData, type Read } from "#engine";
import { annotations } from "#objects";
import { everything, tables } from "./tables.ts";

export interface ExternalReach {
  /** Addresses, and names of load balancers. */
  readonly addresses: readonly string[];
  /** Outside of the cluster other numbers than the Service's own: by its own. */
  readonly ports: Readonly<Record<number, number>>;
}

const nowhere: ExternalReach = { addresses: [], ports: {} };

/**
 * By the Service's row key. A load balancer's addresses, and those that an operator has led there; of a Service of type NodePort those of
 * the nodes that its annotation selects, with the nodes' ports, as in Istio.
 */
export const externalReach = defineQuery<ExternalReach>(
  "externalReach",
  (read, row) => {
    const service = read(tables.Service, row);
    if (service === undefined) return nowhere;
    const { spec, status, metadata } = service;
    const led = spec?.externalIPs ?? [];
    const selector = metadata.annotations?.[annotations.nodeSelector];
    if (spec?.type === "NodePort" && selector !== undefined) {
      const ports = (spec.ports ?? []).flatMap(({ port, nodePort }) =>
        nodePort === undefined ? [] : [[port, nodePort] as const],
      );
      return {
        addresses: [...new Set([...addressesOfNodes(read, selector), ...led])],
        ports: Object.fromEntries(ports),
      };
    }
    const balanced = (status?.loadBalancer?.ingress ?? []).flatMap(
      ({ ip, hostname }) => ip ?? hostname ?? [],
    );
    return { addresses: [...new Set([...balanced, ...led])], ports: {} };
  },
  sameData,
);

function addressesOfNodes(read: Read, text: string): readonly string[] {
  const wanted = selectorIn(text);
  if (wanted === undefined) return [];
  return read(tables.Node.by.all, everything)
    .filter(({ metadata }) =>
      Object.entries(wanted).every(([name, value]) => metadata.labels?.[name] === value),
    )
    .flatMap(
      ({ status }) => (status?.addresses ?? []).find(({ type }) => type === "ExternalIP")?.address ?? [],
    )
    .toSorted();
}

/** Labels as JSON; undefined for anything else, which selects no node. */
function selectorIn(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const parsed: unknown = JSON.parse(text);
    return typeof parsed === "object" && parsed !== null && !Array.isArray(parsed)
      ? (parsed as Readonly<Record<string, unknown>>)
      : undefined;
  } catch {
    return undefined;
  }
}
