// VirtualServices bound to the mesh: which of them route a host for a client, and their routes with delegates in place.

import type { ObjectRef } from "#base";
import { defineKeyedQuery, defineQuery, sameData, type Read } from "#engine";
import {
  refOf,
  type HTTPMatchRequest,
  type StringMatch,
  type VirtualService,
  type VirtualServiceHttpRoute,
  type VirtualServiceTcpRoute,
  type VirtualServiceTlsRoute,
} from "#objects";
import { namespaceOf } from "./core-kinds.ts";
import {
  generatedVirtualService,
  hasMeshRoutes,
  routesOfMesh,
  routesOfMeshHost,
} from "./gateway-api/generated.ts";
import { isGenerated } from "./gateway-api/names.ts";
import { ingressVirtualService, isIngressGateway } from "./ingress/index.ts";
import { fullHost, hostGroups, wildcardsOf } from "./hosts.ts";
import { clusterOwnerOf } from "./claims.ts";
import { environmentOf, readMesh } from "./mesh.ts";
import {
  anyClient,
  egressAt,
  importsAll,
  isRuleImported,
  outletText,
  type Import,
  type Outlet,
} from "./scope.ts";
import { isExportedTo, serviceOf, servicesOfHost } from "./services.ts";
import { everything, tables } from "./tables.ts";

/** What deciding which VirtualService applies needs; changes of its routes do not show here. */
export interface RouteFacts {
  /** Row key. */
  readonly key: string;
  readonly namespace: string;
  readonly created: string;
  /** Full hosts. */
  readonly hosts: readonly string[];
  readonly mesh: boolean;
  readonly exportTo: readonly string[];
  readonly http: boolean;
  readonly tcp: boolean;
  readonly tls: boolean;
  /** What its routes come from: a VirtualService, or routes of Gateway API. */
  readonly origins: readonly ObjectRef[];
}

/** A VirtualService by row key: one that a user wrote, or one that routes of Gateway API or Ingresses come to. */
function virtualServiceRow(read: Read, key: string): VirtualService | undefined {
  return isGenerated(key) ? generated(read, key)?.object : read(tables.VirtualService, key);
}

function generated(read: Read, key: string) {
  return read(isIngressGateway(key) ? ingressVirtualService : generatedVirtualService, key);
}

export const routeFacts = defineQuery<RouteFacts | undefined>(
  "routeFacts",
  (read, key) => {
    const row = virtualServiceRow(read, key);
    if (row?.spec === undefined) return undefined;
    const { clusterDomain } = read(environmentOf, "");
    const { spec } = row;
    const namespace = namespaceOf(row);
    const exportTo =
      spec.exportTo === undefined || spec.exportTo.length === 0
        ? (readMesh(read, "defaultVirtualServiceExportTo") ?? ["*"])
        : spec.exportTo;
    return {
      key,
      namespace,
      created: row.metadata.creationTimestamp ?? "",
      // A VirtualService without hosts is a delegate: it routes nothing by itself.
      hosts: (spec.hosts ?? []).map((host) =>
        isIngressGateway(key) ? host : fullHost(host.toLowerCase(), namespace, clusterDomain),
      ),
      // Istio reads an empty list of gateways as ["mesh"].
      mesh: spec.gateways === undefined || spec.gateways.length === 0 || spec.gateways.includes("mesh"),
      exportTo: exportTo.map((entry) => (entry === "." ? namespace : entry)),
      http: (spec.http ?? []).length > 0,
      tcp: (spec.tcp ?? []).length > 0,
      tls: (spec.tls ?? []).length > 0,
      origins: isGenerated(key) ? (generated(read, key)?.origins ?? []) : [refOf(row)],
    };
  },
  sameData,
);

