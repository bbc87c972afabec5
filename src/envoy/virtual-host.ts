// Virtual hosts of the outbound side: a service's own, with the routes of the VirtualService that is for it; the
// unit in which route tables are computed, hashed and shared.

import { packService, telemetryMetadata } from "#base";
import type { Read } from "#engine";
import {
  httpRoutesOf,
  mergedRule,
  readMesh,
  routeFacts,
  rulesFor,
  selects,
  serviceOf,
  servicesOfHost,
  readTuning,
  type MeshService,
  type ProxyTuning,
} from "#model";
import {
  discoveredName,
  lookedUpCluster,
  outboundClusterName,
  virtualHostName,
  type ClientFacts,
  type OutboundVirtualHostKey,
} from "#plan";
import type { ConsistentHash, Destination, HTTPMatchRequest } from "#objects";
import { isDynamicHost } from "./dynamic-forward.ts";
import { meshHttpAlpnOn, unknownHostOn } from "./filters.ts";
import { hashPolicy, httpRoutes, type RouteContext } from "./http-route.ts";
import { durationOf, structOf, type Message } from "./proto/api.ts";
import { resource, type EnvoyResource, type Origin } from "./resource.ts";
import { retryPolicy } from "./retry.ts";
import { policyFor, type PortPolicy } from "./traffic-policy.ts";
import { attemptCount, forwardedHost } from "./tuning.ts";

/** Undefined when nothing is routed: a host of a VirtualService none of whose routes are for this client. */
export function outboundVirtualHost(read: Read, key: OutboundVirtualHostKey): EnvoyResource | undefined {
  const built = virtualHostMessage(read, key);
  if (built === undefined) return undefined;
  const { name, message, origins } = built;
  return resource("virtualHost", name, message, origins);
}

interface BuiltVirtualHost {
  readonly name: string;
  readonly message: Message;
  readonly origins: readonly Origin[];
}

export function virtualHostMessage(read: Read, key: OutboundVirtualHostKey): BuiltVirtualHost | undefined {
  const service = key.service === "" ? undefined : read(serviceOf, key.service);
  const routed = ruledRoutes(read, key, service);
  const routes = routed?.routes ?? (service === undefined ? undefined : defaultRoutes(read, key, service));
  if (routes === undefined) return undefined;
  const familiar = virtualHostName(key);
  const name = key.discovered === true ? discoveredName(String(key.port), familiar) : familiar;
  const message: Message = {
    name,
    domains: key.domains,
    routes,
    ...attemptCount(readTuning(read, key.tuning).proxyHeaders),
    ...(isSniffedInMesh(key, service) ? { typedPerFilterConfig: meshHttpAlpnOn } : {}),
  };
  return { name, message, origins: originsOf(read, service, routed?.row) };
}

/** A table's last virtual host: the cluster that takes hosts which the table does not know, or a refusal. */
export function catchAllVirtualHost(unknownTo: string, { proxyHeaders }: ProxyTuning): Message {
  if (unknownTo === "BlackHoleCluster") {
    return {
      name: "block_all",
      domains: ["*"],
      routes: [
        {
          name: "block_all",
          match: { prefix: "/" },
          directResponse: { status: 502 },
          metadata: { filterMetadata: serviceMetadata("BlackHoleCluster") },
        },
      ],
      ...attemptCount(proxyHeaders),
      typedPerFilterConfig: unknownHostOn,
    };
  }
  const name = unknownTo === lookedUpCluster ? "allow_any_dynamic_dns" : "allow_any";
  return {
    name,
    domains: ["*"],
    routes: [
      {
        name,
        match: { prefix: "/" },
        route: {
          cluster: unknownTo,
          timeout: durationOf(0),
          maxGrpcTimeout: durationOf(0),
          ...forwardedHost(proxyHeaders),
        },
      },
    ],
    ...attemptCount(proxyHeaders),
    typedPerFilterConfig: unknownHostOn,
  };
}

interface RuledRoutes {
  readonly row: string;
  readonly routes: readonly Message[];
}

