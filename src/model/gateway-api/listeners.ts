// The listeners of a Gateway and of the ListenerSets attached to it: what each becomes as a server, what is wrong with
// it, and which of two that want the same has it.

import { defineQuery, sameData, type Read } from "#engine";
import type { GatewayServer, KubeGateway, KubeGatewayListener, KubeGatewaySpec, ListenerSet } from "#objects";
import { namespaceOf } from "../core-kinds.ts";
import { oldestFirst } from "../selectors.ts";
import { tables } from "../tables.ts";
import { gatewayServicesOf, type GatewayServices } from "./addresses.ts";
import { listenerTls } from "./certificates.ts";
import { gatewayClassOf, type GatewayClassFacts } from "./classes.ts";
import { bad, good, type Finding, type Findings, type Mistake } from "./findings.ts";
import { generatedName } from "./names.ts";
import { chosenNamespaces, isDiscovered, takesListenersOf } from "./namespaces.ts";
import { gatewayApiGroup, parentOf, parentText, type RouteKind } from "./references.ts";

/** Who has a listener. */
export interface ListenerOwner {
  readonly kind: "Gateway" | "ListenerSet";
  readonly namespace: string;
  readonly name: string;
}

export interface ListenerFacts {
  readonly owner: ListenerOwner;
  readonly name: string;
  readonly port: number;
  readonly protocol: string;
  /** "" for every host. */
  readonly hostname: string;
  /** The name by which routes are bound to it: `namespace/name` of the Gateway of Istio's API that it becomes. */
  readonly internalName: string;
  readonly supportedKinds: readonly RouteKind[];
  readonly conditions: Findings;
  /** Routes may be attached: it has not given way to another listener, and is served in principle. */
  readonly attachable: boolean;
  readonly valid: boolean;
  /** Its TLS cannot be done as it is asked for: the port is there, and nobody is served. */
  readonly closed: boolean;
  /** Absent for a listener that has given way, or cannot be served at all. */
  readonly server?: GatewayServer;
}

/** What a Gateway is, apart from its listeners; undefined for one of another controller. */
export interface GatewayFacts {
  readonly gatewayClass: GatewayClassFacts;
  readonly services: GatewayServices;
}

export const gatewayFactsOf = defineQuery<GatewayFacts | undefined>(
  "gatewayFacts",
  (read, key) => {
    const row = read(tables.KubeGateway, key);
    if (row?.spec === undefined || !read(isDiscovered, namespaceOf(row))) return undefined;
    const gatewayClass = read(gatewayClassOf, row.spec.gatewayClassName);
    if (gatewayClass === undefined) return undefined;
    return { gatewayClass, services: gatewayServicesOf(read, row.metadata, row.spec, gatewayClass) };
  },
  sameData,
);

/** Whether anything can lead to the Gateway's proxies: without it nothing else is looked at. */
export function isReachable({ services: { hosts, mistake } }: GatewayFacts): boolean {
  return hosts.length > 0 || mistake === undefined;
}

/** The Gateway's own listeners, by its row key. */
export const ownListenersOf = defineQuery<readonly ListenerFacts[]>(
  "ownListeners",
  (read, key) => {
    const row = read(tables.KubeGateway, key);
    const facts = read(gatewayFactsOf, key);
    if (row?.spec === undefined || facts === undefined || !isReachable(facts)) return [];
    if (facts.gatewayClass.role === "remote") return [];
    const owner = ownerOf("Gateway", row);
    return row.spec.listeners.map((listener) =>
      listenerOf(read, { owner, gateway: row.spec!, facts, key }, listener, undefined),
    );
  },
  sameData,
);

/** The Gateway that a ListenerSet adds to, by the set's row key; undefined for one that is not ours to judge. */
export interface SetParent {
  /** Row key of the Gateway. */
  readonly gateway: string;
  readonly facts: GatewayFacts;
  readonly refused?: Mistake;
}

