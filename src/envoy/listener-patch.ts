// Patches of listeners: the listener itself, its listener filters, filter chains, network filters, HTTP filters, and
// the route tables that stand inside of inbound listeners.

import type { EnvoyFilterListenerMatchFilterChainMatch } from "#objects";
import type { ReadyPatch } from "./envoy-filter.ts";
import { isSameFilter, listMerge, listOf, patchList, type Named } from "./list-patch.ts";
import { mergeAnys, mergeMessages, type ListMerge } from "./merge.ts";
import type { Message } from "./proto/api.ts";
import { patchRoutes } from "./route-patch.ts";

const managerName = "envoy.filters.network.http_connection_manager";

export function patchListener(listener: Message, patch: ReadyPatch): Message {
  if (!listenerMatches(listener, patch)) return listener;
  switch (patch.applyTo) {
    case "LISTENER":
      return patch.operation.startsWith("MERGE")
        ? mergeMessages(
            "envoy.config.listener.v3.Listener",
            listener,
            patch.value,
            listMerge(patch.operation),
          )
        : listener;
    case "LISTENER_FILTER": {
      const wanted = patch.match.listener?.listenerFilter ?? "";
      const filters = listOf<Named>(listener, "listenerFilters");
      const changed = patchList(filters, patch, wanted, mergeFilterBy(patch));
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
  const inbound = listener["name"] === "virtualInbound" ? (match.listener?.portNumber ?? 0) : 0;
  return chainsChanged(listener, (chain) => {
    const port = destinationPort(chain);
    const concerned = inbound === 0 || port === inbound;
    return concerned && chainMatches(chain, match.listener?.filterChain) ? change(chain) : chain;
  });
}

/** All chains changed, the default one too; one for which nothing comes back is taken out. */
export function chainsChanged(listener: Message, change: (chain: Message) => Message | undefined): Message {
  const chains = listOf<Message>(listener, "filterChains");
  const changed = chains.flatMap((chain) => change(chain) ?? []);
  const same = changed.length === chains.length && changed.every((chain, at) => chain === chains[at]);
  const { defaultFilterChain: fallback, ...rest } = listener;
  const newFallback = fallback === undefined ? undefined : change(fallback as Message);
  if (same && newFallback === fallback) return listener;
  return {
    ...rest,
    filterChains: changed,
    ...(newFallback === undefined ? {} : { defaultFilterChain: newFallback }),
  };
}

/** The port that an inbound chain is for; 0 for any. */
export function destinationPort(chain: Message): number {
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
    isAskedFor(match.transportSocket, String((chain["transportSocket"] as Named | undefined)?.name ?? "")) &&
    alpn.every((protocol) => (facts.applicationProtocols ?? []).includes(protocol)) &&
    (port === 0 || port === destinationPort(chain)) &&
    (filter === "" || listOf<Named>(chain, "filters").some(({ name }) => isSameFilter(name, filter)))
  );
}

function isAskedFor(asked: string | undefined, is: string): boolean {
  return asked === undefined || asked === "" || asked === is;
}

function patchChain(chain: Message, patch: ReadyPatch): Message | undefined {
  if (patch.operation === "REMOVE") return undefined;
  return patch.operation.startsWith("MERGE")
    ? mergeMessages("envoy.config.listener.v3.FilterChain", chain, patch.value, listMerge(patch.operation))
    : chain;
}

function patchNetworkFilters(chain: Message, patch: ReadyPatch): Message {
  const wanted = patch.match.listener?.filterChain?.filter?.name ?? "";
  const filters = listOf<Named>(chain, "filters");
  const changed = patchList(filters, patch, wanted, mergeFilterBy(patch));
  return changed === filters ? chain : { ...chain, filters: changed };
}

function patchHttpFilters(chain: Message, patch: ReadyPatch): Message {
  const wanted = patch.match.listener?.filterChain?.filter?.subFilter?.name ?? "";
  return changeManagers(chain, (manager) => {
    const filters = listOf<Named>(manager, "httpFilters");
    const changed =
      patch.operation === "ADD"
        ? filters.toSpliced(placeOf(patch.filterClass, filters), 0, patch.value as Named)
        : patchList(filters, patch, wanted, mergeFilterBy(patch));
    return changed === filters ? manager : { ...manager, httpFilters: changed };
  });
}

function patchInnerRoutes(chain: Message, patch: ReadyPatch): Message {
  return changeManagers(chain, (manager) => {
    const table = manager["routeConfig"] as Message | undefined;
    if (table === undefined || !tableMatches(table, destinationPort(chain), patch)) return manager;
    const changed = patchRoutes(table, patch);
    return changed === table ? manager : { ...manager, routeConfig: changed };
  });
}

/** Tables inside of inbound listeners are called by their cluster, and their port is the workload's. */
function tableMatches(table: Message, port: number, { match }: ReadyPatch): boolean {
  const wanted = match.routeConfiguration;
  const number = wanted?.portNumber ?? 0;
  return isAskedFor(wanted?.name, String(table["name"] ?? "")) && (number === 0 || number === port);
}

const authentication: ReadonlySet<string> = new Set(["envoy.filters.http.jwt_authn"]);
const authorization: ReadonlySet<string> = new Set([
  "envoy.filters.http.rbac",
  "envoy.filters.http.ext_authz",
]);
/** The first of the mesh's filters that only count. */
const statistics = "envoy.filters.http.grpc_stats";
const terminal = "envoy.filters.http.router";

/** Where an added filter goes: after authentication or authorization, before what counts, or before the end. */
export function placeOf(filterClass: string | undefined, filters: readonly Named[]): number {
  const after = (names: ReadonlySet<string>): number =>
    filters.findLastIndex(({ name }) => names.has(name ?? "")) + 1;
  const before = (name: string): number => {
    const at = filters.findIndex((filter) => filter.name === name);
    return at < 0 ? filters.length : at;
  };
  switch (filterClass) {
    case "AUTHN":
      return after(authentication);
    case "AUTHZ":
      return Math.max(after(authentication), after(authorization));
    case "STATS":
      return before(statistics);
    default:
      return before(terminal);
  }
}

export function changeManagers(chain: Message, change: (manager: Message) => Message): Message {
  const filters = listOf<Named>(chain, "filters");
  const changed = filters.map((filter) => {
    const manager = filter["typedConfig"] as Message | undefined;
    if (!isSameFilter(filter.name, managerName) || manager === undefined) return filter;
    const result = change(manager);
    return result === manager ? filter : { ...filter, typedConfig: result };
  });
  return changed.every((filter, at) => filter === filters[at]) ? chain : { ...chain, filters: changed };
}

function mergeFilterBy({ operation }: ReadyPatch): (under: Named, over: Message) => Named {
  return (under, over) => mergeFilter(under, over, listMerge(operation));
}

function mergeFilter(under: Named, over: Message, lists: ListMerge): Named {
  const config = over["typedConfig"] as Message | undefined;
  return {
    ...under,
    ...(over["name"] === undefined || over["name"] === "" ? {} : { name: String(over["name"]) }),
    ...(config === undefined
      ? {}
      : { typedConfig: mergeAnys(under["typedConfig"] as Message | undefined, config, lists) }),
  };
}
