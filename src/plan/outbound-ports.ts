// The listeners and route tables of one port of the outbound side: which services share a listener, and how what
// arrives there is told apart. The rules, and what happens when services want the same address, are Istio's.

import { ports as reservedPorts } from "#base";
import { defineKeyedQuery, sameData, type Read } from "#engine";
import {
  addressesOf,
  anyClient,
  egressAt,
  environmentOf,
  importsAll,
  isPublicMesh,
  isTls,
  listenerProtocol,
  outletText,
  parseProtocol,
  rangeHas,
  readRouteFilterNeeds,
  routesToDynamicHosts,
  rulesFor,
  scopeText,
  serviceOf,
  servicesOfPort,
  streamRoutesFor,
  unknownTrafficOf,
  visibleNamespaces,
  visibleService,
  visibleServices,
  type Egress,
  type MeshService,
  type OutboundScope,
  type Outlet,
  type Protocol,
} from "#model";
import {
  lookedUpCluster,
  outboundClusterName,
  outboundListenerName,
  type OutboundListenerKey,
  type OutboundPart,
  type OutboundRouteKey,
} from "./keys.ts";
import type { Chunk, Planned } from "./plan.ts";

export interface PortChunks {
  readonly listener: Chunk;
  readonly route: Chunk;
}

export const wildcardAddress = "0.0.0.0";
export const loopback = "127.0.0.1";

/** Addresses of the proxy's own listeners: a service at such a port on the wildcard address cannot have a listener. */
const ownPorts: ReadonlySet<number> = new Set([
  reservedPorts.outbound,
  reservedPorts.inbound,
  reservedPorts.ready,
  reservedPorts.envoyStats,
  reservedPorts.agent,
]);

export const outboundPortChunks = defineKeyedQuery<
  { readonly scope: OutboundScope; readonly port: number },
  PortChunks
>(
  "outboundPortChunks",
  ({ scope, port }) => `${port} ${scopeText(scope)}`,
  (read, { scope, port }) => {
    const slots = new Map<string, Slot>();
    const explicit = read(egressAt, { scope, port });
    if (explicit !== undefined) explicitListeners(read, scope, explicit, slots);
    for (const slot of slots.values()) slot.locked = true;
    const rest = read(egressAt, { scope, port: 0 });
    if (rest !== undefined) serviceListeners(read, scope, port, rest, slots);
    const unknownTo = read(unknownCluster, scope);
    const ordered = [...slots.values()].toSorted((a, b) => (a.bind < b.bind ? -1 : 1));
    const id = `port/${port}`;
    if (read(routesToDynamicHosts, "")) for (const slot of ordered) slot.dynamic = true;
    return {
      listener: { id, entries: ordered.map((slot) => plannedListener(scope, port, slot, unknownTo)) },
      route: { id, entries: plannedRoutes(explicit, port, ordered, unknownTo) },
    };
  },
  sameData,
);

/** The cluster that takes what no service claims. */
export const unknownCluster = defineKeyedQuery<OutboundScope, string>(
  "unknownCluster",
  scopeText,
  (read, scope) => {
    const unknown = read(unknownTrafficOf, scope);
    if (unknown.kind === "block") return "BlackHoleCluster";
    if (unknown.kind === "pass") return "PassthroughCluster";
    if (unknown.kind === "look-up") return lookedUpCluster;
    return outboundClusterName(unknown.port, unknown.subset, unknown.host);
  },
);

/** A listener while it is being laid out. */
interface Slot {
  readonly bind: string;
  readonly bindToPort: boolean;
  readonly parts: OutboundPart[];
  readonly tables: Map<string, Outlet>;
  /** The protocols that came first: databases that speak first do not share a listener. */
  readonly protocols: Set<Protocol>;
  /** Some service of it is looked up as requests name it. */
  dynamic: boolean;
  /** Some route to a service of it has sessions, or asks another service first. */
  sessions: boolean;
  asks: boolean;
  /** Laid out by an egress listener of its own: services of other listeners must not join. */
  locked: boolean;
}

/** One service's wish to be reached. */
interface Wish {
  readonly outlet: Outlet;
  readonly egress: Egress;
  readonly service: MeshService;
  readonly port: number;
  readonly protocol: Protocol;
}

function explicitListeners(read: Read, scope: OutboundScope, egress: Egress, slots: Map<string, Slot>): void {
  const outlet = { scope, port: egress.port };
  const protocol = parseProtocol(egress.protocol);
  const keys = read(visibleNamespaces, outlet).flatMap((namespace) =>
    read(visibleServices, { outlet, namespace }),
  );
  for (const key of keys) {
    const service = read(serviceOf, key);
    if (service === undefined) continue;
    // Istio takes only services that have the port, unless the listener is a proxy for all.
    const hasPort = service.ports.some(({ port }) => port === egress.port);
    if (!hasPort && !egress.everyPort) continue;
    layOut(read, { outlet, egress, service, port: egress.port, protocol }, slots);
  }
}

