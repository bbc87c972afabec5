// What Istio's webhook checks of a VirtualService beyond its schema.

import { isIP } from "node:net";

import { parseRoutingClaim } from "../claims.ts";
import { hostMatches, hostSubsetOf } from "../host.ts";
import { labelProblems } from "../label-match.ts";
import { eachOf, pathOf, type Report } from "../report.ts";
import { cidrFault, gatewayHostFault, portFault, show, wildcardHostFault } from "../values.ts";
import type {
  L4MatchAttributes,
  RouteDestination,
  TLSMatchAttributes,
  VirtualServiceSpec,
} from "../virtual-service.ts";
import { checkHttpRoute } from "./http-route.ts";
import { checkDestination, checkGatewayNames, checkWeights } from "./route-parts.ts";
import { checkReach } from "./route-reach.ts";
import { checkExportTo } from "./selectors.ts";

const meshGateway = "mesh";
/** Routes of one object beyond which matching gets slow: Envoy walks the list for each request. */
const routesPleasantMax = 1_000;

export function checkVirtualService(spec: VirtualServiceSpec, namespace: string, report: Report): void {
  const delegate = !spec.hosts?.length;
  if (delegate)
    for (const field of ["gateways", "tls", "tcp"] as const)
      if (spec[field]?.length)
        report.add(
          "MZ0203",
          `spec.${field}`,
          `a VirtualService without hosts is a delegate, which has no ${field}`,
        );
  checkGatewayNames(spec.gateways, "spec.gateways", report);
  const atGateway = Boolean(spec.gateways?.length) && !spec.gateways!.includes(meshGateway);
  if (!atGateway) checkClaims(spec, report);
  checkHosts(spec, atGateway, report);
  if (!spec.http?.length && !spec.tcp?.length && !spec.tls?.length)
    report.add("MZ0202", "spec", "there is no route: set http, tls or tcp");
  const routes = [spec.http, spec.tls, spec.tcp].reduce((sum, list) => sum + (list?.length ?? 0), 0);
  if (routes > routesPleasantMax) report.add("MZ0610", "spec", `the object has ${routes} routes`);
  eachOf(spec.http, "spec.http", (route, path) => checkHttpRoute(route, delegate, path, report));
  eachOf(spec.tls, "spec.tls", (route, path) => {
    if (!route.match?.length)
      report.add("MZ0202", pathOf(path, "match"), "a TLS route needs at least one match");
    eachOf(route.match, pathOf(path, "match"), (match, at) => checkTlsMatch(match, spec, at, report));
    checkDestinations(route.route, pathOf(path, "route"), report);
  });
  eachOf(spec.tcp, "spec.tcp", (route, path) => {
    eachOf(route.match, pathOf(path, "match"), (match, at) => checkL4Match(match, at, report));
    checkDestinations(route.route, pathOf(path, "route"), report);
  });
  checkExportTo(spec.exportTo, "spec.exportTo", { namespace }, report);
  checkReach(spec, report);
}

function checkClaims(spec: VirtualServiceSpec, report: Report): void {
  eachOf(spec.http, "spec.http", (route, path) =>
    eachOf(route.match, pathOf(path, "match"), (match, at) => {
      for (const field of ["headers", "withoutHeaders"] as const)
        for (const name of Object.keys(match[field] ?? {}))
          if (parseRoutingClaim(name) !== undefined)
            report.add(
              "MZ0205",
              pathOf(pathOf(at, field), name),
              "claims can only be matched at a gateway: sidecars keep no JWT",
            );
    }),
  );
}

function checkHosts(spec: VirtualServiceSpec, atGateway: boolean, report: Report): void {
  const hosts = spec.hosts ?? [];
  const sni = spec.tls?.some(({ match }) => match?.some(({ sniHosts }) => sniHosts?.length)) ?? false;
  let good = true;
  eachOf(hosts, "spec.hosts", (host, path) => {
    const fault = atGateway ? gatewayHostFault(host, sni) : wildcardHostFault(host);
    if (fault !== undefined && isIP(host) === 0) report.value(path, fault);
    else if (!atGateway && host === "*")
      report.add("MZ0205", path, "* would take the mesh's whole traffic: it is for gateways only");
    else return;
    good = false;
  });
  if (!good) return;
  for (const [index, host] of hosts.entries()) {
    const other = hosts.slice(0, index).find((earlier) => hostMatches(earlier, host));
    if (other !== undefined)
      report.add(
        "MZ0204",
        pathOf("spec.hosts", index),
        `${show(host)} and ${show(other)} mean the same hosts`,
      );
  }
}

function checkTlsMatch(
  match: TLSMatchAttributes,
  spec: VirtualServiceSpec,
  path: string,
  report: Report,
): void {
  if (!match.sniHosts?.length)
    report.add("MZ0202", pathOf(path, "sniHosts"), "a TLS match needs at least one SNI host");
  eachOf(match.sniHosts, pathOf(path, "sniHosts"), (host, at) => checkSniHost(host, spec, at, report));
  checkL4Match(match, path, report);
}

function checkSniHost(host: string, spec: VirtualServiceSpec, path: string, report: Report): void {
  const atGateway = !(spec.gateways ?? []).includes(meshGateway);
  const fault = atGateway ? gatewayHostFault(host, true) : wildcardHostFault(host);
  if (fault !== undefined) {
    if (isIP(host) === 0) report.value(path, fault);
    else report.add("MZ0254", path, "clients send no SNI for an IP address");
    return;
  }
  if (!(spec.hosts ?? []).some((of) => hostSubsetOf(host, of)))
    report.add("MZ0203", path, `${show(host)} is meant by none of spec.hosts`);
}

type L4Match = Pick<L4MatchAttributes, "destinationSubnets" | "port" | "sourceLabels" | "gateways">;

function checkL4Match(match: L4Match, path: string, report: Report): void {
  eachOf(match.destinationSubnets, pathOf(path, "destinationSubnets"), (subnet, at) =>
    report.value(at, cidrFault(subnet)),
  );
  if (match.port) report.value(pathOf(path, "port"), portFault(match.port));
  for (const text of labelProblems(match.sourceLabels))
    report.add("MZ0201", pathOf(path, "sourceLabels"), text);
  checkGatewayNames(match.gateways, pathOf(path, "gateways"), report);
}

function checkDestinations(
  routes: readonly RouteDestination[] | undefined,
  path: string,
  report: Report,
): void {
  if (!routes?.length) report.add("MZ0202", path, "the route has no destination");
  eachOf(routes, path, ({ destination, weight }, at) => {
    if (destination === undefined)
      report.add("MZ0202", pathOf(at, "destination"), "the destination is missing");
    checkDestination(destination, pathOf(at, "destination"), report);
    if ((weight ?? 0) < 0) report.add("MZ0201", pathOf(at, "weight"), `the weight ${weight} is negative`);
  });
  checkWeights(routes, path, report);
}
