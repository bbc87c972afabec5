// Clusters of the outbound side: a service's port as a whole, or a subset of it.

import { packService, telemetryMetadata } from "#base";
import type { Read } from "#engine";
import {
  endpointsOf,
  isHttp,
  isHttp2,
  mergedRule,
  configuredCaOf,
  configuredCaScheme,
  namespaceMtlsModeOf,
  readMesh,
  readTrustDomains,
  readTuning,
  serviceAccountsOf,
  serviceOf,
  type MeshService,
  type Protocol,
  type ProxyTuning,
} from "#model";
import {
  clusterNameOf,
  lookedUpCluster,
  passthroughClusterName,
  type OutboundClusterKey,
  type WellKnownClusterKey,
} from "#plan";
import type { ClientTLSSettings } from "#objects";
import { balancingOf, type Balancing } from "./balancing.ts";
import { readPolicy } from "./mesh-settings.ts";
import { objectPath } from "./object-path.ts";
import { durationMsOf } from "./duration.ts";
import { dynamicDiscovery } from "./dynamic-forward.ts";
import { loadAssignment, speaksMutualTls } from "./endpoint.ts";
import { durationOf, structOf, typed, type Message } from "./proto/api.ts";
import { resource, type EnvoyResource, type Origin } from "./resource.ts";
import { altStatName } from "./stat-name.ts";
import { clientTransportSocket, meshAlpn, meshClientTls } from "./tls.ts";
import { originatedTls } from "./tls-origination.ts";
import {
  balancerFields,
  httpOptions,
  outlierFields,
  poolFields,
  speaksHttp2,
  type PoolDefaults,
  type PortPolicy,
} from "./traffic-policy.ts";
import { zoneAwareConfig } from "./zone-aware.ts";

export function outboundCluster(read: Read, key: OutboundClusterKey): EnvoyResource | undefined {
  const service = read(serviceOf, key.service);
  const port = service?.ports.find((one) => one.port === key.port);
  if (service === undefined || port === undefined) return undefined;
  const { protocol } = port;
  const rule = read(mergedRule, key.rules.join(","));
  const policy = readPolicy(read, rule, key.subset, key.port);
  const defaults = readPoolDefaults(read, key.tuning);
  const name = clusterNameOf(key);
  const places = discovery(read, key, service, policy);
  if (places === undefined) return undefined;
  const metadata = { filterMetadata: clusterMetadata(service, key) };
  const byPlace: Balancing =
    places["lbPolicy"] === "CLUSTER_PROVIDED"
      ? { kind: "places", setting: {} }
      : balancingOf(read, policy, service);
  if (key.passthrough === true) {
    const balancing = commonBalancing(policy, key.locality !== "", byPlace);
    const outliers = outlierFields(policy.outlierDetection);
    const message = { name, ...places, ...poolFields(policy, defaults), ...outliers, ...balancing, metadata };
    return resource("cluster", name, message, originsOf(service, key));
  }
  const security = securityOf(read, { key, service, protocol, policy, defaults });
  const message: Message = {
    name,
    ...altStatName(read, "outbound", key),
    ...places,
    ...poolFields(policy, defaults),
    ...httpOptions(
      policy,
      key.byRouter === true && protocol === "auto" ? "http" : protocol,
      defaults,
      security.upstreamOptions,
    ),
    ...outlierFields(policy.outlierDetection),
    ...commonBalancing(policy, key.locality !== "", byPlace),
    ...withProxyProtocol(security.sockets, policy.proxyProtocol?.version),
    metadata,
  };
  return resource("cluster", name, message, originsOf(service, key));
}

/** Where traffic goes that no service claims, and where it ends. */
export function wellKnownCluster(read: Read, { name, tuning }: WellKnownClusterKey): EnvoyResource {
  const metadata = { filterMetadata: serviceMetadata(name, name, "") };
  if (name === "BlackHoleCluster") {
    return resource("cluster", name, {
      name,
      type: "STATIC",
      connectTimeout: durationOf(durationMsOf(readMesh(read, "connectTimeout"))),
      metadata,
    });
  }
  if (name === lookedUpCluster)
    return resource("cluster", name, { name, ...lookedUp(read, tuning), metadata });
  // Outlier detection would have no other host to go on to.
  const { connectionPool } = readMesh(read, "defaultTrafficPolicy") ?? {};
  const limits: PortPolicy = connectionPool === undefined ? {} : { connectionPool };
  return resource("cluster", name, {
    name,
    type: "ORIGINAL_DST",
    lbPolicy: "CLUSTER_PROVIDED",
    ...poolFields(limits, readPoolDefaults(read, tuning)),
    ...httpOptions(limits, "auto", readPoolDefaults(read, tuning)),
    metadata,
  });
}

