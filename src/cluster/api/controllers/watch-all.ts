// Every object of every kind, also of kinds that come later.

import type { Registry } from "../registry.ts";
import type { ClusterStore, ResourceName, WatchEvent } from "../store.ts";

// Events and leases own nothing, are owned by nothing, and are the busiest kinds.
const unwatched = new Set(["events", "events.events.k8s.io", "leases.coordination.k8s.io"]);

/** Follows the kinds as CustomResourceDefinitions come and go. The returned function ends it. */
export function watchAll(
  store: ClusterStore,
  registry: Registry,
  onEvent: (resource: ResourceName, event: WatchEvent) => void,
): () => void {
  const watches = new Map<ResourceName, () => void>();
  const begin = (resource: ResourceName): void => {
    if (watches.has(resource) || unwatched.has(resource)) return;
    watches.set(
      resource,
      store.watch(resource, {}, (event) => onEvent(resource, event)),
    );
  };
  for (const kind of registry.kinds()) if (kind.verbs.includes("watch")) begin(kind.resource);
  const stop = store.watch("customresourcedefinitions.apiextensions.k8s.io", {}, ({ type, object }) => {
    const resource = object.metadata.name;
    if (type !== "DELETED") return begin(resource);
    watches.get(resource)?.();
    watches.delete(resource);
  });
  return () => {
    stop();
    for (const end of watches.values()) end();
  };
}
