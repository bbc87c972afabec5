// What the control plane writes about Gateway API: the status of each object, and what is to be deployed for a Gateway.

import { defineKeyedQuery, defineQuery, sameData, type Read } from "#engine";
import { labels as labelNames, type KubeObject, type ObjectMeta } from "#objects";
import { environmentOf } from "../mesh.ts";
import { everything, tables } from "../tables.ts";
import { deployedName, isDeployed } from "./addresses.ts";
import { ingressStatusOf, type IngressAddress } from "../ingress/ingress.ts";
import { classParametersOf } from "./classes.ts";
import { deployedAccount, deployedServiceType } from "./deployed.ts";
import type { Findings } from "./findings.ts";
import { classStatusOf, gatewayStatusOf, listenerSetStatusOf, type GatewayStatus } from "./gateway-status.ts";
import { attachedSetsOf, gatewayFactsOf } from "./listeners.ts";
import { gatewayFeatures } from "./features.ts";
import { backendStatusOf, backendTlsPolicyOf } from "./policies.ts";
import { routeKinds, type RouteKind } from "./references.ts";
import { routeStatusOf, type ParentStatus } from "./routes.ts";
import {
  renderConditions,
  renderGatewayStatus,
  renderListenerSetStatus,
  renderPolicyStatus,
  renderRouteStatus,
  type StandingStatus,
} from "./status.ts";

/** The kinds that get a status, by the names of their tables. */
export const statusKinds = [
  "GatewayClass",
  "Ingress",
  "KubeGateway",
  "ListenerSet",
  ...routeKinds,
  "BackendTLSPolicy",
  "XBackend",
] as const;
export type StatusKind = (typeof statusKinds)[number];

export interface StatusKey {
  readonly kind: StatusKind;
  readonly key: string;
}

/** A status before it is laid over the one that stands. */
export interface WantedStatus {
  readonly namespace: string;
  /** Of the object as it was judged. */
  readonly generation: number;
  readonly found:
    | { readonly kind: "load-balancer"; readonly addresses: readonly IngressAddress[] }
    | { readonly kind: "class"; readonly findings: Findings; readonly features: readonly string[] }
    | { readonly kind: "gateway"; readonly status: GatewayStatus }
    | { readonly kind: "listener-set"; readonly status: Omit<GatewayStatus, "attachedListenerSets"> }
    | { readonly kind: "parents" | "ancestors"; readonly entries: readonly ParentStatus[] };
}

/** Row keys of a kind. */
export const statusKeysOf = defineQuery<readonly string[]>("statusKeys", (read, kind) =>
  (statusKinds as readonly string[]).includes(kind)
    ? read(tables[kind as StatusKind].by.all.members, everything)
    : [],
);

/** The status that an object is to have; undefined for one of another controller. */
export const wantedStatusOf = defineKeyedQuery<StatusKey, WantedStatus | undefined>(
  "wantedStatus",
  ({ kind, key }) => `${kind} ${key}`,
  (read, { kind, key }) => {
    const metadata = metadataOf(read, kind, key);
    if (metadata !== undefined && !isOfRevision(read, metadata)) return undefined;
    const found = metadata === undefined ? undefined : foundFor(read, kind, key);
    if (metadata === undefined || found === undefined) return undefined;
    return { namespace: metadata.namespace ?? "", generation: metadata.generation ?? 0, found };
  },
  sameData,
);

function metadataOf(read: Read, kind: StatusKind, key: string): ObjectMeta | undefined {
  const row: KubeObject | undefined = read(tables[kind] as unknown as typeof tables.HTTPRoute, key);
  return row?.metadata;
}

function foundFor(read: Read, kind: StatusKind, key: string): WantedStatus["found"] | undefined {
  switch (kind) {
    case "GatewayClass": {
      const findings = read(classStatusOf, key);
      return findings === undefined ? undefined : { kind: "class", findings, features: gatewayFeatures };
    }
    case "Ingress": {
      const addresses = read(ingressStatusOf, key);
      return addresses === undefined ? undefined : { kind: "load-balancer", addresses };
    }
    case "KubeGateway": {
      const status = read(gatewayStatusOf, key);
      return status === undefined ? undefined : { kind: "gateway", status };
    }
    case "ListenerSet": {
      const status = read(listenerSetStatusOf, key);
      return status === undefined ? undefined : { kind: "listener-set", status };
    }
    case "BackendTLSPolicy":
      return { kind: "ancestors", entries: read(backendTlsPolicyOf, key)?.ancestors ?? [] };
    case "XBackend":
      return { kind: "ancestors", entries: read(backendStatusOf, key) };
    default:
      return { kind: "parents", entries: read(routeStatusOf, { kind: kind satisfies RouteKind, key }) };
  }
}

/**
 * The status as it is written.
 * @param now RFC 3339, whole seconds
 */