/** Hosts that no service claims, each looked up as requests name it, and spoken to as MeshConfig says. */
function lookedUp(read: Read, tuning: ProxyTuning | undefined): Message {
  const defaults = readPoolDefaults(read, tuning);
  const { tls } = readMesh(read, "outboundTrafficPolicy");
  const { sockets, upstreamOptions } = unknownHostTls(read, tls ?? {});
  return {
    ...dynamicDiscovery,
    ...poolFields({}, defaults),
    ...httpOptions({}, "auto", defaults, upstreamOptions),
    ...sockets,
  };
}

function unknownHostTls(read: Read, tls: ClientTLSSettings): Security {
  if (tls.mode === undefined || tls.mode === "DISABLE") return plaintext;
  const ofAnyHost = { host: "*", subjectAltNames: [] };
  if (tls.mode !== "ISTIO_MUTUAL")
    return originatedTls(tls, [], ofAnyHost, { defaults: readMesh(read, "tlsDefaults") });
  const context = meshClientTls({
    sni: tls.sni ?? "",
    alpn: ["istio-http/1.1", "istio", "http/1.1"],
    identities: tls.subjectAltNames ?? [],
    minProtocolVersion: readMesh(read, "meshMTLS")?.minProtocolVersion,
  });
  return {
    sockets: { transportSocket: clientTransportSocket(context) },
    upstreamOptions: (tls.sni ?? "") === "" ? { upstreamHttpProtocolOptions: { autoSni: true } } : {},
  };
}

/**
 * What a proxy gets that asks for a cluster that there is none of: requests to it get 503 at once, as they would without
 * on-demand discovery. Left without an answer Envoy would let each of them wait for the time-out (envoyproxy/envoy#47201).
 */
export function absentCluster(name: string): EnvoyResource {
  const metadata = { filterMetadata: { "mizzen.io": structOf({ absent: true }) } };
  return resource("cluster", name, { name, type: "STATIC", connectTimeout: durationOf(1_000), metadata });
}

export function readPoolDefaults(read: Read, own: ProxyTuning | undefined): PoolDefaults {
  return {
    connectTimeout: readMesh(read, "connectTimeout"),
    tcpKeepalive: readMesh(read, "tcpKeepalive"),
    h2Upgrade: readMesh(read, "h2UpgradePolicy") === "UPGRADE",
    tuning: readTuning(read, own),
  };
}

function discovery(
  read: Read,
  key: OutboundClusterKey,
  service: MeshService,
  { loadBalancer }: PortPolicy,
): Message | undefined {
  if (key.toOriginal || loadBalancer?.simple === "PASSTHROUGH")
    return { type: "ORIGINAL_DST", lbPolicy: "CLUSTER_PROVIDED" };
  if (service.resolution === "dynamic-dns") return dynamicDiscovery;
  if (service.resolution === "endpoints" || service.resolution === "original-destination") {
    return {
      type: "EDS",
      edsClusterConfig: {
        edsConfig: { ads: {}, initialFetchTimeout: durationOf(0), resourceApiVersion: "V3" },
        serviceName: clusterNameOf(key),
      },
      ...balancerFields(loadBalancer),
    };
  }
  const assignment = service.resolution === "dns" ? loadAssignment(read, key) : oneEndpoint(read, key);
  // A subset without any: Envoy refuses such a cluster, and a missing one answers 503 as an empty one would.
  if (assignment === undefined) return undefined;
  return {
    type: service.resolution === "dns" ? "STRICT_DNS" : "LOGICAL_DNS",
    dnsLookupFamily: "V4_PREFERRED",
    dnsRefreshRate: durationOf(durationMsOf(readMesh(read, "dnsRefreshRate"))),
    respectDnsTtl: true,
    loadAssignment: assignment,
    ...balancerFields(loadBalancer),
  };
}

