// Whose a name or an address of the cluster is. A Service speaks for its host, for the shorter forms of it that resolvers complete,
// and for its addresses; whoever writes one of them into an object of another namespace must not take its calls over.

import { BlockList, isIP } from "node:net";
import { defineKeyedQuery, defineQuery, type Read } from "#engine";
import { environmentOf } from "./mesh.ts";
import { kubeRowOf, type MeshService } from "./services.ts";
import { tables } from "./tables.ts";

/** The namespace of the Service, or Pod, that a host in whatever form or an address means; undefined where it means none. */
export const clusterOwnerOf = defineQuery<string | undefined>("clusterOwner", (read, name) => {
  const [byAddress] = [
    ...read(tables.Service.by.address.members, name),
    ...read(tables.Pod.by.address.members, name),
  ];
  if (byAddress !== undefined) return byAddress.slice(0, byAddress.indexOf("/"));
  const { clusterDomain } = read(environmentOf, "");
  const row = kubeRowOf(completed(name.toLowerCase(), clusterDomain), clusterDomain);
  return row === undefined || read(tables.Service, row) === undefined
    ? undefined
    : row.slice(0, row.indexOf("/"));
});

/** `reviews.default` and `reviews.default.svc` with all that resolvers add; other names as they are. */
function completed(name: string, clusterDomain: string): string {
  const [service, namespace, svc, ...rest] = name.split(".");
  const isShort = rest.length === 0 && namespace !== undefined && (svc === undefined || svc === "svc");
  return isShort ? `${service}.${namespace}.svc.${clusterDomain}` : name;
}

/**
 * The other namespace whose a name or an address is that a ServiceEntry of a namespace has; undefined where it may have it. The mesh's root
 * namespace may have any.
 */
export const foreignOwnerOf = defineKeyedQuery<
  { readonly name: string; readonly namespace: string },
  string | undefined
>(
  "foreignOwner",
  ({ name, namespace }) => `${name} ${namespace}`,
  (read, { name, namespace }) => {
    const { foreignRoutes, rootNamespace } = read(environmentOf, "");
    if (foreignRoutes === "all-clients" || namespace === rootNamespace) return undefined;
    const owner = read(clusterOwnerOf, name);
    return owner === namespace ? undefined : owner;
  },
);

/** Whether a ServiceEntry's service has a name or an address that is another namespace's. */
export function claimsForeign(read: Read, { namespace, host, addresses }: MeshService): boolean {
  return [host, ...addresses].some((name) => read(foreignOwnerOf, { name, namespace }) !== undefined);
}

/** Whether a range of addresses, `10.0.0.0/8`, has an address. */
export function rangeHas(range: string, address: string): boolean {
  const [base = "", length = ""] = range.split("/");
  const version = isIP(address);
  if (version === 0 || isIP(base) !== version) return false;
  const family = version === 4 ? "ipv4" : "ipv6";
  const list = new BlockList();
  list.addSubnet(base, Number(length), family);
  return list.check(address, family);
}