export function renderStatus(
  { namespace, generation, found }: WantedStatus,
  standing: StandingStatus,
  now: string,
): Readonly<Record<string, unknown>> {
  const moment = { now, generation };
  switch (found.kind) {
    case "class":
      return {
        conditions: renderConditions(standing.conditions, found.findings, moment),
        supportedFeatures: found.features.map((name) => ({ name })),
      };
    case "load-balancer":
      return { loadBalancer: found.addresses.length === 0 ? {} : { ingress: found.addresses } };
    case "gateway":
      return renderGatewayStatus(standing, found.status, moment);
    case "listener-set":
      return renderListenerSetStatus(standing, found.status, moment);
    case "parents":
      return renderRouteStatus(standing, found.entries, namespace, moment);
    case "ancestors":
      return renderPolicyStatus(standing, found.entries, namespace, moment);
  }
}

/** What is deployed for a Gateway depends on these facts alone. */
export interface DeploymentFacts {
  readonly gateway: { readonly namespace: string; readonly name: string; readonly uid: string };
  readonly className: string;
  /** Of the Deployment and the Service. */
  readonly name: string;
  readonly serviceAccount: string;
  readonly serviceType: string;
  readonly loadBalancerIp: string;
  /** Asked for by `spec.infrastructure`, or else the Gateway's own. */
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly ports: readonly { readonly name: string; readonly port: number; readonly protocol: string }[];
  /** Data of the ConfigMaps that the class and the Gateway's `parametersRef` name, each over the one before it. */
  readonly parameters: readonly Readonly<Record<string, string>>[];
  /** HTTPS is served over UDP as well. */
  readonly quicListeners: boolean;
  /** The Service is there: when somebody deletes it, this changes. */
  readonly exists: boolean;
}

/**
 * Whether an object is for this control plane to answer for. One that says nothing, and whose namespace says nothing, is for each; proxies
 * get what it means from both, so that it moves from one to the other without an outage.
 */
function isOfRevision(read: Read, { labels, namespace }: ObjectMeta): boolean {
  const ofNamespace =
    namespace === undefined
      ? undefined
      : read(tables.Namespace, namespace)?.metadata.labels?.[labelNames.revision];
  const asked = labels?.[labelNames.revision] ?? ofNamespace ?? "";
  return asked === "" || asked === read(environmentOf, "").revision;
}

/** Says to other controllers of the family which of them has the Gateway: the larger number. */
export const controllerVersion = { annotation: "gateway.istio.io/controller-version", own: 5 } as const;

/** A newer control plane has it, or one that counts otherwise: as in Istio, whoever is older keeps away. */
function isAnothers({ annotations }: ObjectMeta): boolean {
  const version = annotations?.[controllerVersion.annotation];
  return version !== undefined && !(/^\d+$/.test(version) && Number(version) <= controllerVersion.own);
}

/** By row key of a Gateway; undefined for one whose proxies are not ours to deploy. */
export const deploymentFactsOf = defineQuery<DeploymentFacts | undefined>(
  "gatewayDeploymentFacts",
  (read, key) => {
    const row = read(tables.KubeGateway, key);
    const facts = read(gatewayFactsOf, key);
    // Proxies of meshes without sidecars are none of ours.
    if (row?.spec === undefined || facts?.gatewayClass.role !== "gateway" || !isDeployed(row.spec))
      return undefined;
    const { metadata, spec } = row;
    if (metadata.deletionTimestamp !== undefined || isAnothers(metadata)) return undefined;
    if (!isOfRevision(read, metadata)) return undefined;
    const name = deployedName(metadata, facts.gatewayClass);
    const copied = read(environmentOf, "").gatewayLabels === "copied" ? metadata : undefined;
    const [namespace = ""] = key.split("/");
    const reference = spec.infrastructure?.parametersRef;
    const ownParameters =
      reference?.kind === "ConfigMap" && reference.group === ""
        ? read(tables.ConfigMap, `${namespace}/${reference.name}`)?.data
        : undefined;
    const sets = read(attachedSetsOf, key).flatMap(
      (set) => read(tables.ListenerSet, set)?.spec?.listeners ?? [],
    );
    return {
      gateway: { namespace, name: metadata.name, uid: metadata.uid ?? "" },
      className: facts.gatewayClass.name,
      name,
      serviceAccount: deployedAccount(metadata, facts.gatewayClass),
      serviceType: deployedServiceType(metadata).type,
      loadBalancerIp: spec.addresses?.[0]?.value ?? "",
      labels: spec.infrastructure?.labels ?? copied?.labels ?? {},
      annotations: spec.infrastructure?.annotations ?? copied?.annotations ?? {},
      ports: [...(spec.listeners ?? []), ...sets].map((listener) => ({
        name: listener.name,
        port: listener.port ?? (listener.protocol === "HTTPS" ? 443 : 80),
        protocol: listener.protocol,
      })),
      parameters: [
        ...read(classParametersOf, facts.gatewayClass.name).map(({ data }) => data),
        ...(ownParameters === undefined ? [] : [ownParameters]),
      ],
      quicListeners: read(environmentOf, "").quicListeners,
      exists: read(tables.Service, `${namespace}/${name}`) !== undefined,
    };
  },
  sameData,
);
