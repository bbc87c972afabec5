// What is wrong with a VirtualService as the mesh stands.

import type { Read } from "#engine";
import type { Destination, VirtualService, VirtualServiceHttpRoute } from "#objects";
import { namespaceOf } from "./core-kinds.ts";
import { mergedRule, rulesFor } from "./destination-rule.ts";
import { fullHost, hostGroups, isWildcard, wildcardsOf } from "./hosts.ts";
import { environmentOf } from "./mesh.ts";
import type { Found } from "./object-problems.ts";
import { isExportedTo, serviceOf, servicesOfHost, type MeshService } from "./services.ts";
import { tables } from "./tables.ts";
import { byPrecedence, mayRoute, ownersOf, routeFacts, mayDelegateTo } from "./virtual-service.ts";

export function virtualServiceProblems(read: Read, key: string, row: VirtualService): readonly Found[] {
  const { http = [] } = row.spec ?? {};
  return [
    ...gatewayProblems(read, row),
    ...hostProblems(read, key),
    ...http.flatMap((route, at) => delegateProblems(read, row, route, `spec.http[${at}].delegate`)),
    ...destinationProblems(read, row),
  ];
}

function gatewayProblems(read: Read, row: VirtualService): Found[] {
  return (row.spec?.gateways ?? []).flatMap((name, at) => {
    if (name === "mesh") return [];
    const key = name.includes("/") ? name : `${namespaceOf(row)}/${name}`;
    if (read(tables.Gateway, key) !== undefined || read(tables.KubeGateway, key) !== undefined) return [];
    return [{ code: "MZ0604", path: `spec.gateways[${at}]`, text: `There is no Gateway ${key}.` }];
  });
}

/**
 * For sidecars one VirtualService has a host, the one that goes first: the others are tried only where it has no route. Of a
 * host that another namespace owns, only the calls of the object's own namespace are routed.
 */
function hostProblems(read: Read, key: string): Found[] {
  const own = read(routeFacts, key);
  if (own === undefined || !own.mesh) return [];
  const { clusterDomain } = read(environmentOf, "");
  return own.hosts.flatMap((host, at): Found[] => {
    const path = `spec.hosts[${at}]`;
    const rivals = hostGroups(host, clusterDomain)
      .flatMap((group) => read(tables.VirtualService.by.host.members, group))
      .flatMap((other) => (other === key ? [] : (read(routeFacts, other) ?? [])))
      .filter((other) => other.mesh && isExportedTo(other.exportTo, other.namespace, own.namespace))
      .filter((other) => mayRoute(read, other.namespace, host, own.namespace));
    const first = rivals.find((other) => byPrecedence(other, own, own.namespace) < 0);
    const limited = limitProblems(read, own.namespace, host, path);
    if (first !== undefined) {
      const text = `VirtualService ${first.key} goes first for host ${host}.`;
      return [...limited, { code: "MZ0606", path, text }];
    }
    if (limited.length > 0) return limited;
    const isOfCluster = host.endsWith(`.svc.${clusterDomain}`) && !isWildcard(host);
    if (isOfCluster && !isKnown(read, host))
      return [{ code: "MZ0607", path, text: `There is no service ${host}.` }];
    return [];
  });
}

function limitProblems(read: Read, namespace: string, host: string, path: string): Found[] {
  const owners = read(ownersOf, host);
  if (owners.length === 0 || owners.includes(namespace)) return [];
  const { rootNamespace } = read(environmentOf, "");
  const owner = owners.find((one) => one !== rootNamespace) ?? rootNamespace;
  const text = `Host ${host} belongs to namespace ${owner}: only calls from namespace ${namespace} are routed.`;
  return [{ code: "MZ0614", path, text }];
}