function serviceListeners(
  read: Read,
  scope: OutboundScope,
  port: number,
  egress: Egress,
  slots: Map<string, Slot>,
): void {
  const outlet = { scope, port: 0 };
  const wishes = read(visibleServicesOfPort, { outlet, port }).flatMap((service): Wish[] => {
    const own = service.ports.find((one) => one.port === port);
    return own === undefined ? [] : [{ outlet, egress, service, port, protocol: own.protocol }];
  });
  for (const wish of read(environmentOf, "").foreignRoutes === "all-clients" ? wishes : withinWalls(wishes))
    layOut(read, wish, slots);
}

/**
 * What ServiceEntries of other namespaces may not take from the cluster's Services: the port on every address, for a protocol that
 * shares it with nobody, and ranges in which Services have addresses without a listener of their own.
 */
function withinWalls(wishes: readonly Wish[]): readonly Wish[] {
  const isForeign = ({ service, outlet }: Wish): boolean =>
    service.registry === "External" && service.namespace !== outlet.scope.namespace;
  const last = wishes.filter((wish) => isForeign(wish) && isServerFirst(wish.protocol));
  const ordered = last.length === 0 ? wishes : [...wishes.filter((wish) => !last.includes(wish)), ...last];
  if (!wishes.some((wish) => isForeign(wish) && wish.service.addresses.some(isRange))) return ordered;
  const shared = wishes.filter(
    ({ service, protocol }) => service.registry === "Kubernetes" && listenerProtocol(protocol) === "http",
  );
  const covers = (range: string, { namespace }: MeshService): boolean =>
    shared.some(
      ({ service }) =>
        service.namespace !== namespace && service.addresses.some((address) => rangeHas(range, address)),
    );
  return ordered.flatMap((wish): Wish[] => {
    const { service } = wish;
    if (!isForeign(wish)) return [wish];
    const addresses = service.addresses.filter((address) => !isRange(address) || !covers(address, service));
    // Without any it would have the port on every address.
    if (addresses.length === 0 && service.addresses.length > 0) return [];
    return [{ ...wish, service: { ...service, addresses } }];
  });
}

function isRange(address: string): boolean {
  return address.includes("/");
}

/** Services with this port that an outlet sees: the same for all clients where all services are for everyone. */
const visibleServicesOfPort = defineKeyedQuery<
  { readonly outlet: Outlet; readonly port: number },
  readonly MeshService[]
>(
  "visibleServicesOfPort",
  ({ outlet, port }) => `${port} ${outletText(outlet)}`,
  (read, { outlet, port }) =>
    read(servicesOfPort, String(port)).flatMap((key) => {
      const service = read(serviceOf, key);
      if (service === undefined) return [];
      return read(visibleService, { outlet, host: service.host }) === key ? [service] : [];
    }),
  sameData,
  (read, key) =>
    importsAll(key.outlet) && read(isPublicMesh, "")
      ? { ...key, outlet: { scope: anyClient, port: 0 } }
      : key,
);

function layOut(read: Read, wish: Wish, slots: Map<string, Slot>): void {
  const { service, protocol, outlet, egress } = wish;
  const how = listenerProtocol(protocol);
  // An alias is reached as the service it stands for; UDP is not captured.
  if (service.resolution === "alias" || how === "none") return;
  const bindToPort = outlet.scope.unintercepted || egress.bindToPort;
  const bind = egress.bind !== "" ? egress.bind : bindToPort ? loopback : "";
  if (how === "http") {
    place(read, wish, slots, { bind: bind === "" ? wildcardAddress : bind, ranges: [] }, how);
    return;
  }
  for (const spot of spotsOf(read, wish, bind)) place(read, wish, slots, spot, how);
}

interface Spot {
  readonly bind: string;
  readonly ranges: readonly string[];
}

/** Where connections to a service arrive: its addresses; its pods, when it is headless; or anywhere. */
function spotsOf(read: Read, { service, port, outlet }: Wish, bind: string): Spot[] {
  if (bind !== "") return [{ bind, ranges: [] }];
  const addresses = addressesFor(service, outlet.scope);
  if (addresses.length > 0) {
    return addresses.map((address) =>
      isRange(address) ? { bind: wildcardAddress, ranges: [address] } : { bind: address, ranges: [] },
    );
  }
  if (service.resolution !== "original-destination") return [{ bind: wildcardAddress, ranges: [] }];
  const pods = read(addressesOf, `${service.key} ${port}`).filter(isAddress);
  if (service.registry === "External" && pods.length === 0 && !service.selects)
    return [{ bind: wildcardAddress, ranges: [] }];
  return pods.map((address) => ({ bind: address, ranges: [] }));
}

/** The addresses that the mesh chose count only for clients to whom the proxy tells them. */
function addressesFor({ addresses, autoAddresses }: MeshService, { dns }: OutboundScope): readonly string[] {
  return addresses.length > 0 || dns === "none" ? addresses : autoAddresses;
}