/** The routes of the first VirtualService that has any for this client. */
function ruledRoutes(
  read: Read,
  key: OutboundVirtualHostKey,
  service: MeshService | undefined,
): RuledRoutes | undefined {
  const { client } = key;
  if (client === undefined) return undefined;
  const retries = readMesh(read, "defaultHttpRetryPolicy");
  for (const row of key.routing) {
    const context: RouteContext = {
      virtualService: row,
      port: key.port,
      terminatesTls: false,
      isSource: (match) => isSource(match, client),
      clusterOf: (destination) => clusterOf(read, destination, key.port),
      hashOf: (destination) => hashOf(read, destination, key.port, client),
      isDynamic: ({ host }) => isDynamicHost(read, host),
      retries,
      service,
      headers: readTuning(read, key.tuning).proxyHeaders,
    };
    const routes = httpRoutes(read(httpRoutesOf, row), context);
    if (routes.length > 0) return { row, routes };
  }
  return undefined;
}

function defaultRoutes(read: Read, key: OutboundVirtualHostKey, service: MeshService): Message[] {
  const policy = policyFor(read(mergedRule, key.rules.join(",")), "", key.port);
  const hash = policy.loadBalancer?.consistentHash;
  const hashed = hash === undefined ? [] : hashPolicy(hash);
  return [
    {
      name: "default",
      match: { prefix: "/" },
      route: {
        cluster: outboundClusterName(key.port, "", service.host),
        timeout: durationOf(0),
        maxGrpcTimeout: durationOf(0),
        ...retryPolicy(readMesh(read, "defaultHttpRetryPolicy"), hashed.length > 0),
        ...(hashed.length === 0 ? {} : { hashPolicy: hashed }),
      },
    },
  ];
}

/** A match that names gateways is for these alone; otherwise the client's labels and namespace decide, as in Istio. */
function isSource(match: HTTPMatchRequest, client: ClientFacts): boolean {
  if (match.gateways !== undefined && match.gateways.length > 0) return match.gateways.includes("mesh");
  const { sourceNamespace } = match;
  return (
    selects(match.sourceLabels, client.labels) &&
    (sourceNamespace === undefined || sourceNamespace === "" || sourceNamespace === client.namespace)
  );
}

/** The cluster of a destination; without a port it is the port that the client calls. An alias means its target. */
export function clusterOf(read: Read, destination: Destination, callPort: number): string {
  const candidates = read(servicesOfHost, destination.host).flatMap((key) => read(serviceOf, key) ?? []);
  const alias = candidates[0]?.resolution === "alias" ? candidates[0].aliasOf : "";
  const port = destination.port?.number ?? 0;
  return outboundClusterName(
    port === 0 ? callPort : port,
    destination.subset ?? "",
    alias === "" ? destination.host : alias,
  );
}

function hashOf(
  read: Read,
  destination: Destination,
  callPort: number,
  client: ClientFacts,
): ConsistentHash | undefined {
  return destinationPolicy(read, destination, callPort, client)?.loadBalancer?.consistentHash;
}

/** What DestinationRules say to a client of a destination whose host is full; undefined when there are none. */
export function destinationPolicy(
  read: Read,
  destination: Destination,
  callPort: number,
  client: ClientFacts,
): PortPolicy | undefined {
  const [key] = read(servicesOfHost, destination.host);
  const serviceNamespace = key === undefined ? client.namespace : key.slice(0, key.indexOf("/"));
  const rules = read(rulesFor, {
    client: client.namespace,
    labels: client.labels,
    host: destination.host,
    serviceNamespace,
  });
  if (rules.length === 0) return undefined;
  const port = destination.port?.number ?? callPort;
  return policyFor(read(mergedRule, rules.join(",")), destination.subset ?? "", port);
}

/** The port's protocol was sniffed on this side, so the server must be told by ALPN that HTTP is inside. */
function isSniffedInMesh({ port }: OutboundVirtualHostKey, service: MeshService | undefined): boolean {
  if (service === undefined || service.external) return false;
  return service.ports.some((one) => one.port === port && one.protocol === "auto");
}

function serviceMetadata(cluster: string): Message {
  return {
    [telemetryMetadata.key]: structOf({ [telemetryMetadata.service]: packService(cluster, cluster, "") }),
  };
}

function originsOf(read: Read, service: MeshService | undefined, row: string | undefined): Origin[] {
  const routes = row === undefined ? [] : (read(routeFacts, row)?.origins ?? []);
  return [
    ...(service?.objects ?? []).map((object) => ({ at: "", object })),
    ...routes.map((object) => ({
      at: "routes",
      object,
      path: object.kind === "VirtualService" ? "spec.http" : "spec.rules",
    })),
  ];
}