export const setParentOf = defineQuery<SetParent | undefined>(
  "listenerSetParent",
  (read, key) => {
    const row = read(tables.ListenerSet, key);
    if (row?.spec === undefined) return undefined;
    const parent = parentOf(row.spec.parentRef, namespaceOf(row));
    if (parent?.kind !== "Gateway") return undefined;
    const facts = read(gatewayFactsOf, parent.key);
    const gateway = read(tables.KubeGateway, parent.key);
    if (facts === undefined || gateway?.spec === undefined) return undefined;
    const found = { gateway: parent.key, facts };
    if (facts.gatewayClass.role !== "gateway") {
      const message = `Gateways of class ${facts.gatewayClass.name} take no ListenerSets`;
      return { ...found, refused: { reason: "NotAllowed", message } };
    }
    const choice = gateway.spec.allowedListeners?.namespaces;
    if (takesListenersOf(read, choice, namespaceOf(gateway), namespaceOf(row))) return found;
    const message = `spec.allowedListeners of the Gateway lets nobody of namespace ${namespaceOf(row)} in`;
    return { ...found, refused: { reason: "NotAllowed", message } };
  },
  sameData,
);

/** The listeners of a ListenerSet, by its row key. */
export const setListenersOf = defineQuery<readonly ListenerFacts[]>(
  "setListeners",
  (read, key) => {
    const row = read(tables.ListenerSet, key);
    const parent = read(setParentOf, key);
    if (row?.spec === undefined || parent === undefined || parent.refused !== undefined) return [];
    const gateway = read(tables.KubeGateway, parent.gateway);
    if (gateway?.spec === undefined || !isReachable(parent.facts)) return [];
    const place = {
      owner: ownerOf("ListenerSet", row),
      gateway: gateway.spec,
      facts: parent.facts,
      key: parent.gateway,
    };
    return row.spec.listeners.map((listener) => {
      const port = listener.port ?? 0;
      const implied = port === 0 ? (impliedPorts[listener.protocol] ?? 0) : port;
      const mistake =
        implied === 0
          ? { reason: "UnsupportedProtocol", message: `protocol ${listener.protocol} needs a port` }
          : undefined;
      return listenerOf(read, place, { ...listener, port: implied }, mistake);
    });
  },
  sameData,
);

const impliedPorts: Readonly<Record<string, number>> = { HTTP: 80, HTTPS: 443 };

/** Row keys of the ListenerSets that a Gateway takes, the oldest first. */
export const attachedSetsOf = defineQuery<readonly string[]>(
  "attachedListenerSets",
  (read, key) =>
    read(tables.ListenerSet.by.parent, parentText({ kind: "Gateway", key }))
      .toSorted(oldestFirst)
      .map((row) => `${namespaceOf(row)}/${row.metadata.name}`)
      .filter((set) => read(setParentOf, set)?.refused === undefined),
  sameData,
);

/** Why listeners of a Gateway and its ListenerSets give way: `Kind namespace/name listener` to the reason. */
const conflictsOf = defineQuery<Readonly<Record<string, string>>>(
  "listenerConflicts",
  (read, key) => {
    const row = read(tables.KubeGateway, key);
    const facts = read(gatewayFactsOf, key);
    if (row?.spec === undefined || facts?.gatewayClass.role !== "gateway") return {};
    const sets = read(attachedSetsOf, key).flatMap((set) => read(tables.ListenerSet, set) ?? []);
    const wanted: Wanted[] = [
      ...row.spec.listeners.map((listener) => wantedOf(ownerOf("Gateway", row), listener)),
      ...sets.flatMap((set) =>
        (set.spec?.listeners ?? []).map((listener) => wantedOf(ownerOf("ListenerSet", set), listener)),
      ),
    ];
    const kept: Wanted[] = [];
    const conflicts: Record<string, string> = {};
    for (const one of wanted) {
      const prior = kept.find((other) => !canStandBeside(one, other));
      if (prior === undefined) kept.push(one);
      else conflicts[one.text] = conflictReason(one, prior);
    }
    return conflicts;
  },
  sameData,
);

interface Wanted {
  readonly text: string;
  readonly port: number;
  readonly protocol: string;
  readonly hostname: string;
}

function wantedOf(
  owner: ListenerOwner,
  { name, port, protocol, hostname }: Omit<KubeGatewayListener, "port"> & { readonly port?: number },
): Wanted {
  return {
    text: conflictText(owner, name),
    port: port === undefined || port === 0 ? (impliedPorts[protocol] ?? 0) : port,
    protocol,
    hostname: hostname === undefined || hostname === "" ? "*" : hostname,
  };
}

