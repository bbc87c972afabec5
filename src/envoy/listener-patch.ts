// Patches of listeners: the listener itself, its listener filters, filter chains, network filters, HTTP filters, and
// the route tables that stand inside of inbound listeners.

import type { EnvoyFilterListenerMatchFilterChainMatch } from "#objects";
import type { ReadyPatch } from "./envoy-filter.ts";
import { listOf, patchList, type Named } from "./list-patch.ts";
import { mergeAnys, mergeMessages } from "./merge.ts";
import type { Message } from "./proto/api.ts";
import { patchRoutes } from "./route-patch.ts";

const managerName = "envoy.filters.network.http_connection_manager";

export function patchListener(listener: Message, patch: ReadyPatch): Message {
  if (!listenerMatches(listener, patch)) return listener;
  switch (patch.applyTo) {
    case "LISTENER":
      return patch.operation.startsWith("MERGE")
        ? mergeMessages("envoy.config.listener.v3.Listener", listener, patch.value)
        : listener;
    case "LISTENER_FILTER": {
      const wanted = patch.match.listener?.listenerFilter ?? "";
      const filters = listOf<Named>(listener, "listenerFilters");
      const changed = patchList(filters, patch, wanted, mergeFilter);
      return changed === filters ? listener : { ...listener, listenerFilters: changed };
    }
    case "FILTER_CHAIN":
      if (patch.operation === "ADD")
        return { ...listener, filterChains: [...listOf(listener, "filterChains"), patch.value] };
      return patchChains(listener, patch, (chain) => patchChain(chain, patch));
    case "NETWORK_FILTER":
      return patchChains(listener, patch, (chain) => patchNetworkFilters(chain, patch));
    case "HTTP_FILTER":
      return patchChains(listener, patch, (chain) => patchHttpFilters(chain, patch));
    default:
      return patchChains(listener, patch, (chain) => patchInnerRoutes(chain, patch));
  }
}

function listenerMatches(listener: Message, { match }: ReadyPatch): boolean {
  const port = match.listener?.portNumber ?? 0;
  if (port === 0 || listener["name"] === "virtualInbound") return true;
  const address = listener["address"] as
    | { readonly socketAddress?: { readonly portValue?: number } }
    | undefined;
  return address?.socketAddress?.portValue === port;
}

/** The chains that match, changed; a chain for which nothing comes back is taken out. */
function patchChains(
  listener: Message,
  { match }: ReadyPatch,
  change: (chain: Message) => Message | undefined,
): Message {
  const chains = listOf<Message>(listener, "filterChains");
  const inbound = listener["name"] === "virtualInbound" ? (match.listener?.portNumber ?? 0) : 0;
  const changed = chains.flatMap((chain) => {
    const port = destinationPort(chain);
    if ((inbound !== 0 && port !== inbound) || !chainMatches(chain, match.listener?.filterChain))
      return [chain];
    const result = change(chain);
    return result === undefined ? [] : [result];
  });
  const same = changed.length === chains.length && changed.every((chain, at) => chain === chains[at]);
  return same ? listener : { ...listener, filterChains: changed };
}

function destinationPort(chain: Message): number {
  const match = chain["filterChainMatch"] as { readonly destinationPort?: unknown } | undefined;
  const port = match?.destinationPort;
  return typeof port === "object" && port !== null
    ? Number((port as { value?: unknown }).value)
    : Number(port ?? 0);
}

function chainMatches(chain: Message, match: EnvoyFilterListenerMatchFilterChainMatch | undefined): boolean {
  if (match === undefined) return true;
  const facts = (chain["filterChainMatch"] ?? {}) as {
    readonly serverNames?: readonly string[];
    readonly transportProtocol?: string;
    readonly applicationProtocols?: readonly string[];
  };
  const alpn = (match.applicationProtocols ?? "").split(",").filter((part) => part !== "");
  const filter = match.filter?.name ?? "";
  const port = match.destinationPort ?? 0;
  return (
    isAskedFor(match.name, String(chain["name"] ?? "")) &&
    (match.sni === undefined || match.sni === "" || (facts.serverNames ?? []).includes(match.sni)) &&
    isAskedFor(match.transportProtocol, facts.transportProtocol ?? "") &&
    alpn.every((protocol) => (facts.applicationProtocols ?? []).includes(protocol)) &&
    (port === 0 || port === destinationPort(chain)) &&
    (filter === "" || listOf<Named>(chain, "filters").some(({ name }) => name === filter))
  );
}

function isAskedFor(asked: string | undefined, is: string): boolean {
  return asked === undefined || asked === "" || asked === is;
}

function patchChain(chain: Message, patch: ReadyPatch): Message | undefined {
  if (patch.operation === "REMOVE") return undefined;
  return patch.operation.startsWith("MERGE")
    ? mergeMessages("envoy.config.listener.v3.FilterChain", chain, patch.value)
    : chain;
}

function patchNetworkFilters(chain: Message, patch: ReadyPatch): Message {
  const wanted = patch.match.listener?.filterChain?.filter?.name ?? "";
  const filters = listOf<Named>(chain, "filters");
  const changed = patchList(filters, patch, wanted, mergeFilter);
  return changed === filters ? chain : { ...chain, filters: changed };
}

function patchHttpFilters(chain: Message, patch: ReadyPatch): Message {
  const wanted = patch.match.listener?.filterChain?.filter?.subFilter?.name ?? "";
  return changeManagers(chain, (manager) => {
    const filters = listOf<Named>(manager, "httpFilters");
    const changed = patchList(filters, patch, wanted, mergeFilter);
    return changed === filters ? manager : { ...manager, httpFilters: changed };
  });
}

function patchInnerRoutes(chain: Message, patch: ReadyPatch): Message {
  return changeManagers(chain, (manager) => {
    const table = manager["routeConfig"] as Message | undefined;
    if (table === undefined) return manager;
    const changed = patchRoutes(table, patch);
    return changed === table ? manager : { ...manager, routeConfig: changed };
  });
}

function changeManagers(chain: Message, change: (manager: Message) => Message): Message {
  const filters = listOf<Named>(chain, "filters");
  const changed = filters.map((filter) => {
    const manager = filter["typedConfig"] as Message | undefined;
    if (filter.name !== managerName || manager === undefined) return filter;
    const result = change(manager);
    return result === manager ? filter : { ...filter, typedConfig: result };
  });
  return changed.every((filter, at) => filter === filters[at]) ? chain : { ...chain, filters: changed };
}

function mergeFilter(under: Named, over: Message): Named {
  const config = over["typedConfig"] as Message | undefined;
  return {
    ...under,
    ...(over["name"] === undefined || over["name"] === "" ? {} : { name: String(over["name"]) }),
    ...(config === undefined
      ? {}
      : { typedConfig: mergeAnys(under["typedConfig"] as Message | undefined, config) }),
  };
}
