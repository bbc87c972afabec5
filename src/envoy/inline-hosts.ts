// Route tables as people and the explainer read them: with the virtual hosts in them, under Istio's names, whichever way
// these travel to the proxy.

import { partsOfDiscovered } from "#plan";
import { decodeMessage, encodeMessage, type Message } from "./proto/api.ts";
import { resourceOfBytes, type EnvoyResource } from "./resource.ts";

const tableMessage = "envoy.config.route.v3.RouteConfiguration";
const hostMessage = "envoy.config.route.v3.VirtualHost";

/** One proxy's resources with each virtual host that is a resource put into its table, before the table's catch-all. */
export function withHostsInTables(resources: Iterable<EnvoyResource>): readonly EnvoyResource[] {
  const all = [...resources];
  const hosts = Map.groupBy(
    all.filter(({ type }) => type === "virtualHost"),
    ({ name }) => partsOfDiscovered(name).table,
  );
  return all
    .filter(({ type }) => type !== "virtualHost")
    .map((one) => {
      if (one.type !== "route") return one;
      const { vhds, ...table } = decodeMessage(tableMessage, one.bytes);
      return vhds === undefined ? one : merged(one, table, hosts.get(one.name) ?? []);
    });
}

function merged(table: EnvoyResource, message: Message, hosts: readonly EnvoyResource[]): EnvoyResource {
  const own = (message["virtualHosts"] ?? []) as readonly Message[];
  const virtualHosts = [...hosts.map(familiarHost), ...own];
  const origins = hosts.flatMap((host) => {
    const { host: at } = partsOfDiscovered(host.name);
    return host.origins.map((origin) => ({ ...origin, at: origin.at === "" ? at : `${at}.${origin.at}` }));
  });
  const bytes = encodeMessage(tableMessage, { ...message, virtualHosts });
  return resourceOfBytes("route", table.name, bytes, [...table.origins, ...origins]);
}

function familiarHost({ name, bytes }: EnvoyResource): Message {
  return { ...decodeMessage(hostMessage, bytes), name: partsOfDiscovered(name).host };
}
