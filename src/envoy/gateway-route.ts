// Route tables of a router: a virtual host for each host that a Gateway's server and a VirtualService bound to it have
// in common. Several VirtualServices may share a host: their routes follow each other.

import type { Read } from "#engine";
import type { HTTPMatchRequest } from "#objects";
import {
  boundRoutes,
  bySpecificity,
  hostCovers,
  hostsForNamespace,
  httpRoutesOf,
  isGenerated,
  isIngressGateway,
  mergedGatewayOf,
  readMesh,
  readTuning,
  selects,
  type GatewayScope,
  type MergedServer,
  type MeshService,
  type ProxyTuning,
  type RouteFacts,
} from "#model";
import type { GatewayRouteKey } from "#plan";
import { isDynamicHost } from "./dynamic-forward.ts";
import { meshHttpAlpnOn } from "./filters.ts";
import {
  destinationCluster,
  destinationHash,
  destinationService,
  policyTowards,
} from "./gateway-destination.ts";
import { httpRoutes } from "./http-route.ts";
import { wrapped, type Message } from "./proto/api.ts";
import { resource, type EnvoyResource, type Origin } from "./resource.ts";
import { takesAnything } from "./route-match.ts";
import { attemptCount } from "./tuning.ts";

/** Bodies of direct responses may be this long, in bytes: Istio's limit. */
const directResponseBytesMax = 1_048_576;

interface Router {
  readonly scope: GatewayScope;
  readonly headers: ProxyTuning["proxyHeaders"];
}

/** A host of the table while it is put together. */
interface Host {
  readonly name: string;
  readonly domains: string[];
  readonly routes: Message[];
  /** What the routes came from: hosts of equal sources share one virtual host. */
  readonly sources: string[];
  readonly objects: Origin["object"][];
  redirects: boolean;
}

export function gatewayRoute(
  read: Read,
  { scope, name, tuning }: GatewayRouteKey,
): EnvoyResource | undefined {
  const servers = read(mergedGatewayOf, scope).routes[name];
  const [first] = servers ?? [];
  if (servers === undefined || first === undefined) return undefined;
  const hosts = new Map<string, Host>();
  const headers = readTuning(read, tuning).proxyHeaders;
  for (const server of servers) addServer(read, { scope, headers }, server, hosts);
  isolate(servers, neighboursOf(read, scope, first), hosts);
  const ordered = [...hosts.values()].toSorted((a, b) =>
    bySpecificity(a.domains[0] ?? "", b.domains[0] ?? ""),
  );
  const shared = withSharedRoutes(ordered);
  const message: Message = {
    name,
    virtualHosts:
      shared.length === 0
        ? [nothingHere(first)]
        : shared.map((host) => ({ ...virtualHost(host), ...attemptCount(headers) })),
    ...(first.http3 === true ? { responseHeadersToAdd: [alternative(first)] } : {}),
    validateClusters: wrapped(false),
    ignorePortInHostMatching: true,
    maxDirectResponseBodySizeBytes: wrapped(directResponseBytesMax),
  };
  const origins = shared.flatMap(({ objects }, at) =>
    objects.map((object) => ({ at: `virtual_hosts[${at}]`, object })),
  );
  return resource("route", name, message, origins);
}

/** Tells clients of TCP that the host is there over QUIC as well (RFC 7838), for a day, as Istio does. */
function alternative({ number }: MergedServer): Message {
  return {
    header: { key: "alt-svc", value: `h3=":${number}"; ma=86400` },
    appendAction: "APPEND_IF_EXISTS_OR_ADD",
  };
}

function addServer(read: Read, router: Router, server: MergedServer, hosts: Map<string, Host>): void {
  const { scope } = router;
  const redirects = server.tls?.httpsRedirect === true;
  for (const facts of read(boundRoutes, { gateway: server.gateway, namespace: scope.namespace })) {
    const common = commonHosts(hostsForNamespace(server.hosts, facts.namespace), facts.hosts);
    if (common.length === 0) continue;
    const routes = routesOf(read, router, server, facts);
    for (const name of common) {
      const host = hostOf(hosts, name, server);
      host.routes.push(...routes);
      host.sources.push(`${facts.key} ${server.gateway} ${server.number}`);
      host.objects.push(...facts.origins);
      host.redirects ||= redirects;
    }
  }
  if (!redirects) return;
  for (const name of domainsOf(server)) hostOf(hosts, name, server).redirects = true;
}

/** The servers of the table's listener, the table's own among them. */
function neighboursOf(read: Read, scope: GatewayScope, server: MergedServer): readonly MergedServer[] {
  const { listeners } = read(mergedGatewayOf, scope);
  return listeners.find(({ servers }) => servers.includes(server))?.servers ?? [];
}

/**
 * Listeners of the Gateway API are walls: a request for one of them is none of a broader one's, though no route takes it (404). With
 * TLS the server name has chosen the listener: a request for another one has come the wrong way (421), as with a connection that a
 * client uses for several hosts. Gateways of Istio's API have no such rule.
 */
function isolate(own: readonly MergedServer[], all: readonly MergedServer[], hosts: Map<string, Host>): void {
  const walled = own.filter(isListener);
  for (const server of walled)
    for (const name of domainsOf(server)) if (name !== "*") hostOf(hosts, name, server);
  if (walled.length === 0 || own[0]?.kind !== "https") return;
  const others = all.filter((one) => one.kind === "https" && isListener(one) && !own.includes(one));
  for (const server of others)
    for (const name of domainsOf(server)) {
      if (hosts.has(name)) continue;
      const host = hostOf(hosts, name, server);
      host.routes.push({ match: { prefix: "/" }, directResponse: { status: 421 } });
      host.sources.push("misdirected");
    }
}

