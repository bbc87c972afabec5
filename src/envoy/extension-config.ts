// EXTENSION_CONFIG of EnvoyFilters: a filter's configuration by itself, which a filter elsewhere names as the one to be
// discovered. Istio sends it as a resource of its own; here it is put in its place, so that a listener waits for nothing and what
// is pushed is what is seen.

import { changeManagers, chainsChanged } from "./listener-patch.ts";
import { listOf, type Named } from "./list-patch.ts";
import type { Message } from "./proto/api.ts";

/** The listener with the configurations of those names in the filters that ask for them. */
export function inlineExtensions(listener: Message, extensions: readonly Message[]): Message {
  const byName = new Map(extensions.map((one) => [one["name"], one["typedConfig"]]));
  const inlined = (filter: Named): Named => {
    const typedConfig = filter["configDiscovery"] === undefined ? undefined : byName.get(filter.name);
    if (typedConfig === undefined) return filter;
    const { configDiscovery: _discovery, ...rest } = filter;
    return { ...rest, typedConfig };
  };
  const withFilters = (message: Message, field: string): Message => {
    const filters = listOf<Named>(message, field);
    const changed = filters.map(inlined);
    return changed.every((filter, at) => filter === filters[at]) ? message : { ...message, [field]: changed };
  };
  const chains = chainsChanged(listener, (chain) =>
    changeManagers(withFilters(chain, "filters"), (manager) => withFilters(manager, "httpFilters")),
  );
  return withFilters(chains, "listenerFilters");
}
