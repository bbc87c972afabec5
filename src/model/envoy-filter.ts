// Which EnvoyFilters hold for a workload.

import { defineKeyedQuery, sameData } from "#engine";
import type { EnvoyFilter } from "#objects";
import { environmentOf } from "./mesh.ts";
import { oldestFirst, selects, targets, type Labels } from "./selectors.ts";
import { tables } from "./tables.ts";
import { workloadText, type WorkloadKey } from "./workload.ts";

/** Filters that name Gateways by reference are for proxies that are made from those, the others for whom they select. */
function isFor(filter: EnvoyFilter, namespace: string, labels: Labels): boolean {
  const { targetRefs = [], workloadSelector } = filter.spec ?? {};
  return targetRefs.length > 0
    ? targets({ ...filter, spec: { targetRefs } }, { namespace, labels })
    : selects(workloadSelector?.labels, labels);
}

/**
 * Row keys in the order in which they are applied: the root namespace's before the workload's own, then by priority, then
 * oldest first.
 */
export const envoyFiltersOf = defineKeyedQuery<WorkloadKey, readonly string[]>(
  "envoyFiltersOf",
  workloadText,
  (read, { namespace, labels }) => {
    const { rootNamespace } = read(environmentOf, "");
    return [...new Set([rootNamespace, namespace])].flatMap((place) =>
      read(tables.EnvoyFilter.by.namespace, place)
        .filter((filter) => isFor(filter, namespace, labels))
        .toSorted((a, b) => (a.spec?.priority ?? 0) - (b.spec?.priority ?? 0) || oldestFirst(a, b))
        .map(({ metadata }) => `${place}/${metadata.name}`),
    );
  },
  sameData,
);
