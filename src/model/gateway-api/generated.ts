// Gateway API in the terms of Istio's: a Gateway for each listener, a VirtualService for each host that routes have there
// or in the mesh. They live beside the objects that users wrote, under names that no object can have.

import type { ObjectRef } from "#base";
import { defineKeyedQuery, defineQuery, sameData, type Read } from "#engine";
import {
  intersectHosts,
  sortRoutesByPrecedence,
  type Gateway,
  type VirtualService,
  type VirtualServiceHttpRoute,
  type VirtualServiceSpec,
  type VirtualServiceTcpRoute,
  type VirtualServiceTlsRoute,
} from "#objects";
import { ingressOfGateway, isIngressGateway } from "../ingress/names.ts";
import { environmentOf } from "../mesh.ts";
import { kubeRowOf } from "../services.ts";
import { everything, tables } from "../tables.ts";
import { gatewayFactsOf, setParentOf } from "./listeners.ts";
import {
  generatedRouteKey,
  parseGeneratedName,
  parseGeneratedRouteKey,
  type GeneratedRoute,
} from "./names.ts";
import { allListenersOf, attachedRoutesOf, isIsolated, parentsOf, routeHeadOf } from "./parents.ts";
import { meshRoutes, parentText, routeKinds, routeText, type RouteKey } from "./references.ts";
import { routeRef, routeRulesOf } from "./routes.ts";

/** The Services in front of a Gateway's proxies: as Istio names the annotation. */
export const gatewayServiceAnnotation = "internal.istio.io/gateway-service";
/** The namespace of those Services, where it is not the generated Gateway's own. */
export const parentNamespaceAnnotation = "internal.istio.io/parent-gateway-namespace";

/** The Gateways that the listeners of one Gateway become, by its row key. */
const gatewaysFrom = defineQuery<readonly Gateway[]>(
  "gatewaysFromListeners",
  (read, key) => {
    const row = read(tables.KubeGateway, key);
    const facts = read(gatewayFactsOf, key);
    if (row === undefined || facts === undefined) return [];
    const parent = key.slice(0, key.indexOf("/"));
    return read(allListenersOf, key).flatMap(({ attachable, closed, server, internalName }) => {
      if (!attachable || closed || server === undefined) return [];
      const [namespace = "", name = ""] = internalName.split("/");
      const { creationTimestamp } = row.metadata;
      return [
        {
          apiVersion: "networking.istio.io/v1",
          kind: "Gateway",
          metadata: {
            name,
            namespace,
            ...(creationTimestamp === undefined ? {} : { creationTimestamp }),
            annotations: {
              [gatewayServiceAnnotation]: facts.services.hosts.join(","),
              [parentNamespaceAnnotation]: parent,
            },
          },
          spec: { servers: [server] },
        },
      ];
    });
  },
  sameData,
);

/** The row key of the Gateway of Gateway API whose listener has a name; undefined for a Gateway that a user wrote. */
export const ownerGatewayOf = defineQuery<string | undefined>("ownerGateway", (read, gateway) => {
  const owner = parseGeneratedName(gateway)?.owner;
  if (owner === undefined) return undefined;
  const key = `${owner.namespace}/${owner.name}`;
  return owner.kind === "Gateway" ? key : read(setParentOf, key)?.gateway;
});

/** Every generated Gateway. */
export const generatedGateways = defineQuery<readonly Gateway[]>(
  "generatedGateways",
  (read) => read(tables.KubeGateway.by.all.members, everything).flatMap((key) => read(gatewaysFrom, key)),
  sameData,
);

/** The object that a user wrote, behind the name of a Gateway. */
export function gatewayRef(key: string): ObjectRef {
  if (isIngressGateway(key)) {
    const [ingressNamespace = "", ingressName = ""] = (ingressOfGateway(key) ?? "/*").split("/");
    return { kind: "Ingress", namespace: ingressNamespace, name: ingressName };
  }
  const { kind, namespace, name } = parseGeneratedName(key)?.owner ?? {
    kind: "Gateway",
    namespace: key.slice(0, key.indexOf("/")),
    name: key.slice(key.indexOf("/") + 1),
  };
  return { kind, namespace, name };
}

/** What a route has at one parent: the hosts for which it is asked. */
interface Binding {
  /** The internal name of the listener, or "mesh". */
  readonly gateway: string;
  /** A mesh parent's port; 0 for every one. */
  readonly port: number;
  readonly hosts: readonly string[];
  /** The listener's. */
  readonly hostname: string;
  /** The namespace of a mesh parent. */
  readonly namespace: string;
}

