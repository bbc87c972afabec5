// The virtual hosts of an outbound route table: one for each service that speaks HTTP at the port, and one for each
// host that only VirtualServices know. Their contents are another matter: each is a query of its own.

import { defineKeyedQuery, defineQuery, sameData, type Read } from "#engine";
import {
  aliasesOf,
  anyClient,
  bySpecificity,
  destinationsOf,
  environmentOf,
  hostCovers,
  httpRoutesOf,
  importsAll,
  isOwnOutlet,
  isPublicMesh,
  isWildcard,
  listenerProtocol,
  mayRoute,
  namespacesWithRoutes,
  namespacesWithRules,
  outletText,
  routesFor,
  rulesFor,
  serviceOf,
  servicesOfHost,
  servicesOfNamespace,
  servicesOfPort,
  visibleNamespaces,
  visibleRoutes,
  visibleService,
  visibleServices,
  type MeshService,
  type OutboundScope,
  type Outlet,
} from "#model";
import { stableText, type OutboundRouteKey, type OutboundVirtualHostKey } from "./keys.ts";

/** The port whose table also has hosts of VirtualServices that no service has: Istio's default for plain HTTP. */
const plainHttpPort = 80;

/**
 * The virtual hosts of a table in the order in which they stand there, in parts: a part that is unchanged, or the same for
 * other clients, is the identical list. No domain stands in two of them.
 */
export const virtualHostPartsOf = defineKeyedQuery<
  OutboundRouteKey,
  readonly (readonly OutboundVirtualHostKey[])[]
>(
  "virtualHostParts",
  stableText,
  (read, { outlet, port, host, everyPort }) => {
    if (everyPort !== undefined) return [read(hostsOfEveryPort, outlet)];
    if (host !== "") {
      const service = read(visibleService, { outlet, host });
      const own = service === undefined ? undefined : read(serviceHost, { outlet, port, service });
      // The table is for one service's address alone: whatever name the client used, it means that service.
      return own === undefined ? [] : [[{ ...own.virtualHost, domains: ["*"] }]];
    }
    const routed = read(ruleHosts, { outlet, port });
    const groups = [...read(servicesByNamespace, { outlet, port }).keys()].map(
      (namespace) => [namespace, read(namespaceHosts, { outlet, port, namespace })] as const,
    );
    const isShared = sharedByClients(read, { outlet }).outlet === anyOutletOfAll;
    const parts = isShared ? partsBeside(read(sharedTable, String(port)), routed, groups) : undefined;
    return parts ?? [withoutDuplicates(read, [...routed, ...groups.flatMap(([, hosts]) => hosts)])];
  },
  sameData,
);

/**
 * The virtual hosts of a table for every port. Its clients have connected nowhere, so only the Host header says the port; without one
 * in it, as in any HTTP request, port 80 is meant.
 */
const hostsOfEveryPort = defineKeyedQuery<Outlet, readonly OutboundVirtualHostKey[]>(
  "hostsOfEveryPort",
  outletText,
  (read, outlet) => {
    const services = read(visibleNamespaces, outlet).flatMap((namespace) =>
      read(visibleServices, { outlet, namespace }),
    );
    const ports = new Set(
      services.flatMap((key) => (read(serviceOf, key)?.ports ?? []).map(({ port }) => port)),
    );
    return [...ports.add(plainHttpPort)]
      .toSorted((a, b) => a - b)
      .flatMap((port) => {
        const own = read(servicesAt, { outlet, port }).flatMap(
          (service) => read(serviceHost, { outlet, port, service }) ?? [],
        );
        return withoutDuplicates(read, [...read(ruleHosts, { outlet, port }), ...own]).map((host) => ({
          ...host,
          domains: [
            ...(port === plainHttpPort ? host.domains : []),
            ...host.domains.map((domain) => `${domain}:${port}`),
          ],
        }));
      });
  },
  sameData,
);