function conflictText({ kind, namespace, name }: ListenerOwner, listener: string): string {
  return `${kind} ${namespace}/${name} ${listener}`;
}

const layer4: ReadonlySet<string> = new Set(["TCP", "UDP"]);
const byName: ReadonlySet<string> = new Set(["HTTP", "HTTPS", "TLS"]);

function canStandBeside(one: Wanted, other: Wanted): boolean {
  if (one.port !== other.port) return true;
  if (byName.has(one.protocol) && byName.has(other.protocol)) return one.hostname !== other.hostname;
  // A port of UDP is another one than that of TCP with its number.
  const known = (protocol: string): boolean => protocol === "TCP" || byName.has(protocol);
  return known(one.protocol) && known(other.protocol) ? false : one.protocol !== other.protocol;
}

function conflictReason(one: Wanted, other: Wanted): string {
  const bothLayer4 = layer4.has(one.protocol) && layer4.has(other.protocol);
  return bothLayer4 || one.protocol !== other.protocol ? "ProtocolConflict" : "HostnameConflict";
}

function ownerOf(kind: ListenerOwner["kind"], row: KubeGateway | ListenerSet): ListenerOwner {
  return { kind, namespace: namespaceOf(row), name: row.metadata.name };
}

interface Place {
  readonly owner: ListenerOwner;
  /** Of the Gateway, also for a ListenerSet's listener. */
  readonly gateway: KubeGatewaySpec;
  readonly facts: GatewayFacts;
  /** Row key of the Gateway. */
  readonly key: string;
}

function listenerOf(
  read: Read,
  place: Place,
  listener: KubeGatewayListener,
  portMistake: Mistake | undefined,
): ListenerFacts {
  const { owner } = place;
  const kinds = kindsOf(listener);
  const facts = {
    owner,
    name: listener.name,
    port: listener.port,
    protocol: listener.protocol,
    hostname: listener.hostname ?? "",
    internalName: generatedName(owner, listener.name),
    supportedKinds: kinds.supported,
  };
  const conflict = read(conflictsOf, place.key)[conflictText(owner, listener.name)];
  if (conflict !== undefined) {
    const conditions = withKinds(conflictedConditions(conflict), kinds.valid);
    return { ...facts, conditions, attachable: false, valid: false, closed: false };
  }
  const { settings, mistake, closed } = listenerTls(
    read,
    owner,
    listener.tls,
    frontendOf(place.gateway, listener.port),
  );
  const refused = portMistake ?? protocolMistake(listener, place.facts.gatewayClass);
  const unsecured = settings === undefined && (listener.protocol === "HTTPS" || listener.protocol === "TLS");
  const bare =
    unsecured && owner.kind === "ListenerSet"
      ? { reason: "UnsupportedProtocol", message: `protocol ${listener.protocol} needs a tls section` }
      : undefined;
  const wrongUse = meshListenerMistake(listener, place.facts.gatewayClass);
  const hosts = hostsOf(read, owner.namespace, listener);
  return {
    ...facts,
    conditions: withKinds(listenerConditions(mistake, bare ?? wrongUse ?? refused, bare), kinds.valid),
    attachable: !unsecured && place.facts.gatewayClass.role === "gateway",
    valid: mistake === undefined && refused === undefined && bare === undefined,
    closed: closed === true,
    ...(unsecured
      ? {}
      : {
          server: {
            port: { name: "default", number: listener.port, protocol: listener.protocol },
            hosts,
            ...(settings === undefined ? {} : { tls: settings }),
          },
        }),
  };
}

function frontendOf({ tls }: KubeGatewaySpec, port: number) {
  const frontend = tls?.frontend;
  return frontend?.perPort?.find((one) => one.port === port)?.tls ?? frontend?.default;
}

/** `namespace/host`; a listener that lets no namespace in is served nevertheless, with nothing behind it. */
function hostsOf(read: Read, own: string, { hostname = "*", allowedRoutes }: KubeGatewayListener): string[] {
  const namespaces = chosenNamespaces(read, allowedRoutes?.namespaces, own);
  const host = hostname === "" ? "*" : hostname;
  return namespaces.length === 0 ? [`~/${host}`] : namespaces.map((namespace) => `${namespace}/${host}`);
}