/** The VirtualServices that an outlet sees, in the order in which the first one wins. */
export const visibleRoutes = defineKeyedQuery<Outlet, readonly RouteFacts[]>(
  "visibleRoutes",
  outletText,
  (read, outlet) => {
    const imports = read(egressAt, outlet)?.imports ?? [];
    const keys = [...read(tables.VirtualService.by.all.members, everything), ...read(routesOfMesh, "")];
    const facts = keys.flatMap((key) => read(routeFacts, key) ?? []);
    return facts
      .filter((route) => isVisible(route, imports, outlet.scope.namespace))
      .toSorted((a, b) => byPrecedence(a, b, outlet.scope.namespace));
  },
  sameData,
);

/**
 * Row keys of the VirtualServices that may route a host for an outlet, the one that wins first. Only an exact host, or
 * else the most specific wildcard, counts; several of one host are not merged for sidecars: the next is tried only
 * when no route of the one before is for this client.
 */
export const routesFor = defineKeyedQuery<
  { readonly outlet: Outlet; readonly host: string },
  readonly string[]
>(
  "routesFor",
  ({ outlet, host }) => `${host} ${outletText(outlet)}`,
  (read, { outlet, host }) => {
    const { clusterDomain } = read(environmentOf, "");
    const imports = read(egressAt, outlet)?.imports ?? [];
    const levels = [hostGroups(host, clusterDomain), ...wildcardsOf(host).map((wildcard) => [wildcard])];
    for (const groups of levels) {
      const found = groups
        .flatMap((group) => rowsOfHost(read, group))
        .flatMap((key) => read(routeFacts, key) ?? [])
        .filter((route) => isVisible(route, imports, outlet.scope.namespace))
        .filter((route) => mayRoute(read, route.namespace, host, outlet.scope.namespace))
        .toSorted((a, b) => byPrecedence(a, b, outlet.scope.namespace));
      if (found.length > 0) return [...new Set(found.map(({ key }) => key))];
    }
    return [];
  },
  sameData,
  sharedByClients,
);

/**
 * Whether a VirtualService of a namespace may route a client's calls of a host. A host of the mesh belongs to the namespace
 * of its service: VirtualServices from elsewhere are for their own namespace's calls, and take nothing over from others.
 */
export function mayRoute(read: Read, namespace: string, host: string, client: string): boolean {
  if (namespace === client) return true;
  const owners = read(ownersOf, host);
  return owners.length === 0 || owners.includes(namespace);
}

/** The namespaces that speak for a host to everybody; none where anybody may: hosts outside of the mesh. */
export const ownersOf = defineQuery<readonly string[]>(
  "ownersOf",
  (read, host) => {
    const { foreignRoutes, rootNamespace } = read(environmentOf, "");
    if (foreignRoutes === "all-clients") return [];
    // A ServiceEntry for a Service's host, or for another name of it, makes nobody its owner.
    const ofCluster = read(clusterOwnerOf, host);
    if (ofCluster !== undefined) return [...new Set([rootNamespace, ofCluster])].toSorted();
    const services = read(servicesOfHost, host).flatMap((key) => read(serviceOf, key) ?? []);
    const internal = services.filter(({ external }) => !external);
    if (internal.length === 0) return [];
    return [...new Set([rootNamespace, ...internal.map(({ namespace }) => namespace)])].toSorted();
  },
  sameData,
);

/**
 * The namespaces for which other VirtualServices than everyone's may route a host: those that one is exported to by name,
 * and those that have one for a host of another namespace.
 */
export const namespacesWithRoutes = defineQuery<readonly string[]>(
  "namespacesWithRoutes",
  (read, host) => {
    const { clusterDomain } = read(environmentOf, "");
    const namespaces = [...hostGroups(host, clusterDomain), ...wildcardsOf(host)]
      .flatMap((group) => rowsOfHost(read, group))
      .flatMap((key) => {
        const facts = read(routeFacts, key);
        if (facts === undefined) return [];
        return mayRoute(read, facts.namespace, host, "")
          ? facts.exportTo
          : [...facts.exportTo, facts.namespace];
      });
    return [...new Set(namespaces)].toSorted();
  },
  sameData,
);

/** Row keys of every VirtualService with TCP or TLS routes whose hosts cover this host, in order. */
export const streamRoutesFor = defineKeyedQuery<
  { readonly outlet: Outlet; readonly host: string },
  readonly string[]