/** All of them. */
export const virtualHostsOf = defineKeyedQuery<OutboundRouteKey, readonly OutboundVirtualHostKey[]>(
  "virtualHosts",
  stableText,
  (read, key) => read(virtualHostPartsOf, key).flat(),
  sameData,
);

/** A port's table as it is for clients for which nothing is special, with what tells whether others differ in more than names. */
interface SharedTable {
  readonly groups: ReadonlyMap<string, readonly HostAndAlternates[]>;
  /** In lower case; undefined if some domain stands in two virtual hosts. */
  readonly domains: ReadonlySet<string> | undefined;
}

const sharedTable = defineQuery<SharedTable>("sharedTable", (read, portText) => {
  const at = { outlet: anyOutletOfAll, port: Number(portText) };
  const groups = new Map(
    [...read(servicesByNamespace, at).keys()].map((namespace) => [
      namespace,
      read(namespaceHosts, { ...at, namespace }),
    ]),
  );
  const domains = new Set<string>();
  for (const hosts of groups.values()) {
    for (const domain of domainsOfAll(hosts)) {
      if (domain === "*" || domains.has(domain)) return { groups, domains: undefined };
      domains.add(domain);
    }
  }
  return { groups, domains };
});

/**
 * The parts of a client's table, most of them those of the shared one. So a change costs each client what is special for
 * it, and not a look at all domains. Undefined if some domain is contested: then all of them are looked at.
 */
function partsBeside(
  shared: SharedTable,
  routed: readonly HostAndAlternates[],
  groups: readonly (readonly [string, readonly HostAndAlternates[]])[],
): readonly (readonly OutboundVirtualHostKey[])[] | undefined {
  if (shared.domains === undefined) return undefined;
  const own = groups.filter(([namespace, hosts]) => shared.groups.get(namespace) !== hosts);
  const replaced = new Set(own.flatMap(([namespace]) => domainsOfAll(shared.groups.get(namespace) ?? [])));
  const taken = new Set<string>(["*"]);
  for (const hosts of [routed, ...own.map(([, one]) => one)]) {
    for (const domain of domainsOfAll(hosts)) {
      if (taken.has(domain) || (shared.domains.has(domain) && !replaced.has(domain))) return undefined;
      taken.add(domain);
    }
  }
  return [routed, ...groups.map(([, hosts]) => hosts)].filter(({ length }) => length > 0).map(keysOf);
}

function domainsOfAll(hosts: readonly HostAndAlternates[]): string[] {
  return hosts.flatMap(({ virtualHost }) => virtualHost.domains.map((domain) => domain.toLowerCase()));
}

const keysOfHosts = new WeakMap<readonly HostAndAlternates[], readonly OutboundVirtualHostKey[]>();

/** The same list for the same hosts. */
function keysOf(hosts: readonly HostAndAlternates[]): readonly OutboundVirtualHostKey[] {
  let keys = keysOfHosts.get(hosts);
  if (keys === undefined) keysOfHosts.set(hosts, (keys = hosts.map(({ virtualHost }) => virtualHost)));
  return keys;
}

interface HostAndAlternates {
  readonly virtualHost: OutboundVirtualHostKey;
  /** Domains that are shorter forms of the host's: another host's full name goes before them. */
  readonly alternates: readonly string[];
}

/** Services with HTTP at a port of an outlet: the services whose table it is. */
const servicesAt = defineKeyedQuery<{ readonly outlet: Outlet; readonly port: number }, readonly string[]>(
  "servicesAt",
  ({ outlet, port }) => `${port} ${outletText(outlet)}`,
  (read, { outlet, port }) => {
    const keys = isOwnOutlet(outlet)
      ? read(visibleNamespaces, outlet).flatMap((namespace) => read(visibleServices, { outlet, namespace }))
      : read(servicesOfPort, String(port));
    return keys.filter((key) => {
      const service = read(serviceOf, key);
      const own = service?.ports.find((one) => one.port === port);
      if (service === undefined || own === undefined || service.resolution === "alias") return false;
      const how = listenerProtocol(own.protocol);
      if (how !== "http" && how !== "auto") return false;
      return isOwnOutlet(outlet) || read(visibleService, { outlet, host: service.host }) === key;
    });
  },
  sameData,
  sharedByClients,
);

