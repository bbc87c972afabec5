// Resources for gRPC clients that speak xDS themselves, in what gRPC understands of Envoy's API. A resource with anything
// else in it would be refused as a whole, or worse, read as if that were not there; the rules are gRPC's own (gRFCs A27,
// A28, A29, A31, A42, A44, A50).

import type { Read } from "#engine";
import { mergedRule, serviceOf, type MeshService } from "#model";
import {
  clusterNameOf,
  nowhereCluster,
  virtualHostName,
  type ProxylessClusterKey,
  type ProxylessListenerKey,
  type ProxylessRouteKey,
} from "#plan";
import type { LoadBalancerSettings } from "#objects";
import { meshIdentities } from "./cluster.ts";
import { loadAssignment } from "./endpoint.ts";
import { readPolicy } from "./mesh-settings.ts";
import { externalAuthName } from "./external-auth.ts";
import { typed, wrapped, type Message } from "./proto/api.ts";
import { resource, type EnvoyResource, type Origin } from "./resource.ts";
import { clientTransportSocket } from "./tls.ts";
import { balancerFields, outlierFields, type PortPolicy } from "./traffic-policy.ts";
import { virtualHostMessage } from "./virtual-host.ts";

/** A listener is how a target is found; it leads to the service's routes. */
export function proxylessListener(
  read: Read,
  { target, route, service }: ProxylessListenerKey,
): EnvoyResource {
  const manager = typed("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", {
    statPrefix: route,
    rds: { configSource: { ads: {}, resourceApiVersion: "V3" }, routeConfigName: route },
    httpFilters: [
      {
        name: "envoy.filters.http.fault",
        typedConfig: typed("envoy.extensions.filters.http.fault.v3.HTTPFault"),
      },
      {
        name: "envoy.filters.http.router",
        typedConfig: typed("envoy.extensions.filters.http.router.v3.Router"),
      },
    ],
  });
  const message = { name: target, apiListener: { apiListener: manager } };
  return resource("listener", target, message, originsOf(read(serviceOf, service)));
}

/** Undefined when nothing is routed for this client. */
export function proxylessRoute(read: Read, { name, host }: ProxylessRouteKey): EnvoyResource | undefined {
  const built = virtualHostMessage(read, host);
  if (built === undefined) return undefined;
  const routes = withOwnDraws(built.message["routes"] as readonly Message[]).flatMap(grpcRoute);
  const virtualHosts = [{ name: virtualHostName(host), domains: host.domains, routes }];
  return resource("route", name, { name, virtualHosts }, built.origins);
}

export function proxylessCluster(read: Read, { base }: ProxylessClusterKey): EnvoyResource | undefined {
  if (base === undefined) {
    return resource("cluster", nowhereCluster, { ...byEndpoints(nowhereCluster), lbPolicy: "ROUND_ROBIN" });
  }
  const service = read(serviceOf, base.service);
  if (service === undefined) return undefined;
  const name = clusterNameOf(base);
  const policy = readPolicy(read, read(mergedRule, base.rules.join(",")), base.subset, base.port);
  const requests = policy.connectionPool?.http?.http2MaxRequests ?? 0;
  const message: Message = {
    ...byEndpoints(name),
    ...grpcBalancer(policy.loadBalancer),
    ...outlierFields(policy.outlierDetection),
    ...(requests <= 0 ? {} : { circuitBreakers: { thresholds: [{ maxRequests: wrapped(requests) }] } }),
    ...clientTls(read, service, policy),
  };
  return resource("cluster", name, message, originsOf(service));
}

function byEndpoints(name: string): Message {
  return {
    name,
    type: "EDS",
    edsClusterConfig: { edsConfig: { ads: {}, resourceApiVersion: "V3" }, serviceName: name },
  };
}

export function proxylessEndpoints(read: Read, { base }: ProxylessClusterKey): EnvoyResource {
  if (base === undefined) return resource("endpoint", nowhereCluster, { clusterName: nowhereCluster });
  // Neither names nor sockets: gRPC takes addresses alone.
  const assignment = loadAssignment(read, base, (address) => /^[0-9.]+$|^[0-9a-f:]+$/i.test(address));
  const endpoints = (assignment["endpoints"] as readonly Message[]).map((endpoint) => ({
    // gRPC refuses endpoints without one, be it empty.
    locality: {},
    ...endpoint,
  }));
  return resource("endpoint", clusterNameOf(base), { ...assignment, endpoints });
}

interface Shared {
  readonly runtimeFraction: { readonly defaultValue: { readonly numerator: number } };
}

/** Envoy draws one number for a request, which all routes with shares are asked with; gRPC draws anew for each: its share of what is left. */
function withOwnDraws(routes: readonly Message[]): readonly Message[] {
  const parts = 1_000_000;
  let taken = 0;
  return routes.map((route) => {
    const match = route["match"] as Message & Partial<Shared>;
    if (match.runtimeFraction === undefined) {
      taken = 0;
      return route;
    }
    const upTo = match.runtimeFraction.defaultValue.numerator;
    const numerator = Math.round(((upTo - taken) / (parts - taken)) * parts);
    taken = upTo;
    const runtimeFraction = { defaultValue: { numerator, denominator: "MILLION" } };
    return { ...route, match: { ...match, runtimeFraction } };
  });
}

