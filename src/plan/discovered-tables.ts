// Route tables whose virtual hosts are resources of their own (Envoy's virtual-host discovery): a change of a route
// costs the bytes of one virtual host instead of those of a table, which holds all services of a port.
//
// A virtual host's resource is called `<table>/<Istio's name>`, and Envoy demands that its `name` be the same: otherwise
// it ignores removals. EnvoyFilters, dumps and people see Istio's name; the prefix exists between here and Envoy alone.

import { defineKeyedQuery, sameData } from "#engine";
import { scopeText, type OutboundScope } from "#model";
import type { OutboundRouteKey, OutboundVirtualHostKey } from "./keys.ts";
import { outboundPortChunks } from "./outbound-ports.ts";
import type { Chunk, Planned } from "./plan.ts";
import { virtualHostName, virtualHostPartsOf } from "./virtual-hosts.ts";

export interface TableChunks {
  readonly route: Chunk;
  readonly virtualHosts: readonly Chunk[];
}

/** The tables of a port as `outboundPortChunks` has them, those of all services with their virtual hosts taken out. */
export const discoveredTables = defineKeyedQuery<
  { readonly scope: OutboundScope; readonly port: number },
  TableChunks
>(
  "discoveredTables",
  ({ scope, port }) => `${port} ${scopeText(scope)}`,
  (read, { scope, port }) => {
    const whole = read(outboundPortChunks, { scope, port }).route as Chunk<OutboundRouteKey>;
    const virtualHosts: Chunk[] = [];
    const route = whole.entries.map((planned): Planned<OutboundRouteKey> => {
      const { name, key } = planned;
      if (!discoversHosts(name)) return planned;
      for (const part of read(virtualHostPartsOf, key)) virtualHosts.push(discoveredPart(name, part));
      return { name, key: { ...key, discovers: true } };
    });
    return { route: { id: whole.id, entries: route }, virtualHosts };
  },
  sameData,
);

const discoveredParts = new WeakMap<readonly OutboundVirtualHostKey[], Chunk>();

/** The same chunk for the same part, whichever views have it. */
function discoveredPart(table: string, part: readonly OutboundVirtualHostKey[]): Chunk {
  let chunk = discoveredParts.get(part);
  if (chunk === undefined) {
    chunk = { id: `hosts/${table}`, entries: part.map((host) => discoveredHost(table, host)) };
    discoveredParts.set(part, chunk);
  }
  return chunk;
}

/** Keys come from memoized queries and are compared by identity first: each gets one discovered counterpart. */
const discoveredHosts = new WeakMap<OutboundVirtualHostKey, Planned<OutboundVirtualHostKey>>();

function discoveredHost(table: string, host: OutboundVirtualHostKey): Planned<OutboundVirtualHostKey> {
  let planned = discoveredHosts.get(host);
  // A host's port is in its key, and its table is called by that.
  if (planned === undefined) {
    const name = discoveredName(table, virtualHostName(host));
    planned = { name, key: { ...host, discovered: true } };
    discoveredHosts.set(host, planned);
  }
  return planned;
}

/** Whether the virtual hosts of a table may be resources: tables that are called by their port. */
export function discoversHosts(table: string): boolean {
  return /^\d+$/.test(table);
}

/** The name of a virtual host as a resource. */
export function discoveredName(table: string, host: string): string {
  return `${table}/${host}`;
}

/** The table that a virtual host's resource belongs to, and Istio's name of the host. */
export function partsOfDiscovered(name: string): { readonly table: string; readonly host: string } {
  const at = name.indexOf("/");
  return { table: name.slice(0, Math.max(at, 0)), host: name.slice(at + 1) };
}