/** Those of a table by their namespaces, in their order. */
const servicesByNamespace = defineKeyedQuery<
  { readonly outlet: Outlet; readonly port: number },
  ReadonlyMap<string, readonly string[]>
>(
  "servicesByNamespace",
  ({ outlet, port }) => `${port} ${outletText(outlet)}`,
  (read, at) => Map.groupBy(read(servicesAt, at), namespaceOfKey),
  Object.is,
  sharedByClients,
);

const servicesOfNamespaceAt = defineKeyedQuery<
  { readonly outlet: Outlet; readonly port: number; readonly namespace: string },
  readonly string[]
>(
  "servicesOfNamespaceAt",
  ({ outlet, port, namespace }) => `${namespace} ${port} ${outletText(outlet)}`,
  (read, { namespace, ...at }) => read(servicesByNamespace, at).get(namespace) ?? [],
  sameData,
  sharedByClients,
);

/** Where all clients see the same services, the services of a table are the same for all. */
function sharedByClients<Key extends { readonly outlet: Outlet }>(read: Read, key: Key): Key {
  return importsAll(key.outlet) && read(isPublicMesh, "") ? { ...key, outlet: anyOutletOfAll } : key;
}

/** The services of one namespace in a table: shared by all clients for which none of them is special. */
const namespaceHosts = defineKeyedQuery<
  { readonly outlet: Outlet; readonly port: number; readonly namespace: string },
  readonly HostAndAlternates[]
>(
  "namespaceHosts",
  ({ outlet, port, namespace }) => `${namespace} ${port} ${outletText(outlet)}`,
  (read, { outlet, port, namespace }) =>
    read(servicesOfNamespaceAt, { outlet, port, namespace }).flatMap(
      (service) => read(serviceHost, { outlet, port, service }) ?? [],
    ),
  sameData,
  (read, key) => {
    const special = read(clientsOfNamespace, key.namespace);
    return special?.includes(key.outlet.scope.namespace) === false ? sharedByClients(read, key) : key;
  },
);

/** The client namespaces that some service of a namespace has another virtual host for; undefined for any. */
const clientsOfNamespace = defineQuery<readonly string[] | undefined>(
  "clientsOfNamespace",
  (read, namespace) => {
    const special = read(servicesOfNamespace, namespace).map((service) => read(clientsOfHost, service));
    if (special.some((namespaces) => namespaces === undefined)) return undefined;
    return [...new Set(special.flatMap((namespaces) => namespaces ?? []))].toSorted();
  },
  sameData,
);

function namespaceOfKey(key: string): string {
  return key.slice(0, key.indexOf("/"));
}

const serviceHost = defineKeyedQuery<
  { readonly outlet: Outlet; readonly port: number; readonly service: string },
  HostAndAlternates | undefined
>(
  "serviceHost",
  ({ outlet, port, service }) => `${service} ${port} ${outletText(outlet)}`,
  (read, { outlet, port, service: key }) => {
    const service = read(serviceOf, key);
    if (service === undefined) return undefined;
    const { scope } = outlet;
    const { clusterDomain } = read(environmentOf, "");
    const { host } = service;
    const names = [host, ...read(aliasesOf, host)];
    const alternates = names.flatMap((name) => shorterNames(name, scope.namespace, clusterDomain));
    const routing = read(routesFor, { outlet, host });
    return {
      alternates,
      virtualHost: {
        kind: "outbound",
        host,
        port,
        domains: domainsOf(service, names, alternates),
        service: key,
        routing,
        rules: read(rulesFor, {
          client: scope.namespace,
          labels: scope.labels,
          host,
          serviceNamespace: service.namespace,
        }),
        ...(routing.length > 0 ? { client: clientFacts(scope) } : {}),
      },
    };
  },
  sameData,
  (read, key) => {
    const special = read(clientsOfHost, key.service);
    const isShared = importsAll(key.outlet) && special?.includes(key.outlet.scope.namespace) === false;
    return isShared ? { ...key, outlet: anyOutletOfAll } : key;
  },
);