function isListener({ gateway }: MergedServer): boolean {
  return isGenerated(gateway) && !isIngressGateway(gateway);
}

function domainsOf({ hosts }: MergedServer): readonly string[] {
  return hosts.map((host) => host.slice(host.indexOf("/") + 1));
}

function hostOf(hosts: Map<string, Host>, domain: string, server: MergedServer): Host {
  let host = hosts.get(domain);
  if (host === undefined) {
    host = {
      name: `${domain}:${server.number}`,
      domains: [domain],
      routes: [],
      sources: [],
      objects: [server.object],
      redirects: false,
    };
    hosts.set(domain, host);
  }
  return host;
}

/** The narrower of each pair that meets: of "*.foo.com" and "a.foo.com" the latter, whichever side it is on. */
function commonHosts(served: readonly string[], bound: readonly string[]): readonly string[] {
  const common = served.flatMap((one) =>
    bound.flatMap((other) => (hostCovers(other, one) ? [one] : hostCovers(one, other) ? [other] : [])),
  );
  return [...new Set(common)];
}

function routesOf(
  read: Read,
  { scope, headers }: Router,
  server: MergedServer,
  facts: RouteFacts,
): readonly Message[] {
  const routes = httpRoutes(read(httpRoutesOf, facts.key), {
    virtualService: facts.key,
    port: server.number,
    terminatesTls: server.tls !== undefined,
    isSource: (match) => isForGateway(match, facts, server, scope),
    clusterOf: (destination) => destinationCluster(read, scope, destination, server.number),
    hashOf: (destination) => destinationHash(read, scope, destination, server.number),
    isDynamic: ({ host }) => isDynamicHost(read, host),
    retries: readMesh(read, "defaultHttpRetryPolicy"),
    headers,
  });
  return routes.map((route) => withMeshAlpn(read, scope, route));
}

/** Servers of the mesh whose port's protocol nobody has named must be told that it is HTTP what comes. */
function withMeshAlpn(read: Read, scope: GatewayScope, route: Message): Message {
  const action = route["route"] as
    | {
        readonly cluster?: string;
        readonly weightedClusters?: { readonly clusters: readonly { readonly name: string }[] };
      }
    | undefined;
  const clusters = [
    action?.cluster,
    ...(action?.weightedClusters?.clusters ?? []).map(({ name }) => name),
  ].filter((name) => name !== undefined);
  const sniffed = clusters.some((name) => isSniffedInMesh(read, scope, name));
  if (!sniffed || clusters.some((name) => isOutside(read, scope, name))) return route;
  const own = (route["typedPerFilterConfig"] ?? {}) as Message;
  return { ...route, typedPerFilterConfig: { ...own, ...meshHttpAlpnOn } };
}

function isSniffedInMesh(read: Read, scope: GatewayScope, cluster: string): boolean {
  const port = Number(cluster.split("|")[1]);
  const service = clusterService(read, scope, cluster);
  return service?.ports.some((one) => one.port === port && one.protocol === "auto") === true;
}

/** Outside of the mesh, or spoken to with TLS that is not the mesh's: such servers know nothing of its protocols. */
function isOutside(read: Read, scope: GatewayScope, cluster: string): boolean {
  const service = clusterService(read, scope, cluster);
  if (service?.external !== false) return true;
  const [, port, subset = ""] = cluster.split("|");
  const mode = policyTowards(read, scope, service, subset, Number(port)).tls?.mode;
  return mode !== undefined && mode !== "ISTIO_MUTUAL";
}

function clusterService(read: Read, scope: GatewayScope, cluster: string): MeshService | undefined {
  return destinationService(read, scope, { host: cluster.slice(cluster.lastIndexOf("|") + 1) });
}

function isForGateway(
  { gateways, sourceLabels, sourceNamespace }: HTTPMatchRequest,
  facts: RouteFacts,
  server: MergedServer,
  scope: GatewayScope,
): boolean {
  if (gateways !== undefined && gateways.length > 0) {
    const full = gateways.map((name) => (name.includes("/") ? name : `${facts.namespace}/${name}`));
    return full.includes(server.gateway);
  }
  return (
    selects(sourceLabels, scope.labels) &&
    (sourceNamespace === undefined || sourceNamespace === "" || sourceNamespace === scope.namespace)
  );
}

/** Hosts with the very same routes become one virtual host with several domains: the first one gives the name. */
function withSharedRoutes(hosts: readonly Host[]): readonly Host[] {
  const groups = Map.groupBy(hosts, ({ sources, redirects, domains }) =>
    sources.length === 0 ? `alone ${domains.join()}` : `${redirects} ${sources.join()}`,
  );
  return [...groups.values()].flatMap(([first, ...others]) =>
    first === undefined
      ? []
      : [{ ...first, domains: [...first.domains, ...others.flatMap(({ domains }) => domains)] }],
  );
}

function virtualHost({ name, domains, routes, redirects }: Host): Message {
  // A route that takes everything ends the search: those of later VirtualServices must stand before it.
  const last = routes.filter((route) => takesAnything(route["match"] as Message));
  const before = routes.filter((route) => !last.includes(route));
  return {
    name,
    domains,
    routes: [...before, ...last],
    ...(redirects ? { requireTls: "ALL" } : {}),
  };
}

/** A server without a VirtualService answers 404 to everything. */
function nothingHere({ number }: MergedServer): Message {
  return { name: `blackhole:${number}`, domains: ["*"] };
}