>(
  "streamRoutesFor",
  ({ outlet, host }) => `${host} ${outletText(outlet)}`,
  (read, { outlet, host }) => {
    const { clusterDomain } = read(environmentOf, "");
    const imports = read(egressAt, outlet)?.imports ?? [];
    const found = [...hostGroups(host, clusterDomain), ...wildcardsOf(host)]
      .flatMap((group) => rowsOfHost(read, group))
      .flatMap((key) => read(routeFacts, key) ?? [])
      .filter((route) => (route.tcp || route.tls) && isVisible(route, imports, outlet.scope.namespace))
      .filter((route) => mayRoute(read, route.namespace, host, outlet.scope.namespace))
      .toSorted((a, b) => byPrecedence(a, b, outlet.scope.namespace));
    return [...new Set(found.map(({ key }) => key))];
  },
  sameData,
  sharedByClients,
);

/** Row keys under a host, or under the short form of one, which nothing generated has. */
function rowsOfHost(read: Read, group: string): readonly string[] {
  const written = read(tables.VirtualService.by.host.members, group);
  return group.includes("/") || !read(hasMeshRoutes, "")
    ? written
    : [...written, ...read(routesOfMeshHost, group)];
}

/** The HTTP routes of a VirtualService by row key, delegates put in place. */
export const httpRoutesOf = defineQuery<readonly VirtualServiceHttpRoute[]>(
  "httpRoutes",
  (read, key) => {
    const row = virtualServiceRow(read, key);
    if (row === undefined) return [];
    const { clusterDomain } = read(environmentOf, "");
    return (row.spec?.http ?? []).flatMap((route) =>
      route.delegate === undefined
        ? [withFullHosts(route, namespaceOf(row), clusterDomain)]
        : delegated(read, route, namespaceOf(row), clusterDomain),
    );
  },
  sameData,
);

export interface StreamRoutes {
  readonly tcp: readonly VirtualServiceTcpRoute[];
  readonly tls: readonly VirtualServiceTlsRoute[];
}

/** The TCP and TLS routes of a VirtualService by row key, destinations with full hosts. */
export const streamRoutesOf = defineQuery<StreamRoutes>(
  "streamRoutes",
  (read, key) => {
    const row = virtualServiceRow(read, key);
    if (row === undefined) return { tcp: [], tls: [] };
    const { clusterDomain } = read(environmentOf, "");
    const full = (host: string): string => fullHost(host, namespaceOf(row), clusterDomain);
    const complete = <Route extends VirtualServiceTcpRoute | VirtualServiceTlsRoute>(
      route: Route,
    ): Route => ({
      ...route,
      route: (route.route ?? []).map((one) => ({
        ...one,
        destination: { ...one.destination, host: full(one.destination.host) },
      })),
    });
    return { tcp: (row.spec?.tcp ?? []).map(complete), tls: (row.spec?.tls ?? []).map(complete) };
  },
  sameData,
);

/** Hosts that a VirtualService sends traffic to: a Sidecar that imports the rule gets their clusters as well. */
export const destinationsOf = defineQuery<readonly string[]>(
  "destinations",
  (read, key) => {
    const http = read(httpRoutesOf, key).flatMap((route) => [
      ...(route.route ?? []).map(({ destination }) => destination.host),
      ...(route.mirror === undefined ? [] : [route.mirror.host]),
      ...(route.mirrors ?? []).map(({ destination }) => destination.host),
      ...(route.externalAuth === undefined ? [] : [route.externalAuth.destination.host]),
    ]);
    const { tcp, tls } = read(streamRoutesOf, key);
    const streams = [...tcp, ...tls].flatMap(({ route }) =>
      (route ?? []).map(({ destination }) => destination.host),
    );
    return [...new Set([...http, ...streams])].toSorted();
  },
  sameData,
);

