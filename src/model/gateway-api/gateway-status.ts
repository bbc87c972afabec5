// The status of GatewayClasses, Gateways and ListenerSets.

import { defineQuery, sameData, type Read } from "#engine";
import type { KubeGatewaySpec } from "#objects";
import { isIP } from "node:net";
import { tables } from "../tables.ts";
import { keyNamesOf, unlistedReaders } from "../router-credentials.ts";
import { accountsText } from "../secret-readers.ts";
import { instancesOf, isDeployed, type Instances, type ServedPort } from "./addresses.ts";
import { clientCertificateMistake } from "./certificates.ts";
import {
  classParametersFault,
  classParametersMistake,
  gatewayClassOf,
  type GatewayClassFacts,
} from "./classes.ts";
import { deployedServiceType } from "./deployed.ts";
import { bad, good, judged, type Finding, type Findings, type Mistake } from "./findings.ts";
import {
  attachedSetsOf,
  gatewayFactsOf,
  isReachable,
  ownListenersOf,
  setListenersOf,
  setParentOf,
  type GatewayFacts,
  type ListenerFacts,
} from "./listeners.ts";
import { allListenersOf, attachedRoutesOf } from "./parents.ts";
import { parametersFault } from "./parameters.ts";
import type { Parent, RouteKind } from "./references.ts";

export interface ListenerStatus {
  readonly name: string;
  readonly supportedKinds: readonly RouteKind[];
  readonly attachedRoutes: number;
  readonly conditions: Findings;
}

export interface GatewayStatus {
  readonly conditions: Findings;
  /** Absent: what was reported before stays. */
  readonly addresses?: readonly { readonly type: string; readonly value: string }[];
  readonly listeners: readonly ListenerStatus[];
  readonly attachedListenerSets: number;
}

/** By name; undefined for a class of another controller. */
export const classStatusOf = defineQuery<Findings | undefined>(
  "gatewayClassStatus",
  (read, name) =>
    read(tables.GatewayClass, name) === undefined || read(gatewayClassOf, name) === undefined
      ? undefined
      : { Accepted: judged(classParametersMistake(read, name), "Accepted", "this mesh takes care of it") },
  sameData,
);

/** By row key; undefined for a Gateway of another controller. */
export const gatewayStatusOf = defineQuery<GatewayStatus | undefined>(
  "gatewayStatus",
  (read, key) => {
    const row = read(tables.KubeGateway, key);
    const facts = read(gatewayFactsOf, key);
    if (row?.spec === undefined || facts === undefined) return undefined;
    if (facts.gatewayClass.role === "remote") return remoteStatus(row.spec);
    const own = read(ownListenersOf, key);
    const all = read(allListenersOf, key);
    const namespace = key.slice(0, key.indexOf("/"));
    const instances = instancesFor(read, namespace, facts, all);
    const mistake =
      facts.services.mistake ??
      parametersMistake(read, namespace, row.spec) ??
      (isDeployed(row.spec) ? deployedServiceType(row.metadata).mistake : undefined);
    const backend = clientCertificateMistake(
      read,
      { kind: "Gateway", namespace },
      row.spec.tls?.backend?.clientCertificateRef,
    );
    const insecure = insecureFinding(row.spec);
    const addresses = addressesOf(instances, facts.gatewayClass, row.metadata.annotations?.[addressType]);
    return {
      conditions: {
        Accepted: isReachable(facts) ? acceptedFinding(mistake, own) : bad(facts.services.mistake!),
        Programmed: programmedFinding(facts, instances),
        ResolvedRefs: judged(backend, "ResolvedRefs", "every reference leads to something"),
        ...(insecure === undefined ? {} : { InsecureFrontendValidationMode: insecure }),
        ...(row.spec.defaultScope === "All" ? { DefaultGateway: isDefault } : {}),
      },
      ...(addresses.length === 0 ? {} : { addresses }),
      listeners: own.map((listener) => listenerStatus(read, { kind: "Gateway", key }, listener)),
      attachedListenerSets: read(attachedSetsOf, key).filter((set) =>
        read(setListenersOf, set).some(({ valid }) => valid),
      ).length,
    };
  },
  sameData,
);

/** By row key; undefined for a ListenerSet whose Gateway is not ours. */
export const listenerSetStatusOf = defineQuery<Omit<GatewayStatus, "attachedListenerSets"> | undefined>(
  "listenerSetStatus",
  (read, key) => {
    const parent = read(setParentOf, key);
    if (parent === undefined) return undefined;
    if (parent.refused !== undefined) {
      const refused = bad(parent.refused);
      return { conditions: { Accepted: refused, Programmed: refused }, listeners: [] };
    }
    const listeners = read(setListenersOf, key);
    const { facts, gateway } = parent;
    const instances = instancesFor(read, gateway.slice(0, gateway.indexOf("/")), facts, listeners);
    const unreachable = facts.services.mistake;
    const message = "none of its listeners can be served";
    const invalid = listeners.some(({ valid }) => valid)
      ? undefined
      : { reason: "ListenersNotValid", message };
    const accepted = unreachable ?? invalid;
    const noListeners = isReachable(facts) ? invalid : undefined;
    return {
      conditions: {
        Accepted: judged(accepted, "Accepted", "it is taken"),
        Programmed: noListeners === undefined ? programmedFinding(facts, instances) : bad(noListeners),
      },
      listeners: listeners.map((listener) => listenerStatus(read, { kind: "ListenerSet", key }, listener)),
    };
  },
  sameData,
);