const bindingsOf = defineKeyedQuery<RouteKey, readonly Binding[]>(
  "routeBindings",
  routeText,
  (read, route) => {
    const hostnames = read(routeHeadOf, route)?.hostnames ?? [];
    const asked = hostnames.length === 0 ? ["*"] : hostnames;
    return read(parentsOf, route).flatMap(({ denied, reference, parent, gateway, hostname, others }) => {
      if (denied !== undefined) return [];
      const namespace = parent.key.slice(0, parent.key.indexOf("/"));
      const base = { gateway, hostname, namespace, port: 0 };
      if (gateway === "mesh") {
        const hosts = hostsOfService(read, parent.kind, parent.key);
        return [{ ...base, port: reference.port ?? 0, hosts }];
      }
      if (route.kind === "TCPRoute" || route.kind === "UDPRoute") return [{ ...base, hosts: ["*"] }];
      if (route.kind === "TLSRoute")
        return [{ ...base, hosts: hostname === "" ? asked : intersectHosts(asked, [hostname]) }];
      return [{ ...base, hosts: asked.filter((host) => isIsolated({ hostname, others }, host)) }];
    });
  },
  sameData,
);

function hostsOfService(read: Read, kind: string, key: string): readonly string[] {
  if (kind === "ServiceEntry") return read(tables.ServiceEntry, key)?.spec?.hosts ?? [];
  const { clusterDomain } = read(environmentOf, "");
  const [namespace = "", name = ""] = key.split("/");
  return [`${name}.${namespace}.svc.${clusterDomain}`];
}

/** Row keys of the VirtualServices that are generated for a Gateway's name; none for one that a user wrote. */
export const routesOfListener = defineQuery<readonly string[]>(
  "routesOfListener",
  (read, gateway) => keysOf(read, routesAt(read, gateway), (binding) => binding.gateway === gateway),
  sameData,
);

/** Row keys of the VirtualServices that routes have for a host in the mesh. */
export const routesOfMeshHost = defineQuery<readonly string[]>(
  "routesOfMeshHost",
  (read, host) =>
    keysOf(read, read(meshRoutesOf, host), ({ gateway }) => gateway === "mesh").filter(
      (key) => parseGeneratedRouteKey(key)?.host === host,
    ),
  sameData,
);

/** Row keys of all VirtualServices that routes have in the mesh. */
export const routesOfMesh = defineQuery<readonly string[]>(
  "routesOfMesh",
  (read) => {
    const routes = routeKinds.flatMap((kind) =>
      read(tables[kind].by.mesh.members, meshRoutes).map((key): RouteKey => ({ kind, key })),
    );
    return keysOf(read, routes, ({ gateway }) => gateway === "mesh");
  },
  sameData,
);

/** Whether any route has a parent in the mesh: most meshes have none, and need no look at each host. */
export const hasMeshRoutes = defineQuery<boolean>("hasMeshRoutes", (read) =>
  routeKinds.some((kind) => read(tables[kind].by.mesh.members, meshRoutes).length > 0),
);

/** The routes whose parent is the service of a host. */
const meshRoutesOf = defineQuery<readonly RouteKey[]>(
  "meshRoutesOfHost",
  (read, host) => {
    const { clusterDomain } = read(environmentOf, "");
    const row = kubeRowOf(host, clusterDomain);
    const parents = [
      ...(row === undefined ? [] : [parentText({ kind: "Service", key: row })]),
      ...read(tables.ServiceEntry.by.host.members, host).map((key) =>
        parentText({ kind: "ServiceEntry", key }),
      ),
    ];
    return routeKinds.flatMap((kind) => {
      const keys = parents.flatMap((parent) => read(tables[kind].by.parent.members, parent));
      return [...new Set(keys)].map((key): RouteKey => ({ kind, key }));
    });
  },
  sameData,
);

/** The routes that are attached to a listener. */
function routesAt(read: Read, gateway: string): readonly RouteKey[] {
  const owner = parseGeneratedName(gateway)?.owner;
  if (owner === undefined) return [];
  const key = `${owner.namespace}/${owner.name}`;
  return read(attachedRoutesOf, { owner: { kind: owner.kind, key }, gateway });
}

/** The keys of what routes come to: HTTP routes of one host are one, named by the oldest one's namespace. */
function keysOf(
  read: Read,
  routes: readonly RouteKey[],
  isMeant: (binding: Binding) => boolean,
): readonly string[] {
  const keys = new Map<string, string>();
  for (const route of oldestFirst(read, routes)) {
    const [namespace = "", name = ""] = route.key.split("/");
    for (const { gateway, port, hosts } of read(bindingsOf, route).filter(isMeant)) {
      for (const host of hosts) {
        const merged = route.kind === "HTTPRoute" || route.kind === "GRPCRoute";
        const kind: GeneratedRoute["kind"] = merged
          ? "http"
          : (route.kind as "TLSRoute" | "TCPRoute" | "UDPRoute");
        const one = { namespace, gateway, port, kind, host, route: merged ? "" : name };
        // In the mesh each namespace has its own; at a listener all share one.
        const apart = gateway === "mesh" || !merged ? `${namespace} ` : "";
        const text = apart + generatedRouteKey({ ...one, namespace: "" });
        if (!keys.has(text)) keys.set(text, generatedRouteKey(one));
      }
    }
  }
  return [...keys.values()];
}