/** Hosts that a VirtualService mirrors requests to, or asks whether they may go on. */
const asidesOf = defineQuery<readonly string[]>(
  "asides",
  (read, key) => {
    const hosts = read(httpRoutesOf, key).flatMap(({ mirror, mirrors, externalAuth }) => [
      ...(mirror === undefined ? [] : [mirror.host]),
      ...(mirrors ?? []).map(({ destination }) => destination.host),
      ...(externalAuth === undefined ? [] : [externalAuth.destination.host]),
    ]);
    return [...new Set(hosts)].toSorted();
  },
  sameData,
);

/**
 * Hosts that any rule of the mesh names beside those that requests go to: mirrors, and services that are asked. A rule that names none is
 * looked at when it comes, and no more.
 */
export const hostsAside = defineQuery<readonly string[]>(
  "hostsAside",
  (read) => {
    const keys = [...read(tables.VirtualService.by.all.members, everything), ...read(routesOfMesh, "")];
    return [...new Set(keys.flatMap((key) => read(asidesOf, key)))].toSorted();
  },
  sameData,
);

/**
 * Whether some rule of the mesh sends calls to a host that is looked up as requests name it: then any HTTP listener of a sidecar may
 * have such calls. Rules are looked at only where there is such a host at all.
 */
export const routesToDynamicHosts = defineQuery<boolean>("routesToDynamicHosts", (read) => {
  const entries = read(tables.ServiceEntry.by.dynamic, everything);
  if (entries.length === 0) return false;
  const hosts = new Set(entries.flatMap(({ spec }) => spec?.hosts ?? []));
  const keys = [...read(tables.VirtualService.by.all.members, everything), ...read(routesOfMesh, "")];
  return keys.some((key) => read(destinationsOf, key).some((host) => hosts.has(host)));
});

interface HostQuestion {
  readonly outlet: Outlet;
  readonly host: string;
}

function sharedByClients(read: Read, key: HostQuestion): HostQuestion {
  const { outlet, host } = key;
  const special = !importsAll(outlet) || read(namespacesWithRoutes, host).includes(outlet.scope.namespace);
  return special ? key : { host, outlet: { scope: anyClient, port: 0 } };
}

function isVisible(route: RouteFacts, imports: readonly Import[], client: string): boolean {
  return (
    route.mesh &&
    isExportedTo(route.exportTo, route.namespace, client) &&
    route.hosts.some((host) => isRuleImported(imports, route.namespace, host))
  );
}

/** What is exported to the client's namespace alone goes before what is exported to some, and that before the public. */
export function byPrecedence(a: RouteFacts, b: RouteFacts, client: string): number {
  const rank = ({ exportTo, namespace }: RouteFacts): number =>
    exportTo.includes("*") ? 2 : namespace === client && exportTo.length === 1 ? 0 : 1;
  if (rank(a) !== rank(b)) return rank(a) - rank(b);
  if (a.created !== b.created) return a.created < b.created ? -1 : 1;
  return nameFirst(a.key) < nameFirst(b.key) ? -1 : 1;
}

/** Istio breaks ties of age by name, then by namespace. */
function nameFirst(key: string): string {
  const [namespace, name] = key.split("/");
  return `${name}.${namespace}`;
}

function withFullHosts(
  route: VirtualServiceHttpRoute,
  namespace: string,
  clusterDomain: string,
): VirtualServiceHttpRoute {
  const full = (host: string): string => fullHost(host, namespace, clusterDomain);
  return {
    ...route,
    route: route.route?.map((one) => ({
      ...one,
      destination: { ...one.destination, host: full(one.destination.host) },
    })),
    mirror: route.mirror === undefined ? undefined : { ...route.mirror, host: full(route.mirror.host) },
    mirrors: route.mirrors?.map((one) => ({
      ...one,
      destination: { ...one.destination, host: full(one.destination.host) },
    })),
    ...(route.externalAuth === undefined
      ? {}
      : {
          externalAuth: {
            ...route.externalAuth,
            destination: {
              ...route.externalAuth.destination,
              host: full(route.externalAuth.destination.host),
            },
          },
        }),
  };
}

