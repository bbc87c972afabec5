// Rules of TLSRoutes and TCPRoutes as routes of a VirtualService.

import type { Read } from "#engine";
import type {
  BackendRef,
  L4RouteRule,
  RouteDestination,
  VirtualServiceTcpRoute,
  VirtualServiceTlsRoute,
} from "#objects";
import { findBackend, nowhere, weightOf, type BackendUser } from "./backends.ts";
import type { Mistake } from "./findings.ts";
import type { ConvertedRoutes } from "./http-rules.ts";

export function convertTcpRules(
  read: Read,
  user: BackendUser,
  rules: readonly L4RouteRule[],
): ConvertedRoutes<VirtualServiceTcpRoute> {
  return converted(read, user, rules, (route) => ({ route }));
}

/** @param hostnames empty for every server name */
export function convertTlsRules(
  read: Read,
  user: BackendUser,
  rules: readonly L4RouteRule[],
  hostnames: readonly string[],
): ConvertedRoutes<VirtualServiceTlsRoute> {
  const sniHosts = hostnames.length === 0 ? ["*"] : hostnames;
  return converted(read, user, rules, (route) => ({ match: [{ sniHosts }], route }));
}

function converted<Route>(
  read: Read,
  user: BackendUser,
  rules: readonly L4RouteRule[],
  make: (route: RouteDestination[]) => Route,
): ConvertedRoutes<Route> {
  const routes: Route[] = [];
  let mistake: Mistake | undefined;
  for (const { backendRefs = [] } of rules) {
    const found = destinationsOf(read, user, backendRefs);
    mistake = found.mistake ?? mistake;
    if (found.destinations === undefined)
      return { routes: [], ...(mistake === undefined ? {} : { mistake }) };
    routes.push(make(found.destinations));
  }
  return { routes, ...(mistake === undefined ? {} : { mistake }) };
}

/** Connections that nobody is to get go to a cluster that does not exist: Envoy closes them. */
const closed: RouteDestination = { destination: { host: nowhere, port: { number: 65_535 } } };

function destinationsOf(
  read: Read,
  user: BackendUser,
  references: readonly BackendRef[],
): { readonly destinations?: RouteDestination[]; readonly mistake?: Mistake } {
  const weighed = references.filter((reference) => weightOf(reference) > 0);
  if (weighed.length === 0) return { destinations: [closed] };
  const destinations: RouteDestination[] = [];
  let mistake: Mistake | undefined;
  for (const reference of weighed) {
    const found = findBackend(read, user, reference);
    if (found.kind === "refused") return { mistake: found.mistake };
    mistake = found.mistake ?? mistake;
    destinations.push({
      destination: found.destination,
      ...(weighed.length === 1 ? {} : { weight: weightOf(reference) }),
    });
  }
  return { destinations, ...(mistake === undefined ? {} : { mistake }) };
}