/** Envoy takes exactly one name for a logical DNS cluster. */
function oneEndpoint(read: Read, key: OutboundClusterKey): Message | undefined {
  const assignment = loadAssignment(read, key);
  const [first] = assignment["endpoints"] as readonly { readonly lbEndpoints: readonly Message[] }[];
  if (first === undefined) return undefined;
  return { ...assignment, endpoints: [{ ...first, lbEndpoints: first.lbEndpoints.slice(0, 1) }] };
}

/** Panic routing would send requests to hosts that outlier detection has just put out; Istio turns it off with it. */
function commonBalancing(
  { outlierDetection }: PortPolicy,
  placeIsKnown: boolean,
  balancing: Balancing,
): Message {
  const shares = balancing.kind === "places" ? (balancing.setting.distribute ?? []) : [];
  const weighted = placeIsKnown && shares.length > 0;
  if (outlierDetection === undefined && !weighted && balancing.kind !== "zones") return {};
  const mayFail = outlierDetection !== undefined && balancing.kind === "places";
  const byShares = weighted || mayFail ? { localityWeightedLbConfig: {} } : {};
  return {
    commonLbConfig: {
      ...(outlierDetection === undefined
        ? {}
        : { healthyPanicThreshold: { value: outlierDetection.minHealthPercent ?? 0 } }),
      ...(balancing.kind === "zones" ? zoneAwareConfig(balancing.setting) : byShares),
    },
  };
}

interface Secured {
  readonly key: OutboundClusterKey;
  readonly service: MeshService;
  readonly protocol: Protocol;
  readonly policy: PortPolicy;
  readonly defaults: PoolDefaults;
}

interface Security {
  readonly sockets: Message;
  readonly upstreamOptions: Message;
}

const plaintext: Security = { sockets: {}, upstreamOptions: {} };

/** TLS of a cluster: as the DestinationRule says, and otherwise mutual TLS wherever a sidecar answers. */
function securityOf(read: Read, secured: Secured): Security {
  const tls = secured.policy.tls;
  if (tls?.mode !== undefined) return explicitSecurity(read, secured, tls);
  const { service, key, policy } = secured;
  const automatic = readMesh(read, "enableAutoMtls") !== false;
  if (!automatic || service.external || read(namespaceMtlsModeOf, service.namespace) === "DISABLE")
    return plaintext;
  const socket = clientTransportSocket(
    meshClientTls({
      sni: meshServerName(key, service.host),
      alpn: alpnOf(secured),
      identities: meshIdentities(read, service, []),
      minProtocolVersion: readMesh(read, "meshMTLS")?.minProtocolVersion,
    }),
  );
  if (key.toOriginal || policy.loadBalancer?.simple === "PASSTHROUGH") {
    // Envoy has no metadata of an original destination: mutual TLS only where every endpoint speaks it.
    const endpoints = read(endpointsOf, service.key).filter(({ servicePort }) => servicePort === key.port);
    const all = endpoints.length > 0 && endpoints.every((endpoint) => speaksMutualTls(read, endpoint));
    return all ? { sockets: { transportSocket: socket }, upstreamOptions: {} } : plaintext;
  }
  return {
    sockets: {
      transportSocketMatches: [
        { name: "tlsMode-istio", match: structOf({ tlsMode: "istio" }), transportSocket: socket },
        { name: "tlsMode-disabled", match: {}, transportSocket: rawBuffer },
      ],
    },
    upstreamOptions: {},
  };
}

const rawBuffer: Message = {
  name: "envoy.transport_sockets.raw_buffer",
  typedConfig: typed("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"),
};

/** The CA of a ConfigMap, where Gateway API looks for it: no secret, so it may stand in the cluster itself. */
function readConfiguredCa(read: Read, { credentialName = "" }: ClientTLSSettings): string | undefined {
  if (!credentialName.startsWith(configuredCaScheme)) return undefined;
  const ca = read(configuredCaOf, credentialName.slice(configuredCaScheme.length));
  return ca.kind === "found" && ca.part.unfit === undefined ? ca.part.certificate : undefined;
}