/** A delegate's routes under the conditions of the route that delegates. A delegate of a delegate is not followed. */
function delegated(
  read: Read,
  root: VirtualServiceHttpRoute,
  rootNamespace: string,
  clusterDomain: string,
): VirtualServiceHttpRoute[] {
  const namespace = root.delegate?.namespace ?? rootNamespace;
  const key = `${namespace}/${root.delegate?.name ?? ""}`;
  const row = read(tables.VirtualService, key);
  if (row === undefined || (row.spec?.hosts ?? []).length > 0 || !mayDelegateTo(read, key, rootNamespace))
    return [];
  return (row.spec?.http ?? [])
    .filter(({ delegate }) => delegate === undefined)
    .flatMap((route) => {
      const match = mergeMatches(root.match ?? [], route.match ?? []);
      if (match === undefined) return [];
      const { match: _match, delegate: _delegate, ...inherited } = root;
      const own = withFullHosts(route, namespace, clusterDomain);
      return [{ ...inherited, ...definedOf(own), headers: mergeHeaders(root, own), match }];
    });
}

/** Whether a VirtualService, by its row key, is exported to a namespace, whose VirtualServices may delegate to it then. */
export function mayDelegateTo(read: Read, key: string, namespace: string): boolean {
  const facts = read(routeFacts, key);
  return facts !== undefined && isExportedTo(facts.exportTo, facts.namespace, namespace);
}

function definedOf(route: VirtualServiceHttpRoute): VirtualServiceHttpRoute {
  return Object.fromEntries(Object.entries(route).filter(([, value]) => value !== undefined));
}

function mergeHeaders(
  root: VirtualServiceHttpRoute,
  own: VirtualServiceHttpRoute,
): VirtualServiceHttpRoute["headers"] {
  if (root.headers === undefined) return own.headers;
  const side = (name: "request" | "response") => ({
    set: { ...root.headers?.[name]?.set, ...own.headers?.[name]?.set },
    add: { ...root.headers?.[name]?.add, ...own.headers?.[name]?.add },
    remove: [...(root.headers?.[name]?.remove ?? []), ...(own.headers?.[name]?.remove ?? [])],
  });
  return { request: side("request"), response: side("response") };
}

/** Every pair of conditions that can hold at once; undefined when none can. */
function mergeMatches(
  root: readonly HTTPMatchRequest[],
  own: readonly HTTPMatchRequest[],
): readonly HTTPMatchRequest[] | undefined {
  if (root.length === 0) return own;
  if (own.length === 0) return root;
  const merged = own.flatMap((inner) =>
    root.flatMap((outer) => {
      if (!canMeet(outer, inner)) return [];
      return [
        {
          ...outer,
          ...inner,
          name: [outer.name, inner.name].filter((name) => name !== undefined && name !== "").join("-"),
          headers: { ...outer.headers, ...inner.headers },
          withoutHeaders: { ...outer.withoutHeaders, ...inner.withoutHeaders },
          queryParams: { ...outer.queryParams, ...inner.queryParams },
          sourceLabels: { ...outer.sourceLabels, ...inner.sourceLabels },
        },
      ];
    }),
  );
  return merged.length === 0 ? undefined : merged;
}

function canMeet(outer: HTTPMatchRequest, inner: HTTPMatchRequest): boolean {
  return (
    textsMeet(outer.uri, inner.uri) &&
    textsMeet(outer.method, inner.method) &&
    textsMeet(outer.authority, inner.authority) &&
    textsMeet(outer.scheme, inner.scheme) &&
    (outer.port === undefined || inner.port === undefined || outer.port === inner.port)
  );
}

/** The delegate's condition must lie within the root's: an equal text, or a longer one under a prefix. */
function textsMeet(outer: StringMatch | undefined, inner: StringMatch | undefined): boolean {
  if (outer === undefined || inner === undefined) return true;
  if (outer.regex !== undefined || inner.regex !== undefined) return outer.regex === inner.regex;
  if (outer.exact !== undefined) return inner.exact === outer.exact;
  const prefix = outer.prefix ?? "";
  return (inner.exact ?? inner.prefix ?? "").startsWith(prefix);
}