const anyOutletOfAll: Outlet = { scope: anyClient, port: 0 };

/**
 * The client namespaces for which the virtual host of a service (`namespace/host`) may be another than everyone's, or
 * undefined if its routes look at the client.
 */
const clientsOfHost = defineQuery<readonly string[] | undefined>(
  "clientsOfHost",
  (read, key) => {
    const service = read(serviceOf, key);
    if (service === undefined) return undefined;
    const { host, namespace } = service;
    const rows = read(routesFor, { outlet: anyOutletOfAll, host });
    if (rows.some((row) => read(looksAtClient, row))) return undefined;
    const destinations = rows.flatMap((row) => read(destinationsOf, row));
    // Names without a namespace work in a service's own, and in that of an alias.
    const aliases = read(aliasesOf, host).flatMap((alias) =>
      read(servicesOfHost, alias).map((one) => one.slice(0, one.indexOf("/"))),
    );
    const ruled = [host, ...destinations].flatMap((one) => read(namespacesWithRules, one));
    return [...new Set([namespace, ...aliases, ...read(namespacesWithRoutes, host), ...ruled])].toSorted();
  },
  sameData,
);

const looksAtClient = defineQuery<boolean>("looksAtClient", (read, row) =>
  read(httpRoutesOf, row).some(({ match }) =>
    (match ?? []).some(
      ({ sourceLabels, sourceNamespace }) =>
        Object.keys(sourceLabels ?? {}).length > 0 || (sourceNamespace ?? "") !== "",
    ),
  ),
);

/** Hosts that VirtualServices route and that no service of the table has. */
const ruleHosts = defineKeyedQuery<
  { readonly outlet: Outlet; readonly port: number },
  readonly HostAndAlternates[]
>(
  "ruleHosts",
  ({ outlet, port }) => `${port} ${outletText(outlet)}`,
  (read, { outlet, port }) => {
    const served = read(servedHosts, { outlet, port });
    const routes = read(visibleRoutes, outlet).filter(({ http }) => http);
    const hosts = new Set<string>();
    for (const route of routes) {
      // Away from plain HTTP's port a rule must route some service of the table, as Istio has it.
      if (port !== plainHttpPort && !route.hosts.some((host) => servesAny(host, served))) continue;
      for (const host of route.hosts) if (!servesAny(host, served)) hosts.add(host);
    }
    return [...hosts].toSorted(bySpecificity).flatMap((host): HostAndAlternates[] => {
      const routing = routes
        .filter((route) => route.hosts.includes(host))
        .filter(({ namespace }) => mayRoute(read, namespace, host, outlet.scope.namespace))
        .map(({ key }) => key);
      // The name is another's, maybe in a shorter form: who may not route it must not stand in its place either.
      if (routing.length === 0) return [];
      const client = clientFacts(outlet.scope);
      return [
        {
          alternates: [],
          virtualHost: {
            kind: "outbound",
            host,
            port,
            domains: [host],
            service: "",
            routing,
            rules: [],
            client,
          },
        },
      ];
    });
  },
  sameData,
);

/** The hosts of a table's services. */
const servedHosts = defineKeyedQuery<{ readonly outlet: Outlet; readonly port: number }, ReadonlySet<string>>(
  "servedHosts",
  ({ outlet, port }) => `${port} ${outletText(outlet)}`,
  (read, at) => new Set(read(servicesAt, at).map((key) => key.slice(key.indexOf("/") + 1))),
  Object.is,
  sharedByClients,
);