function explicitSecurity(read: Read, secured: Secured, tls: ClientTLSSettings): Security {
  const { key, service, protocol, policy, defaults } = secured;
  if (tls.mode === "DISABLE") return plaintext;
  if (tls.mode !== "ISTIO_MUTUAL") {
    const http2 = speaksHttp2(policy, protocol, defaults);
    const alpn = http2 ? ["h2"] : isHttp(protocol) ? ["http/1.1"] : [];
    return originatedTls(tls, alpn, service, {
      configuredCa: readConfiguredCa(read, tls),
      clientCertificate: key.clientCertificate,
      defaults: readMesh(read, "tlsDefaults"),
    });
  }
  const named = tls.subjectAltNames ?? [];
  const context = meshClientTls({
    sni: tls.sni === undefined || tls.sni === "" ? meshServerName(key, service.host) : tls.sni,
    alpn: alpnOf(secured),
    identities: meshIdentities(read, service, named),
    minProtocolVersion: readMesh(read, "meshMTLS")?.minProtocolVersion,
  });
  return { sockets: { transportSocket: clientTransportSocket(context) }, upstreamOptions: {} };
}

/** The SNI by which gateways between networks recognise the service; dots where a cluster's name has bars. */
function meshServerName({ port, subset }: OutboundClusterKey, host: string): string {
  return passthroughClusterName(port, subset, host);
}

/** A server's filter chains are chosen by these: they say "mesh", and what is inside. */
function alpnOf({ protocol, policy, defaults }: Secured): readonly string[] {
  if (speaksHttp2(policy, protocol, defaults) || isHttp2(protocol)) return ["istio-h2", "istio", "h2"];
  if (isHttp(protocol)) return ["istio-http/1.1", "istio", "http/1.1"];
  return meshAlpn.tcp;
}

/** The SPIFFE ids that a service's endpoints may bear. @param named those that a rule lists instead */
export function meshIdentities(
  read: Read,
  service: MeshService,
  named: readonly string[],
): readonly string[] {
  if (named.length > 0) return named;
  const domains = readTrustDomains(read);
  const serving = [...read(serviceAccountsOf, service.key), ...service.serviceAccounts];
  const accounts = serving.flatMap((account) => {
    if (account.includes("://")) return [account];
    const [namespace = "", name = ""] = account.split("/");
    return domains.map((domain) => `spiffe://${domain}/ns/${namespace}/sa/${name}`);
  });
  return [...new Set([...accounts, ...service.subjectAltNames])].toSorted();
}

/** PROXY protocol goes around whatever else the connection is wrapped in. */
function withProxyProtocol(sockets: Message, version: "V1" | "V2" | undefined): Message {
  if (version === undefined) return sockets;
  const around = (transportSocket: unknown): Message => ({
    name: "envoy.transport_sockets.upstream_proxy_protocol",
    typedConfig: typed(
      "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
      { config: { version }, transportSocket },
    ),
  });
  const matches = sockets["transportSocketMatches"] as readonly Message[] | undefined;
  if (matches === undefined) return { transportSocket: around(sockets["transportSocket"] ?? rawBuffer) };
  return {
    transportSocketMatches: matches.map((match) => ({
      ...match,
      transportSocket: around(match["transportSocket"]),
    })),
  };
}

export function clusterMetadata(
  service: MeshService,
  key: Pick<OutboundClusterKey, "rules" | "subset">,
): Message {
  const rule = key.rules[0];
  const { host, name, namespace } = service;
  return {
    istio: structOf({
      ...(rule === undefined ? {} : { config: objectPath("destination-rule", rule) }),
      ...(key.subset === "" ? {} : { subset: key.subset }),
      services: [{ host, name, namespace }],
    }),
    ...serviceMetadata(host, name, namespace),
  };
}

function serviceMetadata(host: string, name: string, namespace: string): Message {
  return {
    [telemetryMetadata.key]: structOf({ [telemetryMetadata.service]: packService(host, name, namespace) }),
  };
}

export function originsOf(service: MeshService, { rules }: Pick<OutboundClusterKey, "rules">): Origin[] {
  return [
    ...service.objects.map((object) => ({ at: "", object })),
    ...rules.map((row) => {
      const [namespace = "", name = ""] = row.split("/");
      return { at: "", object: { kind: "DestinationRule", namespace, name } };
    }),
  ];
}