const protocols: ReadonlySet<string> = new Set(["HTTP", "HTTPS", "TLS", "TCP", "UDP"]);

function protocolMistake(
  { protocol }: KubeGatewayListener,
  { role }: GatewayClassFacts,
): Mistake | undefined {
  if (protocols.has(protocol) || (protocol === "HBONE" && (role === "waypoint" || role === "east-west")))
    return undefined;
  const hint = protocols.has(protocol.toUpperCase()) ? `; ${protocol.toUpperCase()} is one` : "";
  return { reason: "UnsupportedProtocol", message: `protocol ${protocol} is none that can be served${hint}` };
}

/** Classes of a mesh without sidecars know few listeners. */
function meshListenerMistake(
  { port, protocol, tls }: KubeGatewayListener,
  { role }: GatewayClassFacts,
): Mistake | undefined {
  const tunnel = port === 15_008 && protocol === "HBONE";
  if (role === "waypoint" && !tunnel)
    return { reason: "UnsupportedProtocol", message: "a waypoint listens on port 15008 with HBONE alone" };
  if (role !== "east-west") return undefined;
  const passes = port !== 15_008 && protocol === "TLS" && tls?.mode === "Passthrough";
  if ((tunnel && tls?.mode === "Terminate") || passes) return undefined;
  const message = "an east-west gateway ends HBONE on port 15008, and passes TLS through on others";
  return { reason: "UnsupportedProtocol", message };
}

function conflictedConditions(reason: string): Findings {
  const message = "another listener of this Gateway has the same place";
  return {
    Accepted: bad({ reason, message }),
    Programmed: bad({ reason, message }),
    Conflicted: good(reason, message),
  };
}

/** What keeps clients' certificates from being checked keeps the whole listener from being accepted. */
const refusing: ReadonlySet<string> = new Set([
  "InvalidCACertificateRef",
  "InvalidCACertificateKind",
  "RefNotPermitted",
]);

function listenerConditions(
  tls: Mistake | undefined,
  refused: Mistake | undefined,
  bare: Mistake | undefined,
): Findings {
  const fine = "nothing is wrong";
  const unaccepted =
    refused ??
    (tls !== undefined && refusing.has(tls.reason)
      ? { reason: "NoValidCACertificate", message: tls.message }
      : undefined);
  const invalid = { reason: "Invalid", message: "its TLS settings cannot be used" };
  return {
    Accepted: unaccepted === undefined ? good("Accepted", fine) : bad(unaccepted),
    Programmed: tls === undefined && bare === undefined ? good("Programmed", fine) : bad(invalid),
    Conflicted: { status: "False", reason: "NoConflicts", message: fine },
    ResolvedRefs: tls === undefined ? good("ResolvedRefs", fine) : bad(tls),
  };
}

const invalidKinds: Finding = {
  status: "False",
  reason: "InvalidRouteKinds",
  message: "allowedRoutes names kinds that this listener cannot take",
};

function withKinds(conditions: Findings, valid: boolean): Findings {
  return valid ? conditions : { ...conditions, ResolvedRefs: invalidKinds };
}

interface Kinds {
  readonly supported: readonly RouteKind[];
  readonly valid: boolean;
}

/** The kinds of routes that a listener takes: those of its protocol, as far as it allows them. */
function kindsOf({ protocol, tls, allowedRoutes }: KubeGatewayListener): Kinds {
  const possible = possibleKinds(protocol, tls?.mode);
  const allowed = allowedRoutes?.kinds ?? [];
  if (allowed.length === 0) return { supported: possible, valid: true };
  const supported = possible.filter((kind) =>
    allowed.some((one) => one.kind === kind && (one.group ?? gatewayApiGroup) === gatewayApiGroup),
  );
  return { supported, valid: supported.length === allowed.length };
}

function possibleKinds(protocol: string, mode: string | undefined): readonly RouteKind[] {
  switch (protocol) {
    case "HTTP":
    case "HTTPS":
      return ["HTTPRoute", "GRPCRoute"];
    case "TCP":
      return ["TCPRoute"];
    case "UDP":
      return ["UDPRoute"];
    case "TLS":
      return mode === "Terminate" ? ["TLSRoute", "TCPRoute"] : ["TLSRoute"];
    default:
      return [];
  }
}