/** A route in gRPC's part of the API; none where a part of its match would be passed over. */
function grpcRoute(route: Message): Message[] {
  const match = grpcMatch(route["match"] as Message);
  if (match === undefined) return [];
  const action = route["route"] as Message | undefined;
  const name = route["name"];
  const named = name === undefined ? {} : { name };
  if (action === undefined) return [{ ...named, match, ...refusal(route) }];
  const filters = route["typedPerFilterConfig"] as Message | undefined;
  // Such a client asks nobody, and what must be asked about must not go by.
  if (filters?.[externalAuthName] !== undefined)
    return [{ ...named, match, ...refusal({ directResponse: { status: 403 } }) }];
  const fault = filters?.["envoy.filters.http.fault"];
  return [
    {
      ...named,
      match,
      route: grpcAction(action),
      ...(fault === undefined ? {} : { typedPerFilterConfig: { "envoy.filters.http.fault": fault } }),
    },
  ];
}

/**
 * gRPC neither redirects nor answers by itself: the call fails with the status that a proxy would have answered, and
 * where a client injects no faults, since the cluster has no endpoints. (`non_forwarding_action` would say that better, but
 * ends the process of a grpc-js client.)
 */
function refusal(route: Message): Message {
  const { directResponse, redirect } = route as {
    readonly directResponse?: { readonly status?: number };
    readonly redirect?: Message;
  };
  const httpStatus = directResponse?.status ?? (redirect === undefined ? 503 : 302);
  return {
    route: { cluster: nowhereCluster },
    typedPerFilterConfig: {
      "envoy.filters.http.fault": typed("envoy.extensions.filters.http.fault.v3.HTTPFault", {
        abort: { httpStatus, percentage: { numerator: 100 } },
      }),
    },
  };
}

function grpcMatch(match: Message): Message | undefined {
  const { prefix, path, safeRegex, pathSeparatedPrefix, headers, queryParameters, caseSensitive, ...rest } =
    match as {
      readonly runtimeFraction?: Message;
      readonly prefix?: string;
      readonly path?: string;
      readonly safeRegex?: Message;
      readonly pathSeparatedPrefix?: string;
      readonly headers?: readonly Message[];
      readonly queryParameters?: readonly Message[];
      readonly caseSensitive?: Message;
    };
  if ((queryParameters ?? []).length > 0) return undefined;
  // gRPC matches headers that applications see: what begins with a colon it never finds.
  const known = (headers ?? []).filter(({ name }) => name !== ":method");
  if (known.some(({ name }) => String(name).startsWith(":"))) return undefined;
  const quoted = pathSeparatedPrefix?.replaceAll(/[.+*?^${}()|[\]\\]/g, "\\$&");
  return {
    ...(prefix === undefined ? {} : { prefix }),
    ...(path === undefined ? {} : { path }),
    ...(safeRegex === undefined ? {} : { safeRegex }),
    ...(quoted === undefined ? {} : { safeRegex: { regex: `${quoted}(/.*)?` } }),
    ...(caseSensitive === undefined ? {} : { caseSensitive }),
    ...(known.length === 0 ? {} : { headers: known }),
    ...(rest.runtimeFraction === undefined ? {} : { runtimeFraction: rest.runtimeFraction }),
  };
}

function grpcAction(action: Message): Message {
  const { cluster, weightedClusters, timeout, retryPolicy, hashPolicy } = action as {
    readonly cluster?: string;
    readonly weightedClusters?: { readonly clusters: readonly Message[] };
    readonly timeout?: Message;
    readonly retryPolicy?: Message;
    readonly hashPolicy?: readonly Message[];
  };
  const { retryOn, numRetries, retryBackOff } = retryPolicy ?? {};
  const seconds = Number(timeout?.["seconds"] ?? 0);
  const isLimited = seconds > 0 || Number(timeout?.["nanos"] ?? 0) > 0;
  return {
    ...(cluster === undefined ? {} : { cluster }),
    ...(weightedClusters === undefined
      ? {}
      : {
          weightedClusters: {
            clusters: weightedClusters.clusters.map(({ name, weight }) => ({ name, weight })),
          },
        }),
    // gRPC reads the limit of a call from here, and not from `timeout`.
    ...(isLimited ? { maxStreamDuration: { maxStreamDuration: timeout } } : {}),
    ...(retryPolicy === undefined
      ? {}
      : { retryPolicy: { retryOn, numRetries, ...(retryBackOff === undefined ? {} : { retryBackOff }) } }),
    ...(hashPolicy === undefined ? {} : { hashPolicy }),
  };
}

/** gRPC knows round robin and the hash ring. */
function grpcBalancer(balancer: LoadBalancerSettings | undefined): Message {
  if (balancer?.consistentHash === undefined) return { lbPolicy: "ROUND_ROBIN" };
  const fields = balancerFields(balancer);
  return fields["lbPolicy"] === "RING_HASH" ? fields : { lbPolicy: "RING_HASH" };
}

/**
 * Mutual TLS where a DestinationRule asks for it, as in Istio: whether a client uses it at all is decided by the
 * credentials that its program takes. The keys are those of the certificate provider "default" of its bootstrap.
 */
function clientTls(read: Read, service: MeshService, { tls }: PortPolicy): Message {
  if (tls?.mode !== "ISTIO_MUTUAL") return {};
  const names = meshIdentities(read, service, tls.subjectAltNames ?? []);
  return {
    transportSocket: clientTransportSocket({
      commonTlsContext: {
        tlsCertificateProviderInstance: { instanceName: "default", certificateName: "default" },
        combinedValidationContext: {
          defaultValidationContext: {
            caCertificateProviderInstance: { instanceName: "default", certificateName: "ROOTCA" },
            matchSubjectAltNames: names.map((exact) => ({ exact })),
          },
        },
      },
    }),
  };
}

function originsOf(service: MeshService | undefined): Origin[] {
  return (service?.objects ?? []).map((object) => ({ at: "", object }));
}
