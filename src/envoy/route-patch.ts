// Patches of route tables: the table, its virtual hosts and their routes.

import { partsOfDiscovered } from "#plan";
import type { ReadyPatch } from "./envoy-filter.ts";
import { listMerge, listOf, patchList } from "./list-patch.ts";
import { mergeMessages } from "./merge.ts";
import type { Message } from "./proto/api.ts";

export function patchRoutes(table: Message, patch: ReadyPatch): Message {
  switch (patch.applyTo) {
    case "ROUTE_CONFIGURATION":
      return patch.operation.startsWith("MERGE")
        ? mergeMessages(
            "envoy.config.route.v3.RouteConfiguration",
            table,
            patch.value,
            listMerge(patch.operation),
          )
        : table;
    case "VIRTUAL_HOST":
      return patch.operation === "ADD"
        ? { ...table, virtualHosts: [...listOf(table, "virtualHosts"), patch.value] }
        : changeHosts(table, patch, (host) => patchHost(host, patch));
    case "HTTP_ROUTE":
      return changeHosts(table, patch, (host) => patchHostRoutes(host, patch));
    default:
      return table;
  }
}

/**
 * Patches a virtual host that is a resource of its own as if it stood in its table, under Istio's name.
 * Undefined when the patch removes it.
 */
export function patchDiscoveredHost(host: Message, patch: ReadyPatch): Message | undefined {
  const name = String(host["name"]);
  const familiar = { ...host, name: partsOfDiscovered(name).host };
  const [patched] = listOf<Message>(patchRoutes({ virtualHosts: [familiar] }, patch), "virtualHosts");
  return patched === familiar ? host : patched && { ...patched, name };
}

function changeHosts(
  table: Message,
  { match }: ReadyPatch,
  change: (host: Message) => Message | undefined,
): Message {
  const hosts = listOf<Message>(table, "virtualHosts");
  const wanted = match.routeConfiguration?.vhost;
  const changed = hosts.flatMap((host) => {
    const named = wanted?.name === undefined || wanted.name === "" || wanted.name === host["name"];
    const domain = wanted?.domainName ?? "";
    if (!named || (domain !== "" && !listOf<string>(host, "domains").includes(domain))) return [host];
    const result = change(host);
    return result === undefined ? [] : [result];
  });
  const same = changed.length === hosts.length && changed.every((host, at) => host === hosts[at]);
  return same ? table : { ...table, virtualHosts: changed };
}

function patchHost(host: Message, patch: ReadyPatch): Message | undefined {
  if (patch.operation === "REMOVE") return undefined;
  return patch.operation.startsWith("MERGE")
    ? mergeMessages("envoy.config.route.v3.VirtualHost", host, patch.value, listMerge(patch.operation))
    : host;
}

function patchHostRoutes(host: Message, patch: ReadyPatch): Message {
  const route = patch.match.routeConfiguration?.vhost?.route;
  const routes = listOf<Message>(host, "routes");
  const merge = (under: Message, over: Message): Message =>
    mergeMessages("envoy.config.route.v3.Route", under, over, listMerge(patch.operation));
  // Without a name, merging and removing are for every route with the action that is asked for.
  if ((route?.name ?? "") === "" && (patch.operation.startsWith("MERGE") || patch.operation === "REMOVE")) {
    const changed = routes.flatMap((one) =>
      !hasAction(one, route?.action) ? [one] : patch.operation === "REMOVE" ? [] : [merge(one, patch.value)],
    );
    return { ...host, routes: changed };
  }
  const changed = patchList(routes, patch, route?.name ?? "", merge);
  return changed === routes ? host : { ...host, routes: changed };
}

function hasAction(route: Message, action: string | undefined): boolean {
  switch (action) {
    case "ROUTE":
      return route["route"] !== undefined;
    case "REDIRECT":
      return route["redirect"] !== undefined;
    case "DIRECT_RESPONSE":
      return route["directResponse"] !== undefined;
    default:
      return true;
  }
}
