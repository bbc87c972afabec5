// The parents of a route: for each reference the listeners, or the service of the mesh, that it leads to, and why a
// parent does not take the route.

import { defineKeyedQuery, defineQuery, sameData, type Read } from "#engine";
import {
  hostMatches,
  hostSubsetOf,
  isWildcard,
  type GRPCRoute,
  type HTTPRoute,
  type ParentReference,
  type TCPRoute,
  type TLSRoute,
  type UDPRoute,
} from "#objects";
import { everything, tables } from "../tables.ts";
import { gatewayClassOf } from "./classes.ts";
import type { Mistake } from "./findings.ts";
import {
  attachedSetsOf,
  gatewayFactsOf,
  ownListenersOf,
  setListenersOf,
  type ListenerFacts,
} from "./listeners.ts";
import {
  gatewayApiGroup,
  isMeshParent,
  parentOf,
  parentText,
  referenceText,
  routeKinds,
  routeText,
  type Parent,
  type RouteKey,
  type RouteKind,
} from "./references.ts";

/** One way in which a reference of a route is understood: a listener, or the mesh. */
export interface RouteParent {
  readonly reference: ParentReference;
  readonly parent: Parent;
  /** The internal name of the listener, or "mesh". */
  readonly gateway: string;
  /** The listener's name; "" for the mesh. */
  readonly section: string;
  readonly hostname: string;
  /** Hostnames of other listeners on this port: what they take more exactly is not for this one. */
  readonly others: readonly string[];
  readonly denied?: Mistake;
}

interface RouteHead {
  readonly namespace: string;
  readonly created: string;
  readonly references: readonly ParentReference[];
  readonly hostnames: readonly string[];
}

/** A route's row, whatever its kind. */
export function routeRow(
  read: Read,
  { kind, key }: RouteKey,
): HTTPRoute | GRPCRoute | TLSRoute | TCPRoute | UDPRoute | undefined {
  switch (kind) {
    case "HTTPRoute":
      return read(tables.HTTPRoute, key);
    case "GRPCRoute":
      return read(tables.GRPCRoute, key);
    case "TLSRoute":
      return read(tables.TLSRoute, key);
    case "TCPRoute":
      return read(tables.TCPRoute, key);
    case "UDPRoute":
      return read(tables.UDPRoute, key);
  }
}

/** What attaching a route depends on: a change of its rules does not show here. */
export const routeHeadOf = defineKeyedQuery<RouteKey, RouteHead | undefined>(
  "routeHead",
  routeText,
  (read, { kind, key }) => {
    const row = routeRow(read, { kind, key });
    if (row?.spec === undefined) return undefined;
    const { spec } = row;
    const created = row.metadata.creationTimestamp ?? "";
    const hostnames = "hostnames" in spec ? (spec.hostnames ?? []) : [];
    const namespace = key.slice(0, key.indexOf("/"));
    const references = spec.parentRefs ?? [];
    if (spec.useDefaultGateways !== "All") return { namespace, created, references, hostnames };
    const named = new Set(references.map((one) => referenceText(one, namespace)));
    const defaults = read(defaultReferences, "").filter((one) => !named.has(referenceText(one, namespace)));
    return { namespace, created, references: [...references, ...defaults], hostnames };
  },
  sameData,
);

/** Every default Gateway of ours, as a route would name it. */
const defaultReferences = defineQuery<readonly ParentReference[]>(
  "defaultGateways",
  (read) =>
    read(tables.KubeGateway.by.default.members, everything)
      .filter((key) => read(gatewayFactsOf, key)?.gatewayClass.role === "gateway")
      .toSorted()
      .map((key) => {
        const [namespace = "", name = ""] = key.split("/");
        return { group: gatewayApiGroup, kind: "Gateway", namespace, name };
      }),
  sameData,
);

/** The listeners that a parent has, in order: of a ListenerSet only those that work. */
const listenersOfParent = defineKeyedQuery<Parent, readonly ListenerFacts[]>(
  "listenersOfParent",
  parentText,
  (read, { kind, key }) => {
    if (kind === "Gateway") return read(ownListenersOf, key).filter(({ attachable }) => attachable);
    if (kind !== "ListenerSet") return [];
    return read(setListenersOf, key).filter(({ attachable, valid }) => attachable && valid);
  },
  sameData,
);

/** Every understanding of every reference of a route, ordered by the references' texts. */
export const parentsOf = defineKeyedQuery<RouteKey, readonly RouteParent[]>(
  "routeParents",
  routeText,
  (read, route) => {
    const head = read(routeHeadOf, route);
    if (head === undefined) return [];
    const { namespace } = head;
    return head.references
      .flatMap((reference) => {
        const parent = parentOf(reference, namespace);
        if (parent === undefined) return [];
        return isMeshParent(parent)
          ? meshParent(read, route, reference, parent)
          : listenerParents(read, route, head, reference, parent);
      })
      .toSorted((a, b) =>
        referenceText(a.reference, namespace) < referenceText(b.reference, namespace) ? -1 : 1,
      );
  },
  sameData,
);

const waypointLabel = "istio.io/use-waypoint";
const waypointNamespaceLabel = "istio.io/use-waypoint-namespace";