function place(
  read: Read,
  wish: Wish,
  slots: Map<string, Slot>,
  spot: Spot,
  how: "http" | "tcp" | "auto",
): void {
  const { service, port, protocol, outlet } = wish;
  if (spot.bind === wildcardAddress && ownPorts.has(port)) return;
  let slot = slots.get(spot.bind);
  if (slot?.locked === true) return;
  if (slot !== undefined && clash(slot.protocols, protocol)) return;
  if (slot === undefined) {
    slot = {
      bind: spot.bind,
      bindToPort: outlet.scope.unintercepted || wish.egress.bindToPort,
      parts: [],
      tables: new Map(),
      protocols: new Set(),
      dynamic: false,
      sessions: false,
      asks: false,
      locked: false,
    };
    slots.set(spot.bind, slot);
  }
  slot.protocols.add(protocol);
  if (service.resolution === "dynamic-dns") slot.dynamic = true;
  if (how !== "http") slot.parts.push(streamPart(read, wish, spot));
  if (how === "tcp") return;
  const route = wish.egress.everyPort
    ? everyPortTable(wish.egress)
    : how === "auto" && spot.bind !== wildcardAddress
      ? `${service.host}:${port}`
      : String(port);
  const needs = readRouteFilterNeeds(read, { outlet, host: service.host, port });
  slot.sessions ||= needs.sessions;
  slot.asks ||= needs.asks;
  if (slot.tables.has(route)) return;
  // One HTTP chain a listener: the first table has it. Two sniffed services at one address cannot be told apart.
  if (slot.tables.size > 0) return;
  slot.tables.set(route, outlet);
  slot.parts.push({ kind: "http", route });
}

/** Not called by its port, since its virtual hosts are no resources of their own. */
function everyPortTable({ bind, port }: Egress): string {
  return port > 0 ? `http-proxy:${port}` : bind;
}

function streamPart(read: Read, { outlet, service, port, protocol }: Wish, spot: Spot): OutboundPart {
  const { scope } = outlet;
  const { host } = service;
  return {
    kind: "stream",
    service: service.key,
    // An egress listener's port may be none of the service's: with a single port it can only mean that one. A unix socket
    // has no port at all, and leads to the first.
    port: service.ports.length === 1 || port < 0 ? (service.ports[0]?.port ?? port) : port,
    tls: isTls(protocol),
    ranges: spot.ranges,
    bySni:
      spot.ranges.length > 0 || (addressesFor(service, scope).length === 0 && spot.bind === wildcardAddress),
    routing: read(streamRoutesFor, { outlet, host }),
    rules: read(rulesFor, {
      client: scope.namespace,
      labels: scope.labels,
      host,
      serviceNamespace: service.namespace,
    }),
  };
}

/** Sniffing would wait for a client that waits for its server, so MongoDB and MySQL share no listener with others. */
function clash(present: ReadonlySet<Protocol>, incoming: Protocol): boolean {
  return [...present].some(
    (protocol) => protocol !== incoming && (isServerFirst(protocol) || isServerFirst(incoming)),
  );
}

function isServerFirst(protocol: Protocol): boolean {
  return protocol === "mongo" || protocol === "mysql";
}

function plannedListener(
  scope: OutboundScope,
  port: number,
  slot: Slot,
  unknownTo: string,
): Planned<OutboundListenerKey> {
  const routed = slot.parts.some((part) => part.kind === "stream" && part.routing.length > 0);
  return {
    name: outboundListenerName({ bind: slot.bind, port }),
    key: {
      kind: "outbound",
      bind: slot.bind,
      port,
      bindToPort: slot.bindToPort,
      parts: withFilters(slot),
      unknownTo,
      ...(routed ? { client: { namespace: scope.namespace, labels: scope.labels } } : {}),
    },
  };
}

function withFilters({ parts, dynamic, sessions, asks }: Slot): readonly OutboundPart[] {
  if (!dynamic && !sessions && !asks) return parts;
  const filters = {
    ...(dynamic ? { dynamic } : {}),
    ...(sessions ? { sessions } : {}),
    ...(asks ? { asks } : {}),
  };
  return parts.map((part) => (part.kind === "http" ? { ...part, ...filters } : part));
}

function plannedRoutes(
  explicit: Egress | undefined,
  port: number,
  slots: readonly Slot[],
  unknownTo: string,
): Planned<OutboundRouteKey>[] {
  const tables = new Map(slots.flatMap((slot) => [...slot.tables]));
  return [...tables]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, outlet]) => {
      const which =
        explicit?.everyPort === true
          ? { host: "", everyPort: name }
          : { host: name.slice(0, -String(port).length - 1) };
      return { name, key: { kind: "outbound", outlet, port, ...which, unknownTo } };
    });
}

function isAddress(text: string): boolean {
  return /^[0-9.]+$/.test(text) || text.includes(":");
}
