// GatewayClasses: which Gateways are ours, and what becomes of them. The names of classes and controllers are Istio's.

import { defineQuery, sameData } from "#engine";
import { tables } from "../tables.ts";

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