function oldestFirst(read: Read, routes: readonly RouteKey[]): readonly RouteKey[] {
  const created = (route: RouteKey): string => read(routeHeadOf, route)?.created ?? "";
  return routes.toSorted((a, b) => compare(created(a), created(b)) || compare(a.key, b.key));
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** A VirtualService and the routes that it is made of. */
export interface GeneratedVirtualService {
  readonly object: VirtualService;
  readonly origins: readonly ObjectRef[];
}

/** The VirtualService behind a generated row key; undefined when its routes are gone. */
export const generatedVirtualService = defineQuery<GeneratedVirtualService | undefined>(
  "generatedVirtualService",
  (read, key) => {
    const wanted = parseGeneratedRouteKey(key);
    if (wanted === undefined) return undefined;
    const mesh = wanted.gateway === "mesh";
    const candidates = mesh ? read(meshRoutesOf, wanted.host) : routesAt(read, wanted.gateway);
    const meant = oldestFirst(read, candidates).flatMap((route) => {
      if (!isOfKind(route, wanted)) return [];
      if (mesh && !route.key.startsWith(`${wanted.namespace}/`)) return [];
      const binding = read(bindingsOf, route).find(
        (one) =>
          one.gateway === wanted.gateway && one.port === wanted.port && one.hosts.includes(wanted.host),
      );
      return binding === undefined ? [] : [{ route, binding }];
    });
    const [first] = meant;
    if (first === undefined) return undefined;
    const created = read(routeHeadOf, first.route)?.created ?? "";
    const producer = meant.some(({ binding }) => binding.namespace === wanted.namespace);
    const spec: VirtualServiceSpec = {
      hosts: [wanted.host],
      gateways: [wanted.gateway],
      // A route for a service of another namespace is for the callers in the route's own.
      exportTo: !mesh || producer ? ["*"] : [wanted.namespace],
      ...routesOf(read, meant, wanted),
    };
    return {
      object: {
        apiVersion: "networking.istio.io/v1",
        kind: "VirtualService",
        metadata: {
          name: key.slice(key.indexOf("/") + 1),
          namespace: wanted.namespace,
          ...(created === "" ? {} : { creationTimestamp: created }),
        },
        spec,
      },
      origins: meant.map(({ route }) => routeRef(route)),
    };
  },
  sameData,
);

function isOfKind({ kind, key }: RouteKey, wanted: GeneratedRoute): boolean {
  if (wanted.kind === "http") return kind === "HTTPRoute" || kind === "GRPCRoute";
  return kind === wanted.kind && key === `${wanted.namespace}/${wanted.route}`;
}

function routesOf(
  read: Read,
  meant: readonly { readonly route: RouteKey; readonly binding: Binding }[],
  wanted: GeneratedRoute,
): Pick<VirtualServiceSpec, "http" | "tls" | "tcp"> {
  const mesh = wanted.gateway === "mesh";
  const all = meant.map(({ route, binding }) => ({ binding, rules: read(routeRulesOf, { route, mesh }) }));
  switch (wanted.kind) {
    case "http": {
      const http = all.flatMap(({ rules }) => rules.http.map((one) => atPort(one, wanted.port)));
      return { http: sortRoutesByPrecedence(http) };
    }
    case "TLSRoute":
      return {
        tls: all.flatMap(({ rules, binding }) => rules.tls.flatMap((one) => tlsFor(one, binding, wanted))),
      };
    case "TCPRoute":
    case "UDPRoute":
      return { tcp: all.flatMap(({ rules }) => rules.tcp.map((one) => tcpAtPort(one, wanted.port))) };
  }
}

function atPort(route: VirtualServiceHttpRoute, port: number): VirtualServiceHttpRoute {
  return port === 0 ? route : { ...route, match: (route.match ?? [{}]).map((match) => ({ ...match, port })) };
}

function tcpAtPort(route: VirtualServiceTcpRoute, port: number): VirtualServiceTcpRoute {
  return port === 0 ? route : { ...route, match: [{ port }] };
}

/** The server names of a TLS route that its parent leaves it: in the mesh those of the service. */
function tlsFor(
  route: VirtualServiceTlsRoute,
  { gateway, hostname }: Binding,
  { host, port }: GeneratedRoute,
): VirtualServiceTlsRoute[] {
  const names = route.match.flatMap(({ sniHosts }) => sniHosts);
  const served = gateway === "mesh" ? [host] : hostname === "" ? names : [hostname];
  const sniHosts = intersectHosts(names, served).filter(
    (name) => gateway === "mesh" || intersectHosts([name], [host]).length > 0,
  );
  return sniHosts.length === 0 ? [] : [{ ...route, match: [{ sniHosts, ...(port === 0 ? {} : { port }) }] }];
}
