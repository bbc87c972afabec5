// Everything that one proxy gets, at once: for tests, for explain and for people. The xDS server watches instead.

import type { Engine } from "#engine";
import type { ProxyClass } from "#model";
import { planOf, resourceTypes, viewsOf, type ResourceType } from "#plan";
import type { EnvoyResource } from "./resource.ts";
import { resourceOf } from "./resources.ts";

export type Snapshot = Readonly<Record<ResourceType, readonly EnvoyResource[]>>;

/** The resources of a proxy, each type ordered by name. */
export function snapshotOf(engine: Engine, proxy: ProxyClass): Snapshot {
  const plans = engine.get(viewsOf, proxy).map((view) => engine.get(planOf, view));
  const ofType = (type: ResourceType): EnvoyResource[] => {
    const byName = new Map<string, EnvoyResource>();
    for (const plan of plans) {
      for (const { entries } of plan[type]) {
        for (const { key } of entries) {
          const built = engine.get(resourceOf[type], key as never);
          if (built !== undefined && !byName.has(built.name)) byName.set(built.name, built);
        }
      }
    }
    return [...byName.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1));
  };
  return Object.fromEntries(resourceTypes.map((type) => [type, ofType(type)])) as unknown as Snapshot;
}