const isDefault = good("DefaultGateway", "routes with useDefaultGateways All are for it");

const addressType = "networking.istio.io/address-type";

/** A Gateway that runs elsewhere: its status says what its spec says. */
function remoteStatus({ addresses = [] }: KubeGatewaySpec): GatewayStatus {
  return {
    conditions: {
      Accepted: good("Accepted", "it is taken"),
      Programmed: good("Programmed", "it runs in another cluster, which programs it"),
    },
    addresses: addresses.map(({ type = "IPAddress", value = "" }) => ({ type, value })),
    listeners: [],
    attachedListenerSets: 0,
  };
}

function instancesFor(
  read: Read,
  namespace: string,
  { services }: GatewayFacts,
  listeners: readonly ListenerFacts[],
): Instances {
  const ports = listeners.flatMap(({ server, port, protocol }): [string, ServedPort][] => {
    const datagrams = protocol === "UDP";
    return server === undefined ? [] : [[`${datagrams} ${port}`, { port, datagrams }]];
  });
  return instancesOf(read, namespace, services.hosts, [...new Map(ports).values()]);
}

function parametersMistake(
  read: Read,
  namespace: string,
  { gatewayClassName, infrastructure }: KubeGatewaySpec,
): Mistake | undefined {
  const ofClass = classParametersFault(read, gatewayClassName);
  if (ofClass !== undefined)
    return { ...ofClass, message: `of class ${gatewayClassName}: ${ofClass.message}` };
  const reference = infrastructure?.parametersRef;
  if (reference === undefined) return undefined;
  const { group, kind, name } = reference;
  if (group !== "" || kind !== "ConfigMap")
    return { reason: "InvalidParameters", message: `parametersRef ${kind} ${name} is no ConfigMap` };
  const map = read(tables.ConfigMap, `${namespace}/${name}`);
  return map === undefined
    ? { reason: "InvalidParameters", message: `ConfigMap ${namespace}/${name} does not exist` }
    : parametersFault(map.data, `ConfigMap ${namespace}/${name}`);
}

/** A Gateway stands as long as one of its listeners does. */
function acceptedFinding(mistake: Mistake | undefined, listeners: readonly ListenerFacts[]): Finding {
  if (mistake !== undefined) return bad(mistake);
  const valid = listeners.filter((listener) => listener.valid).length;
  if (valid === listeners.length) return good("Accepted", "it is taken");
  return valid === 0
    ? bad({ reason: "ListenersNotValid", message: "none of its listeners can be served" })
    : good("ListenersNotValid", "some of its listeners cannot be served");
}

function programmedFinding({ services }: GatewayFacts, instances: Instances): Finding {
  const { internal, warnings, usable } = instances;
  if (services.hosts.length === 0)
    return bad({ reason: "UnsupportedAddress", message: "none of the requested addresses can be used" });
  if (warnings.length > 0)
    return bad({ reason: usable ? "AddressNotAssigned" : "AddressNotUsable", message: warnings.join("; ") });
  return good(
    "Programmed",
    internal.length === 0 ? "it is served" : `it is served at ${internal.join(", ")}`,
  );
}

function insecureFinding({ tls }: KubeGatewaySpec): Finding | undefined {
  const frontend = tls?.frontend;
  const all = [frontend?.default, ...(frontend?.perPort ?? []).map((one) => one.tls)];
  return all.some((one) => one?.validation?.mode === "AllowInsecureFallback")
    ? good("ConfigurationChanged", "clients are let in whose certificate cannot be verified")
    : undefined;
}

/** External addresses; without any the internal ones, of the type that the class or an annotation wants. */
function addressesOf(
  { internal, internalAddresses, external, pending }: Instances,
  { role }: GatewayClassFacts,
  override: string | undefined,
): NonNullable<GatewayStatus["addresses"]> {
  const wanted = override ?? (role === "gateway" ? "Hostname" : "");
  const hosts = internal
    .map((one) => one.slice(0, one.lastIndexOf(":")))
    .filter((host) => !pending.includes(host));
  const inside = [
    ...(wanted === "Hostname" ? [] : internalAddresses),
    ...(wanted === "IPAddress" ? [] : new Set(hosts)),
  ];
  return (external.length > 0 ? external : inside).map((value) => ({
    type: isIP(value) === 0 ? "Hostname" : "IPAddress",
    value,
  }));
}

function listenerStatus(read: Read, owner: Parent, listener: ListenerFacts): ListenerStatus {
  const { name, supportedKinds, internalName } = listener;
  const attachedRoutes = read(attachedRoutesOf, { owner, gateway: internalName }).length;
  return { name, supportedKinds, attachedRoutes, conditions: withReaders(read, owner, listener) };
}

/** A listener whose keys the API server keeps from the gateways that somebody else runs for it. */
function withReaders(read: Read, owner: Parent, { server, conditions }: ListenerFacts): Findings {
  if (server?.tls === undefined || keyNamesOf(server.tls).length === 0) return conditions;
  const gateway = owner.kind === "Gateway" ? owner.key : read(setParentOf, owner.key)?.gateway;
  const refused = gateway === undefined ? [] : read(unlistedReaders, gateway);
  if (refused.length === 0 || conditions["Programmed"]?.status !== "True") return conditions;
  const message = `its gateways get no key: their service accounts may not list the Secrets of their namespace (${accountsText(refused)})`;
  return { ...conditions, Programmed: bad({ reason: "Invalid", message }) };
}
