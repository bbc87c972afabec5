// VirtualServices that are bound to a Gateway, and the services that they send its traffic to.

import { defineKeyedQuery, sameData } from "#engine";
import type { RouteDestination } from "#objects";
import { extAuthzServicesOf } from "./authorization-policy.ts";
import { secretServiceOf, telemetryServicesOf } from "./tracing.ts";
import { routesOfListener } from "./gateway-api/generated.ts";
import { gatewayScopeText, mergedGatewayOf, type GatewayScope } from "./gateway.ts";
import { jwksServicesOf } from "./request-authentication.ts";
import { routesOfIngressGateway } from "./ingress/index.ts";
import { moduleServicesOf } from "./traffic-extension.ts";
import { anyOutlet, outletText, visibleService, type Outlet } from "./scope.ts";
import { isExportedTo, serviceOf } from "./services.ts";
import { tables } from "./tables.ts";
import {
  byPrecedence,
  destinationsOf,
  routeFacts,
  streamRoutesOf,
  type RouteFacts,
} from "./virtual-service.ts";

export interface GatewayBinding {
  /** `namespace/name` of the Gateway. */
  readonly gateway: string;
  /** The namespace of the proxy that serves it: a VirtualService must be exported to it. */
  readonly namespace: string;
}

function bindingText({ gateway, namespace }: GatewayBinding): string {
  return `${gateway} ${namespace}`;
}

/** The VirtualServices bound to a Gateway, in the order in which they are tried. */
export const boundRoutes = defineKeyedQuery<GatewayBinding, readonly RouteFacts[]>(
  "boundRoutes",
  bindingText,
  (read, { gateway, namespace }) =>
    [
      ...read(tables.VirtualService.by.gateway.members, gateway),
      ...read(routesOfListener, gateway),
      ...read(routesOfIngressGateway, gateway),
    ]
      .flatMap((key) => read(routeFacts, key) ?? [])
      .filter((route) => isExportedTo(route.exportTo, route.namespace, namespace))
      .toSorted((a, b) => byPrecedence(a, b, namespace)),
  sameData,
);

/** Where a port of UDP leads. */
export interface DatagramRoute {
  readonly facts: RouteFacts;
  readonly destinations: readonly RouteDestination[];
}

/** Of several routes the oldest alone, as Gateway API has it: nothing in a datagram would tell them apart. */
export const datagramRouteOf = defineKeyedQuery<GatewayBinding, DatagramRoute | undefined>(
  "datagramRoute",
  bindingText,
  (read, binding) => {
    const [facts] = read(boundRoutes, binding);
    const route = facts === undefined ? undefined : read(streamRoutesOf, facts.key).tcp[0]?.route;
    return facts === undefined || route === undefined ? undefined : { facts, destinations: route };
  },
  sameData,
);

/** Services that a router sends traffic to, as `namespace/host`, in order: only those get clusters there. */
export const gatewayServices = defineKeyedQuery<GatewayScope, readonly string[]>(
  "gatewayServices",
  gatewayScopeText,
  (read, scope) => {
    const { listeners } = read(mergedGatewayOf, scope);
    const gateways = new Set(listeners.flatMap(({ servers }) => servers.map(({ gateway }) => gateway)));
    const hosts = [...gateways]
      .flatMap((gateway) => read(boundRoutes, { gateway, namespace: scope.namespace }))
      .flatMap(({ key }) => read(destinationsOf, key));
    const outlet = { scope: scope.outbound, port: anyOutlet };
    const routed = hosts.flatMap((host) => read(destinationKey, { outlet, host }) ?? []);
    const asked = read(extAuthzServicesOf, scope).map(({ service }) => service);
    const keys = [
      ...read(jwksServicesOf, scope),
      ...read(moduleServicesOf, scope),
      ...read(telemetryServicesOf, scope),
      ...[read(secretServiceOf, "")?.key].filter((key) => key !== undefined),
    ];
    return [...new Set([...routed, ...asked, ...keys])].toSorted();
  },
  sameData,
);

/** Whether some host behind a gateway is looked up as requests name it. */
export const routesDynamically = defineKeyedQuery<GatewayScope, boolean>(
  "routesDynamically",
  gatewayScopeText,
  (read, scope) =>
    read(gatewayServices, scope).some((key) => read(serviceOf, key)?.resolution === "dynamic-dns"),
);

/** The service that a destination's host means, as `namespace/host`: for a Service that is an alias, its target. */
export const destinationKey = defineKeyedQuery<
  { readonly outlet: Outlet; readonly host: string },
  string | undefined
>(
  "destinationKey",
  ({ outlet, host }) => `${host} ${outletText(outlet)}`,
  (read, { outlet, host }) => {
    const key = read(visibleService, { outlet, host });
    const service = key === undefined ? undefined : read(serviceOf, key);
    return service?.resolution === "alias" ? read(visibleService, { outlet, host: service.aliasOf }) : key;
  },
);
