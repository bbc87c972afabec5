// Filters that stand in a listener only where some route asks for them: a filter that comes or goes drains the listener's connections.

import { defineKeyedQuery, defineQuery, sameData, type Read } from "#engine";
import { hasMeshRoutes, routesOfMesh } from "./gateway-api/generated.ts";
import { parseGeneratedRouteKey } from "./gateway-api/names.ts";
import { outletText, type Outlet } from "./scope.ts";
import { httpRoutesOf, routesFor } from "./virtual-service.ts";

/** Whether some route of a VirtualService, by row key, has sessions: each with its endpoint. */
export const persistsSessions = defineQuery<boolean>("persistsSessions", (read, key) =>
  read(httpRoutesOf, key).some(({ sessionPersistence }) => sessionPersistence !== undefined),
);

/** Whether some route of a VirtualService, by row key, asks a service whether requests may go on. */
export const asksOutside = defineQuery<boolean>("asksOutside", (read, key) =>
  read(httpRoutesOf, key).some(({ externalAuth }) => externalAuth !== undefined),
);

export interface RouteFilterNeeds {
  readonly sessions: boolean;
  readonly asks: boolean;
}

const nothing: RouteFilterNeeds = { sessions: false, asks: false };

/** Hosts for which routes of the Gateway API have such filters between services: most meshes have none. */
const hostsWithFilters = defineQuery<readonly string[]>(
  "hostsWithRouteFilters",
  (read) => {
    if (!read(hasMeshRoutes, "")) return [];
    const keys = read(routesOfMesh, "").filter(
      (key) => read(persistsSessions, key) || read(asksOutside, key),
    );
    return [...new Set(keys.flatMap((key) => parseGeneratedRouteKey(key)?.host ?? []))].toSorted();
  },
  sameData,
);

export interface RouteFilterQuestion {
  readonly outlet: Outlet;
  readonly host: string;
  readonly port: number;
}

/** What clients of an outlet need for their calls of a host at a port. */
export function readRouteFilterNeeds(read: Read, question: RouteFilterQuestion): RouteFilterNeeds {
  return read(hostsWithFilters, "").includes(question.host) ? read(needsOf, question) : nothing;
}

const needsOf = defineKeyedQuery<RouteFilterQuestion, RouteFilterNeeds>(
  "routeFilterNeeds",
  ({ outlet, host, port }) => `${host}:${port} ${outletText(outlet)}`,
  (read, { outlet, host, port }) => {
    const keys = read(routesFor, { outlet, host }).filter((key) => {
      const own = parseGeneratedRouteKey(key)?.port ?? 0;
      return own === 0 || own === port;
    });
    return {
      sessions: keys.some((key) => read(persistsSessions, key)),
      asks: keys.some((key) => read(asksOutside, key)),
    };
  },
  sameData,
);