/** A root's delegate must be there, without hosts, exported to the root, and route by itself. */
function delegateProblems(
  read: Read,
  row: VirtualService,
  { delegate }: VirtualServiceHttpRoute,
  path: string,
): Found[] {
  if (delegate === undefined) return [];
  const namespace = namespaceOf(row);
  const key = `${delegate.namespace ?? namespace}/${delegate.name ?? ""}`;
  const wrong = (text: string): Found[] => [{ code: "MZ0605", path, text }];
  if (key === `${namespace}/${row.metadata.name}`) return wrong("The object delegates to itself.");
  const target = read(tables.VirtualService, key);
  if (target === undefined) return wrong(`There is no VirtualService ${key}.`);
  if ((target.spec?.hosts ?? []).length > 0)
    return wrong(`VirtualService ${key} has hosts: it is no delegate.`);
  if (!mayDelegateTo(read, key, namespace))
    return wrong(`VirtualService ${key} is not exported to ${namespace}.`);
  const further = (target.spec?.http ?? []).find((route) => route.delegate !== undefined)?.delegate;
  if (further === undefined) return [];
  const next = `${further.namespace ?? namespaceOf(target)}/${further.name ?? ""}`;
  return wrong(
    next === `${namespace}/${row.metadata.name}` || next === key
      ? `VirtualService ${key} delegates back: routes that go round in a circle are left out.`
      : `VirtualService ${key} delegates further, to ${next}: that is not followed.`,
  );
}

/** The same destination stands in many routes: each is looked at once, at its first place. */
function destinationProblems(read: Read, row: VirtualService): Found[] {
  const namespace = namespaceOf(row);
  const { clusterDomain } = read(environmentOf, "");
  const seen = new Set<string>();
  const found: Found[] = [];
  for (const { destination, path } of destinations(row)) {
    const host = fullHost(destination.host, namespace, clusterDomain);
    const text = `${host} ${destination.subset ?? ""}`;
    if (seen.has(text)) continue;
    seen.add(text);
    found.push(...oneDestination(read, namespace, host, destination, path));
  }
  return found;
}

function oneDestination(
  read: Read,
  namespace: string,
  host: string,
  { subset = "" }: Destination,
  path: string,
): Found[] {
  const services = read(servicesOfHost, host).flatMap((one) => read(serviceOf, one) ?? []);
  const service = services.find((one) => isExportedTo(one.exportTo, one.namespace, namespace));
  if (service === undefined && !isKnown(read, host))
    return [{ code: "MZ0601", path: `${path}.host`, text: `No service has the host ${host}.` }];
  if (service === undefined && services.length > 0)
    return [{ code: "MZ0601", path: `${path}.host`, text: `${host} is not exported to ${namespace}.` }];
  if (subset === "" || hasSubset(read, namespace, host, service, subset)) return [];
  const text = `No DestinationRule for ${host} defines the subset ${subset}.`;
  return [{ code: "MZ0602", path: `${path}.subset`, text }];
}

function hasSubset(
  read: Read,
  client: string,
  host: string,
  service: MeshService | undefined,
  subset: string,
): boolean {
  const serviceNamespace = service?.namespace ?? client;
  const rules = read(rulesFor, { client, labels: {}, host, serviceNamespace });
  return read(mergedRule, rules.join(",")).subsets.some(({ name }) => name === subset);
}

/** A service of this host, or of a wildcard that covers it. */
export function isKnown(read: Read, host: string): boolean {
  return [host, ...wildcardsOf(host)].some((one) => read(servicesOfHost, one).length > 0);
}

interface Placed {
  readonly destination: Destination;
  readonly path: string;
}

function* destinations({ spec }: VirtualService): Generator<Placed> {
  for (const [at, route] of (spec?.http ?? []).entries()) {
    const path = `spec.http[${at}]`;
    for (const [position, { destination }] of (route.route ?? []).entries())
      yield { destination, path: `${path}.route[${position}].destination` };
    if (route.mirror !== undefined) yield { destination: route.mirror, path: `${path}.mirror` };
    for (const [position, { destination }] of (route.mirrors ?? []).entries())
      yield { destination, path: `${path}.mirrors[${position}].destination` };
  }
  for (const kind of ["tls", "tcp"] as const) {
    for (const [at, { route }] of (spec?.[kind] ?? []).entries()) {
      for (const [position, { destination }] of (route ?? []).entries())
        yield { destination, path: `spec.${kind}[${at}].route[${position}].destination` };
    }
  }
}
