// GatewayClasses: which Gateways are ours, and what becomes of them. The names of classes and controllers are Istio's.

import { defineQuery, sameData, type Read } from "#engine";
import type { GatewayClassSpec } from "#objects";
import { environmentOf } from "../mesh.ts";
import { tables } from "../tables.ts";
import type { Mistake } from "./findings.ts";
import { parametersFault } from "./parameters.ts";

export const gatewayController = "istio.io/gateway-controller";
export const meshController = "istio.io/mesh-controller";
const unmanagedController = "istio.io/unmanaged-gateway";
const eastWestController = "istio.io/eastwest-controller";

export interface GatewayClassFacts {
  readonly name: string;
  readonly controller: string;
  /** What such a Gateway is to us: a proxy that routes, one of another cluster, or one of a mesh without sidecars. */
  readonly role: "gateway" | "remote" | "waypoint" | "east-west";
  /** Names of what is deployed for a Gateway end in `-<class>`. */
  readonly suffixed: boolean;
}

type Role = Pick<GatewayClassFacts, "role" | "suffixed">;

const roles: Readonly<Record<string, Role>> = {
  [gatewayController]: { role: "gateway", suffixed: true },
  [unmanagedController]: { role: "remote", suffixed: true },
  [meshController]: { role: "waypoint", suffixed: false },
  [eastWestController]: { role: "east-west", suffixed: false },
};

/** Classes that are understood without an object. */
export const builtInClasses: Readonly<Record<string, string>> = {
  istio: gatewayController,
  "istio-remote": unmanagedController,
  "istio-waypoint": meshController,
  "istio-east-west": eastWestController,
};

/** A class by its name; undefined for one of another controller. */
export const gatewayClassOf = defineQuery<GatewayClassFacts | undefined>(
  "gatewayClass",
  (read, name) => {
    const controller = read(tables.GatewayClass, name)?.spec?.controllerName ?? builtInClasses[name];
    const role = controller === undefined ? undefined : roles[controller];
    return controller === undefined || role === undefined ? undefined : { name, controller, ...role };
  },
  sameData,
);

/** Names, in a ConfigMap of the mesh's root namespace, the class whose Gateways' parameters it has: Istio's way. */
const defaultsLabel = "gateway.istio.io/defaults-for-class";

/** Parameters that all Gateways of a class have. */
interface ClassParameters {
  /** `namespace/name` of the ConfigMap. */
  readonly map: string;
  readonly data: Readonly<Record<string, string>>;
}

/** By the class's name, each over the one before it. */
export const classParametersOf = defineQuery<readonly ClassParameters[]>(
  "gatewayClassParameters",
  (read, name) => {
    const { rootNamespace } = read(environmentOf, "");
    const labelled = read(tables.ConfigMap.by.namespace, rootNamespace)
      .filter(({ metadata }) => metadata.labels?.[defaultsLabel] === name)
      .toSorted((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
    const reference = read(tables.GatewayClass, name)?.spec?.parametersRef;
    const named = isConfigMap(reference)
      ? read(tables.ConfigMap, `${reference.namespace ?? ""}/${reference.name}`)
      : undefined;
    return [...labelled, ...(named === undefined ? [] : [named])].map(({ metadata, data = {} }) => ({
      map: `${metadata.namespace ?? ""}/${metadata.name}`,
      data,
    }));
  },
  sameData,
);

function isConfigMap(
  reference: GatewayClassSpec["parametersRef"],
): reference is NonNullable<GatewayClassSpec["parametersRef"]> & { readonly kind: "ConfigMap" } {
  return reference?.kind === "ConfigMap" && reference.group === "";
}

/** What is wrong with a class's parameters: none of its Gateways can be deployed with them. */
export function classParametersFault(read: Read, name: string): Mistake | undefined {
  for (const { map, data } of read(classParametersOf, name)) {
    const fault = parametersFault(data, `ConfigMap ${map}`);
    if (fault !== undefined) return fault;
  }
  return undefined;
}

/** The same, or with the class's reference to them: without what it means Gateways are deployed as if it named nothing. */
export function classParametersMistake(read: Read, name: string): Mistake | undefined {
  const fault = classParametersFault(read, name);
  if (fault !== undefined) return fault;
  const reference = read(tables.GatewayClass, name)?.spec?.parametersRef;
  if (reference === undefined) return undefined;
  const { kind, name: map, namespace = "" } = reference;
  if (!isConfigMap(reference))
    return { reason: "InvalidParameters", message: `parametersRef ${kind} ${map} is no ConfigMap` };
  return namespace === "" || read(tables.ConfigMap, `${namespace}/${map}`) === undefined
    ? { reason: "InvalidParameters", message: `ConfigMap ${namespace}/${map} does not exist` }
    : undefined;
}
