// Which EnvoyFilters hold for a workload.

import { defineKeyedQuery, sameData } from "#engine";
import { environmentOf } from "./mesh.ts";
import { oldestFirst, selects } from "./selectors.ts";
import { tables } from "./tables.ts";
import { workloadText, type WorkloadKey } from "./workload.ts";

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
        // Filters that name a Gateway or a waypoint by reference are for proxies that are made from those.
        .filter(({ spec }) => (spec?.targetRefs ?? []).length === 0)
        .filter(({ spec }) => selects(spec?.workloadSelector?.labels, labels))
        .toSorted((a, b) => (a.spec?.priority ?? 0) - (b.spec?.priority ?? 0) || oldestFirst(a, b))
        .map(({ metadata }) => `${place}/${metadata.name}`),
    );
  },
  sameData,
);