function meshParent(
  read: Read,
  { kind }: RouteKey,
  reference: ParentReference,
  parent: Parent,
): RouteParent[] {
  const row =
    parent.kind === "Service" ? read(tables.Service, parent.key) : read(tables.ServiceEntry, parent.key);
  const namespace = parent.key.slice(0, parent.key.indexOf("/"));
  if (row !== undefined && isAnotherControllers(read, row.metadata.labels ?? {}, namespace)) return [];
  const found = { reference, parent, gateway: "mesh", section: "", hostname: "", others: [] };
  if (kind === "UDPRoute") {
    const message = "UDP between services passes no proxy: a UDPRoute is for listeners of Gateways";
    return [{ ...found, denied: { reason: "UnsupportedValue", message } }];
  }
  if (row !== undefined) return [found];
  const message = `${parent.kind} ${parent.key} does not exist`;
  return [{ ...found, denied: { reason: "NoMatchingParent", message } }];
}

/** A service behind a waypoint of another controller is that controller's to route. */
function isAnotherControllers(read: Read, own: Readonly<Record<string, string>>, namespace: string): boolean {
  const labels =
    own[waypointLabel] === undefined ? (read(tables.Namespace, namespace)?.metadata.labels ?? {}) : own;
  const name = labels[waypointLabel] ?? "";
  if (name === "" || name.toLowerCase() === "none") return false;
  const gateway = read(tables.KubeGateway, `${labels[waypointNamespaceLabel] ?? namespace}/${name}`);
  const className = gateway?.spec?.gatewayClassName;
  if (className === undefined || read(tables.GatewayClass, className) === undefined) return false;
  return read(gatewayClassOf, className) === undefined;
}

function listenerParents(
  read: Read,
  route: RouteKey,
  head: RouteHead,
  reference: ParentReference,
  parent: Parent,
): RouteParent[] {
  const listeners = read(listenersOfParent, parent);
  return listeners.map((listener) => {
    const denied = denialOf(route, head, reference, listener);
    return {
      reference,
      parent,
      gateway: listener.internalName,
      section: listener.name,
      hostname: listener.hostname,
      others: listeners
        .filter(
          (other) =>
            other !== listener &&
            other.port === listener.port &&
            other.protocol === listener.protocol &&
            other.hostname !== listener.hostname,
        )
        .map(({ hostname }) => hostname),
      ...(denied === undefined ? {} : { denied }),
    };
  });
}

function denialOf(
  { kind }: RouteKey,
  { namespace, hostnames }: RouteHead,
  reference: ParentReference,
  listener: ListenerFacts,
): Mistake | undefined {
  if (reference.port !== undefined && reference.port !== 0 && reference.port !== listener.port)
    return { reason: "NoMatchingParent", message: `there is no listener on port ${reference.port}` };
  const section = reference.sectionName ?? "";
  if (section !== "" && section !== listener.name)
    return { reason: "NoMatchingParent", message: `there is no listener ${section}` };
  const asked = hostnames.length === 0 ? ["*"] : hostnames;
  const served = (listener.server?.hosts ?? []).map((host) => host.split("/") as [string, string]);
  const meeting = served.filter(([, host]) => asked.some((name) => hostMatches(host, name)));
  if (meeting.length === 0) {
    const message = `no hostname is within ${listener.hostname}, the listener's`;
    return { reason: "NoMatchingListenerHostname", message };
  }
  if (!meeting.some(([allowed]) => allowed === "*" || allowed === namespace))
    return {
      reason: "NotAllowedByListeners",
      message: `the listener takes no routes of namespace ${namespace}`,
    };
  return listener.supportedKinds.includes(kind)
    ? undefined
    : { reason: "NotAllowedByListeners", message: `the listener takes no ${kind}` };
}

/** Whether a host of a route is for this listener, and not for another one of the port that is more exact. */
export function isIsolated(
  { hostname, others }: Pick<RouteParent, "hostname" | "others">,
  host: string,
): boolean {
  if (hostname !== "" && !isWildcard(hostname)) return true;
  if (hostname !== "" && !hostMatches(host, hostname)) return false;
  return !others.some(
    (other) => other.length >= hostname.length && hostSubsetOf(host, other === "" ? "*" : other),
  );
}

/** The routes that are attached to a listener, by its internal name, in the order of kinds and row keys. */
export const attachedRoutesOf = defineKeyedQuery<
  { readonly owner: Parent; readonly gateway: string },
  readonly RouteKey[]
>(
  "attachedRoutes",
  ({ owner, gateway }) => `${parentText(owner)} ${gateway}`,
  (read, { owner, gateway }) =>
    routeKinds.flatMap((kind) =>
      candidatesOf(read, kind, owner)
        .map((key): RouteKey => ({ kind, key }))
        .filter((route) =>
          read(parentsOf, route).some((one) => one.gateway === gateway && one.denied === undefined),
        ),
    ),
  sameData,
);

/** Row keys of the routes of a kind that name a parent, or any default Gateway where it is one. */
function candidatesOf(read: Read, kind: RouteKind, owner: Parent): readonly string[] {
  const naming = read(tables[kind].by.parent.members, parentText(owner));
  if (owner.kind !== "Gateway" || read(tables.KubeGateway, owner.key)?.spec?.defaultScope !== "All")
    return naming;
  return [...new Set([...naming, ...read(tables[kind].by.defaulted.members, everything)])].toSorted();
}

/** Listeners of a Gateway, its own and those of its ListenerSets. */
export const allListenersOf = defineQuery<readonly ListenerFacts[]>(
  "allListeners",
  (read, key) => {
    if (read(gatewayFactsOf, key) === undefined) return [];
    const ofSets = read(attachedSetsOf, key).flatMap((set) =>
      read(setListenersOf, set).filter(({ valid }) => valid),
    );
    return [...read(ownListenersOf, key), ...ofSets];
  },
  sameData,
);