function servesAny(host: string, served: ReadonlySet<string>): boolean {
  return isWildcard(host) ? served.values().some((one) => hostCovers(host, one)) : served.has(host);
}

function clientFacts(scope: OutboundScope): NonNullable<OutboundVirtualHostKey["client"]> {
  return { namespace: scope.namespace, labels: scope.labels };
}

/** The names that a pod's resolver completes: `reviews` from its own namespace, `reviews.default` from any. */
function shorterNames(host: string, clientNamespace: string, clusterDomain: string): string[] {
  const suffix = `.svc.${clusterDomain}`;
  if (!host.endsWith(suffix)) return [];
  const before = host.slice(0, -suffix.length);
  const [name = "", namespace, ...rest] = before.split(".");
  if (namespace === undefined || rest.length > 0) return [];
  const own = namespace === clientNamespace ? [name] : [];
  return [...own, before, `${before}.svc`];
}

function domainsOf(
  service: MeshService,
  names: readonly string[],
  alternates: readonly string[],
): readonly string[] {
  const all = [...names, ...alternates];
  const headless = service.registry === "Kubernetes" && service.resolution === "original-destination";
  // Clients of a headless service name single pods: `web-0.web.default`.
  const pods = headless ? all.map((name) => `*.${name}`) : [];
  return [...new Set([...all, ...pods, ...service.addresses.map(domainOfAddress)])];
}

function domainOfAddress(address: string): string {
  return address.includes(":") ? `[${address}]` : address;
}

/**
 * Envoy refuses a table with a domain in two virtual hosts: the first keeps it, and a full name goes before a short form. But a name
 * without a dot means a service of the client's own namespace, whoever else has a host of that name.
 */
function withoutDuplicates(read: Read, hosts: readonly HostAndAlternates[]): OutboundVirtualHostKey[] {
  const isOpen = read(environmentOf, "").foreignRoutes === "all-clients";
  const bare = isOpen ? new Map<string, string>() : bareNames(hosts);
  const full = new Set(
    hosts
      .filter(({ virtualHost }) => isOf(bare.get(virtualHost.host), virtualHost))
      .map(({ virtualHost }) => virtualHost.host),
  );
  // The table's own catch-all has every name that is left.
  const taken = new Set<string>(["*"]);
  const names = new Set<string>();
  return hosts.flatMap(({ virtualHost, alternates }) => {
    if (names.has(virtualHost.host)) return [];
    names.add(virtualHost.host);
    const domains = virtualHost.domains.filter((domain) => {
      const lower = domain.toLowerCase();
      if (!isOf(bare.get(lower), virtualHost)) return false;
      if (taken.has(lower) || (alternates.includes(domain) && full.has(domain))) return false;
      taken.add(lower);
      return true;
    });
    if (domains.length === 0) return [];
    return [domains.length === virtualHost.domains.length ? virtualHost : { ...virtualHost, domains }];
  });
}

/** Names without a dot, and the namespaces of the services that resolvers make of them. */
function bareNames(hosts: readonly HostAndAlternates[]): Map<string, string> {
  return new Map(
    hosts.flatMap(({ virtualHost, alternates }) =>
      alternates
        .filter((name) => !name.includes("."))
        .map((name) => [name, namespaceOfKey(virtualHost.service)]),
    ),
  );
}

/** Whether a virtual host is of a service of a namespace, where one is asked for. */
function isOf(namespace: string | undefined, { service }: OutboundVirtualHostKey): boolean {
  return namespace === undefined || namespaceOfKey(service) === namespace;
}

/** Istio's name of a virtual host. */
export function virtualHostName({ host, port }: OutboundVirtualHostKey): string {
  return `${host}:${port}`;
}
