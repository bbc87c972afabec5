// Clusters of a workload's inbound side: the application itself, reached at the address that the client asked for.

import { packService, telemetryMetadata } from "#base";
import type { Read } from "#engine";
import { mergedRule, readMesh, readTuning, rulesFor, type ProxyTuning } from "#model";
import type { ConnectionPoolSettings } from "#objects";
import type { InboundClusterKey, InboundPassthroughClusterKey } from "#plan";
import { durationMsOf } from "./duration.ts";
import { readPolicy } from "./mesh-settings.ts";
import { durationOf, structOf, typed, wrapped, type Message } from "./proto/api.ts";
import { resource, type EnvoyResource } from "./resource.ts";
import { altStatName, type StatSubject } from "./stat-name.ts";
import { commonOptions, http2Settings, poolFields } from "./traffic-policy.ts";
import { clusterBuffer, headerCase } from "./tuning.ts";

/** The source address of connections to the application; the capture rules know it and leave them alone. */
const passthroughBind = "127.0.0.6";
/** Connections and requests are limited by those who know the application's limits, not by Envoy's default of 1,024. */
const unlimited = 4_294_967_295;
/** Hosts of an original-destination cluster are the pod itself: forgetting them would only cut connections. */
const cleanupSeconds = 10 * 365 * 86_400;

export function inboundCluster(read: Read, key: InboundClusterKey): EnvoyResource {
  const name = `inbound|${key.port}||`;
  const first = key.services[0];
  const pool = key.pool ?? poolOfRules(read, key);
  const tuning = readTuning(read, key.tuning);
  const message: Message = {
    ...common(read, name, tuning),
    ...(first === undefined ? {} : altStatName(read, "inbound", subjectOf(first, key))),
    ...(pool === undefined ? {} : readPool(read, pool)),
    ...discovery(key),
    ...bindConfig(key),
    typedExtensionProtocolOptions: protocolOptions(
      { ...key, ...(pool === undefined ? {} : { pool }) },
      headerCase(tuning.proxyHeaders),
    ),
    metadata: {
      filterMetadata: {
        istio: structOf({ services: key.services }),
        ...(first === undefined ? {} : serviceMetadata(packService(first.host, first.name, first.namespace))),
      },
    },
  };
  return resource("cluster", name, message);
}

export function inboundPassthroughCluster(read: Read, key: InboundPassthroughClusterKey): EnvoyResource {
  const name = "InboundPassthroughCluster";
  const tuning = readTuning(read, key.tuning);
  return resource("cluster", name, {
    ...common(read, name, tuning),
    ...originalDestination(),
    ...sourceAddress,
    typedExtensionProtocolOptions: httpOptions({
      useDownstreamProtocolConfig: {
        httpProtocolOptions: headerCase(tuning.proxyHeaders),
        http2ProtocolOptions: {},
      },
    }),
    metadata: { filterMetadata: serviceMetadata(packService(name, name, "")) },
  });
}

function subjectOf(
  { host, namespace }: InboundClusterKey["services"][number],
  { port: targetPort, servicePort: port }: InboundClusterKey,
): StatSubject {
  return { service: `${namespace}/${host}`, port, targetPort };
}

function common(read: Read, name: string, { connectionSettings }: ProxyTuning): Message {
  return {
    name,
    connectTimeout: durationOf(durationMsOf(readMesh(read, "connectTimeout"))),
    ...clusterBuffer(connectionSettings),
    circuitBreakers: {
      thresholds: [
        {
          maxConnections: wrapped(unlimited),
          maxPendingRequests: wrapped(unlimited),
          maxRequests: wrapped(unlimited),
          maxRetries: wrapped(unlimited),
          trackRemaining: true,
        },
      ],
    },
  };
}

/** The limits that clients keep to hold here as well, for clients that have no proxy: as in Istio. */
function poolOfRules(
  read: Read,
  { services, servicePort }: InboundClusterKey,
): ConnectionPoolSettings | undefined {
  const [first] = services;
  if (first === undefined) return readMesh(read, "defaultTrafficPolicy")?.connectionPool;
  const { host, namespace } = first;
  const rules = read(rulesFor, { client: namespace, labels: {}, host, serviceNamespace: namespace });
  return readPolicy(read, read(mergedRule, rules.join(",")), "", servicePort).connectionPool;
}

/** What a Sidecar says about connections to the application: in place of no limits. */
function readPool(read: Read, connectionPool: ConnectionPoolSettings): Message {
  return poolFields(
    { connectionPool },
    { connectTimeout: readMesh(read, "connectTimeout"), h2Upgrade: false },
  );
}

function discovery({ port, upstream }: InboundClusterKey): Message {
  switch (upstream.kind) {
    case "original":
      return originalDestination();
    case "own-address":
      return originalDestination(upstream.port);
    case "address":
      return staticEndpoint(port, {
        socketAddress: { address: upstream.address, portValue: upstream.port },
      });
    case "socket":
      return staticEndpoint(port, { pipe: { path: upstream.path } });
  }
}

function originalDestination(portOverride?: number): Message {
  return {
    type: "ORIGINAL_DST",
    lbPolicy: "CLUSTER_PROVIDED",
    cleanupInterval: { seconds: cleanupSeconds },
    ...(portOverride === undefined
      ? {}
      : { originalDstLbConfig: { upstreamPortOverride: wrapped(portOverride) } }),
  };
}

function staticEndpoint(port: number, address: Message): Message {
  return {
    type: "STATIC",
    lbPolicy: "ROUND_ROBIN",
    loadAssignment: {
      clusterName: `inbound|${port}||`,
      endpoints: [{ lbEndpoints: [{ endpoint: { address } }] }],
    },
  };
}

const sourceAddress: Message = {
  upstreamBindConfig: { sourceAddress: { address: passthroughBind, portValue: 0 } },
};

/** Connections to the loopback address pass no capture rule, so they need no mark. */
function bindConfig({ upstream }: InboundClusterKey): Message {
  const local = upstream.kind === "socket" || (upstream.kind === "address" && isLoopback(upstream.address));
  return local ? {} : sourceAddress;
}

function isLoopback(address: string): boolean {
  return address.startsWith("127.") || address === "::1";
}

/** @param http1 how HTTP/1 is written */
function protocolOptions({ protocol, http2, pool }: InboundClusterKey, http1: Message): Message {
  const shared = commonOptions(pool);
  const common = shared === undefined ? {} : { commonHttpProtocolOptions: shared };
  if (protocol === "tcp")
    return shared === undefined
      ? {}
      : httpOptions({ ...common, explicitHttpConfig: { httpProtocolOptions: {} } });
  const both = { httpProtocolOptions: http1, http2ProtocolOptions: http2Settings(pool) };
  if (protocol === "auto" || pool?.http?.useClientProtocol === true)
    return httpOptions({ ...common, useDownstreamProtocolConfig: both });
  return httpOptions({
    ...common,
    explicitHttpConfig: http2
      ? { http2ProtocolOptions: http2Settings(pool) }
      : { httpProtocolOptions: http1 },
  });
}

function httpOptions(options: Message): Message {
  return {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
      "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
      options,
    ),
  };
}

function serviceMetadata(packed: string): Message {
  return { [telemetryMetadata.key]: structOf({ [telemetryMetadata.service]: packed }) };
}
